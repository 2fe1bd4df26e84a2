# SPDX-License-Identifier: Apache-2.0
"""What the Domain Name System says of a service beside its address, remembered until it is used: RFC 1263's other way.

A hint, and nobody need have signed it: it can make a connection patient, once, for a bounded time. It never keeps a
proposal from being sent, a plain connection from being opened, or anything from being authenticated. The question
leaves beside that for the address and is not waited for: an answer that is late helps the next connection.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from accord.controller.peers.memory import Knowledge
from accord.protocols.sealed.configuration import KeyConfiguration

log = logging.getLogger("accord.dns")

_ASKING: Final = 16
"""Questions at once; more are not asked."""
_LIMIT: Final = 1024
"""Services; the oldest answer goes first."""
MIN_SECONDS, MAX_SECONDS = 60.0, 24 * 3600.0
"""An answer, also that there is none, is used for its time to live between these."""

INNER_KEY: Final = 65281
"""Of an HTTPS record, for private use (RFC 9460, section 14.3.2): key configurations for inner negotiations."""

Service = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Hint:
    """Of one service."""

    accord: bool = False
    quic: bool = False
    keys: tuple[KeyConfiguration, ...] = ()
    """What inner negotiations with it may be sealed to."""


NOTHING: Final = Hint()

Lookup = Callable[[str, int], Awaitable[tuple[Hint, float]]]
"""Asks for a service's hint; its time to live in seconds beside it. Whatever it raises is no hint."""


class DnsHints:
    """``now``: seconds. ``lookup``: ``dns_lookup.Https``."""

    def __init__(self, now: Callable[[], float], lookup: Lookup) -> None:
        self._now = now
        self._lookup = lookup
        self._known: dict[Service, tuple[float, Hint]] = {}  # oldest first
        self._asking: dict[Service, asyncio.Task[None]] = {}

    def ask(self, host: str, port: int) -> None:
        """Have the hint ready for whoever comes later, unless it is known or being asked for."""
        service = _service(host, port)
        until, _ = self._known.get(service, (0.0, NOTHING))
        if self._now() < until or service in self._asking or len(self._asking) >= _ASKING:
            return
        task = asyncio.get_running_loop().create_task(self._find(service))
        self._asking[service] = task
        task.add_done_callback(lambda _: self._asking.pop(service, None))

    def knows(self, host: str, port: int) -> Hint:
        """What has been answered so far."""
        until, hint = self._known.get(_service(host, port), (0.0, NOTHING))
        return hint if self._now() < until else NOTHING

    def refute(self, host: str, port: int) -> None:
        """Accord was hinted at, and waited for in vain: not again before the answer has to be asked for anew."""
        service = _service(host, port)
        if service in self._known:
            until, hint = self._known[service]
            self._known[service] = (until, dataclasses.replace(hint, accord=False))

    def close(self) -> None:
        """Ask no more."""
        for task in list(self._asking.values()):
            task.cancel()

    async def _find(self, service: Service) -> None:
        try:
            hint, seconds = await self._lookup(*service)
        except Exception as failure:  # no server, no such name, or whatever a server may have made a parser do
            log.debug("HTTPS record of %s port %d: %s: %s", *service, type(failure).__name__, failure)
            hint, seconds = NOTHING, MIN_SECONDS
        self._known.pop(service, None)
        self._known[service] = (self._now() + min(max(seconds, MIN_SECONDS), MAX_SECONDS), hint)
        while len(self._known) > _LIMIT:
            del self._known[next(iter(self._known))]


def _service(host: str, port: int) -> Service:
    return host.rstrip(".").lower(), port


def advised(known: Knowledge, hint: Hint) -> Knowledge:
    """With a hint, where the peer itself has not shown anything yet: its answer is worth the bounded wait."""
    if not hint.accord or known.accord is not None or not known.propose:
        return known
    return dataclasses.replace(known, answers_late=True)
