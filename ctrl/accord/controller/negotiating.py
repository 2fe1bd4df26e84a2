# SPDX-License-Identifier: Apache-2.0
"""The initiator's side of one negotiation: begun, given the SYN's connection, taken, or given up."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from accord.controller.adoption.parallel import ParallelSyn
from accord.controller.exchange import Exchange
from accord.controller.ladder import Ladder, Way
from accord.controller.prepared import ORDER_SECONDS, Target, prepare
from accord.controller.settings.policy import Fallback
from accord.controller.stack import build_carrier
from accord.datapath import clock
from accord.datapath.zone import host_of, socket_address
from accord.negotiation import events
from accord.negotiation.interface import Role
from accord.protocols.services import Carrier
from accord.wire.constants import Reason
from accord.wire.errors import AccordError, error

if TYPE_CHECKING:
    from accord.controller.controller import Controller

_IPV6, _IP_MTU, _IPV6_MTU = socket.IPPROTO_IPV6, 14, 24  # linux/in.h, linux/in6.h


class Negotiation:
    """When it is made the proposal has left. ``exchange.on_progress`` is for whoever made it."""

    def __init__(
        self, controller: Controller, target: Target, early: bytes, ladder: Ladder, transaction: bytes | None = None
    ) -> None:
        """``early``: travels in the proposal, and ``target`` says so. ``transaction``: the ID that a SYN bears already.

        Raises ``AccordError``, and leaves nothing behind then.
        """
        self._controller, self._target = controller, target
        endpoint = controller.endpoint
        asked = transaction is None and target.renews is None and target.held is None
        prepared = controller.proposals.take(target) if asked else None
        if prepared is None:
            prepared = prepare(controller, target, early, transaction)
        else:
            prepared.give(early)
        # The socket goes when the negotiation and all in-band data have ended, and nobody keeps it.
        in_use = self._in_use = contextlib.ExitStack()
        self._kept = False
        if prepared.bound is not None:
            in_use.callback(endpoint.sockets.unbind, prepared.bound)
        try:
            handle = endpoint.engine.open(clock.now_us(), prepared.transaction, prepared.path)
        except BaseException:
            prepared.machine.receive(events.Stop(Reason.CLOSED))
            in_use.close()
            raise
        if answer_bytes := controller.peers.answer_bytes(target.address, target.port):
            endpoint.engine.expect(handle, answer_bytes)
        channel = self._channel = prepared.channel
        prepared.remarks.to(lambda text: ladder.note(Way.HERE, text))
        self.transaction = prepared.transaction
        self.syn: ParallelSyn | None = prepared.syn
        """The connection that the proposal speaks of; None: it speaks of none."""
        self.tls = prepared.tls
        """The session that would be on it."""
        self.exchange = Exchange(
            endpoint,
            handle,
            ladder,
            Role.INITIATOR,
            self._context_unused,
        )
        if channel is not None:
            channel.ended = self._context_unused
        self.exchange.believes_icmp = target.policy.plain is not Fallback.NEVER
        endpoint.adopt(handle, self.exchange)
        prepared.clock.go()
        try:
            self.exchange.run(prepared.machine, prepared.actions)
            endpoint.pump()
        except BaseException:
            self.exchange.give_up()
            raise

    def adopt(self, connection: socket.socket, *, marked: bool, greeted: bool = False) -> None:
        """The SYN's connection is open: the session that waits for it goes on. As ``ParallelSyn.opened``."""
        assert self.syn is not None, "nothing else is waited for"
        node = self.exchange.waiting
        self.syn.opened(connection, marked=marked, greeted=greeted)
        if node is not None:
            self.exchange.feed(events.Resume(node))

    def refuse(self, failure: AccordError) -> None:
        """There will be no connection for the session that waits for it."""
        assert self.syn is not None, "nothing else is waited for"
        node = self.exchange.waiting
        self.syn.failed(failure)
        if node is not None:
            self.exchange.feed(events.Resume(node))

    def take(self, lowest: Callable[[Carrier], None] | None = None) -> tuple[Carrier, events.Committed]:
        """The stack, now the caller's; ``lowest`` as for ``build_carrier``. Raises ``AccordError`` when the peer has
        refused it after the commit."""
        committed = self.exchange.committed.result()
        carrier = build_carrier(committed.sessions, lowest)
        self.exchange.on_refused = lambda failure: carrier.abort()
        if self.exchange.refused is not None:
            carrier.abort()
            raise self.exchange.refused
        if self._target.renews is None:
            self.order_next()
        return carrier, committed

    def keep(self) -> None:
        """The context stays until ``let_go``, so that the peer can send messages about the association to it."""
        self._kept = True

    def let_go(self) -> None:
        """As before ``keep``; twice does no harm."""
        self._kept = False
        self._context_unused()

    def _context_unused(self) -> None:
        in_band = self._channel is not None and self._channel.in_use
        if not in_band and not self._kept and self.exchange.over:
            self._in_use.close()
            if self._channel is not None:
                self._channel.ended = _nothing

    def order_next(self) -> None:
        """Have the next proposal for this peer made in idle time."""
        controller, target = self._controller, self._target
        controller.proposals.order(target, lambda: prepare(controller, target), ORDER_SECONDS)

    def stop(self, reason: Reason) -> None:
        """Nobody wants it any more: the peer is told, and what has come up in the same moment ends."""
        exchange = self.exchange
        exchange.on_progress = None
        exchange.feed(events.Stop(reason))
        future = exchange.committed
        if future.done() and not future.cancelled() and future.exception() is None:
            build_carrier(future.result().sessions).abort()

    def listen_on(self, late: Callable[[Sequence[int]], None]) -> None:
        """As ``Exchange.listen_on``."""
        self.exchange.on_progress = None
        self.exchange.listen_on(late)


def _nothing() -> None:
    """To be told."""


def route(address: str, port: int) -> tuple[str, int]:
    """The own address that the kernel would send from, and the route's MTU in bytes with the IP header.

    Raises ``PathError`` when there is no route.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
        try:
            probe.connect(socket_address(address, port))
            level, option = (_IPV6, _IPV6_MTU) if family == socket.AF_INET6 else (socket.IPPROTO_IP, _IP_MTU)
            return host_of(probe.getsockname()), min(probe.getsockopt(level, option), 0xFFFF)
        except OSError as refusal:
            raise error(Reason.UNREACHABLE, f"{address}: {refusal.strerror}") from refusal
