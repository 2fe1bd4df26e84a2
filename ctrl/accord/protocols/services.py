# SPDX-License-Identifier: Apache-2.0
"""What a plug-in may ask of the host, and what it gives back once its stack is committed.

Plug-ins touch the host only through the ``Services`` that they are handed, one for each negotiation, so
that the simulator, a dry run and a test can hand in another. A committed session yields a ``Carrier``
(Post Sockets, section 3): the byte stream that the session above it, or the application, reads and writes.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from accord.negotiation.interface import Role, Session
from accord.protocols.wishes import NONE, Wishes
from accord.wire.errors import AccordError
from accord.wire.tcp_header import TcpParameters as TcpParameters

if TYPE_CHECKING:
    from accord.protocols.sealed.hosting import Offering, Proposing


class Carrier(Protocol):
    """A bidirectional byte stream with back pressure. Errors: ``AccordError`` or ``ConnectionError``."""

    async def read(self, limit: int = 65536) -> bytes:
        """Up to ``limit`` bytes, at least one; empty once the peer has finished."""

    async def write(self, data: bytes) -> None:
        """Send all of ``data``; returns when there is room for more."""

    async def finish(self) -> None:
        """Tell the peer that nothing more will be written; reading goes on."""

    async def close(self) -> None:
        """Orderly end of both directions. May be called more than once."""

    def abort(self) -> None:
        """End at once, without waiting and without regard for what is in flight."""

    @property
    def kernel_socket(self) -> socket.socket | None:
        """The kernel socket whose bytes are exactly this stream's, if there is one: it may be handed over."""


class CarrierSession(Session, Protocol):
    """A session that carries data after commit. Every protocol of ours is one."""

    def carrier(self, below: Carrier | None) -> Carrier:
        """After ``commit``: this session's stream, on top of that of the session below (None: the context)."""

    # async def there(self) -> Carrier
    #   Of the lowest session, after ``carrier``: nobody is told of the stack before this returns, with the stream that
    #   ``carrier`` only promised. Raises ``AccordError`` when the stack comes to nothing.
    # remark: tuple[Reason, str] | None
    #   Of the lowest session of a stack that is up: what the path has done to it all the same.


class Plugin(Protocol):
    """One protocol; found through the entry-point group ``accord.protocols``.

    A plug-in object is made once, without arguments, and keeps no state of any negotiation.
    """

    name: str
    """Short lower-case name, as in stacks and policies: ``tcp``, ``tls``, ``quic``, ``http``."""
    protocol: int
    """Protocol ID."""
    # repeatable: bool = False
    #   ``respond`` is a function of its payload, the services' ``random`` and what does not change within seconds, has
    #   no effect on the host, and never waits: then its answer may be sent, forgotten and made again for the commit
    #   (docs/PROTOCOL.md, section 22). Read by ``repeatable_of``.

    def open(self, role: Role, services: Services) -> CarrierSession:
        """A session for one node of one negotiation."""


def repeatable_of(plugin: object) -> bool:
    """Whether a plug-in states that it can answer without memory; one that says nothing cannot."""
    return getattr(plugin, "repeatable", False) is True


class TcpEndpoint(Protocol):
    """One end of a kernel TCP connection that no SYN will open."""

    @property
    def parameters(self) -> TcpParameters:
        """Ours, as they go into the handshake data; the port is bound and stays ours."""

    def install(self, peer: TcpParameters) -> None:
        """Begin to make the kernel socket established with both sides' numbers."""

    def installed(self) -> None:
        """Return once it is. Raises ``HostError``, and has then released it."""

    def release(self) -> None:
        """Drop the socket without a segment on the wire, or with a reset where the peer has sent something; nothing
        happens when it was handed over."""

    def stream(self) -> Carrier:
        """The installed connection as a stream; from now on the caller owns it."""


class TcpService(Protocol):
    """Kernel TCP connections between this negotiation's two addresses."""

    def reserve(self, port: int | None = None) -> TcpEndpoint:
        """A bound local port (``None``: a free one) with fresh numbers. Raises ``HostError``."""


