# SPDX-License-Identifier: Apache-2.0
"""Kernel TCP connections that no SYN opens, through TCP_REPAIR.

``TcpRepair`` and ``RepairEndpoint`` are ``TcpService`` and ``TcpEndpoint`` of ``protocols.services`` in
structure. How an endpoint lives, and what may go on the wire meanwhile:

    reserve        a socket in CLOSE, port bound (a         nothing; a peer's segment to the port is not ours
                   service's: on install)
    install        on the way to it (the broker's work)      as in one of its neighbours
    installed      ESTABLISHED                               only answers to what the peer sends
    stream         ESTABLISHED, the caller's                 whatever TCP sends
    release        gone, from any state but the caller's     nothing; a RST where data has come that nobody reads

Whoever lets the peer send must have it ``installed`` before (the reset race): the responder before its answer
leaves, the initiator before its commit does. Then no segment ever meets a host without a socket for it. Data that has
come by the time of ``release`` was acknowledged by the kernel: without the reset an initiator whose commit came to
nothing would wait for the answer to its request.

The connection has no history: its round trip time is unknown until data was acknowledged, since no handshake
was timed. Timestamps echo 0 until the first segment of the peer came; a zero echo is not measured (RFC 7323).
"""

from __future__ import annotations

import contextlib
import functools
import secrets
import socket
import time
from typing import Any, Final

from accord.datapath import tcp_liveness, tcp_sockopt, tcp_state
from accord.datapath.stream import SocketCarrier
from accord.datapath.tcp_numbers import TcpNumbers, numbers_towards, with_port
from accord.datapath.tcp_sockopt import TcpInfo
from accord.datapath.tcp_state import Installing
from accord.datapath.zone import SocketAddress
from accord.wire.errors import HostError
from accord.wire.tcp_header import TcpParameters

_EVEN: Final = 0xFFFFFFFE
"""Our TSvals are even: the kernel takes the lowest bit as "in microseconds" (Linux 6.7)."""


class TcpRepair:
    """Connections between two addresses, textual and of one family, ``fe80::1%eth0`` where a zone is needed.

    Everything happens in the network namespace of the thread that calls ``reserve``.
    """

    def __init__(self, local_ip: str, remote_ip: str) -> None:
        self._family, self._local = resolve(local_ip)
        family, self._remote = resolve(remote_ip)
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
            _set_up(connection)  # long before it is needed, where the proposal is made ahead
        own = fresh_parameters(numbers, port or connection.getsockname()[1])
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
        self._installing: Installing | None = None

    @property
    def parameters(self) -> TcpParameters:
        """Ours, as they go into the handshake data."""
        return self._own

    @property
    def info(self) -> TcpInfo:
        """What the kernel says of the installed connection."""
        self.installed()
        return tcp_sockopt.info(self._held())

    def install(self, peer: TcpParameters) -> None:
        """Begin to make the socket ESTABLISHED with both sides' numbers; an option is on where both have it.

        What comes of it, ``installed`` tells: where there is a broker, it works meanwhile.
        """
        connection = self._held()
        if self._installing is not None:
            raise RuntimeError("the endpoint is installed already: reserve another")
        state = agreed_state(self._local, self._remote, self._own, peer, self._reserved_at, service=self._is_service)
        self._installing = Installing(state, connection)

    def installed(self) -> None:
        """Return once the kernel has the connection, at once when it has.

        Raises ``HostError`` (CANNOT_INSTALL), and has then released the endpoint.
        """
        self._held()
        if self._installing is None:
            raise RuntimeError("the endpoint is not installed yet: call install first")
        try:
            self._installing.wait()
        except BaseException:
            self._installing = None
            self.release()
            raise

    def release(self) -> None:
        """Drop the socket: with a reset if anything came, else without a segment. Nothing happens when it was handed
        over, or released before."""
        connection, self._socket = self._socket, None
        if connection is None:
            return
        installing, self._installing = self._installing, None
        try:
            if installing is not None:
                with contextlib.suppress(HostError):  # then there is nothing to be silenced
                    installing.wait()
                    tcp_state.silence(connection)
        finally:
            connection.close()

    def stream(self) -> SocketCarrier:
        """The installed connection, from now on the caller's."""
        self.installed()
        connection, self._socket = self._held(), None
        if self._is_service:
            _set_up(connection)  # not before: meanwhile the peer waits for an answer
        return SocketCarrier(connection)

    def _held(self) -> socket.socket:
        if self._socket is None:
            raise RuntimeError("the endpoint was released or handed over: reserve another")
        return self._socket


def fresh_parameters(numbers: TcpNumbers, port: int) -> TcpParameters:
    """One side's of a new connection.

    RFC 9293, section 3.4.1 wants ISNs that cannot be guessed (RFC 6528). No clock is mixed in: that an old connection's
    segments are told apart is for TIME-WAIT, which connect() checks in repair mode too: one whose connection had
    timestamps it goes over, as from any bound port. (Where the first segment makes the socket, none is gone over.)
    """
    return TcpParameters(
        port=port,
        isn=secrets.randbits(32),
        mss=numbers.mss,
        window=numbers.window,
        window_scale=numbers.window_scale,
        sack=numbers.sack,
        timestamp=secrets.randbits(32) & _EVEN if numbers.timestamps else None,
    )


def agreed_state(
    local: SocketAddress,
    remote: SocketAddress,
    own: TcpParameters,
    peer: TcpParameters,
    reserved_at: float,
    *,
    service: bool,
) -> Any:
    """``struct accord_tcp_state`` of what both sides have; ``reserved_at``: when ``own`` was made, monotonic."""
    scales = (0, 0)
    if own.window_scale is not None and peer.window_scale is not None:
        scales = (peer.window_scale, own.window_scale)
    timestamps = own.timestamp is not None and peer.timestamp is not None
    # The clock that our header announced has run on since. Odd would mean: in microseconds (Linux 6.7).
    elapsed = int((time.monotonic() - reserved_at) * 1000)
    return tcp_state.state(
        local,
        remote,
        service=service,
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


def _set_up(connection: socket.socket) -> None:
    """What needs no privilege and holds from CLOSE on. (SO_REUSEADDR does not: repair mode clears it.)"""
    connection.setblocking(False)
    tcp_liveness.watch(connection)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def resolve(address: str) -> tuple[socket.AddressFamily, SocketAddress]:
    """Raises ``ValueError`` for what is no numeric address, or has an unknown zone."""
    return _look_up(address) if "%" in address else _known(address)


@functools.lru_cache(maxsize=1024)
def _known(address: str) -> tuple[socket.AddressFamily, SocketAddress]:
    """One that means the same for ever: a zone's interface may come and go."""
    return _look_up(address)


def _look_up(address: str) -> tuple[socket.AddressFamily, SocketAddress]:
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
