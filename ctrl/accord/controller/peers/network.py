# SPDX-License-Identifier: Apache-2.0
"""Notices that this host has come to another network: its default routes lead to other gateways.

Own addresses say the same more often (``Peers.knows`` has them), but the next network may give out the same one. Looked
at now and then, since nothing depends on it but what is remembered of paths.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

log = logging.getLogger("accord.peers")

LOOK_SECONDS: Final = 5.0
_PROC: Final = Path("/proc/thread-self/net")
_MAX_BYTES: Final = 1 << 16
"""Of a routing table. The IPv4 one begins with the default routes; of IPv6 one that is longer, none is looked for."""

Gateways = frozenset[tuple[str, str]]
"""Interface, and the gateway's address as proc(5) has it."""


def gateways(net: Path = _PROC) -> Gateways:
    """Of all default routes. ``net``: the files ``route`` and ``ipv6_route`` of proc(5); missing ones have none."""
    found = set()
    for line in _lines(net / "route")[1:]:
        # Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT
        if len(line) == 11 and line[1] == line[7] == "0" * 8 and line[2] != "0" * 8:
            found.add((line[0], line[2]))
    for line in _lines(net / "ipv6_route", whole=True):
        # destination length source length gateway metric references use flags interface
        if len(line) == 10 and line[0] == "0" * 32 and line[1] == "00" and line[4] != "0" * 32:
            found.add((line[9], line[4]))
    return frozenset(found)


def _lines(path: Path, *, whole: bool = False) -> list[list[str]]:
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES + 1)
    except OSError:
        return []
    if whole and len(text) > _MAX_BYTES:
        return []
    return [line.split() for line in text.decode("ascii", "replace").splitlines()]


class NetworkWatch:
    """Calls ``changed`` when the gateways are others, from ``start`` to ``close``.

    No gateway at all is no network: who comes back to the same one has been nowhere else.
    """

    def __init__(self, changed: Callable[[], None], look: Callable[[], Gateways] = gateways) -> None:
        self._changed = changed
        self._look = look
        self._last: Gateways = frozenset()
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Look now, and every few seconds."""
        self.check()
        self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self.start)

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def check(self) -> None:
        """Look."""
        now = self._look()
        if now and self._last and now != self._last:
            log.info("the default routes have changed: what was known of paths is forgotten")
            self._changed()
        self._last = now or self._last
