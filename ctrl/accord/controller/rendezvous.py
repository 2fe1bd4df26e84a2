# SPDX-License-Identifier: Apache-2.0
"""Meeting a peer that proposes as well, each on a UDP socket that the application brings (HotNets 2009, section 2.3).

The application has found out where the peer may be, over the same socket: from a rendezvous server, for example, that
told each the other's address as its NAT shows it. Both then propose to each other, and these packets are what opens the
NATs: the first may die at the peer's, and is sent again as soon as anything of the peer's shows that the way is open.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import secrets
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from accord.controller.association import Association, Report
from accord.controller.crossing import CrossingTcp
from accord.controller.exchange import Exchange
from accord.controller.host import DatagramChannel, HostApplication
from accord.controller.ladder import Ladder, Way
from accord.controller.negotiating import route
from accord.controller.proposal import propose
from accord.controller.settings.policy import Context, EffectivePolicy
from accord.controller.settings.stacks import SECURE
from accord.controller.stack import build_carrier, inside_of, services_for
from accord.controller.udp_sockets import UdpSocket
from accord.datapath import clock
from accord.datapath.engine import Event
from accord.datapath.path import Path
from accord.negotiation import events
from accord.negotiation.interface import Role, Session
from accord.negotiation.meeting import Meeting, MeetingInitiator, MeetingResponder, meeting_id
from accord.negotiation.merge import IDENTITY_BYTES
from accord.negotiation.responder import COOKIE_BYTES
from accord.protocols.services import Security, Services
from accord.protocols.simultaneous import Simultaneous, rule_of
from accord.protocols.wishes import NONE
from accord.wire.constants import NodeId, Protocol, Reason, protocol_name
from accord.wire.errors import AccordError, error

if TYPE_CHECKING:
    from accord.controller.controller import Controller

log = logging.getLogger("accord.rendezvous")

ADDRESSES_MAX: Final = 16
"""Addresses of the peer that are tried at once, those included that it is heard from."""
_TRANSACTION_BYTES: Final = 12
_GREASE_BYTES: Final = 16
_AGAIN_SECONDS: Final = 3.0
"""After the peer's word that its own proposal goes on: longer than it may take that to be repeated."""
_PAUSE_SECONDS: Final = 0.5
_LINGER_SECONDS: Final = 3.0
"""After the leader's commit has come: its acknowledgement may be lost, and the socket is what answers the next one."""
_PASSING: Final = frozenset({Reason.TIMEOUT, Reason.LIFETIME, Reason.UNREACHABLE, Reason.PEER_PROPOSED, Reason.CLOSED})
"""What ends a negotiation, but not the meeting: the peer may still come, or come back."""
_OTHERS: Final = frozenset({Reason.NO_SERVICE, Reason.NOT_MERGED})
"""Why somebody else's proposal was refused: nothing that this meeting ends by."""


class _Exchange(Exchange):
    """Before the peer is there, its host says that nobody is: not a reason to give up."""

    def on_unreachable(self) -> None:
        """ICMP, which anybody can forge, and a host sends whose program is not there yet."""


@dataclass(slots=True)
class _Place:
    """An address at which the peer may be."""

    address: str
    port: int
    exchange: Exchange | None = None
    """Of our proposal."""
    handle: int = 0
    failure: AccordError | None = None
    """Why nothing is tried there any more."""

    def __str__(self) -> str:
        return f"{self.address} port {self.port}"


@dataclass(slots=True)
class _Talk:
    """One negotiation of the meeting, ours or the peer's."""

    exchange: Exchange
    role: Role
    peer: tuple[str, int]
    channel: DatagramChannel
    path: Path
    over: bool = field(default=False)
    """The engine's transaction is closed."""


