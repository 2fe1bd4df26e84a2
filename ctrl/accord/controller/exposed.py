# SPDX-License-Identifier: Apache-2.0
"""A port that this host offers: negotiated stacks, and plain connections of hosts without Accord."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import logging
import socket
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from accord.controller.acceptor import Acceptor
from accord.controller.adoption.adopting import Adopter, Candidate, Fate
from accord.controller.association import Association, Report
from accord.controller.bridge import bridge
from accord.controller.counts import Counts
from accord.controller.endpoint import Endpoint
from accord.controller.given import Given
from accord.controller.host import HostFetch
from accord.controller.service import LocalService
from accord.controller.settings.policy import EffectivePolicy, Policy, Secure
from accord.controller.settings.values import OnForcedFallback
from accord.controller.udp_sockets import UdpSocket
from accord.datapath import privilege, tcp_liveness
from accord.datapath.stream import SocketCarrier
from accord.datapath.syn_option import ExId, SynOptions, saved_syn
from accord.datapath.tcp_born import BornCarrier
from accord.negotiation.interface import Role
from accord.protocols import tls
from accord.protocols.certificates import load_identity
from accord.protocols.services import Carrier, Security
from accord.protocols.wishes import NONE
from accord.wire.constants import Limit, Protocol, Reason
from accord.wire.errors import AccordError, error

log = logging.getLogger("accord.exposed")

_PLAIN_HANDSHAKE_SECONDS = 10.0
_SILENT_SECONDS = Limit.MAX_LIFETIME_MS / 1000 + _PLAIN_HANDSHAKE_SECONDS
"""An accepted connection may say nothing for as long as the negotiation beside it lives, and then begin as a plain one.
Of that negotiation we need not know: the path may have taken the option off its SYN."""
# A legacy client is asked for nothing before it has spoken; as many as this may be in that state.
_PLAIN_PENDING = 256
_TLS_HANDSHAKE_RECORD = 0x16  # RFC 8446 section 5.1
_TCP_SAVE_SYN = 27  # linux/tcp.h

Deliver = Callable[[Association, HostFetch | None], Coroutine[None, None, None]]


@dataclass(slots=True)
class Exposed:
    """One exposed port. ``deliver`` is given every association that comes up on it."""

    port: int
    service: LocalService | None
    """None: what comes up is delivered to a program."""
    security: Security
    secure: Secure | None
    policy: EffectivePolicy
    early_limit: int
    deliver: Deliver
    counts: Counts
    messages: bool = False
    """The program that takes what comes up frames messages itself."""
    source: tuple[Path, Path] | None = None
    """Files of the configuration that the certificate and its key come from."""
    sockets: list[UdpSocket] = field(default_factory=list)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    listeners: list[socket.socket] = field(default_factory=list)
    accepting: list[Acceptor] = field(default_factory=list)
    adopter: Adopter | None = None
    """Of accepted connections that negotiations ask for; None: no listener of ours."""
    pending: int = 0
    given: Given | None = None
    """The TCP port is another program's, which gets the connections; None: they are this daemon's."""
    shared: bool = False
    """The UDP port is another program's."""
    closed: bool = False

    @property
    def target(self) -> tuple[str, int] | None:
        """Where the local service is."""
        return None if self.service is None else self.service.target

    @property
    def failure(self) -> AccordError | None:
        """Why nobody can be served now."""
        if self.given is not None:
            return self.given.failure
        return None if self.service is None else self.service.failure

    @property
    def certificate(self) -> Path | None:
        """The chain that peers are shown."""
        return self.security.certificate

    def open(
        self,
        endpoint: Endpoint,
        *,
        plain: bool,
        share_udp: bool = False,
        given: Sequence[socket.socket] = (),
        options: SynOptions | None = None,
    ) -> None:
        """Bind the port. ``given`` are sockets of it that another daemon had; what is not among them is made.
        ``options`` mark the SYN-ACKs of connections that are going to be adopted. ``share_udp``: the UDP port is
        another program's, from whose datagrams ours are picked.

        Raises ``HostError`` and leaves nothing behind when a socket cannot be had.
        """
        found = {(sock.family, sock.type): sock for sock in given}
        self.adopter = Adopter(self.counts.adoptions) if plain else None
        try:
            if share_udp:
                endpoint.share(self.port)
                self.shared = True
            for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
                sock = found.pop((family, socket.SOCK_DGRAM), None)
                if not share_udp:
                    with _unless_no_such_family():
                        self.sockets.append(
                            endpoint.sockets.bind(address, self.port) if sock is None else endpoint.sockets.add(sock)
                        )
                elif sock is not None:  # the configuration has changed
                    sock.close()
                if plain:
                    listener = found.pop((family, socket.SOCK_STREAM), None)
                    with _unless_no_such_family():
                        if listener is None:
                            listener = _listen(address, self.port, options)
                        else:
                            _remember_syns(listener, options)
                        self.listeners.append(listener)
        except BaseException:
            self.close(endpoint)
            raise
        finally:
            for left in found.values():
                left.close()
        endpoint.port.expose(self.port)
        self.accept()

    def accept(self) -> None:
        """Take plain connections, from now on or again."""
        self.accepting = [Acceptor(listener, self._accepted) for listener in self.listeners]

    def show(self, certificate: Path, private_key: Path) -> None:
        """Another chain and its key from now on; what is up stays as it is. Raises ``AccordError``, and then nothing
        has changed."""
        security = dataclasses.replace(self.security, certificate=certificate, private_key=private_key)
        if security != self.security:
            load_identity(security)
            self.security = security

    def accept_waiting(self) -> None:
        """Take the plain connections that wait in the listeners' queues, in this turn."""
        for acceptor in self.accepting:
            acceptor.empty()

    def pause(self) -> None:
        """Leave plain connections in the listeners' queues; those that were accepted go on."""
        for acceptor in self.accepting:
            acceptor.close()
        self.accepting.clear()

    def hand_out(self, association: Association, fetch: HostFetch | None) -> asyncio.Task[None]:
        """Deliver an association, for as long as the task lasts; it ends with this port."""
        task = self.spawn(self.deliver(association, fetch))
        # A task that is cancelled before its first step runs none of its own clean-up.
        task.add_done_callback(lambda ended: association.carrier.abort() if ended.cancelled() else None)
        return task

    def spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run something that ends with this port."""
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (failure := task.exception()) is not None:
            log.error("port %d: %s", self.port, failure, exc_info=failure)

    def close(self, endpoint: Endpoint) -> None:
        """Take the port back. Peers are told: negotiations on it end, and so do the associations."""
        self.closed = True
        endpoint.port.expose(self.port, False)  # first, for who sends a proposal and a SYN just now
        if self.service is not None:
            self.service.close()
        endpoint.stop(self.port)
        if self.adopter is not None:
            self.adopter.close()
        for task in list(self.tasks):
            task.cancel()
        self.pause()
        for listener in self.listeners:
            listener.close()
        for bound in self.sockets:
            endpoint.sockets.unbind(bound)
        if self.shared:
            endpoint.port.share(self.port, False)
        self.listeners.clear()
        self.sockets.clear()

    # ---- accepted connections: those of parallel SYNs, and of hosts without Accord ----

    def _accepted(self, client: socket.socket) -> None:
        self.take(client, _to_be_adopted(client))

    def take(self, client: socket.socket, transaction: bytes | None) -> None:
        """Serve an accepted connection. ``transaction``: what its SYN bore with ADOPT."""
        adopter = self.adopter
        if adopter is None:
            SocketCarrier(client).abort()
            return
        # Connections that say nothing must not keep out those that a negotiation waits for.
        full = self.pending >= _PLAIN_PENDING and not adopter.expects(transaction)
        if full or self.failure is not None:
            SocketCarrier(client).abort()
            return
        try:
            peer = str(client.getpeername()[0]).partition("%")[0]
        except OSError:  # reset meanwhile
            client.close()
            return
        self.pending += 1
        candidate = adopter.candidate(client, peer, transaction)
        # A task that is cancelled before its first step runs none of its own clean-up.
        self.spawn(self._serve(candidate)).add_done_callback(
            lambda ended: candidate.discard() if ended.cancelled() else None
        )

    async def _serve(self, candidate: Candidate) -> None:
        """A plain connection, unless a negotiated stack takes it."""
        client = candidate.connection
        try:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            tcp_liveness.watch(client)
            if await _fate(candidate) is not Fate.PLAIN:
                return
            async with asyncio.timeout(_PLAIN_HANDSHAKE_SECONDS):
                carrier, stack = await self._greet(SocketCarrier(client))
            forced = bool(getattr(carrier, "both_speak_accord", False))
            if forced and self.policy.on_forced_fallback is OnForcedFallback.REFUSE:
                self.counts.failed(Role.RESPONDER, Reason.FORCED_FALLBACK)
                raise error(Reason.FORCED_FALLBACK, "refused by this host's policy")
        except (AccordError, OSError) as failure:  # TimeoutError is an OSError
            why = "no handshake in time" if isinstance(failure, TimeoutError) else failure
            log.info("plain connection from %s: %s", candidate.address, why)
            candidate.discard()
            return
        except BaseException:
            candidate.discard()
            raise
        finally:
            self.pending -= 1
        reason = Reason.FORCED_FALLBACK if forced else Reason.LEGACY_PEER
        report = Report(peer=candidate.address, stack=stack, reason=reason.name)
        if forced:
            log.info("port %d, %s: %s", self.port, candidate.address, reason.text)
            self.counts.forced(Role.RESPONDER)
        self.counts.plain_or_negotiated(Role.RESPONDER, report)
        await self.deliver(Association(carrier, report), None)

    async def _greet(self, bare: SocketCarrier) -> tuple[Carrier, list[str]]:
        """TLS for a client that says ClientHello first; bare TCP only where the policy asks for no security."""
        if (why := self.policy.plain_objection) is not None:
            raise error(Reason.REQUIRED_MISSING, f"a plain client: {why}", "let it use Accord")
        if await bare.peek() == _TLS_HANDSHAKE_RECORD:
            names = self.policy.inside.alpn or self.security.alpn
            return await tls.server(bare, self.security, names, speaks_accord=True), ["tls", "tcp"]
        if self.policy.plain_secure is Secure.REQUIRED:
            raise error(Reason.INSECURE, "a plain client that does not begin with TLS", "let it use TLS")
        return bare, ["tcp"]


def service_policy(
    policy: Policy, secure: Secure | None, *, messages: bool = False, to_listener: bool = False
) -> EffectivePolicy:
    """What holds for peers of an exposed port. Unless the policy file says which stacks this host prefers, the
    initiator's preference decides: whoever calls knows better what the call is for.

    ``to_listener``: TCP alone, for of what else is in a stack the port's own program knows nothing.
    """
    default = policy.default
    if to_listener:
        return dataclasses.replace(default, prefer=((int(Protocol.TCP),),), only=True, secure=Secure.NO, inside=NONE)
    prefer = default.prefer if "prefer" in default.fixed else ()
    made = dataclasses.replace(default, prefer=prefer, secure=default.secure if secure is None else secure)
    return made.for_messages() if messages else made


def give(given: Given, counts: Counts) -> Deliver:
    """Delivery to the program that listens on the port itself: the kernel's, which is asked whether it did."""

    async def deliver(association: Association, fetch: HostFetch | None) -> None:
        carrier, report = association.carrier, association.report
        assert isinstance(carrier, BornCarrier), "nothing but TCP is negotiated on such a port"
        try:
            await given.watch(carrier, report.peer)
        except AccordError as never:
            log.warning("port %d: %s", given.port, never)
            counts.failed(Role.RESPONDER, never.reason)
        else:
            counts.came_up(Role.RESPONDER, report)

    return deliver


