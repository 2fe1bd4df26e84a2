# SPDX-License-Identifier: Apache-2.0
"""Answering a peer that began a negotiation with an exposed port."""

from __future__ import annotations

import asyncio
import logging
import secrets
from typing import TYPE_CHECKING

from accord.controller.association import Association, Report
from accord.controller.exchange import Exchange
from accord.controller.exposed import Exposed
from accord.controller.host import DatagramChannel, HostApplication, HostFetch
from accord.controller.ladder import Ladder, Way
from accord.controller.stack import build_carrier, services_for
from accord.datapath import clock
from accord.datapath.path import Path
from accord.negotiation import events
from accord.negotiation.interface import Refuse, Role, Session
from accord.negotiation.responder import COOKIE_BYTES, Accepted, Responder
from accord.wire.constants import Protocol, Reason, protocol_name
from accord.wire.errors import AccordError

if TYPE_CHECKING:
    from accord.controller.controller import Controller

log = logging.getLogger("accord.responding")


def respond(controller: Controller, handle: int, transaction: bytes, path: Path) -> Exchange:
    """An owner for the transaction. Everything that follows comes from its events."""
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
    exchange = Exchange(endpoint, handle, ladder, Role.RESPONDER, released)
    if channel is not None:
        channel.ended = lambda: released() if exchange.over else None
    sessions: dict[int, Session] = {}

    def resume() -> None:
        """The local service has answered: whichever session waits for it goes on."""
        for node_id in sessions:
            exchange.feed(events.Resume(node_id))

    offered: list[Exposed] = []

    def accept(service: int | None) -> Accepted | Refuse:
        """``service``: where the context has no ports, or the initiator means another one than it sends to."""
        port = path.local_port if service is None else service
        exposed = controller.exposed.get(port)
        if exposed is None:
            return Refuse(Reason.NO_SERVICE, f"port {port}")
        if exposed.failure is not None:
            return Refuse(exposed.failure.reason, exposed.failure.detail)
        offered.append(exposed)
        application = HostApplication(resume, ladder=ladder, target=exposed.target, early_limit=exposed.early_limit)
        scope = f"%{path.scope}" if path.scope else ""
        local, remote = (path.local + scope, port), (path.remote + scope, path.remote_port)
        services = services_for(controller, Role.RESPONDER, local, remote, exposed.security, channel, application)

        def open_session(node_id: int, protocol: int) -> Session:
            sessions[node_id] = by_protocol[protocol].open(Role.RESPONDER, services)
            return sessions[node_id]

        return Accepted(exposed.policy, open_session)

    by_protocol = {plugin.protocol: plugin for plugin in controller.plugins.values()}
    cookie = secrets.token_bytes(COOKIE_BYTES)
    exchange.run(Responder(transaction, accept, cookie, context_protocol=path.context))
    exchange.committed.add_done_callback(
        lambda outcome: _committed(controller, offered[0] if offered else None, exchange, path, outcome)
    )
    return exchange


def _peer(path: Path) -> str:
    return f"{path.remote} port {path.remote_port}" if path.context == Protocol.UDP else f"{path.remote}, direct"


def _committed(
    controller: Controller,
    exposed: Exposed | None,
    exchange: Exchange,
    path: Path,
    outcome: asyncio.Future[events.Committed],
) -> None:
    peer = _peer(path)
    if outcome.cancelled():
        return
    failure = outcome.exception()
    if failure is not None:
        reason = failure.reason if isinstance(failure, AccordError) else Reason.PLUGIN_FAILED
        controller.counts.failed(Role.RESPONDER, reason)
        log.info("port %s, %s: %s", exposed.port if exposed is not None else path.local_port, peer, failure)
        return
    assert exposed is not None, "nothing is accepted on a port that is not exposed"
    committed = outcome.result()
    fetch = getattr(committed.sessions[-1], "fetch_taken", None)
    assert fetch is None or isinstance(fetch, HostFetch)
    if exposed.closed:  # it crossed the withdrawal of the port
        log.info("port %d, %s: committed too late, the port is withdrawn", exposed.port, peer)
        controller.counts.failed(Role.RESPONDER, Reason.SHUTDOWN)
        build_carrier(committed.sessions).abort()
        if fetch is not None:
            fetch.cancel()
        return
    report = Report(
        peer=peer,
        stack=[protocol_name(protocol) for protocol in reversed(committed.protocols)],
        negotiated=True,
        ready_ms=round(exchange.ladder.elapsed() * 1000, 3),
        back_end=controller.back_end,
        attach_mode=controller.attach_mode,
        ladder=exchange.ladder.as_dicts(),
    )
    controller.counts.came_up(Role.RESPONDER, report)
    log.info("port %d, %s: %s", exposed.port, peer, committed.name)
    exposed.hand_out(Association(build_carrier(committed.sessions), report), fetch)
