# SPDX-License-Identifier: Apache-2.0
"""The TCP socket options by which state is taken out of and put into the kernel (linux/tcp.h).

The structs stand in the docstrings of what packs and unpacks them. Every error is a ``HostError`` that
names the call.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from accord.wire.constants import Reason
from accord.wire.errors import HostError

# linux/tcp.h; the socket module of Python 3.11 has none of these.
_TCP_REPAIR: Final = 19
_TCP_REPAIR_QUEUE: Final = 20
_TCP_QUEUE_SEQ: Final = 21
_TCP_REPAIR_OPTIONS: Final = 22
_TCP_TIMESTAMP: Final = 24
_TCP_REPAIR_WINDOW: Final = 29

_TCP_REPAIR_ON: Final = "TCP_REPAIR on"
_REPAIR_ON: Final = 1
_REPAIR_OFF_NO_PROBE: Final = -1
"""0 would send a window probe, which a peer that is not ready answers with a reset."""
_RECEIVE_QUEUE: Final = 1
_SEND_QUEUE: Final = 2

_OPTION_MSS: Final = 2
_OPTION_WINDOW_SCALE: Final = 3
_OPTION_SACK_PERMITTED: Final = 4
_OPTION_TIMESTAMPS: Final = 8

_MAXSEG_MIN: Final = 88
_MAXSEG_MAX: Final = 32767

STATE_ESTABLISHED: Final = 1
NO_RTT_YET: Final = 0xFFFFFFFF
"""``TcpInfo.min_rtt`` before the first sample."""

_INFO_BYTES: Final = 232
_WINDOW = struct.Struct("=5I")


@dataclass(frozen=True, slots=True)
class TcpInfo:
    """The part of ``struct tcp_info`` that is of use here. Times in microseconds, sizes in bytes."""

    state: int
    timestamps: bool
    sack: bool
    window_scales: tuple[int, int] | None
    """(of the windows that we receive, of those that we advertise); None: no window scaling."""
    send_mss: int
    rtt: int
    advertised_mss: int
    min_rtt: int
    retransmitted: int
    """Segments, since the connection began."""
    send_window: int


@dataclass(frozen=True, slots=True)
class RepairWindow:
    """``struct tcp_repair_window``: u32 snd_wl1, snd_wnd, max_window, rcv_wnd, rcv_wup."""

    last_update: int
    """Sequence number of the segment that last updated the send window."""
    send_window: int
    max_window: int
    receive_window: int
    receive_update: int
    """The next expected sequence number when our window was last advertised."""


@contextlib.contextmanager
def naming(call: str) -> Iterator[None]:
    """Turn an ``OSError`` of ``call`` into the ``HostError`` that names it and says what mends it."""
    try:
        yield
    except OSError as failed:
        raise _host_error(failed, call) from failed


def tcp_socket(family: socket.AddressFamily) -> socket.socket:
    """A TCP socket; never an MPTCP one, which has no repair mode."""
    with naming("socket(SOCK_STREAM, IPPROTO_TCP)"):
        return socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)


def enter_repair(connection: socket.socket) -> None:
    """Repair mode: connect() and close() change state and send nothing, and a port is bound in spite of others."""
    _set(connection, _TCP_REPAIR, _REPAIR_ON, _TCP_REPAIR_ON)


def leave_repair(connection: socket.socket) -> None:
    """From here on the kernel speaks for the socket. Nothing is sent by this itself."""
    _set(connection, _TCP_REPAIR, _REPAIR_OFF_NO_PROBE, "TCP_REPAIR off")


def set_sequence_numbers(connection: socket.socket, send_next: int, receive_next: int) -> None:
    """Before connect() only: afterwards the kernel answers EPERM."""
    for queue, sequence in ((_SEND_QUEUE, send_next), (_RECEIVE_QUEUE, receive_next)):
        _set(connection, _TCP_REPAIR_QUEUE, queue, "TCP_REPAIR_QUEUE")
        _set(connection, _TCP_QUEUE_SEQ, struct.pack("=I", sequence & 0xFFFFFFFF), "TCP_QUEUE_SEQ")


def limit_mss(connection: socket.socket, mss: int) -> None:
    """Before connect(): the largest segment that the peer takes, as far as TCP_MAXSEG can say it (88 to 32767).

    connect() in repair mode computes the size of what is sent once, from this or from the default of 536 or
    1220 bytes; the MSS of TCP_REPAIR_OPTIONS comes too late for it and only matters for path MTU discovery.
    """
    _set(connection, socket.TCP_MAXSEG, max(_MAXSEG_MIN, min(mss, _MAXSEG_MAX)), "TCP_MAXSEG")


def set_options(
    connection: socket.socket, mss: int, window_scales: tuple[int, int], sack: bool, timestamps: bool
) -> None:
    """What was agreed. ``mss`` is the peer's; ``window_scales`` as in ``TcpInfo``.

    An array of ``struct tcp_repair_opt``: u32 opt_code, u32 opt_val.
    """
    theirs, ours = window_scales
    options = struct.pack("=IIII", _OPTION_MSS, mss, _OPTION_WINDOW_SCALE, theirs | ours << 16)
    if sack:
        options += struct.pack("=II", _OPTION_SACK_PERMITTED, 0)
    if timestamps:
        options += struct.pack("=II", _OPTION_TIMESTAMPS, 0)
    _set(connection, _TCP_REPAIR_OPTIONS, options, "TCP_REPAIR_OPTIONS")


def set_timestamp(connection: socket.socket, value: int) -> None:
    """TSval of now, in milliseconds and even: the kernel takes the lowest bit as "in microseconds" (6.7)."""
    if value & 1:
        raise ValueError("an odd timestamp would make this socket's clock run in microseconds")
    _set(connection, _TCP_TIMESTAMP, struct.pack("=I", value & 0xFFFFFFFF), "TCP_TIMESTAMP")


def set_window(connection: socket.socket, window: RepairWindow) -> None:
    """Without it the send window is 0, and nothing ever flows."""
    data = _WINDOW.pack(
        window.last_update & 0xFFFFFFFF,
        window.send_window,
        window.max_window,
        window.receive_window,
        window.receive_update & 0xFFFFFFFF,
    )
    _set(connection, _TCP_REPAIR_WINDOW, data, "TCP_REPAIR_WINDOW")


def get_window(connection: socket.socket) -> RepairWindow:
    """In repair mode only."""
    with naming("getsockopt(TCP_REPAIR_WINDOW)"):
        data = connection.getsockopt(socket.IPPROTO_TCP, _TCP_REPAIR_WINDOW, _WINDOW.size)
    return RepairWindow(*_WINDOW.unpack(data))


def info(connection: socket.socket) -> TcpInfo:
    """``struct tcp_info``, whose first 232 bytes every kernel since 5.5 has."""
    with naming("getsockopt(TCP_INFO)"):
        data = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
    flags, scales = data[5], data[6]
    (send_mss,) = struct.unpack_from("=I", data, 16)
    rtt, _, _, _, advertised_mss = struct.unpack_from("=5I", data, 68)
    return TcpInfo(
        state=data[0],
        timestamps=bool(flags & 1),
        sack=bool(flags & 2),
        # Bit fields of one byte, the first in the low half on little-endian hosts.
        window_scales=(scales & 15, scales >> 4) if flags & 4 else None,
        send_mss=send_mss,
        rtt=rtt,
        advertised_mss=advertised_mss,
        min_rtt=struct.unpack_from("=I", data, 148)[0],
        retransmitted=struct.unpack_from("=I", data, 100)[0],
        send_window=struct.unpack_from("=I", data, 228)[0],
    )


def _set(connection: socket.socket, option: int, value: int | bytes, name: str) -> None:
    try:
        connection.setsockopt(socket.IPPROTO_TCP, option, value)
    except OSError as failed:
        raise _host_error(failed, f"setsockopt({name})") from failed


_ROOT: Final = "run the daemon as root, or grant it CAP_NET_ADMIN and CAP_NET_BIND_SERVICE in this network namespace"
_OTHER_STACK: Final = "let another stack be chosen: docs/POLICY.md"
_MENDS: Final[dict[int, tuple[Reason, str]]] = {
    errno.EACCES: (Reason.NO_PRIVILEGE, _ROOT),
    errno.ENOPROTOOPT: (Reason.NO_KERNEL_SUPPORT, "use a Linux kernel of 5.5 or later"),
    errno.EAFNOSUPPORT: (Reason.NO_KERNEL_SUPPORT, "enable this address family, or use the other one"),
    errno.EADDRINUSE: (
        Reason.CANNOT_INSTALL,
        "wait until the older connection between these two ports is gone, or widen net.ipv4.ip_local_port_range",
    ),
    errno.EADDRNOTAVAIL: (
        Reason.CANNOT_INSTALL,
        "use an address of this host (ip address), and a pair of ports that no live connection has",
    ),
    errno.ENETUNREACH: (Reason.CANNOT_INSTALL, "add a route to the peer (ip route)"),
    errno.EHOSTUNREACH: (Reason.CANNOT_INSTALL, "add a route to the peer (ip route)"),
    errno.EMFILE: (Reason.CANNOT_INSTALL, "raise the limit of open files (ulimit -n)"),
    errno.ENFILE: (Reason.CANNOT_INSTALL, "raise fs.file-max"),
    errno.ENOBUFS: (Reason.CANNOT_INSTALL, "free memory, or raise net.ipv4.tcp_mem"),
    errno.ENOMEM: (Reason.CANNOT_INSTALL, "free memory, or raise net.ipv4.tcp_mem"),
}


def _host_error(failed: OSError, call: str) -> HostError:
    number = failed.errno or 0
    reason, mend = _MENDS.get(number, (Reason.CANNOT_INSTALL, _OTHER_STACK))
    # Only where repair mode begins does EPERM speak of privileges; later it means a socket in the wrong state.
    if number == errno.EPERM and _TCP_REPAIR_ON in call:
        reason, mend = Reason.NO_PRIVILEGE, _ROOT
    return HostError(reason, f"{call}: {os.strerror(number)} ({errno.errorcode.get(number, number)})", mend)
