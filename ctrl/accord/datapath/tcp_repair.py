# SPDX-License-Identifier: Apache-2.0
"""Kernel TCP connections that no SYN opens, through TCP_REPAIR.

``TcpRepair`` and ``RepairEndpoint`` are ``TcpService`` and ``TcpEndpoint`` of ``protocols.services`` in
structure. How an endpoint lives, and what may go on the wire meanwhile:

    reserve        a socket in CLOSE, port bound (a         nothing; a peer's segment to the port is not ours
                   service's: on install)
    install        ESTABLISHED                               only answers to what the peer sends
    stream         ESTABLISHED, the caller's                 whatever TCP sends
    release        gone, from any state but the caller's     nothing: neither FIN nor RST

Whoever lets the peer send must have installed before (the reset race): the responder before its answer
leaves, the initiator before its commit does. Then no segment ever meets a host without a socket for it.

The connection has no history: its round trip time is unknown until data was acknowledged, since no handshake
was timed. Timestamps echo 0 until the first segment of the peer came; a zero echo is not measured (RFC 7323).
"""

from __future__ import annotations

import secrets
import socket
import time
from typing import Final

from accord.datapath import tcp_liveness, tcp_sockopt, tcp_state
from accord.datapath.stream import SocketCarrier
from accord.datapath.tcp_numbers import numbers_towards, with_port
from accord.datapath.tcp_sockopt import TcpInfo
from accord.datapath.zone import SocketAddress
from accord.wire.tcp_header import TcpParameters

_EVEN: Final = 0xFFFFFFFE
"""Our TSvals are even: the kernel takes the lowest bit as "in microseconds" (Linux 6.7)."""


class TcpRepair:
    """Connections between two addresses, textual and of one family, ``fe80::1%eth0`` where a zone is needed.

    Everything happens in the network namespace of the thread that calls ``reserve``.
    """

    def __init__(self, local_ip: str, remote_ip: str) -> None:
        self._family, self._local = _resolve(local_ip)
        family, self._remote = _resolve(remote_ip)
        if family != self._family:
            raise ValueError(f"{local_ip} and {remote_ip} are not of one family")

    def reserve(self, port: int | None = None) -> RepairEndpoint:
        """A bound port with fresh numbers.

        ``None``: a free ephemeral port, ours alone until the connection ends. A number: that service's port,
        shared with its listener and its other connections.

        Raises ``HostError``: NO_PRIVILEGE, NO_KERNEL_SUPPORT, or CANNOT_INSTALL (no route, no port left).
        """
        numbers = numbers_towards(self._local, self._remote)
        connection = tcp_sockopt.tcp_socket(self._family)
        if port is None:
            # Repair mode would let others bind the port too, so it is held without it until the installation. That
            # binds a service's.
            try:
                with tcp_sockopt.naming(f"bind({self._local[0]}, port any)"):
                    connection.bind(with_port(self._local, 0))
            except BaseException:
                connection.close()
                raise
        # RFC 9293, section 3.4.1 wants ISNs that cannot be guessed (RFC 6528). No clock is mixed in: that an old
        # connection's segments are told apart is ensured by TIME-WAIT, which connect() checks in repair mode too.
        own = TcpParameters(
            port=port or connection.getsockname()[1],
            isn=secrets.randbits(32),
            mss=numbers.mss,
            window=numbers.window,
            window_scale=numbers.window_scale,
            sack=numbers.sack,
            timestamp=secrets.randbits(32) & _EVEN if numbers.timestamps else None,
        )
        return RepairEndpoint(connection, self._local, self._remote, own, is_service=port is not None)


class RepairEndpoint:
    """One end; made by ``TcpRepair.reserve``."""

    def __init__(
        self,
        connection: socket.socket,
        local: SocketAddress,
        remote: SocketAddress,
        own: TcpParameters,
        *,
        is_service: bool,
    ) -> None:
        """``connection`` is bound to the port, unless that is a service's."""
        self._socket: socket.socket | None = connection
        self._is_service = is_service
        self._local = local
        self._remote = remote
        self._own = own
        self._reserved_at = time.monotonic()
        self._installed = False

    @property
    def parameters(self) -> TcpParameters:
        """Ours, as they go into the handshake data."""
        return self._own

    @property
    def info(self) -> TcpInfo:
        """What the kernel says of the installed connection."""
        return tcp_sockopt.info(self._held())

    def install(self, peer: TcpParameters) -> None:
        """Make the socket ESTABLISHED with both sides' numbers; an option is on where both have it.

        Raises ``HostError`` (CANNOT_INSTALL), and has then released the endpoint.
        """
        connection = self._held()
        if self._installed:
            raise RuntimeError("the endpoint is installed already: reserve another")
        try:
            self._install(connection, peer)
        except BaseException:
            self.release()
            raise
        self._installed = True

    def release(self) -> None:
        """Drop the socket without a segment; nothing happens when it was handed over, or released before."""
        connection, self._socket = self._socket, None
        if connection is None:
            return
        try:
            if self._installed:
                tcp_state.silence(connection)
        finally:
            connection.close()

    def stream(self) -> SocketCarrier:
        """The installed connection, from now on the caller's."""
        connection = self._held()
        if not self._installed:
            raise RuntimeError("the endpoint is not installed yet: call install first")
        self._socket = None
        return SocketCarrier(connection)

    def _install(self, connection: socket.socket, peer: TcpParameters) -> None:
        own = self._own
        scales = (0, 0)
        if own.window_scale is not None and peer.window_scale is not None:
            scales = (peer.window_scale, own.window_scale)
        timestamps = own.timestamp is not None and peer.timestamp is not None
        # The clock that our header announced has run on since. Odd would mean: in microseconds (Linux 6.7).
        elapsed = int((time.monotonic() - self._reserved_at) * 1000)
        state = tcp_state.state(
            self._local,
            self._remote,
            service=self._is_service,
            sack=own.sack and peer.sack,
            timestamps=timestamps,
            local_scale=scales[1],
            remote_scale=scales[0],
            local_port=own.port,
            remote_port=peer.port,
            remote_mss=peer.mss,
            local_isn=own.isn,
            remote_isn=peer.isn,
            local_window=own.window,
            remote_window=peer.window,
            timestamp=((own.timestamp or 0) + elapsed) & _EVEN if timestamps else 0,
        )
        tcp_state.install(state, connection)
        connection.setblocking(False)
        tcp_liveness.watch(connection)
        if self._is_service:
            # As a listener's connections have it, so that a service that starts anew is not kept from its port.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _held(self) -> socket.socket:
        if self._socket is None:
            raise RuntimeError("the endpoint was released or handed over: reserve another")
        return self._socket


def _resolve(address: str) -> tuple[socket.AddressFamily, SocketAddress]:
    """Raises ``ValueError`` for what is no numeric address, or has an unknown zone."""
    try:
        family, _, _, _, resolved = socket.getaddrinfo(
            # Bytes, because a str would first be tried as a name in other scripts (IDNA).
            address.encode("ascii"),
            0,
            type=socket.SOCK_STREAM,
            flags=socket.AI_NUMERICHOST,
        )[0]
    except socket.gaierror as wrong:
        raise ValueError(f"{address!r} is no IP address of this host's network: {wrong}") from wrong
    if len(resolved) == 4:
        return family, (str(resolved[0]), 0, int(resolved[2]), int(resolved[3]))
    return family, (str(resolved[0]), 0)