class PlannedPort(Protocol):
    """One end of a connection between two ports that the negotiation only plans: an SCTP association, for example."""

    @property
    def port(self) -> int:
        """Bound, and ours."""

    def listen(self) -> None:
        """Responder: from now on there is somebody to connect to. Raises ``HostError``."""

    def stream(self, peer_port: int) -> Carrier:
        """After the commit: the connection as a stream, set up meanwhile. The initiator's host begins."""

    def release(self) -> None:
        """Give the port back; nothing happens after ``stream``."""


class SctpService(Protocol):
    """Kernel SCTP (RFC 9260) between this negotiation's two addresses."""

    def reserve(self) -> PlannedPort:
        """A bound port. Raises ``HostError`` (NO_KERNEL_SUPPORT)."""


class MptcpPort(PlannedPort, Protocol):
    """One end of a kernel MPTCP connection that the negotiation only plans."""

    @property
    def multipath(self) -> bool | None:
        """Whether the connection is one of MPTCP; False: of plain TCP; None: it is not there."""

    async def there(self) -> Carrier:
        """After ``stream``: that of the connection, once it is there. Raises ``AccordError`` when it never is."""


class MptcpService(Protocol):
    """Kernel MPTCP (RFC 8684), begun between this negotiation's two addresses."""

    def reserve(self) -> MptcpPort:
        """A bound port. Raises ``HostError`` (NO_KERNEL_SUPPORT)."""


class Tunnel(Protocol):
    """One end of a WireGuard tunnel to the peer."""

    @property
    def public_key(self) -> bytes:
        """X25519, 32 bytes; the private half never leaves the host."""

    @property
    def port(self) -> int:
        """UDP, on which the kernel will receive."""

    def establish(self, peer_key: bytes, peer_port: int) -> None:
        """At the commit: the interface, its addresses and its one peer. Raises ``HostError``."""

    def stream(self) -> Carrier:
        """After ``establish``: a TCP connection through the tunnel; when that ends, so does the tunnel."""

    def release(self) -> None:
        """Forget the keys and the port; nothing happens after ``stream``."""


class TunnelService(Protocol):
    """WireGuard tunnels between this negotiation's two addresses."""

    def reserve(self) -> Tunnel:
        """Fresh keys and a port. Raises ``HostError``."""


@dataclass(frozen=True, slots=True)
class RecordKeys:
    """What protects one direction of a TLS 1.3 connection (RFC 8446, section 7.3)."""

    cipher: str
    """The suite's name, as ``TLS_AES_128_GCM_SHA256``."""
    key: bytes
    iv: bytes
    sequence: int = 0
    """Of the next record."""


class KernelTls(Protocol):
    """TLS records by the kernel of this host (kTLS)."""

    def refusal(self, cipher: str) -> str | None:
        """Why it cannot; None: it can, as was tried."""

    def install(self, stream: Carrier, send: RecordKeys, receive: RecordKeys) -> Carrier:
        """Put the keys into a stream's kernel socket: from now on a plain socket, to whoever holds it.

        Raises ``HostError`` (CANNOT_INSTALL).
        """


class TcpTuning(Protocol):
    """The kernel's own settings of a TCP connection."""

    def algorithms(self) -> Sequence[str]:
        """Congestion controls that this host allows, its default first."""

    def use(self, stream: Carrier, algorithm: str) -> None:
        """Set the congestion control of a stream's connection, as soon as that is there. Raises ``HostError``."""

    def describe(self, stream: Carrier) -> Mapping[str, object]:
        """What the kernel says of its options; empty where there is no kernel connection yet. Raises ``HostError``."""


