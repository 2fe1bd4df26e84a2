# SPDX-License-Identifier: Apache-2.0
"""Answering a peer that began a negotiation with an exposed port."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from accord.controller.adoption.adopting import Place, Places
from accord.controller.association import Association, Report
from accord.controller.exchange import Exchange
from accord.controller.exposed import Exposed
from accord.controller.host import DatagramChannel, HostApplication, HostFetch
from accord.controller.ladder import Ladder, Way
from accord.controller.placeholders import known, offers
from accord.controller.proposal import APPLICATION, HIDDEN
from accord.controller.recursion import offering
from accord.controller.renegotiation.responder_end import ResponderEnd
from accord.controller.stack import build_carrier, inside_of, services_for, stack_names, still_coming
from accord.controller.strangers.standin import UnkeptAdoptions
from accord.datapath import clock
from accord.datapath.path import Path
from accord.negotiation import events
from accord.negotiation.graph import Graph
from accord.negotiation.interface import Refuse, Role, Session
from accord.negotiation.responder import COOKIE_BYTES, Accepted, Responder
from accord.protocols.services import Carrier, Plugin, Services
from accord.wire.constants import Protocol, Reason
from accord.wire.errors import AccordError, error

if TYPE_CHECKING:
    from accord.controller.controller import Controller

log = logging.getLogger("accord.responding")


@dataclass(frozen=True, slots=True)
class Offered:
    """What a proposal asked for and this host has."""

    exposed: Exposed
    places: Places | UnkeptAdoptions | None
    renewed: ResponderEnd | None
    """The association that gets another stack; None: it is for a new one."""


def respond(
    controller: Controller, handle: int, transaction: bytes, path: Path, syn_first: bool | None = None
) -> Exchange:
    """An owner for the transaction. Everything that follows comes from its events.

    ``syn_first``: the SYN that left beside the proposal was here before it; None where nobody can tell.
    """
    endpoint = controller.endpoint
    bound = endpoint.sockets.of(path) if path.context == Protocol.UDP else None
    channel: DatagramChannel | None = None
    if bound is not None:
        channel = endpoint.sockets.channel(bound, path)

    def released() -> None:
        if channel is not None and bound is not None and not channel.in_use:
            endpoint.sockets.drop_channel(bound, path, channel)
            channel.ended = _nothing
        answering.released()

    ladder = Ladder(clock.now)
    ladder.note(Way.HERE, f"from {_peer(path)}")
    if syn_first:
        ladder.note(Way.IN, "the SYN came first")
    controller.counts.proposed(syn_first)
    exchange = Exchange(endpoint, handle, ladder, Role.RESPONDER, released)
    if channel is not None:
        channel.ended = lambda: released() if exchange.over else None
    answering = Answering(controller, transaction, path, ladder, channel, exchange.feed)
    cookie = secrets.token_bytes(COOKIE_BYTES)
    ended = False

    def over() -> None:
        # At once: what the peer says next, perhaps of this very association, may be here already.
        nonlocal ended
        if exchange.committed.done() and not ended:
            ended = True
            _ended(answering, exchange.committed)

    exchange.on_progress = over
    exchange.run(answering.machine(cookie))
    exchange.committed.add_done_callback(lambda _: over())  # whoever cancels it
    return exchange


class Answering:
    """This host's side of one negotiation that a peer began: what is asked for, and whom to ask for it."""

    def __init__(
        self,
        controller: Controller,
        transaction: bytes,
        path: Path,
        ladder: Ladder,
        channel: DatagramChannel | None,
        feed: Callable[[events.Event], None],
    ) -> None:
        """``feed``: gives the machine an event, and does what follows from it."""
        self.controller, self.transaction, self.path, self.ladder = controller, transaction, path, ladder
        self.channel = channel
        self.offered: Offered | None = None
        """Once a proposal was accepted."""
        self._feed = feed
        self._sessions: dict[int, Session] = {}
        self._by_protocol = {plugin.protocol: plugin for plugin in controller.plugins.values()}
        self._machine: Responder

    @property
    def peer(self) -> str:
        """For people."""
        return _peer(self.path)

    def machine(self, cookie: bytes) -> Responder:
        """The negotiation's machine, which accepts what this object does."""
        self._machine = Responder(self.transaction, self.accept, cookie, context_protocol=self.path.context)
        self._machine.guard = self.controller.guard
        return self._machine

    def resume(self) -> None:
        """The local service has answered: whichever session waits for it goes on."""
        for node_id in self._sessions:
            self._feed(events.Resume(node_id))

    def released(self) -> None:
        """The exchange is over, and no event leads to anything in it any more."""
        self._feed = _nowhere

    def forget(self) -> None:
        """It has come to a stack, or to nothing: let go of what refers back to this object (``Exchange._release``)."""
        self.offered, self._sessions = None, {}

    def stop(self, reason: Reason) -> None:
        """The peer has fallen back, or the connection that was waited for cannot come any more."""
        self._feed(events.Stop(reason))

    def accept(self, service: int | None) -> Accepted | Refuse:
        """``service``: where the context has no ports, or the initiator means another one than it sends to."""
        controller, path = self.controller, self.path
        port = path.local_port if service is None else service
        proposed = self._machine.proposed
        assert proposed is not None, "what is to be accepted has come"
        renewed = self.renewed(proposed, port)
        if isinstance(renewed, Refuse):
            return renewed
        if renewed is None and (over := controller.prefixes.refusal(path.remote)) is not None:
            return over
        exposed = controller.exposed.get(port) if renewed is None else renewed.exposed
        if exposed is None:
            return Refuse(Reason.NO_SERVICE, f"port {port}")
        if exposed.failure is not None and renewed is None:
            return Refuse(exposed.failure.reason, exposed.failure.detail)
        scope = f"%{path.scope}" if path.scope else ""
        local, remote = (path.local + scope, port), (path.remote + scope, path.remote_port)
        places = self.places(exposed, proposed.context.data_path or path.remote)
        self.offered = Offered(exposed, places, renewed)
        services = self.services(exposed, local, remote, exposed.early_limit if renewed is None else 0)

        def open_session(node_id: int, protocol: int) -> Session:
            given = services
            if protocol == Protocol.INNER:  # only for those who want it: it is made for each negotiation
                without_early = HostApplication(self.resume, ladder=self.ladder, target=exposed.target)
                inner = offering(
                    controller,
                    self.transaction,
                    exposed.policy,
                    services,
                    without_early,
                    lambda text: self.ladder.note(Way.HERE, text),
                )
                given = replace(services, inner=inner)
            self._sessions[node_id] = self.open(self._by_protocol[protocol], given)
            return self._sessions[node_id]

        chooser = exposed.policy if renewed is None else renewed.chooser
        if not [node for node in proposed.nodes.values() if node.placeholder]:
            return Accepted(chooser, open_session)
        return Accepted(
            chooser,
            open_session,
            known=known(controller.plugins),
            elaborate=offers(controller.plugins, exposed.policy, (APPLICATION, HIDDEN)),
        )

    def renewed(self, proposed: Graph, port: int) -> ResponderEnd | Refuse | None:
        """The association that the proposal is about, if it is about one."""
        context = proposed.context
        if context.renegotiates is None:
            return None
        notice = not context.children
        return self.controller.associations.admit(context.renegotiates, self.transaction, port, notice=notice)

    def places(self, exposed: Exposed, comes_from: str) -> Places | UnkeptAdoptions | None:
        """Where a connection of the peer's is waited for; None: the port has no listener of ours."""
        if exposed.adopter is None:
            return None
        return Places(exposed.adopter, self.transaction, comes_from, self.stop)

    def services(self, exposed: Exposed, local: tuple[str, int], remote: tuple[str, int], early_limit: int) -> Services:
        """The host as the sessions may see it."""
        assert self.offered is not None
        application = HostApplication(self.resume, ladder=self.ladder, target=exposed.target, early_limit=early_limit)
        return services_for(
            self.controller,
            Role.RESPONDER,
            local,
            remote,
            exposed.security,
            self.channel,
            application,
            adoptions=self.offered.places,
            wishes=exposed.policy.inside,
            births=None if exposed.given is None else exposed.given.births,
            names=exposed.policy.names,
        )

    def open(self, plugin: Plugin, services: Services) -> Session:
        """A session for a node."""
        return self.controller.guard.open(plugin, Role.RESPONDER, services)


