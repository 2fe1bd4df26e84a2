# SPDX-License-Identifier: Apache-2.0
"""A host's simulated kernel: its sockets, TCP connections, and what the XDP and sockops programs do to SYNs."""

from __future__ import annotations

import errno
import socket as real
from collections.abc import Callable
from typing import Any, Final

from accord.datapath.stream import SocketCarrier
from accord.datapath.syn_option import ExId, SynFate
from accord.wire.constants import Limit, Reason
from accord.wire.errors import error
from accord.wire.tcp_header import TcpParameters
from sim import loop as virtual
from sim.chance import Entropy
from sim.loop import VirtualLoop
from sim.tcp import Address, Connection, Kind, Phase, Segment

_EPHEMERAL: Final = 32768
_SUPPRESS_US: Final = Limit.SUPPRESS_MS * 1000
_HEARD_US: Final = 4_000_000
_HEARTBEAT_US: Final = Limit.HEARTBEAT_MS * 1000


class Kernel:
    """Of one host; a reboot makes another one."""

    def __init__(
        self, loop: VirtualLoop, address: str, entropy: Entropy, send: Callable[[Segment], None], port: int
    ) -> None:
        """``send``: the network. ``port``: the first ephemeral one; a reboot does not take the old ones again."""
        self.loop = loop
        self.address = address
        self.entropy = entropy
        self.sockets: dict[int, SimSocket] = {}
        self.connections: dict[tuple[Address, Address], Connection] = {}
        self.listeners: dict[int, SimSocket] = {}
        self.heard: dict[bytes, int] = {}
        """Proposals that the XDP program has seen, and when, microseconds."""
        self.suppresses = False
        self.suppressed = 0
        self.silent_since: int | None = None
        """Since when the daemon gives no sign of life, microseconds."""
        self.installs = True
        """False: whatever wants to be installed is refused (full table, missing privilege)."""
        self.misunderstood = 0
        """Segments with numbers that the connection of their four-tuple does not have."""
        self.next_port = port
        self.send_datagram: Callable[[Address, Address, bytes], None] = lambda source, target, data: None
        """On the network, from a UDP socket."""
        self._send = send
        self._dead = False

    # ---- segments ----

    def transmit(self, segment: Segment) -> None:
        """On the wire, unless the host is dead."""
        if not self._dead:
            self._send(segment)

    def arrive(self, segment: Segment) -> None:
        """One came."""
        if self._dead:
            return
        connection = self.connections.get((segment.destination, segment.source))
        if connection is not None:
            connection.arrive(segment)
        elif segment.kind is Kind.SYN:
            self._opened(segment)
        elif segment.kind is not Kind.RST:
            self.refuse(segment)

    def refuse(self, segment: Segment) -> None:
        """RST (RFC 9293, section 3.10.7.1)."""
        self.transmit(Segment(Kind.RST, segment.destination, segment.source, segment.ack, segment.seq))

    def _opened(self, segment: Segment) -> None:
        listener = self.listeners.get(segment.destination[1])
        if segment.option is not None and self._hears(segment.option):
            return
        if listener is None:
            self.refuse(segment)
            return
        connection = Connection(
            self, segment.destination, segment.source, Phase.SYN_RECEIVED, self.entropy.randbits(32), segment.seq
        )
        connection.option = segment.option
        self.connections[connection.local, connection.remote] = connection
        heard = segment.option is not None and self._age(segment.option[1]) < _HEARD_US
        marks = heard and segment.option is not None and segment.option[0] == ExId.ADOPT
        connection.answer(segment.option if marks and self.suppresses else None)

    def _hears(self, option: tuple[int, bytes]) -> bool:
        """Whether the XDP program drops this SYN."""
        drops = (
            option[0] == ExId.FALLBACK and self.suppresses and self.attentive and self._age(option[1]) < _SUPPRESS_US
        )
        self.suppressed += drops
        return drops

    @property
    def attentive(self) -> bool:
        """The XDP program sees a young heartbeat; else it lets everything pass."""
        return self.silent_since is None or self.loop.now_us - self.silent_since < _HEARTBEAT_US

    def _age(self, transaction: bytes) -> int:
        at = self.heard.get(transaction)
        return 1 << 62 if at is None else self.loop.now_us - at

    def accepted(self, connection: Connection) -> None:
        """The handshake is complete."""
        listener = self.listeners.get(connection.local[1])
        if listener is None:
            connection.abandon(reset=True)
        else:
            listener.queue.append(connection)
            self.loop.ready_to_read(listener.fileno())

    def drop(self, connection: Connection) -> None:
        """It is gone."""
        key = (connection.local, connection.remote)
        if self.connections.get(key) is connection:
            del self.connections[key]

    # ---- sockets ----

    def ephemeral(self) -> int:
        """A port that nobody has had."""
        self.next_port += 1
        return _EPHEMERAL + self.next_port % 28000

    def close_sockets(self) -> None:
        """The process is killed: the kernel closes what it had."""
        for sock in list(self.sockets.values()):
            sock.close()
        for connection in list(self.connections.values()):
            if connection.tentative:
                connection.abandon(reset=False)
        self.suppresses = False

    def power_off(self) -> None:
        """Everything is gone, without a segment."""
        self._dead = True
        for connection in list(self.connections.values()):
            connection.changed = lambda: None
            connection.forget()
        for number in self.sockets:
            virtual.unregister(number)
        self.sockets.clear()
        self.listeners.clear()


