# SPDX-License-Identifier: Apache-2.0
"""How long a TCP connection of ours believes in a peer that says nothing.

Nobody sent a SYN for a negotiated connection, so nobody timed one out either: a peer that vanished around its commit
would leave an idle socket, and the bridge behind it, for ever, and one with data in flight for the quarter of an hour
that ``tcp_retries2`` comes to. So each is watched:

    idle for 60 s           a probe (RFC 9293, section 3.8.4), and then one every 10 s until something comes back;
                            the sixth that is not answered ends the connection with ETIMEDOUT, after two minutes
    data not acknowledged   it is repeated at least every 10 s rather than every 120 s, so that the usual number of
                            repetitions ends it after 113 s; RFC 9293, section 3.8.3 wants 100 s at the least

The second needs Linux 6.15; before that such a connection has its quarter of an hour. TCP_USER_TIMEOUT is no
substitute: the kernel counts by it from the first probe of a closed window, answered or not, and would end the
connection of a peer that lives and only does not read for a while.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Final

IDLE_SECONDS: Final = 60
INTERVAL_SECONDS: Final = 10
PROBES: Final = 6
MAX_RTO_SECONDS: Final = 10

_TCP_RTO_MAX_MS: Final = 44
"""<linux/tcp.h>, Linux 6.15."""


def watch(connection: socket.socket) -> None:
    """Have the kernel notice a peer that vanished. What it does not know is left as it is."""
    for option, value in (
        (socket.TCP_KEEPIDLE, IDLE_SECONDS),
        (socket.TCP_KEEPINTVL, INTERVAL_SECONDS),
        (socket.TCP_KEEPCNT, PROBES),
        (_TCP_RTO_MAX_MS, MAX_RTO_SECONDS * 1000),
    ):
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, option, value)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