def _nothing() -> None:
    """To be told."""


def _nowhere(event: events.Event) -> None:
    """To be given events."""


def _peer(path: Path) -> str:
    return f"{path.remote} port {path.remote_port}" if path.context == Protocol.UDP else f"{path.remote}, direct"


def _ended(answering: Answering, outcome: asyncio.Future[events.Committed]) -> None:
    try:
        _committed(answering, outcome)
    finally:
        answering.forget()


def _committed(answering: Answering, outcome: asyncio.Future[events.Committed]) -> None:
    offered, controller = answering.offered, answering.controller
    renewed = None if offered is None else offered.renewed
    if outcome.cancelled():
        if renewed is not None:
            renewed.carrier.failed(error(Reason.SHUTDOWN))
        return
    failure = outcome.exception()
    if failure is None:
        committed(answering, outcome.result())
        return
    if renewed is not None:
        renewed.carrier.failed(failure if isinstance(failure, AccordError) else error(Reason.PLUGIN_FAILED))
    reason = failure.reason if isinstance(failure, AccordError) else Reason.PLUGIN_FAILED
    controller.counts.failed(Role.RESPONDER, reason)
    port = answering.path.local_port if offered is None else offered.exposed.port
    log.info("port %s, %s: %s", port, answering.peer, failure)