class SynConnection(Protocol):
    """Initiator, parallel SYN: the connection whose SYN left beside the proposal, to become the TCP node."""

    @property
    def option(self) -> bytes:
        """The 16 bytes of the TCP option ADOPT with this negotiation's transaction ID."""

    @property
    def connected(self) -> bool:
        """The SYN-ACK is there, and nobody has taken the connection yet."""

    @property
    def marked(self) -> bool:
        """The SYN-ACK bore the option as well: the responder finds the connection by its SYN."""

    @property
    def greeted(self) -> bool:
        """The proposal's ClientHello has been said over it: only a stack with that TLS can still have it."""

    @property
    def failure(self) -> AccordError | None:
        """Why there is no connection to be had, for good; None while there may be."""

    def when_connected(self, callback: Callable[[], None]) -> None:
        """Call back once, when ``connected`` or ``failure`` holds; at once when one does."""

    def options(self) -> Mapping[str, bool]:
        """Which of ``sack``, ``timestamps`` and ``window_scale`` the two kernels agreed on, once ``connected``."""

    def take(self, first: bytes = b"") -> Carrier:
        """The connection, from now on the caller's; ``first`` has been sent over it.

        Raises ``failure``, or ``AccordError`` when ``first`` cannot be sent.
        """


class Adoption(Protocol):
    """Responder, parallel SYN: a place that is kept for one connection of the peer's, found by transaction ID."""

    def greeted_by(self, hello: bytes) -> None:
        """The proposal's ClientHello on top of this node, by which the connection may be found as by the preface.

        Raises ``AccordError`` (LEGACY_FIRST) when a connection has begun with it already, and is a plain one.
        """

    def claim(self, *, behind_preface: bool) -> None:
        """The commit is here: the connection belongs to the stack, from its first byte, or behind the preface or the
        ClientHello.

        Raises ``AccordError`` (LEGACY_FIRST) when the peer has gone on with it as with a plain connection.
        """

    def carrier(self) -> Carrier:
        """After ``claim``: the connection's stream, whose first read or write waits until it is accepted."""

    def release(self) -> None:
        """The negotiation came to nothing: the connection is a plain one. Nothing happens after ``carrier``."""


class Adoptions(Protocol):
    """Responder: connections that the peer of this negotiation opens to the exposed port's own listener."""

    @property
    def option(self) -> bytes:
        """The 16 bytes of the TCP option ADOPT with this negotiation's transaction ID."""

    def expect(self) -> Adoption:
        """Keep a place. Raises ``AccordError``: NOT_ADOPTABLE, NO_MEMORY, SHUTDOWN."""


class DatagramService(Protocol):
    """Datagrams in-band: on the negotiation's own UDP 5-tuple, told apart by the magic cookie."""

    def send(self, data: bytes) -> None:
        """Send one datagram to the peer."""

    def receive(self, callback: Callable[[bytes], None] | None, ending: Callable[[], None] | None = None) -> None:
        """From now on call back with each datagram from the peer that is not a negotiation packet; None: no more.

        ``ending`` is called when the host takes the 5-tuple back, while datagrams can still be sent.
        """


class Fetch(Protocol):
    """A request that is with the local service, before the stack that it will be answered over exists."""

    @property
    def response(self) -> bytes | None:
        """The beginning of the response that came in time; None until then; empty: too late or failed."""

    def cancel(self) -> None:
        """Give the request up; nothing happens when it was taken over by the forwarder."""


class ApplicationService(Protocol):
    """Responder: the exposed local service. Initiator: the application's early request."""

    @property
    def early_request(self) -> bytes | None:
        """Initiator: bytes to be sent with the proposal (the policy calls them idempotent); empty: none; None: there
        will be some, of which nothing is known yet. Who waits for them is resumed."""

    early_limit: int
    """Responder: how many bytes of early request it is willing to serve; 0: none."""

    def fetch(self, request: bytes, limit: int) -> Fetch:
        """Responder: hand the request to the service, gather up to ``limit`` bytes of response for a short
        time; the negotiation is resumed when ``Fetch.response`` is not None."""