class Rendezvous:
    """One call. ``run`` once; ``opened`` for each negotiation that somebody begins on the socket."""

    def __init__(
        self,
        controller: Controller,
        bound: UdpSocket,
        name: str,
        policy_for: Callable[[str], EffectivePolicy],
        security: Security,
        ended: Callable[[], None],
    ) -> None:
        """``name``: as both applications call the meeting. ``ended``: called when nobody needs the socket any more."""
        self._controller = controller
        self._endpoint = controller.endpoint
        self._sockets = controller.endpoint.sockets
        self._bound = bound
        self._policy_for = policy_for
        self._security = security
        self._ended = ended
        rules = {each: rule_of(plugin) for each, plugin in controller.plugins.items()}
        self._plugins = {
            each: plugin for each, plugin in controller.plugins.items() if rules[each] is not Simultaneous.NEVER
        }
        self._by_protocol = {plugin.protocol: plugin for plugin in self._plugins.values()}
        self._meeting = Meeting(meeting_id(name), secrets.token_bytes(IDENTITY_BYTES), SECURE)
        self._places: list[_Place] = []
        self._talks: list[_Talk] = []
        self._crossings: dict[tuple[str, int], CrossingTcp] = {}
        self._news = asyncio.Event()
        self._failure: AccordError | None = None
        self._refused: AccordError | None = None
        """Why the peer, or this side, did not go on with the peer's negotiation."""
        self._timers: set[asyncio.TimerHandle] = set()
        self._over = False
        self._until = 0.0
        """The socket stays until then, in the loop's time."""
        self.ladder = Ladder(clock.now)

    async def run(self, places: list[tuple[str, int]], seconds: float) -> Association:
        """The association. Raises ``AccordError``: TIMEOUT when the peer was not met in time."""
        won: _Talk | None = None
        try:
            for address, port in places:
                self._try(address, port)
            self._endpoint.pump()
            async with asyncio.timeout(seconds):
                while (won := self._decided()) is None:
                    self._news.clear()
                    self._give_up_if_hopeless()
                    await self._news.wait()
            return self._taken(won)
        except TimeoutError:
            heard = "its proposal came, and nothing after it" if self._meeting.heard else "nothing came from it"
            raise error(
                Reason.TIMEOUT, f"the peer was not met in {seconds:g} s: {heard}", "both sides have to call at once"
            ) from self._failure
        finally:
            self._settle(won)

    # ---- our proposals ----

    def _try(self, address: str, port: int) -> None:
        if len(self._places) >= ADDRESSES_MAX or any((p.address, p.port) == (address, port) for p in self._places):
            return
        place = _Place(address, port)
        self._places.append(place)
        self._knock(place)

    def _knock(self, place: _Place) -> None:
        if self._over or (place.exchange is not None and not place.exchange.committed.done()):
            return
        try:
            self._propose(place)
        except AccordError as failure:
            self.ladder.note(Way.HERE, f"{place}: {failure}")
            place.failure = failure
            self._news.set()

    def _propose(self, place: _Place) -> None:
        policy = self._policy_for(place.address)
        if policy.context is not Context.UDP:
            raise error(Reason.BAD_CONFIG, "a meeting over the context direct", 'leave context = "udp" for this peer')
        source, mtu = route(place.address, place.port)
        remote, _, zone = place.address.partition("%")
        path = Path(
            family=6 if ":" in remote else 4,
            context=int(Protocol.UDP),
            local=source.partition("%")[0],
            local_port=self._bound.port,
            remote=remote,
            remote_port=place.port,
            socket=self._bound.index,
            scope=socket.if_nametoindex(zone) if zone and not zone.isdecimal() else int(zone or 0),
            mtu=mtu,
        )
        channel = self._sockets.channel(self._bound, path)
        transaction = secrets.token_bytes(_TRANSACTION_BYTES)
        try:
            guard = self._controller.guard
            services = self._services(Role.INITIATOR, (source, self._bound.port), (place.address, place.port), channel)
            machine = MeetingInitiator(
                self._meeting,
                transaction,
                propose(guard.usable(self._plugins), policy, services, open_session=guard.open),
                policy,
                context_protocol=int(Protocol.UDP),
                grease=secrets.token_bytes(_GREASE_BYTES),
                packets_min=policy.packets_min,
            )
            handle = self._endpoint.engine.open(clock.now_us(), transaction, path)
        except BaseException:
            self._sockets.drop_channel(self._bound, path, channel)
            raise
        self.ladder.note(Way.HERE, f"to {place}")
        talk = self._talk(handle, Role.INITIATOR, (place.address, place.port), channel, path)
        place.exchange, place.handle = talk.exchange, handle
        talk.exchange.committed.add_done_callback(lambda outcome: self._came_to(place, outcome))
        machine.guarded_by(guard)
        talk.exchange.run(machine, machine.start())
        self._endpoint.kick()

    def _came_to(self, place: _Place, outcome: asyncio.Future[events.Committed]) -> None:
        failure = None if outcome.cancelled() else outcome.exception()
        if isinstance(failure, AccordError) and not self._over:
            if failure.reason not in _PASSING:
                place.failure = failure
            else:
                self._failure = failure
                pause = _AGAIN_SECONDS if failure.reason is Reason.PEER_PROPOSED else _PAUSE_SECONDS
                self._later(pause, lambda: self._knock(place))
        self._news.set()

    # ---- the peer's ----

    def opened(self, event: Event) -> Exchange:
        """An owner for a transaction that somebody began on the socket."""
        path = event.path
        assert path is not None, "an OPENED event bears its path"
        scope = f"%{path.scope}" if path.scope else ""
        local, remote = (path.local + scope, path.local_port), (path.remote + scope, path.remote_port)
        channel = self._sockets.channel(self._bound, path)
        services = self._services(Role.RESPONDER, local, remote, channel)
        self.ladder.note(Way.IN, f"a proposal from {remote[0]} port {remote[1]}")

        def open_session(node_id: int, protocol: int) -> Session:
            return self._controller.guard.open(self._by_protocol[protocol], Role.RESPONDER, services)

        machine = MeetingResponder(
            self._meeting,
            event.transaction,
            self._policy_for(remote[0]),
            open_session,
            secrets.token_bytes(COOKIE_BYTES),
            context_protocol=path.context,
            heard=lambda: self._heard(remote),
        )
        talk = self._talk(event.handle, Role.RESPONDER, remote, channel, path)
        talk.exchange.committed.add_done_callback(self._answered)
        machine.guarded_by(self._controller.guard)
        talk.exchange.run(machine)
        # What came in shows that the way is open now, as it may not have been when ours left.
        for place in self._places:
            if place.exchange is not None and not place.exchange.committed.done():
                self._endpoint.engine.probe(clock.now_us(), place.handle)
        return talk.exchange

    def _heard(self, remote: tuple[str, int]) -> None:
        """Its proposal is whole, and for this meeting. Whoever is in the middle of one is left to it."""

        def after() -> None:
            if self._over:
                return
            self._try(*remote)  # where the candidates did not name it: behind a NAT that maps anew
            for place in list(self._places):
                if place.exchange is not None and not place.exchange.committed.done():
                    place.exchange.feed(events.Resume(NodeId.CONTEXT))

        asyncio.get_running_loop().call_soon(after)

    def _answered(self, outcome: asyncio.Future[events.Committed]) -> None:
        failure = None if outcome.cancelled() else outcome.exception()
        if isinstance(failure, AccordError) and failure.reason not in _OTHERS:
            self._failure = failure
            if self._meeting.heard and failure.reason not in _PASSING:
                self._refused = failure
        self._news.set()

    # ---- both ----

    def _services(
        self,
        role: Role,
        local: tuple[str, int],
        remote: tuple[str, int],
        channel: DatagramChannel,
    ) -> Services:
        application = HostApplication(lambda: None)
        # A connection of two SYNs has the options of both headers: there is no answer in which one side could choose.
        wishes = replace(self._policy_for(remote[0]).inside, tcp=NONE.tcp)
        services = services_for(
            self._controller, role, local, remote, self._security, channel, application, wishes=wishes
        )
        if services.tcp is not None:
            crossing = self._crossings.get(remote) or CrossingTcp(services.tcp, local[1])
            self._crossings[remote] = crossing
            services = replace(services, tcp=crossing)
        return services

    def _talk(self, handle: int, role: Role, peer: tuple[str, int], channel: DatagramChannel, path: Path) -> _Talk:
        exchange = _Exchange(self._endpoint, handle, self.ladder, role, lambda: self._left(talk))
        talk = _Talk(exchange, role, peer, channel, path)
        channel.ended = lambda: self._left(talk, by_engine=False)
        self._talks.append(talk)
        self._endpoint.adopt(handle, exchange)
        return talk

    def _left(self, talk: _Talk, *, by_engine: bool = True) -> None:
        talk.over = talk.over or by_engine
        if talk.over and not talk.channel.in_use and talk in self._talks:
            self._talks.remove(talk)
            self._sockets.drop_channel(self._bound, talk.path, talk.channel)
        self._end_if_over()

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        timer = asyncio.get_running_loop().call_later(seconds, call)
        self._timers.add(timer)

    def _decided(self) -> _Talk | None:
        for talk in self._talks:
            done = talk.exchange.committed
            if done.done() and not done.cancelled() and done.exception() is None:
                return talk
        return None

    def _give_up_if_hopeless(self) -> None:
        pending = any(not talk.exchange.committed.done() for talk in self._talks)
        tried = [place.failure for place in self._places]
        if pending:
            return
        if self._refused is not None:
            raise self._refused
        if any(failure is None for failure in tried):
            return
        assert tried, "there is an address at least"
        raise next(failure for failure in tried if failure is not None)

    def _taken(self, talk: _Talk) -> Association:
        committed = talk.exchange.committed.result()
        carrier = build_carrier(committed.sessions)
        talk.exchange.on_refused = lambda failure: carrier.abort()
        if talk.exchange.refused is not None:
            carrier.abort()
            raise talk.exchange.refused
        report = Report(
            peer=f"{talk.peer[0]} port {talk.peer[1]}",
            stack=[protocol_name(protocol) for protocol in reversed(committed.protocols)],
            negotiated=True,
            ready_ms=round(self.ladder.elapsed() * 1000, 3),
            alpn=getattr(committed.sessions[-1], "alpn_selected", None) or "",
            back_end=self._controller.back_end,
            attach_mode=self._controller.attach_mode,
            role=talk.role.value,
        )
        report.inside = inside_of(committed)
        figures = talk.exchange.figures()
        if figures is not None:
            report.packets_sent, report.packets_received = figures.packets_sent, figures.packets_received
            report.bytes_sent, report.bytes_received = figures.bytes_sent, figures.bytes_received
            report.retransmitted = figures.retransmitted
        report.ladder = self.ladder.as_dicts()
        self._controller.counts.came_up(talk.role, report)
        return Association(carrier, report)

    def _settle(self, won: _Talk | None) -> None:
        """All other negotiations end; the socket stays as long as the stack needs it."""
        self._over = True
        self._meeting.decided = self._meeting.decided or self
        if won is not None and won.role is Role.RESPONDER:
            self._until = asyncio.get_running_loop().time() + _LINGER_SECONDS
        for timer in self._timers:
            timer.cancel()
        for talk in list(self._talks):
            if talk is not won:
                talk.exchange.feed(events.Stop(Reason.CLOSED))
        for crossing in self._crossings.values():
            crossing.close()
        self._end_if_over()

    def _end_if_over(self) -> None:
        if self._over and not self._talks:
            ended, self._ended = self._ended, lambda: None
            loop = asyncio.get_running_loop()
            if self._until > loop.time():
                loop.call_at(self._until, ended)
            else:
                ended()


