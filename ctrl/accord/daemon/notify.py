# SPDX-License-Identifier: Apache-2.0
"""The service manager's notification protocol, sd_notify(3): a datagram of KEY=VALUE lines to a Unix socket."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping

_ADDRESS = "NOTIFY_SOCKET"
_WATCHDOG = "WATCHDOG_USEC"
_WATCHDOG_PID = "WATCHDOG_PID"


def notify(*lines: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Tell the service manager, for instance ``READY=1``; whether there is one that was told."""
    address = environment.get(_ADDRESS, "")
    if address[:1] not in ("/", "@"):
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.sendto("\n".join(lines).encode(), socket.MSG_NOSIGNAL, address)
        return True
    return False


def watchdog_seconds(environment: Mapping[str, str] = os.environ) -> float | None:
    """How long the service manager waits for ``WATCHDOG=1`` (sd_watchdog_enabled(3)); None: for ever."""
    microseconds, pid = environment.get(_WATCHDOG, ""), environment.get(_WATCHDOG_PID)
    if not microseconds.isdecimal() or int(microseconds) == 0 or (pid is not None and pid != str(os.getpid())):
        return None
    return int(microseconds) / 1_000_000
