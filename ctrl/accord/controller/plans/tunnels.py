# SPDX-License-Identifier: Apache-2.0
"""WireGuard: an interface on each host, with keys made for it, and a TCP connection through it."""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import socket
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from accord.controller.plans.opening import accepted, coming
from accord.datapath import privilege, wireguard
from accord.datapath.stream import SocketCarrier
from accord.negotiation.interface import Role
from accord.protocols.services import Carrier
from accord.wire.constants import Reason
from accord.wire.errors import AccordError, error

_INSIDE_PORT: Final = 7777
"""TCP, inside a tunnel that nobody else is in; not one of those that take a privilege."""
_IPV6_FREEBIND: Final = 78  # linux/in6.h
_LINGER_SECONDS: Final = 5.0
_TIOCOUTQ: Final = 0x5411
_LOOK_SECONDS: Final = 0.01


class PlannedTunnels:
    """``TunnelService`` by the kernel, through the privileged process where there is one."""

    def __init__(self, role: Role, remote: str) -> None:
        self._role = role
        self._remote = remote

    def reserve(self) -> PlannedTunnel:
        """Fresh keys, a UDP port. Raises ``HostError``."""
        return PlannedTunnel(self._role, self._remote)


class PlannedTunnel:
    """``Tunnel``."""

    def __init__(self, role: Role, remote: str) -> None:
        self._role = role
        self._remote = remote.partition("%")[0]
        self._key: X25519PrivateKey | None = X25519PrivateKey.generate()
        self.public_key = self._key.public_key().public_bytes_raw()
        self._established = False
        self._inside = ("", "")
        # Held until the kernel takes it over: WireGuard receives on a port of all addresses, of both families.
        self._port: socket.socket | None = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._port.bind(("0.0.0.0", 0))
        self.port = int(self._port.getsockname()[1])

    def establish(self, peer_key: bytes, peer_port: int) -> None:
        """Make the interface. Raises ``HostError``."""
        if self._key is None:
            raise error(Reason.PLUGIN_FAILED, "WireGuard: the keys were given back")
        self._inside = wireguard.inside_addresses(self.public_key, peer_key)
        keepalive = wireguard.KEEPALIVE_S if self._role is Role.RESPONDER else 0
        private = self._key.private_bytes_raw()
        self._tcp = socket.socket(socket.AF_INET6, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        if self._role is Role.RESPONDER:
            # Before the tunnel, whose handshake begins with it, and through which the peer connects at once.
            self._tcp.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
            self._tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._tcp.bind((self._inside[0], _INSIDE_PORT))
            self._tcp.listen(1)
        setup = wireguard.Setup(private, peer_key, self.port, peer_port, self._remote, *self._inside, keepalive)
        self.release()
        try:
            _create(setup)
        except BaseException:  # it may be there all the same: a plug-in that takes too long is stopped anywhere
            _remove(self.port)
            raise
        self._established = True

    def stream(self) -> Carrier:
        """The connection through it, being opened."""
        assert self._established, "what is committed is established"
        inside, peer_inside = self._inside
        tcp = self._tcp

        async def opened() -> Carrier:
            if self._role is Role.RESPONDER:
                connection = await accepted(tcp, peer_inside, None)
            else:
                tcp.bind((inside, 0))
                await asyncio.get_running_loop().sock_connect(tcp, (peer_inside, _INSIDE_PORT))
                connection = tcp
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return TunnelCarrier(connection, self.port)

        def given_up() -> None:
            tcp.close()
            _remove(self.port)

        return coming(opened(), given_up)

    def release(self) -> None:
        """Forget the key and the port."""
        self._key = None
        if self._port is not None:
            self._port.close()
            self._port = None


class TunnelCarrier(SocketCarrier):
    """A connection through a tunnel that is its own. It goes to no program: with the stream the tunnel ends."""

    def __init__(self, connection: socket.socket, port: int) -> None:
        """``port``: that the tunnel receives on."""
        super().__init__(connection)
        self._tunnel: int | None = port

    @property
    def kernel_socket(self) -> socket.socket | None:
        """None: its owner has to be told of its end."""
        return None

    async def close(self) -> None:
        """Orderly end of both directions, and then of the tunnel, once the peer has acknowledged what it was sent."""
        connection = self._socket
        if connection is not None and self._tunnel is not None:
            with contextlib.suppress(OSError, AccordError):
                await self.finish()
                async with asyncio.timeout(_LINGER_SECONDS):
                    while await self.read():
                        pass
                    await _delivered(connection)
        await super().close()
        self._end_tunnel()

    def abort(self) -> None:
        """End at once."""
        super().abort()
        self._end_tunnel()

    def _end_tunnel(self) -> None:
        port, self._tunnel = self._tunnel, None
        if port is not None:
            _remove(port)


async def _delivered(connection: socket.socket) -> None:
    """Until the peer has acknowledged everything (tcp(7), SIOCOUTQ)."""
    left = array.array("i", [0])
    while True:
        fcntl.ioctl(connection, _TIOCOUTQ, left)
        if not left[0]:
            return
        await asyncio.sleep(_LOOK_SECONDS)


def _create(setup: wireguard.Setup) -> None:
    if privilege.asks():
        privilege.ask(privilege.Ask.TUNNEL, data=setup.encode())
    else:
        wireguard.create(setup)


def _remove(port: int) -> None:
    if privilege.asks():
        with contextlib.suppress(AccordError):
            privilege.ask(privilege.Ask.NO_TUNNEL, port)
    else:
        wireguard.remove(port)
