# SPDX-License-Identifier: Apache-2.0
"""Answering a peer that began a negotiation with an exposed port."""

from __future__ import annotations

import asyncio
import logging
import secrets
from dataclasses import dataclass
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
from accord.controller.stack import build_carrier, inside_of, services_for, stack_names
from accord.datapath import clock
from accord.datapath.path import Path
from accord.negotiation import events
from accord.negotiation.interface import Refuse, Role, Session
from accord.negotiation.responder import COOKIE_BYTES, Accepted, Responder
from accord.wire.constants import Protocol, Reason
from accord.wire.errors import AccordError, error

if TYPE_CHECKING:
    from accord.controller.controller import Controller

log = logging.getLogger("accord.responding")


@dataclass(frozen=True, slots=True)
class Offered:
    """What a proposal asked for and this host has."""

    exposed: Exposed
    places: Places | None
    renewed: ResponderEnd | None
    """The association that gets another stack; None: it is for a new one."""


def respond(
    controller: Controller, handle: int, transaction: bytes, path: Path, syn_first: bool | None = None
) -> Exchange:
    """An owner for the transaction. Everything that follows comes from its events.

    ``syn_first``: the SYN that left beside the proposal was here before it; None where nobody can tell.
    """
    endpoint = controller.endpoint
    bound = endpoint.socket_of(path) if path.context == Protocol.UDP else None
    channel: DatagramChannel | None = None
    if bound is not None:
        channel = endpoint.channel(bound, path)

    def released() -> None:
        if channel is not None and bound is not None and not channel.in_use:
            endpoint.drop_channel(bound, path, channel)

    ladder = Ladder(clock.now)
    ladder.note(Way.HERE, f"from {_peer(path)}")
    if syn_first:
        ladder.note(Way.IN, "the SYN came first")
    controller.counts.proposed(syn_first)
    exchange = Exchange(endpoint, handle, ladder, Role.RESPONDER, released)
    if channel is not None:
        channel.ended = lambda: released() if exchange.over else None
    sessions: dict[int, Session] = {}

    def resume() -> None:
        """The local service has answered: whichever session waits for it goes on."""
        for node_id in sessions:
            exchange.feed(events.Resume(node_id))

    def stop(reason: Reason) -> None:
        """The peer has fallen back, or the connection that was waited for cannot come any more."""
        exchange.feed(events.Stop(reason))

    offered: list[Offered] = []

    def accept(service: int | None) -> Accepted | Refuse:
        """``service``: where the context has no ports, or the initiator means another one than it sends to."""
        port = path.local_port if service is None else service
        renewed = _renewed(controller, machine, port)
        if isinstance(renewed, Refuse):
            return renewed
        exposed = controller.exposed.get(port) if renewed is None else renewed.exposed
        if exposed is None:
            return Refuse(Reason.NO_SERVICE, f"port {port}")
        if exposed.failure is not None and renewed is None:
            return Refuse(exposed.failure.reason, exposed.failure.detail)
        early_limit = exposed.early_limit if renewed is None else 0
        application = HostApplication(resume, ladder=ladder, target=exposed.target, early_limit=early_limit)
        scope = f"%{path.scope}" if path.scope else ""
        local, remote = (path.local + scope, port), (path.remote + scope, path.remote_port)
        assert machine.proposed is not None, "what is to be accepted has come"
        comes_from = machine.proposed.context.data_path or path.remote
        places = None if exposed.adopter is None else Places(exposed.adopter, transaction, comes_from, stop)
        offered.append(Offered(exposed, places, renewed))
        services = services_for(
            controller,
            Role.RESPONDER,
            local,
            remote,
            exposed.security,
            channel,
            application,
            adoptions=places,
            wishes=exposed.policy.inside,
        )

        def open_session(node_id: int, protocol: int) -> Session:
            if protocol == Protocol.INNER:  # only for those who want it: it is made for each negotiation
                without_early = HostApplication(resume, ladder=ladder, target=exposed.target)
                services.inner = offering(
                    controller,
                    transaction,
                    exposed.policy,
                    services,
                    without_early,
                    lambda text: ladder.note(Way.HERE, text),
                )
            sessions[node_id] = by_protocol[protocol].open(Role.RESPONDER, services)
            return sessions[node_id]

        return Accepted(
            exposed.policy if renewed is None else renewed.chooser,
            open_session,
            known=known(controller.plugins),
            elaborate=offers(controller.plugins, exposed.policy, (APPLICATION, HIDDEN)),
        )

    by_protocol = {plugin.protocol: plugin for plugin in controller.plugins.values()}
    cookie = secrets.token_bytes(COOKIE_BYTES)
    machine = Responder(transaction, accept, cookie, context_protocol=path.context)
    exchange.run(machine)
    exchange.committed.add_done_callback(
        lambda outcome: _committed(controller, offered[0] if offered else None, exchange, transaction, path, outcome)
    )
    return exchange