class SimSocket:
    """What the controller uses of ``socket.socket``."""

    _numbers = 1000

    def __init__(self, kernel: Kernel, family: int, kind: int) -> None:
        if family != (real.AF_INET6 if ":" in kernel.address else real.AF_INET):
            raise OSError(errno.EAFNOSUPPORT, "a simulated host has one family")
        SimSocket._numbers += 1
        self.family = real.AddressFamily(family)
        self.type = real.SOCK_DGRAM if kind & real.SOCK_DGRAM == real.SOCK_DGRAM else real.SOCK_STREAM
        self.queue: list[Connection] = []
        self.connection: Connection | None = None
        self.option: tuple[int, bytes] | None = None
        self.asked: ExId | None = None
        self._kernel = kernel
        self._number = SimSocket._numbers
        self._local: Address = ("::" if ":" in kernel.address else "0.0.0.0", 0)
        self._lowat = 1
        self._linger_reset = False
        kernel.sockets[self._number] = self
        virtual.register(self._number, self)

    # ---- what a loop asks ----

    @property
    def readable(self) -> bool:
        """There is something to accept, to read, or an end to learn of."""
        if self.queue:
            return True
        connection = self.connection
        return connection is not None and (len(connection.incoming) >= self._lowat or connection.ended)

    @property
    def writable(self) -> bool:
        """Connected, or failed."""
        return self.connection is not None and self.connection.phase in (Phase.ESTABLISHED, Phase.GONE)

    def _changed(self) -> None:
        if self.readable:
            self._kernel.loop.ready_to_read(self._number)
        if self.writable:
            self._kernel.loop.ready_to_write(self._number)

    # ---- as socket(2) has it ----

    def fileno(self) -> int:
        """-1 once closed."""
        return self._number if self._number in self._kernel.sockets else -1

    def setblocking(self, flag: bool) -> None:
        """Nothing ever blocks."""

    def setsockopt(self, level: int, option: int, value: Any) -> None:
        """Linger and low-water mark; all else has no effect."""
        if level == real.SOL_SOCKET and option == real.SO_LINGER:
            self._linger_reset = True
        elif level == real.SOL_SOCKET and option == real.SO_RCVLOWAT:
            self._lowat = int(value)

    def getsockopt(self, level: int, option: int, size: int = 0) -> int:
        """SO_ERROR, and the route's MTU."""
        if level == real.SOL_SOCKET and option == real.SO_ERROR:
            return 0 if self.connection is None else self.connection.error
        return 1500

    def bind(self, address: Any) -> None:
        """Port 0: a free one."""
        self._local = (address[0], address[1] or self._kernel.ephemeral())

    def getsockname(self) -> Any:
        """Address and port; for IPv6 flow label and scope too."""
        return (*self._local, 0, 0) if self.family == real.AF_INET6 else self._local

    def getpeername(self) -> Address:
        """Raises ``OSError`` (ENOTCONN)."""
        if self.connection is None or self.connection.phase is Phase.GONE:
            raise OSError(errno.ENOTCONN, "simulated")
        return self.connection.remote

    def listen(self, backlog: int) -> None:
        """Connections are accepted from now on."""
        self._kernel.listeners[self._local[1]] = self

    def accept(self) -> tuple[SimSocket, Address]:
        """Raises ``BlockingIOError``."""
        if not self.queue:
            raise BlockingIOError(errno.EAGAIN, "simulated")
        connection = self.queue.pop(0)
        return SimSocket.of(self._kernel, connection), connection.remote

    @staticmethod
    def of(kernel: Kernel, connection: Connection) -> SimSocket:
        """A socket for a connection that exists."""
        family = real.AF_INET6 if ":" in kernel.address else real.AF_INET
        sock = SimSocket(kernel, family, real.SOCK_STREAM)
        sock._local = connection.local
        sock.connection = connection
        connection.changed = sock._changed
        return sock

    def connect(self, address: Any) -> None:
        """A SYN leaves; of a datagram socket, the route is looked up."""
        if self.type == real.SOCK_DGRAM:
            self._local = (self._kernel.address, self._local[1])
            return
        local = (self._kernel.address, self._kernel.ephemeral())
        self._local = local
        connection = Connection(
            self._kernel, local, (address[0], address[1]), Phase.SYN_SENT, self._kernel.entropy.randbits(32)
        )
        connection.option = self.option
        connection.changed = self._changed
        self.connection = connection
        self._kernel.connections[local, connection.remote] = connection
        connection.connect()
        raise BlockingIOError(errno.EINPROGRESS, "simulated")

    def send(self, data: Any) -> int:
        """All of it."""
        if self.connection is None:
            raise OSError(errno.ENOTCONN, "simulated")
        self.connection.send(bytes(data))
        return len(data)

    def sendmsg(self, buffers: list[bytes], control: object, flags: int, address: Any) -> int:
        """An in-band datagram."""
        data = b"".join(buffers)
        self._kernel.send_datagram((self._kernel.address, self._local[1]), (address[0], address[1]), data)
        return len(data)

    def recv(self, limit: int, flags: int = 0) -> bytes:
        """Raises ``BlockingIOError``, and what befell the connection."""
        connection = self.connection
        if connection is None:
            raise OSError(errno.ENOTCONN, "simulated")
        if connection.incoming:
            data = bytes(connection.incoming[:limit])
            if not flags & real.MSG_PEEK:
                del connection.incoming[:limit]
            return data
        if connection.error:
            raise OSError(connection.error, "simulated")
        if connection.ended:
            return b""
        raise BlockingIOError(errno.EAGAIN, "simulated")

    def shutdown(self, how: int) -> None:
        """FIN."""
        if self.connection is None or self.connection.phase is Phase.GONE:
            raise OSError(errno.ENOTCONN, "simulated")
        self.connection.finish()

    def close(self) -> None:
        """With FIN, or a reset where linger or unread data asks for one."""
        if self._kernel.sockets.pop(self._number, None) is None:
            return
        virtual.unregister(self._number)
        if self._kernel.listeners.get(self._local[1]) is self:
            del self._kernel.listeners[self._local[1]]
        for waiting in self.queue:
            waiting.abandon(reset=True)
        if self.connection is not None:
            self.connection.abandon(reset=self._linger_reset)

    def __enter__(self) -> SimSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class SimRepair:
    """``TcpService`` on a simulated kernel; as ``datapath.tcp_repair`` in what it refuses."""

    def __init__(self, kernel: Kernel, local: str, remote: str) -> None:
        self._kernel, self._local, self._remote = kernel, local, remote

    def reserve(self, port: int | None = None) -> SimEndpoint:
        """A port with fresh numbers."""
        entropy = self._kernel.entropy
        own = TcpParameters(
            port=port or self._kernel.ephemeral(),
            isn=entropy.randbits(32),
            mss=1460,
            window=64240,
            window_scale=7,
            sack=True,
            timestamp=entropy.randbits(31) & ~1,
        )
        return SimEndpoint(self._kernel, self._local, self._remote, own)


