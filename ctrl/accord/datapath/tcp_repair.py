# SPDX-License-Identifier: Apache-2.0
"""Kernel TCP connections that no SYN opens, through TCP_REPAIR.

``TcpRepair`` and ``RepairEndpoint`` are ``TcpService`` and ``TcpEndpoint`` of ``protocols.services`` in
structure. How an endpoint lives, and what may go on the wire meanwhile:

    reserve        a socket in CLOSE, port bound             nothing; a peer's segment to the port is not ours
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

from accord.datapath import tcp_liveness, tcp_sockopt
from accord.datapath.stream import SocketCarrier
from accord.datapath.tcp_numbers import numbers_towards, with_port
from accord.datapath.tcp_sockopt import RepairWindow, TcpInfo
from accord.datapath.zone import SocketAddress
from accord.wire.constants import Reason
from accord.wire.errors import HostError
from accord.wire.tcp_header import TcpParameters

_EVEN: Final = 0xFFFFFFFE
"""Our TSvals are even: ``tcp_sockopt.set_timestamp``."""


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
        numbers = numbers_towards(self._family, self._local, self._remote)
        connection = tcp_sockopt.tcp_socket(self._family)
        try:
            if port is not None:
                # Repair mode forces the bind past a listener; but it lets others bind too, so an ephemeral port
                # is held without it until the installation.
                tcp_sockopt.enter_repair(connection)
            with tcp_sockopt.naming(f"bind({self._local[0]}, port {port or 'any'})"):
                connection.bind(with_port(self._local, port or 0))
        except BaseException:
            connection.close()
            raise
        # RFC 9293, section 3.4.1 wants ISNs that cannot be guessed (RFC 6528). No clock is mixed in: that an old
        # connection's segments are told apart is ensured by TIME-WAIT, which connect() checks in repair mode too.
        own = TcpParameters(
            port=connection.getsockname()[1],
            isn=secrets.randbits(32),
            mss=numbers.mss,
            window=numbers.window,
            window_scale=numbers.window_scale,
            sack=numbers.sack,
            timestamp=secrets.randbits(32) & _EVEN if numbers.timestamps else None,
        )
        return RepairEndpoint(connection, self._remote, own, is_service=port is not None)


class RepairEndpoint:
    """One end; made by ``TcpRepair.reserve``."""

    def __init__(self, connection: socket.socket, remote: SocketAddress, own: TcpParameters, is_service: bool) -> None:
        self._socket: socket.socket | None = connection
        self._is_service = is_service
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
            # close() in repair mode: neither FIN nor RST, whatever has arrived meanwhile.
            tcp_sockopt.enter_repair(connection)
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
        # Without window scaling it has to be set to zero: connect() has chosen a scale for our windows already,
        # and would go on dividing what it advertises by it.
        scales = (0, 0)
        if own.window_scale is not None and peer.window_scale is not None:
            scales = (peer.window_scale, own.window_scale)
        sack = own.sack and peer.sack
        timestamps = own.timestamp is not None and peer.timestamp is not None

        tcp_sockopt.enter_repair(connection)
        tcp_sockopt.set_sequence_numbers(connection, own.isn + 1, peer.isn + 1)
        tcp_sockopt.limit_mss(connection, peer.mss)
        with tcp_sockopt.naming(f"connect({self._remote[0]}, port {peer.port}) from port {own.port}"):
            connection.connect(with_port(self._remote, peer.port))
        tcp_sockopt.set_options(connection, peer.mss, scales, sack, timestamps)
        tcp_sockopt.set_window(
            connection,
            RepairWindow(
                last_update=peer.isn,
                send_window=peer.window,
                max_window=peer.window,
                receive_window=own.window,
                receive_update=peer.isn + 1,
            ),
        )
        if own.timestamp is not None and timestamps:
            # The clock that our header announced has run on since.
            elapsed = int((time.monotonic() - self._reserved_at) * 1000)
            tcp_sockopt.set_timestamp(connection, (own.timestamp + elapsed) & _EVEN)

        got = tcp_sockopt.info(connection)
        if (got.state, got.window_scales, got.sack, got.timestamps) != (
            tcp_sockopt.STATE_ESTABLISHED,
            scales,
            sack,
            timestamps,
        ):
            raise HostError(
                Reason.CANNOT_INSTALL,
                f"the kernel took the TCP state but shows another one: {got}",
                "let another stack be chosen: docs/POLICY.md",
            )
        tcp_liveness.watch(connection)
        connection.setblocking(False)
        tcp_sockopt.leave_repair(connection)
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
