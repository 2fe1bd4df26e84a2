# SPDX-License-Identifier: Apache-2.0
"""One engine on one port, driven by asyncio: packets in and out, events to whoever owns the transaction."""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol as Interface

from accord.controller.load.watch import LevelLog
from accord.controller.udp_sockets import UdpSockets
from accord.datapath import clock
from accord.datapath.attach import plan
from accord.datapath.cookies import CookieKey, ring_of
from accord.datapath.engine import Engine, Event, EventKind, Level
from accord.datapath.path import Path
from accord.datapath.port import Port, Rung, Spare
from accord.wire.constants import Limit, Reason
from accord.wire.errors import error

log = logging.getLogger("accord.endpoint")

_HEARTBEAT_SECONDS = Limit.HEARTBEAT_MS / 1000 / 5
_EVENTS_PER_SIGN = 32
# One burst of work before other tasks get their turn: so many rounds, or so long.
_ROUNDS = 64
_TURN_US = 4_000
"""What a connection that is up needs of the process takes it a dozen turns, while a flood fills each of them."""
_POLL_US = 1000
"""Of work amid a burst of events, after which it is looked who has come: a ring has 2048 packets, and a flood brings as
many in a few milliseconds."""
_POLLS = 32


class Owner(Interface):
    """Whoever a transaction belongs to."""

    def on_event(self, event: Event) -> None:
        """An engine event of this transaction."""

    def on_unreachable(self) -> None:
        """ICMP said that the peer or its port cannot be reached (a hint: it may be forged)."""

    def on_stop(self) -> None:
        """This host ends the transaction: say so to the peer, if there is anything to say."""

    def close(self) -> None:
        """The transaction is over: release it."""


@dataclass(frozen=True, slots=True)
class EndpointConfig:
    """What the data path is to be. Zero limits take the engine's defaults."""

    interface: str | None = None
    back_end: str = "auto"
    attach: str = "auto"
    any_port: bool = False
    busy_poll_us: int = 0
    transactions: int = 0
    unproven: int = 0
    buffers: int = 0
    slots: int = 0
    strangers_per_second: int = 0
    unproven_per_network: int = 0
    proven_per_network: int = 0
    least_level: Level = Level.STATE
    sockets_only: bool = False
    """Attach to nothing until ``reopen``."""
    spare: Spare | None = None
    """An XDP program that is loaded already."""


