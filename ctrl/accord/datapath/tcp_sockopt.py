# SPDX-License-Identifier: Apache-2.0
"""TCP sockets: what the kernel says of one (linux/tcp.h), and what its refusals mean.

Every error is a ``HostError`` that names the call and what mends it.
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

STATE_ESTABLISHED: Final = 1
NO_RTT_YET: Final = 0xFFFFFFFF
"""``TcpInfo.min_rtt`` before the first sample."""

_INFO_BYTES: Final = 232


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
    acknowledged: int
    """Bytes of ours, since the connection began."""
    received: int
    """Bytes, in order, since the connection began."""


@contextlib.contextmanager
def naming(call: str) -> Iterator[None]:
    """Turn an ``OSError`` of ``call`` into the ``HostError`` that names it and says what mends it."""
    try:
        yield
    except OSError as failed:
        raise host_error(failed, call) from failed


def tcp_socket(family: socket.AddressFamily) -> socket.socket:
    """A TCP socket; never an MPTCP one, which has no repair mode."""
    with naming("socket(SOCK_STREAM, IPPROTO_TCP)"):
        return socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)


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
        acknowledged=struct.unpack_from("=Q", data, 120)[0],
        received=struct.unpack_from("=Q", data, 128)[0],
    )


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


def host_error(failed: OSError, call: str) -> HostError:
    """What ``call`` failed with, and what mends it."""
    number = failed.errno or 0
    reason, mend = _MENDS.get(number, (Reason.CANNOT_INSTALL, _OTHER_STACK))
    # Only where repair mode begins does EPERM speak of privileges; later it means a socket in the wrong state.
    if number == errno.EPERM and "TCP_REPAIR on" in call:
        reason, mend = Reason.NO_PRIVILEGE, _ROOT
    return HostError(reason, f"{call}: {os.strerror(number)} ({errno.errorcode.get(number, number)})", mend)