def _renewed(controller: Controller, machine: Responder, port: int) -> ResponderEnd | Refuse | None:
    """The association that the proposal is about, if it is about one."""
    assert machine.proposed is not None, "what is to be accepted has come"
    context = machine.proposed.context
    if context.renegotiates is None:
        return None
    notice = not context.children
    return controller.associations.admit(context.renegotiates, machine.transaction, port, notice=notice)


def _peer(path: Path) -> str:
    return f"{path.remote} port {path.remote_port}" if path.context == Protocol.UDP else f"{path.remote}, direct"


def _committed(
    controller: Controller,
    offered: Offered | None,
    exchange: Exchange,
    transaction: bytes,
    path: Path,
    outcome: asyncio.Future[events.Committed],
) -> None:
    peer = _peer(path)
    renewed = None if offered is None else offered.renewed
    if outcome.cancelled():
        if renewed is not None:
            renewed.carrier.failed(error(Reason.SHUTDOWN))
        return
    failure = outcome.exception()
    if failure is not None:
        if renewed is not None:
            renewed.carrier.failed(failure if isinstance(failure, AccordError) else error(Reason.PLUGIN_FAILED))
        reason = failure.reason if isinstance(failure, AccordError) else Reason.PLUGIN_FAILED
        controller.counts.failed(Role.RESPONDER, reason)
        log.info("port %s, %s: %s", path.local_port if offered is None else offered.exposed.port, peer, failure)
        return
    assert offered is not None, "nothing is accepted on a port that is not exposed"
    stack = Stack(controller, offered.exposed, exchange, transaction, peer, path, renewed, outcome.result())
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

    controller: Controller
    exposed: Exposed
    exchange: Exchange
    transaction: bytes
    peer: str
    path: Path
    renewed: ResponderEnd | None
    committed: events.Committed

    @property
    def fetch(self) -> HostFetch | None:
        """The early request that the service has."""
        fetch = getattr(self.committed.sessions[-1], "fetch_taken", None)
        assert fetch is None or isinstance(fetch, HostFetch)
        return fetch

    def came_up(self, place: Place | None = None) -> None:
        """It is up; ``place``: over a connection that it has adopted."""
        ladder, controller = self.exchange.ladder, self.controller
        if place is not None:
            ladder.note(Way.HERE, f"adopted the TCP connection {place.found}")
        carrier = build_carrier(self.committed.sessions)
        if self.renewed is not None:
            self.renewed.up(self.committed, carrier, self.path)
            return
        handle = ""
        if self.fetch is None:  # bytes that travelled in the negotiation are in no count
            carrier, handle = controller.associations.accepted(
                self.exposed, self.committed, carrier, self.path, self.peer, self.transaction
            )
        report = Report(
            peer=self.peer,
            stack=stack_names(self.committed),
            negotiated=True,
            ready_ms=round(ladder.elapsed() * 1000, 3),
            back_end=controller.back_end,
            attach_mode=controller.attach_mode,
            association=handle,
            ladder=ladder.as_dicts(),
        )
        if self.exposed.service is None:  # a program is told
            report.inside = inside_of(self.committed)
        controller.counts.came_up(Role.RESPONDER, report)
        log.info("port %d, %s: %s", self.exposed.port, self.peer, self.committed.name)
        self.exposed.hand_out(Association(carrier, report), self.fetch)

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
        log.info("port %d, %s: %s", self.exposed.port, self.peer, failure)
        self.controller.counts.failed(Role.RESPONDER, failure.reason)
        fetch = self.fetch
        build_carrier(self.committed.sessions).abort()
        if self.renewed is not None:
            self.renewed.carrier.failed(failure)
        if fetch is not None:
            fetch.cancel()