class SimEndpoint:
    """``TcpEndpoint``. It is installed at the last moment that its contract allows: when ``installed`` is asked."""

    def __init__(self, kernel: Kernel, local: str, remote: str, own: TcpParameters) -> None:
        self._kernel, self._local, self._remote, self._own = kernel, local, remote, own
        self._peer: TcpParameters | None = None
        self._connection: Connection | None = None

    @property
    def parameters(self) -> TcpParameters:
        """Ours."""
        return self._own

    def install(self, peer: TcpParameters) -> None:
        """Both sides' numbers are known."""
        self._peer = peer

    def installed(self) -> None:
        """ESTABLISHED with them. Raises ``HostError``."""
        if self._connection is not None:
            return
        if self._peer is None:
            raise RuntimeError("the endpoint is not installed yet: call install first")
        local, remote = (self._local, self._own.port), (self._remote, self._peer.port)
        if not self._kernel.installs:
            raise error(Reason.CANNOT_INSTALL, "simulated: no memory", "another stack")
        if (local, remote) in self._kernel.connections:
            raise error(Reason.CANNOT_INSTALL, f"simulated: {local} and {remote} are connected", "other ports")
        connection = Connection(self._kernel, local, remote, Phase.ESTABLISHED, self._own.isn, self._peer.isn)
        connection.tentative = True
        self._kernel.connections[local, remote] = connection
        self._connection = connection

    def release(self) -> None:
        """Without a segment, or with a reset where something has come."""
        connection, self._connection = self._connection, None
        if connection is not None and connection.incoming:
            connection.abandon(reset=True)
        elif connection is not None:
            connection.forget()

    def stream(self) -> SocketCarrier:
        """The caller's from now on."""
        self.installed()
        connection, self._connection = self._connection, None
        assert connection is not None
        connection.tentative = False
        return SocketCarrier(SimSocket.of(self._kernel, connection))  # type: ignore[arg-type]