class TlsEnd(Protocol):
    """One side of a TLS 1.3 connection on memory buffers. Errors: ``AccordError``."""

    def feed(self, ciphertext: bytes) -> None:
        """Bytes that came from the peer; any split of the stream will do."""

    def output(self) -> bytes:
        """Bytes that are to go to the peer, all there are."""

    def handshake(self) -> bool:
        """Go on with the handshake. False: it needs more from the peer."""

    def exporter(self) -> bytes | None:
        """32 bytes of keying material for the transcript; None: the keys are not there yet."""

    @property
    def alpn(self) -> str | None:
        """The application protocol that was agreed upon."""

    @property
    def inside(self) -> Mapping[str, object]:
        """What was agreed; empty before anything was."""

    def read(self, limit: int) -> bytes | None:
        """Plaintext, at most ``limit`` bytes; empty: the peer sent close_notify; None: feed more."""

    def write(self, plaintext: bytes) -> None:
        """Encrypt all of ``plaintext``; ``output`` has it."""

    def close_notify(self) -> None:
        """Nothing more will be written; reading goes on. May be repeated."""


class TlsService(Protocol):
    """Responder without memory: TLS whose answer can be made again (docs/PROTOCOL.md, section 22)."""

    def answer(self, security: Security, alpn: tuple[str, ...], hello: bytes) -> tuple[TlsEnd, bytes]:
        """The connection and its whole flight, a function of this negotiation's seed and ``hello``.

        ``alpn``: names to accept, best first. Raises ``AccordError``, also for what needs memory: it is then deferred.
        """


@dataclass(frozen=True, slots=True)
class Security:
    """How this side authenticates itself and the peer."""

    server_name: str | None = None
    """Initiator: SNI and the name that the certificate must be for (a DNS name or an IP address)."""
    verify: bool = True
    ca_file: Path | None = None
    """Roots to trust; None: the system's."""
    certificate: Path | None = None
    """Responder: PEM chain, own certificate first."""
    private_key: Path | None = None
    alpn: tuple[str, ...] = ()
    """Used only where no application node decides."""
    sni: bool = True
    """Initiator: the server name is sent, in clear; it is verified in any case."""
    key_log: Path | None = None
    """Append session secrets in the NSS key log format, for captures in a lab (as SSLKEYLOGFILE)."""


@dataclass(frozen=True, slots=True)
class Services:
    """The host, as one negotiation may see it. Frozen, as its plug-ins share it."""

    role: Role
    local: tuple[str, int]
    """Own address (textual, as it is on packets) and the port of the negotiation's context."""
    remote: tuple[str, int]
    now: Callable[[], float]
    """Seconds of a monotonic clock."""
    random: Callable[[int], bytes]
    call_later: Callable[[float, Callable[[], None]], Callable[[], None]]
    """Delay in seconds, what to call; returns what cancels it."""
    security: Security = field(default_factory=Security)
    tcp: TcpService | None = None
    """None: this host cannot install TCP state; the tcp plug-in then refuses with NO_KERNEL_SUPPORT."""
    tuning: TcpTuning | None = None
    """None: nothing of the kernel's TCP can be set; congestion control is then not negotiated."""
    syn: SynConnection | None = None
    """Initiator: the TCP node is to be this connection; None: installed by ``tcp``."""
    adoptions: Adoptions | None = None
    """Responder: None where the port has no listener of ours; what wants to be adopted is refused (NOT_ADOPTABLE)."""
    datagrams: DatagramService | None = None
    application: ApplicationService | None = None
    inner: Proposing | Offering | None = None
    """None: no negotiation inside of this one."""
    sctp: SctpService | None = None
    """None: not on this host, or its policy does not name it."""
    mptcp: MptcpService | None = None
    """None: not on this host, or its policy does not name it."""
    tunnels: TunnelService | None = None
    """None: not on this host, or its policy does not name them."""
    kernel_tls: KernelTls | None = None
    wishes: Wishes = NONE
    """What the policy wishes of the insides of protocols."""
    tls: TlsService | None = None
    """Responder: how TLS is answered where nothing is kept of the answer; None: it is kept, as usual."""
