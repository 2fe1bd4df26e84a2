# SPDX-License-Identifier: Apache-2.0
"""The UDP sockets that one port reads, and who uses them in-band: beside negotiation packets, on the same path."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import ipaddress
import socket
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from accord.controller.host import DatagramChannel
from accord.datapath import privilege
from accord.datapath.path import NO_SOCKET, Path, packed
from accord.datapath.port import Port
from accord.datapath.zone import socket_address
from accord.wire.constants import Protocol, Reason
from accord.wire.errors import error

_IP_PKTINFO = 8  # linux/in.h; the socket module has it from Python 3.12 on

Channels = dict[tuple[str, str, int], list[DatagramChannel]]
"""In-band users of a socket, by local address, remote address, remote port."""


@dataclass(slots=True)
class UdpSocket:
    """A UDP socket that the port reads."""

    sock: socket.socket
    index: int
    port: int
    wildcard: bool
    channels: Channels = field(default_factory=dict)


class UdpSockets:
    """Of one endpoint, by the index that the port gives them.

    ``readable`` is called when one of them has something for the port; ``paths`` tells those of the negotiations in
    flight; ``safely`` calls what may fail, for one user's failure is not the others'.
    """

    def __init__(
        self,
        port: Port,
        readable: Callable[[], None],
        paths: Callable[[], Iterable[Path]],
        safely: Callable[..., None],
    ) -> None:
        self._port = port
        self._readable = readable
        self._paths = paths
        self._safely = safely
        self._loop = asyncio.get_running_loop()
        self._sockets: dict[int, UdpSocket] = {}

    def __len__(self) -> int:
        return len(self._sockets)

    def bind(self, address: str, port: int) -> UdpSocket:
        """A UDP socket on the port. Raises ``HostError`` when the address or port cannot be had."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if port:
                privilege.bind(sock, address, port)
            else:
                sock.bind(socket_address(address, 0))
            return self.add(sock)
        except OSError as refusal:
            sock.close()
            raise error(
                Reason.CANNOT_INSTALL,
                f"UDP {address} port {port}: {refusal.strerror}",
                "see who holds it (ss -lunp); an exposed port may share it: --share-udp",
            ) from refusal
        except BaseException:
            sock.close()
            raise

    def add(self, sock: socket.socket, channels: Channels | None = None) -> UdpSocket:
        """Have the port read a bound UDP socket, which is ours from now on. ``channels``: shared with another's."""
        index = self._port.add_socket(sock)
        address, port = sock.getsockname()[:2]
        wildcard = ipaddress.ip_address(address.partition("%")[0]).is_unspecified
        bound = UdpSocket(sock, index, port, wildcard, {} if channels is None else channels)
        self._sockets[index] = bound
        self._loop.add_reader(sock.fileno(), self._readable)
        return bound

    def swap(self, bound: UdpSocket, sock: socket.socket) -> socket.socket:
        """Put ``sock``, of the same port, into the place of what is ``bound``; that is returned, open and not read."""
        self._port.replace_socket(bound.index, sock)
        before, bound.sock = bound.sock, sock
        self._loop.remove_reader(before.fileno())
        self._loop.add_reader(sock.fileno(), self._readable)
        return before

    def detach(self, bound: UdpSocket) -> socket.socket:
        """Take a socket off the port without closing it."""
        del self._sockets[bound.index]
        self._loop.remove_reader(bound.sock.fileno())
        self._port.remove_socket(bound.index)
        return bound.sock

    def peers(self, bound: UdpSocket) -> set[Path]:
        """Where the peers of negotiations and channels of this socket's family and port are."""
        paths = list(self._paths())
        family = 6 if bound.sock.family == socket.AF_INET6 else 4
        for (local, remote, remote_port), channels in bound.channels.items():
            if any(channel.in_use for channel in channels):
                paths.append(Path(family, Protocol.UDP, local, bound.port, remote, remote_port))
        return {
            dataclasses.replace(path, socket=NO_SOCKET)
            for path in paths
            if (path.family, path.context, path.local_port) == (family, Protocol.UDP, bound.port)
        }

    def unbind(self, bound: UdpSocket) -> None:
        """Take a socket off the port and close it. Who still uses it in-band may send a last datagram."""
        if self._sockets.pop(bound.index, None) is None:
            return
        for channel in [channel for channels in bound.channels.values() for channel in channels]:
            self._safely(channel.end)
        bound.channels.clear()  # each leads back to its socket
        self._loop.remove_reader(bound.sock.fileno())
        self._port.remove_socket(bound.index)
        bound.sock.close()

    def channel(self, bound: UdpSocket, path: Path) -> DatagramChannel:
        """The in-band datagrams of one transaction. Transactions on one path each have a channel and hear all that
        comes by it; which of them is meant, their protocols tell (QUIC by its connection IDs)."""
        channel = DatagramChannel(lambda data: self._send_datagram(bound, path, data))
        bound.channels.setdefault((path.local, path.remote, path.remote_port), []).append(channel)
        return channel

    def drop_channel(self, bound: UdpSocket, path: Path, channel: DatagramChannel) -> None:
        """This transaction listens no longer."""
        key = (path.local, path.remote, path.remote_port)
        left = [other for other in bound.channels.get(key, ()) if other is not channel]
        if left:
            bound.channels[key] = left
        else:
            bound.channels.pop(key, None)

    def of(self, path: Path) -> UdpSocket | None:
        """The socket that a path's packets leave by."""
        found = self._sockets.get(path.socket)
        if found is not None and found.port == path.local_port:
            return found
        family = socket.AF_INET6 if path.family == 6 else socket.AF_INET
        return next((s for s in self._sockets.values() if s.port == path.local_port and s.sock.family == family), None)

    def _send_datagram(self, bound: UdpSocket, path: Path, data: bytes) -> None:
        if bound.sock.fileno() < 0:  # a hand-over has closed it; the port has others
            other = self.of(dataclasses.replace(path, socket=NO_SOCKET))
            if other is None:
                return
            bound = other
        control: list[tuple[int, int, bytes]] = []
        if bound.wildcard:
            local = packed(path.local)
            if path.family == 4:  # struct in_pktinfo: ifindex, spec_dst, addr
                control = [(socket.IPPROTO_IP, _IP_PKTINFO, struct.pack("=I4s4x", 0, local))]
            else:  # struct in6_pktinfo: addr, ifindex
                control = [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, local + struct.pack("=I", path.scope))]
        remote = (path.remote, path.remote_port) if path.family == 4 else (path.remote, path.remote_port, 0, path.scope)
        with contextlib.suppress(OSError):  # a datagram may always be lost; the protocol above repeats it
            bound.sock.sendmsg([data], control, 0, remote)

    def deliver(self, path: Path, data: bytes) -> None:
        """A datagram that is no negotiation packet, to all who listen on its path."""
        bound = self._sockets.get(path.socket)
        channels = bound.channels.get((path.local, path.remote, path.remote_port)) if bound else None
        for channel in list(channels or ()):
            channel.deliver(data)

    def close(self) -> None:
        """All of them."""
        for bound in list(self._sockets.values()):
            self.unbind(bound)