class SimSynOptions:
    """``datapath.syn_option.SynOptions``: what the sockops program writes on SYNs, and what it has seen."""

    def __init__(self, port: object = None) -> None:
        self.cgroup = "simulated"

    def __str__(self) -> str:
        return "simulated"

    def write(self, sock: SimSocket, transaction: bytes, kind: ExId) -> None:
        """The first SYN of ``sock`` shall bear the option."""
        sock.option = (int(kind), transaction)

    def fate(self, sock: SimSocket) -> SynFate:
        """What came of it."""
        connection = sock.connection
        written = sock.option is not None
        syns = 0 if connection is None else connection.syns
        return SynFate(written, False, syns, connection is not None and connection.marked)

    def forget(self, sock: SimSocket) -> None:
        """Nothing is kept."""

    def conclude(self, sock: SimSocket) -> SynFate:
        """``fate``, and ``forget``."""
        return self.fate(sock)

    def answer(self, listener: SimSocket) -> None:
        """Every listener marks."""

    def hear(self, port: object) -> None:
        """There is one program."""

    def close(self) -> None:
        """Nothing is attached."""


def saved_syn(sock: SimSocket) -> tuple[ExId, bytes] | None:
    """As ``datapath.syn_option.saved_syn``."""
    option = None if sock.connection is None else sock.connection.option
    return None if option is None else (ExId(option[0]), option[1])