async def meet(
    controller: Controller,
    sock: socket.socket,
    candidates: Sequence[tuple[str, int]],
    name: str,
    policy_for: Callable[[str], EffectivePolicy],
    security: Security,
    seconds: float,
) -> Association:
    """``Controller.rendezvous``."""
    try:
        places = _checked(sock, candidates, name)
        sock.setblocking(False)
        bound = controller.endpoint.sockets.add(sock)
    except BaseException:
        sock.close()
        raise

    def ended() -> None:
        controller.meetings.pop(bound.index, None)
        controller.endpoint.sockets.unbind(bound)

    rendezvous = Rendezvous(controller, bound, name, policy_for, security, ended)
    controller.meetings[bound.index] = rendezvous
    try:
        return await rendezvous.run(places, seconds)
    except AccordError as failure:
        controller.counts.failed(Role.INITIATOR, failure.reason)
        failure.trace = rendezvous.ladder.as_dicts()
        raise


def _checked(sock: socket.socket, candidates: Sequence[tuple[str, int]], name: str) -> list[tuple[str, int]]:
    """The addresses in this socket's family, once each. Raises ``UserError`` (BAD_CONFIG)."""
    if sock.type != socket.SOCK_DGRAM or sock.family not in (socket.AF_INET, socket.AF_INET6):
        raise error(Reason.BAD_CONFIG, "a meeting needs a UDP socket", "bring the one that the peer's address came by")
    if not sock.getsockname()[1]:
        raise error(Reason.BAD_CONFIG, "the UDP socket has no port yet", "bind it")
    if not name:
        raise error(Reason.BAD_CONFIG, "the meeting has no name", "agree on one, for example by the rendezvous server")
    version = 6 if sock.family == socket.AF_INET6 else 4
    places: dict[tuple[str, int], None] = {}
    for address, port in candidates:
        try:
            found = ipaddress.ip_address(address)
        except ValueError:
            raise error(Reason.BAD_CONFIG, f"{address!r} is no IP address", "resolve names before") from None
        if not 0 < port < 65536:
            raise error(Reason.BAD_CONFIG, f"port {port}", "ports are 1..65535")
        if found.version == version:
            places[address, port] = None
    if not places:
        raise error(Reason.BAD_CONFIG, f"no address of the peer is IPv{version}, as the socket is", "name one")
    if len(places) > ADDRESSES_MAX:
        raise error(Reason.BAD_CONFIG, f"{len(places)} addresses", f"no more than {ADDRESSES_MAX} are tried")
    return list(places)
