# SPDX-License-Identifier: Apache-2.0
"""Addresses that mean nothing without their interface: ``fe80::1%eth0`` (RFC 4007, section 11).

Python takes a zone only as a number beside the address, and gives it back only so.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

from accord.datapath.netdev import interface_index

SocketAddress = tuple[str, int] | tuple[str, int, int, int]
"""As ``socket`` has them: (host, port), or (host, port, flow label, scope ID)."""


def socket_address(host: str, port: int) -> SocketAddress:
    """For ``bind`` and ``connect``. Raises ``UserError`` (``NO_INTERFACE``) for a zone that is not there."""
    bare, _, zone = host.partition("%")
    if not zone:
        return host, port
    return bare, port, 0, int(zone) if zone.isdecimal() else interface_index(zone)


def host_of(address: Sequence[Any]) -> str:
    """The textual host of a socket address, with its zone if it has one."""
    host = str(address[0]).partition("%")[0]
    scope = address[3] if len(address) == 4 else 0
    return f"{host}%{socket.if_indextoname(scope)}" if scope else host