def committed(answering: Answering, outcome: events.Committed) -> None:
    """The commit is here: the stack goes to whoever the port belongs to, as soon as it is up."""
    offered = answering.offered
    assert offered is not None, "nothing is accepted on a port that is not exposed"
    stack = Stack(answering, offered, outcome)
    place = None if offered.places is None else offered.places.place
    if offered.exposed.closed:  # it crossed the withdrawal of the port
        stack.lost(error(Reason.SHUTDOWN, "committed too late, the port is withdrawn"))
    elif place is None or not place.claimed:
        stack.came_up()
    elif place.found:
        stack.came_up(place)
    else:
        offered.exposed.spawn(stack.comes_up(place))


@dataclass(frozen=True, slots=True)
class Stack:
    """A committed stack, on its way to whoever the port belongs to."""

    answering: Answering
    offered: Offered
    committed: events.Committed

    @property
    def fetch(self) -> HostFetch | None:
        """The early request that the service has."""
        fetch = getattr(self.committed.sessions[-1], "fetch_taken", None)
        assert fetch is None or isinstance(fetch, HostFetch)
        return fetch

    def came_up(self, place: Place | None = None) -> None:
        """It is up; ``place``: over a connection that it has adopted."""
        answering, exposed, renewed = self.answering, self.offered.exposed, self.offered.renewed
        if place is not None:
            answering.ladder.note(Way.HERE, f"adopted the TCP connection {place.found}")
        try:
            carrier = build_carrier(self.committed.sessions)
        except AccordError as broken:
            self.lost(broken)
            return
        if renewed is not None:
            renewed.up(self.committed, carrier, answering.path)
            return
        ended = answering.controller.prefixes.committed(answering.path.remote)
        if (coming := still_coming(self.committed)) is None:
            self._is_up(carrier, ended)
            return

        def gone(failure: AccordError) -> None:
            ended()
            carrier.abort()
            self._failed(failure)

        async def comes() -> None:
            try:
                await coming()
            except AccordError as never:
                gone(never)
            else:
                self._is_up(carrier, ended)

        def over(task: asyncio.Task[None]) -> None:
            if task.cancelled():  # perhaps before its first step
                gone(error(Reason.SHUTDOWN, "the port is withdrawn"))

        # The kernels are setting the stack's connection up, and nobody is told before that is there.
        exposed.spawn(comes()).add_done_callback(over)

    def _is_up(self, carrier: Carrier, ended: Callable[[], None]) -> None:
        answering, exposed = self.answering, self.offered.exposed
        ladder, controller = answering.ladder, answering.controller
        handle = ""
        # Bytes that travelled in the negotiation are in no count, and those of another program's connection neither.
        if self.fetch is None and exposed.given is None:
            carrier, handle = controller.associations.accepted(
                exposed, self.committed, carrier, answering.path, answering.peer, answering.transaction
            )
        report = Report(
            peer=answering.peer,
            stack=stack_names(self.committed),
            negotiated=True,
            ready_ms=round(ladder.elapsed() * 1000, 3),
            back_end=controller.back_end,
            attach_mode=controller.attach_mode,
            association=handle,
        )
        if exposed.service is None:  # a program is told
            report.inside, report.ladder = inside_of(self.committed), ladder.as_dicts()
        if exposed.given is None:  # else whoever delivers it counts it, once the program has it
            controller.counts.came_up(Role.RESPONDER, report)
        log.info("port %d, %s: %s", exposed.port, answering.peer, self.committed.name)
        exposed.hand_out(Association(carrier, report), self.fetch).add_done_callback(lambda _: ended())

    async def comes_up(self, place: Place) -> None:
        """The commit was faster than the connection: nobody is told before that is there."""
        try:
            await place.there()
        except AccordError as never:
            self.lost(never)
        except BaseException:
            self.lost(error(Reason.SHUTDOWN, "the port is withdrawn"))
            raise
        else:
            self.came_up(place)

    def lost(self, failure: AccordError) -> None:
        """It came to nothing after the commit."""
        with contextlib.suppress(AccordError):
            build_carrier(self.committed.sessions).abort()
        self._failed(failure)

    def _failed(self, failure: AccordError) -> None:
        renewed, fetch = self.offered.renewed, self.fetch
        log.info("port %d, %s: %s", self.offered.exposed.port, self.answering.peer, failure)
        self.answering.controller.counts.failed(Role.RESPONDER, failure.reason)
        if renewed is not None:
            renewed.carrier.failed(failure)
        if fetch is not None:
            fetch.cancel()