class Endpoint:
    """Owns the data path. ``opened`` is asked for an owner when a peer begins a negotiation."""

    def __init__(
        self, config: EndpointConfig, supported: Iterable[int], opened: Callable[[Event], Owner | None]
    ) -> None:
        self.engine = Engine(
            transactions=config.transactions,
            unproven=config.unproven,
            buffers=config.buffers,
            slots=config.slots,
            seed=clock.now_us() & 0xFFFFFFFF,
            machine=int.from_bytes(secrets.token_bytes(4), "big"),
            strangers_per_second=config.strangers_per_second,
            unproven_per_network=config.unproven_per_network,
            proven_per_network=config.proven_per_network,
        )
        self.engine.level(clock.now_us(), config.least_level)
        self._levels = LevelLog()
        self.engine.support(supported)
        self._config = config
        self.plan = plan(config.back_end, config.attach, config.interface)
        self.port = Port.open(
            config.interface,
            self.plan.rungs[0],
            self.plan.rungs[-1],
            config.any_port,
            busy_poll_us=config.busy_poll_us,
            skip=self.plan.skipped,
            sockets_only=config.sockets_only,
            spare=config.spare,
        )
        if self.port.report.busy_poll_refusal is not None:
            log.warning("no busy polling: %s", self.port.report.busy_poll_refusal.detail)
        self.reopened: Callable[[], None] = lambda: None
        """Called when the port has left its interface or climbed again."""
        self.met_stranger: Callable[[Event], None] = lambda event: None
        """Called with STRANGER and RETURNED, which belong to no transaction."""
        self.beaten: Callable[[], None] = lambda: None
        """Called with each heartbeat."""
        self._loop = asyncio.get_running_loop()
        self._opened = opened
        self._owners: dict[int, Owner] = {}
        self.sockets = UdpSockets(self.port, self._turn, self._paths, self._safely)
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0
        """When it fires, at the latest when the engine has something to do: its clock, microseconds."""
        self._events: deque[Event] = deque()
        """Those that the last turn was too short for."""
        self._pumping = False
        self._kicked = False
        self._resuming = False
        self._closed = False
        self._fds: list[int] = []
        self._read_rings()
        self._beat()

    # ---- strangers ----

    def cookies(self, keys: Sequence[CookieKey], slot: int) -> None:
        """Ask strangers for cookies from now on, made with the first of these keys in this time slot."""
        ring = ring_of(keys, slot)
        self.engine.cookies(ring)
        self.port.cookies(ring)
        self.port.follow(self.engine, clock.now_us())  # the XDP program may answer from now on

    # ---- the interface ----

    def reopen(self, interface: str | None, *, sockets_only: bool = False, without_xdp: bool = False) -> None:
        """Leave the interface and attach to ``interface``; negotiations in flight go on, over the sockets meanwhile.

        ``sockets_only``: stay on the lowest rung, attached to nothing; ``without_xdp``: take the best below XDP. Raises
        ``AccordError`` when no wanted rung can be reached: then too the sockets are served, and the kernel delivers to
        them what no ring takes.
        """
        for fd in self._fds:
            self._loop.remove_reader(fd)
        self._fds = []
        self.port.quiet()
        self.pump()  # what the rings hold would go with them
        try:
            if interface is not None:  # what is there now may have another driver
                self.plan = plan(self._config.back_end, self._config.attach, interface)
            rungs = self.plan.rungs
            if without_xdp:
                rungs = tuple(rung for rung in rungs if rung >= Rung.PACKET) or (Rung.UDP,)
            self.port.reopen(interface, rungs=rungs, sockets_only=sockets_only)
        finally:
            self._read_rings()
            self.kick()
            self.reopened()

    def _read_rings(self) -> None:
        self._fds = self.port.fds()
        for fd in self._fds:
            self._loop.add_reader(fd, self._turn)

    def share(self, port: int) -> None:
        """Take negotiation packets on a UDP port that is another program's.

        Raises ``HostError`` (NO_KERNEL_SUPPORT) where that cannot be done.
        """
        if self.port.report.rung is Rung.UDP and not self._config.sockets_only:
            raise error(
                Reason.NO_KERNEL_SUPPORT,
                f"UDP port {port}: nothing can be picked from another program's socket",
                "give the daemon an interface and a back end with frames (af_xdp or af_packet)",
            )
        self.port.share(port)

    # ---- transactions ----

    def adopt(self, handle: int, owner: Owner) -> None:
        """From now on events of ``handle`` go to ``owner``."""
        self._owners[handle] = owner

    def release(self, handle: int, linger: float = 0.0) -> None:
        """The transaction is over; the engine answers its retransmissions for ``linger`` seconds, if it has room."""
        self._owners.pop(handle, None)
        self.engine.close(clock.now_us(), handle, int(linger * 1_000_000))
        self.kick()

    def _paths(self) -> list[Path]:
        infos = (self.engine.info(handle) for handle in self._owners)
        return [info.path for info in infos if info is not None]

    @property
    def in_flight(self) -> int:
        """Transactions that somebody here still has something to do with; not those that linger."""
        return len(self._owners)

    def stop(self, port: int | None = None) -> None:
        """End all transactions, or those of one local port, and tell their peers.

        What there is to tell has left when this returns, once: nobody stays to repeat it.
        """
        if port is None:
            self.port.suppress(False)  # a proposal that comes now may find nobody
        chosen = [
            owner
            for handle, owner in self._owners.items()
            if port is None or ((info := self.engine.info(handle)) is not None and info.path.local_port == port)
        ]
        for owner in chosen:
            self._safely(owner.on_stop)
        self.pump()
        for owner in chosen:
            self._safely(owner.close)

    # ---- the pump ----

    def kick(self) -> None:
        """There is something to send: pump soon (at once for callers outside of the pump's own round)."""
        if not self._pumping and not self._kicked and not self._closed:
            self._kicked = True
            self._loop.call_soon(self._turn)

    def pump(self) -> None:
        """Move packets and events until there are none, then set the timer."""
        self._work(None)

    def _turn(self) -> None:
        """The same for no longer than others can wait, once between two looks at what else is ready."""
        if not self._resuming:
            self._work(clock.now_us() + _TURN_US)

    def _resume(self) -> None:
        self._resuming = False
        self._turn()

    def _resume_soon(self) -> None:
        if not self._resuming:
            self._resuming = True
            self._loop.call_soon(self._resume)

    def _work(self, ends: int | None) -> None:
        if self._pumping or self._closed:
            return
        self._pumping, self._kicked = True, False
        try:
            for _ in range(_ROUNDS):
                moved = 0
                if not self._events:
                    moved = self.port.poll(self.engine, clock.now_us())
                    self._events.extend(self.engine.events())
                had_events = bool(self._events)
                self._dispatch_all(ends)
                datagrams = self.port.datagrams()
                for path, data in datagrams:
                    self._safely(self.sockets.deliver, path, data)
                for path in self.port.errors():
                    self._safely(self._unreachable, path)
                if not (moved or had_events or datagrams):
                    break
                if ends is not None and clock.now_us() > ends:
                    self._resume_soon()
                    break
            else:
                self._resume_soon()
        finally:
            self._pumping = False
            if not self._closed:
                self._arm()

    def _dispatch_all(self, ends: int | None) -> None:
        """Or as many events as fit in; the others stay for the next turn."""
        polled = clock.now_us()
        for number in itertools.count(1):
            if not self._events:
                return
            self._safely(self._dispatch, self._events.popleft())
            if number % _EVENTS_PER_SIGN == 0:
                self._sign()
            now = clock.now_us()
            if now - polled > _POLL_US:
                self._keep_up()
                polled = now = clock.now_us()
            if ends is not None and now > ends:
                return

    def _keep_up(self) -> None:
        """Let the engine have what is in the rings, or its peers have to repeat it; its events come behind these."""
        for _ in range(_POLLS):
            if not self.port.poll(self.engine, clock.now_us()):
                return

    @staticmethod
    def _safely(call: Callable[..., None], *arguments: object) -> None:
        """One negotiation's failure is not the others' (threat model, row 30)."""
        try:
            call(*arguments)
        except (Exception, asyncio.CancelledError):  # there is nothing here that could be cancelled
            log.exception("a negotiation failed in an unforeseen way")

    def _dispatch(self, event: Event) -> None:
        if event.kind is EventKind.OPENED:
            owner = self._opened(event)
            if owner is None:
                self.engine.close(clock.now_us(), event.handle)
            else:
                self._owners[event.handle] = owner
            return
        if event.kind is EventKind.STRANGER or event.kind is EventKind.RETURNED:
            self.met_stranger(event)
            return
        owner = self._owners.get(event.handle)
        if owner is not None:
            owner.on_event(event)

    def _unreachable(self, path: Path) -> None:
        for handle, owner in list(self._owners.items()):
            info = self.engine.info(handle)
            if info is None or (info.path.remote, info.path.remote_port) != (path.remote, path.remote_port):
                continue
            if info.path.local_port == path.local_port:
                owner.on_unreachable()

    def _arm(self) -> None:
        deadline = self.engine.deadline()
        if self._timer is not None:
            # A timer that fires too early looks again; a new one with every packet would cost more.
            if deadline is not None and self._due <= deadline:
                return
            self._timer.cancel()
            self._timer = None
        if deadline is not None:
            self._due = deadline
            self._timer = self._loop.call_later(max(0.0, (deadline - clock.now_us()) / 1_000_000), self._time)

    def _time(self) -> None:
        self._timer = None
        self._turn()

    def _beat(self) -> None:
        if self._closed:
            return
        self._sign()
        self._levels.look(self.engine.load(clock.now_us()), clock.now())
        self.beaten()
        self._loop.call_later(_HEARTBEAT_SECONDS, self._beat)

    def _sign(self) -> None:
        """Of life, and of the load; also amid a burst of events, each of which may be milliseconds of work: who gets
        somewhere is not hung, and packets that pass to the kernel meanwhile would be more work."""
        self.port.heartbeat()
        self.port.follow(self.engine, clock.now_us())

    def close(self) -> None:
        """Tell every peer, detach from the interface and give everything back."""
        if self._closed:
            return
        self.stop()
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for fd in self._fds:
            self._loop.remove_reader(fd)
        self.sockets.close()
        self.port.close()
