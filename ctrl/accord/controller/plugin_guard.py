# SPDX-License-Identifier: Apache-2.0
"""The daemon's guard over plug-ins: a clock that interrupts them, and a memory of which ones keep failing.

Time. A timer of the process (setitimer(2), SIGALRM) runs as long as calls are made. When it fires twice in one and the
same call, or once in the call that it was set in, ``Overrun`` is raised there: after ``seconds`` at the earliest, twice
that at the latest. Whoever calls pays for two stores, as the timer is set once for all the calls of ``seconds``. A
signal is handled between two instructions of Python: code in C that does not return cannot be stopped. Then the XDP
program passes everything after HEARTBEAT_MS, and whoever watches over the daemon ends it (``daemon.life``).

Failures. What a peer's bytes may have caused must not cost everybody the protocol: an exception in ``respond`` or
``advance`` costs that node alone. What hurts everybody, time and memory, or happens without a peer's doing (``open``,
``propose``), switches the plug-in off when it comes ``IN_A_ROW``: for ``OFF_SECONDS``, doubled each time, until it
works.

Refusals. They are a session's right, and counted. One by a fault of ours or of this host's is said, each kind once a
minute: the peer is told no more of it than its reason.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import Any, Final

from accord.controller.race.fallback_log import Seldom
from accord.negotiation.guard import Guard, Overrun, Unsound
from accord.negotiation.interface import Refuse, Role
from accord.protocols.services import CarrierSession, Plugin, Services
from accord.wire.constants import Party, Reason, protocol_name
from accord.wire.errors import error

log = logging.getLogger("accord.plugins")

IN_A_ROW: Final = 5
OFF_SECONDS: Final = 10.0
MOST_OFF_SECONDS: Final = 600.0

_OWN_CALLS: Final = frozenset({"open", "propose"})
"""What no peer has had a part in."""


@dataclass(slots=True)
class _Trouble:
    """Of one plug-in that fails at the moment."""

    in_a_row: int = 0
    off_until: float = 0.0
    times_off: int = 0
    last: str = ""


class PluginGuard(Guard):
    """Of one controller. Counts from the start; watches the time between ``start`` and ``stop``."""

    def __init__(self, now: Callable[[], float], seconds: float) -> None:
        """``seconds``: that a call may take; 0: any time."""
        super().__init__()
        self.failures: Counter[tuple[int, str, Reason]] = Counter()
        """By protocol, method and reason."""
        self.refusals: Counter[tuple[int, str, Reason]] = Counter()
        """Likewise, of what sessions refused by themselves."""
        self._seldom = Seldom(now)
        self._now = now
        self._seconds = seconds
        self._seen = 0
        self._troubled: dict[int, _Trouble] = {}
        self._told: set[tuple[int, str, Reason]] = set()
        self._before: tuple[Any, tuple[float, float]] | None = None

    # ---- time ----

    def start(self) -> None:
        """Watch, in this thread, which has to be the main one. SIGALRM and the process's timer are ours until ``stop``.

        Raises ``OSError`` where the timer cannot be had; nothing has changed then.
        """
        assert threading.current_thread() is threading.main_thread(), "signals are handled there"
        if self._seconds <= 0 or self._before is not None:
            return
        left = signal.setitimer(signal.ITIMER_REAL, 0)
        self._before = signal.signal(signal.SIGALRM, self._tick), left
        self.armed, self.watches = False, True

    def stop(self) -> None:
        """Give the signal and the timer back; twice does no harm."""
        if self._before is None:
            return
        handler, left = self._before
        self._before = None
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, *left)
        self.armed, self.watches = True, False

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """``start``, then ``stop``."""
        self.start()
        try:
            yield
        finally:
            self.stop()

    def arm(self) -> None:
        """The timer fires in ``seconds``, and sees whether this call is still the latest one."""
        self.armed, self._seen = True, self.serial
        signal.setitimer(signal.ITIMER_REAL, self._seconds)

    def _tick(self, number: int, frame: FrameType | None) -> None:
        if not self.running:  # whoever calls next sets it again
            self.armed = False
            return
        stuck = self.serial == self._seen
        self.arm()
        if stuck:
            raise Overrun

    # ---- failures ----

    def open(self, plugin: Plugin, role: Role, services: Services) -> CarrierSession:
        """A session. Raises ``AccordError``: PLUGIN_FAILED and its like also while the plug-in is switched off."""
        if (trouble := self._troubled.get(plugin.protocol)) is not None and trouble.off_until > self._now():
            raise error(Reason.PLUGIN_FAILED, f"{plugin.name} is switched off: {trouble.last}")
        opened: list[CarrierSession] = []
        # What a plug-in says of itself is read here once, so that it fails here, and not in the middle of a walk.
        failure = self._run(plugin, "open", partial(_open, plugin, role, services, opened), _ignore)
        if failure is not None:
            raise error(failure.reason, failure.detail)
        return opened[0]

    def usable(self, plugins: Mapping[str, Plugin]) -> Mapping[str, Plugin]:
        """Without those that are switched off."""
        if not self._troubled:
            return plugins
        off = self.off()
        return {name: plugin for name, plugin in plugins.items() if plugin.protocol not in off}

    def off(self) -> dict[int, tuple[float, str]]:
        """Switched off now, by protocol: for how many seconds more, and why."""
        now = self._now()
        return {
            protocol: (trouble.off_until - now, trouble.last)
            for protocol, trouble in self._troubled.items()
            if trouble.off_until > now
        }

    def failed(self, protocol: int, method: str, refusal: Refuse) -> None:
        """Count it; say it once of each kind; switch the plug-in off when it is one too many."""
        key = (protocol, method, refusal.reason)
        self.failures[key] += 1
        if key not in self._told and len(self._told) < 1000:
            self._told.add(key)
            log.warning("plug-in %s: %s: %s", protocol_name(protocol), refusal.reason.name, refusal.detail)
        if refusal.reason is Reason.PLUGIN_FAILED and method not in _OWN_CALLS:
            return
        trouble = self._troubled.setdefault(protocol, _Trouble())
        self.troubled = True
        trouble.in_a_row += 1
        trouble.last = f"{refusal.reason.name}, {refusal.detail}"
        if trouble.in_a_row >= IN_A_ROW:
            seconds = min(OFF_SECONDS * 2**trouble.times_off, MOST_OFF_SECONDS)
            trouble.times_off, trouble.off_until = trouble.times_off + 1, self._now() + seconds
            trouble.in_a_row = IN_A_ROW - 1  # the next failure, after that time, is one too many again
            log.error(
                "plug-in %s is switched off for %g s, after %d failures in a row, the last: %s",
                protocol_name(protocol), seconds, IN_A_ROW, trouble.last,
            )  # fmt: skip

    def refused(self, protocol: int, method: str, refusal: Refuse) -> None:
        """Count it; say it where somebody here could mend it."""
        key = (protocol, method, refusal.reason)
        self.refusals[key] += 1
        if refusal.reason.party not in (Party.OURS, Party.HOST) or (left_out := self._seldom.may(key)) is None:
            return
        again = f"; {left_out} more since this was last said" if left_out else ""
        log.warning(
            "%s refused (%s): %s: %s%s", protocol_name(protocol), method, refusal.reason.name,
            refusal.detail or refusal.reason.text, again,
        )  # fmt: skip

    def succeeded(self, protocol: int, method: str) -> None:
        """What it did wrong is forgotten, once it has done the same kind of thing right."""
        if method in _PROVING:
            self._troubled.pop(protocol, None)
            self.troubled = bool(self._troubled)


_PROVING: Final = frozenset({"propose", "respond", "resume", "advance"})
"""A plug-in that can be opened and told that it is out has not shown yet that it works."""


def _open(plugin: Plugin, role: Role, services: Services, opened: list[CarrierSession]) -> None:
    session = plugin.open(role, services)
    if session.protocol != plugin.protocol or not isinstance(session.secure, bool):
        raise Unsound("opened a session of another protocol")
    opened.append(session)


def _ignore(_: object) -> None:
    return None


def describe(guard: PluginGuard) -> list[dict[str, Any]]:
    """For ``accord status``: plug-ins that have failed, how often at what, and those switched off."""
    off = guard.off()
    return [
        {
            "protocol": protocol_name(protocol),
            "failures": {
                f"{method} {reason.name}": count
                for (each, method, reason), count in sorted(guard.failures.items())
                if each == protocol
            },
            "off_for_s": round(off[protocol][0], 1) if protocol in off else 0,
            "why_off": off[protocol][1] if protocol in off else "",
        }
        for protocol in sorted({protocol for protocol, _, _ in guard.failures})
    ]
