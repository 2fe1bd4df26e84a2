# SPDX-License-Identifier: Apache-2.0
"""Stream sockets of protocols that not every kernel has, bound to a free port."""

from __future__ import annotations

import socket
from collections.abc import Callable

from accord.datapath.tcp_sockopt import naming
from accord.wire.errors import AccordError


def bound_socket(local: str, protocol: int, name: str, lacking: Callable[[OSError], AccordError]) -> socket.socket:
    """Non-blocking, bound to a free port of this address, textual.

    ``lacking``: what it means that the kernel makes no such socket, which is raised. ``HostError`` (CANNOT_INSTALL)
    otherwise, with ``name``.
    """
    family = socket.AF_INET6 if ":" in local else socket.AF_INET
    try:
        made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol)
    except OSError as refused:
        raise lacking(refused) from refused
    try:
        with naming(f"bind({local}, {name} port any)"):
            made.bind(socket.getaddrinfo(local, 0, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)[0][4])
    except BaseException:
        made.close()
        raise
    return made