def forward(service: LocalService, counts: Counts) -> Deliver:
    """Delivery to a local plain service: its bytes joined to the association's."""

    async def deliver(association: Association, fetch: HostFetch | None) -> None:
        local = fetch.take() if fetch is not None else None
        if local is None:
            try:
                local = await service.open()
            except AccordError as failure:
                log.info("%s: %s", association.report.peer, failure)
                association.carrier.abort()
                return
            except BaseException:
                association.carrier.abort()
                raise
        with counts.open(Role.RESPONDER):
            broken = await bridge(association.carrier, local)
        if broken is not None:
            log.info("%s: %s", association.report.peer, broken)

    return deliver


async def _fate(candidate: Candidate) -> Fate:
    """What becomes of it. Raises ``TimeoutError`` when it says nothing for too long.

    Where a stack waits for a connection it has that stack's time: from the commit until the connection's first bytes
    (docs/PROTOCOL.md, MUST-58).
    """
    for seconds in (_SILENT_SECONDS, Limit.MAX_LIFETIME_MS / 1000):
        done, _ = await asyncio.wait({candidate.fate}, timeout=seconds)
        if done:
            return candidate.fate.result()
        if not candidate.awaited:
            break
    raise TimeoutError("nothing was said")


def _to_be_adopted(client: socket.socket) -> bytes | None:
    """The transaction ID that the connection's SYN bore with ADOPT."""
    found = saved_syn(client)
    return found[1] if found is not None and found[0] is ExId.ADOPT else None


def _remember_syns(listener: socket.socket, options: SynOptions | None) -> None:
    """So that connections are found by their SYN. Without it the preface tells which negotiation they belong to."""
    try:
        if options is not None:
            options.answer(listener)
        else:
            listener.setsockopt(socket.IPPROTO_TCP, _TCP_SAVE_SYN, 1)
    except (AccordError, OSError) as refusal:
        log.warning("connections are found by their preface only: %s", refusal)


def _listen(address: str, port: int, options: SynOptions | None) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        privilege.bind(listener, address, port)
        _remember_syns(listener, options)
        listener.listen(128)
    except OSError as refusal:
        listener.close()
        if refusal.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            raise
        raise error(
            Reason.CANNOT_INSTALL,
            f"TCP {address} port {port}: {refusal.strerror}",
            "see who holds it (ss -ltnp), or leave plain hosts to it with --no-plain",
        ) from refusal
    return listener


@contextlib.contextmanager
def _unless_no_such_family() -> Iterator[None]:
    """A host without IPv6 offers IPv4 only."""
    try:
        yield
    except OSError as refusal:
        if refusal.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            raise
