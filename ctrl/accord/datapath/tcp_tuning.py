# SPDX-License-Identifier: Apache-2.0
"""The congestion control of kernel sockets, and what the kernel says of a connection's options (tcp(7)).

Only algorithms that ``net.ipv4.tcp_allowed_congestion_control`` lists: others take CAP_NET_ADMIN, which the process
that handles packets does not have.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import Final

from accord.datapath import tcp_sockopt

_NAME_BYTES: Final = 16  # TCP_CA_NAME_MAX, linux/tcp.h
_SETTINGS: Final = "/proc/sys/net/ipv4/"


def algorithms() -> tuple[str, ...]:
    """Those that any program may use in this network namespace, the default first."""
    default, allowed = _words("tcp_congestion_control"), _words("tcp_allowed_congestion_control")
    return tuple(dict.fromkeys((*default, *allowed)))


def use(connection: socket.socket, algorithm: str) -> None:
    """From now on ``algorithm`` controls what this side sends. Raises ``HostError`` (CANNOT_INSTALL)."""
    with tcp_sockopt.naming(f"setsockopt(TCP_CONGESTION, {algorithm})"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, algorithm.encode("ascii"))


def algorithm(connection: socket.socket) -> str:
    """The one that controls what this side sends."""
    with tcp_sockopt.naming("getsockopt(TCP_CONGESTION)"):
        name = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, _NAME_BYTES)
    return name.partition(b"\0")[0].decode("ascii")


def describe(connection: socket.socket) -> Mapping[str, object]:
    """What the connection has, as the kernel says it: options that both ends agreed on, sizes in bytes."""
    info = tcp_sockopt.info(connection)
    # An installed connection without window scaling shows scales of 0 on both sides, which is the same.
    scales = None if info.window_scales == (0, 0) else info.window_scales
    return {
        "sack": info.sack,
        "timestamps": info.timestamps,
        "window_scale": None if scales is None else scales[1],
        "peers_window_scale": None if scales is None else scales[0],
        "send_mss": info.send_mss,
        "congestion": algorithm(connection),
    }


def _words(name: str) -> list[str]:
    """Of a setting; none where this kernel has none."""
    try:
        descriptor = os.open(_SETTINGS + name, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return []
    try:
        return os.read(descriptor, 4096).decode("ascii").split()
    finally:
        os.close(descriptor)
