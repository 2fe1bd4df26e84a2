# SPDX-License-Identifier: Apache-2.0
"""Keeps the data path on its interface, whatever becomes of that while we run.

| the interface              | what is done                                                              |
|----------------------------|---------------------------------------------------------------------------|
| goes down, comes up        | nothing: rings and program outlast it, and sockets send what a ring cannot |
| gets another name          | nothing, but it is called by it; the program sits on the index             |
| another MTU, or queues     | attached anew: frames and rings were made for the old ones                 |
| is deleted                 | the sockets alone, until there is one of the configured name again         |
| comes back (or another one)| attached to it                                                             |
| has our program detached   | the best back end below XDP: whoever used force wants the place for something |

Meanwhile the kernel delivers our packets to the UDP sockets: nothing depends on the rings but speed. An attachment
that fails is tried again, each time after twice the pause, as long as the interface is there.

virtio_net counts the queues that it sends XDP's frames by among its own, as long as a native program is there: what
comes and goes with our program is no change.
"""

from __future__ import annotations

import asyncio
import logging

from accord.controller.endpoint import Endpoint
from accord.datapath import tcp_numbers
from accord.datapath.link import LinkBell, Netdev, look, name_of
from accord.datapath.port import Rung
from accord.wire.errors import AccordError

log = logging.getLogger("accord.link")

_TICK_SECONDS = 1.0
"""The kernel tells nobody of a queue count that changed; two system calls a second find out."""
_MAX_PAUSE_SECONDS = 60.0


def _made_for(netdev: Netdev | None) -> tuple[int, int, int] | None:
    """What rings and program depend on. An Ethernet address is followed by the heartbeat."""
    return None if netdev is None else (netdev.index, netdev.mtu, netdev.queues)


def _is_same(before: Netdev | None, now: Netdev) -> bool:
    """The interface is what it was, but for what may come and go with a program: its queues."""
    return before is not None and (before.index, before.mtu) == (now.index, now.mtu)


class LinkKeeper:
    """Watches the interface from now until ``close``. Unless the endpoint is ``attached`` to it, does that first."""

    def __init__(self, endpoint: Endpoint, configured: str, *, attached: bool = True) -> None:
        self._endpoint = endpoint
        self._configured = configured
        self._loop = asyncio.get_running_loop()
        self._netdev = self._look(None) if attached else None
        self._failed = False
        self._pause = _TICK_SECONDS
        self._next_try = 0.0
        self.changes = 0
        """How often the data path was attached anew, or taken off an interface that was gone."""
        self._bell = LinkBell()
        self._loop.add_reader(self._bell.fileno(), self._rung)
        self._timer = self._loop.call_later(_TICK_SECONDS, self._tick)
        if not attached:
            self.check()

    @property
    def name(self) -> str:
        """What the interface is called now, or was when it was last there."""
        return self._netdev.name if self._netdev is not None else self._configured

    @property
    def present(self) -> bool:
        """There is an interface to attach to."""
        return self._netdev is not None

    def close(self) -> None:
        """Stop watching."""
        self._loop.remove_reader(self._bell.fileno())
        self._bell.close()
        self._timer.cancel()

    def _look(self, known: Netdev | None) -> Netdev | None:
        name = (None if known is None else name_of(known.index)) or self._configured
        try:
            return look(name)
        except AccordError:
            return None

    def _rung(self) -> None:
        self._bell.silence()
        self.check()

    def _tick(self) -> None:
        self._timer = self._loop.call_later(_TICK_SECONDS, self._tick)
        self.check()

    def check(self) -> None:
        """Look at the interface, and act on what changed."""
        before, now = self._netdev, self._look(self._netdev)
        self._netdev = now
        if before is not None and now is not None and before.name != now.name:
            log.warning("interface %s is called %s now", before.name, now.name)
        if now is not None and _is_same(before, now) and not self._endpoint.port.attached:
            self._give_way(now.name)
            return
        if _made_for(before) != _made_for(now):
            self._pause = _TICK_SECONDS
        elif not (self._failed and now is not None and self._loop.time() >= self._next_try):
            return
        self._reattach(before, now)

    def _give_way(self, interface: str) -> None:
        self.changes += 1
        self._endpoint.reopen(interface, without_xdp=True)
        log.warning(
            "%s: the XDP program was detached by force, and is not attached again before the interface changes or the "
            "daemon is started anew; going on with %s",
            interface,
            self._endpoint.port.report.rung.name,
        )

    def _reattach(self, before: Netdev | None, now: Netdev | None) -> None:
        tcp_numbers.forget()  # an MSS follows from the MTU
        self.changes += 1
        self._failed = False
        if now is None:
            log.warning("interface %s is gone: negotiating over sockets until it is back", self._configured)
            self._endpoint.reopen(None, sockets_only=True)
            return
        try:
            self._endpoint.reopen(now.name)
        except AccordError as failure:
            self._failed = True
            self._next_try = self._loop.time() + self._pause
            log.warning("%s: %s; over sockets meanwhile, tried again in %g s", now.name, failure, self._pause)
            self._pause = min(2 * self._pause, _MAX_PAUSE_SECONDS)
            return
        report = self._endpoint.port.report
        if report.rung is Rung.XDP_NATIVE and (after := self._look(now)) is not None and _is_same(now, after):
            self._netdev = after
        what = "is there" if before is None else f"changed (MTU {now.mtu}, {now.queues} receive queues)"
        log.warning("interface %s %s: attached, %s, %d rings", now.name, what, report.rung.name, report.queues)
        for rung, refusal in report.refusals.items():
            log.warning("not %s: %s (%s)", rung.name, refusal.detail, refusal.reason.name)
