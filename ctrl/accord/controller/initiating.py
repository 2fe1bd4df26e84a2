# SPDX-License-Identifier: Apache-2.0
"""Connecting to a peer: its addresses one by one, a race at each, and what is told of the winner."""

from __future__ import annotations

import functools
import ipaddress
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from accord.controller.adoption.awaited import AwaitedCarrier
from accord.controller.association import Association, Report
from accord.controller.ladder import Ladder, Way
from accord.controller.negotiating import route
from accord.controller.peers.dns_hints import NOTHING, Hint, advised
from accord.controller.peers.lessons import Lesson
from accord.controller.peers.memory import Learnt
from accord.controller.prepared import Target
from accord.controller.proposal import tcp_open
from accord.controller.race.head_start import HeadStart
from accord.controller.race.racing import Contest, Won
from accord.controller.renegotiation.initiator_end import Origin
from accord.controller.resolver import resolve
from accord.controller.settings.policy import Early, EffectivePolicy, Fallback, TcpOpen
from accord.controller.settings.values import OnForcedFallback
from accord.controller.stack import inside_of, stack_names, still_coming
from accord.datapath import clock
from accord.datapath.zone import host_of
from accord.protocols.sealed.configuration import KeyConfiguration, best
from accord.protocols.services import Carrier, Security
from accord.wire.constants import Reason, protocol_name
from accord.wire.errors import AccordError, PathError, error

if TYPE_CHECKING:
    from accord.controller.controller import Controller

log = logging.getLogger("accord.race")


class Attempt:
    """One call of ``connect``: tries the host's addresses in the resolver's order."""

    def __init__(
        self,
        controller: Controller,
        host: str,
        port: int,
        policy_for: Callable[[str], EffectivePolicy],
        wishes: Mapping[str, Any],
        security: Security,
        early: bytes,
    ) -> None:
        self._controller = controller
        self._host = host
        self._port = port
        self._policy_for = policy_for
        self._wishes = wishes
        self._policy = policy_for(host)
        self._security = security
        self._early = b""
        """Travels in the proposal, in clear."""
        self._request = early
        self.ladder = Ladder(clock.now)

    async def run(self, family: int | None) -> Association:
        """The association. Raises the last address's ``AccordError`` when none of them works."""
        failure: AccordError | None = None
        if (hints := self._controller.hints) is not None and _literal(self._host) is None:
            hints.ask(self._host, self._port)
        for address in await self._resolve(family):
            try:
                return await self._to(address)
            except PathError as unreachable:
                self.ladder.note(Way.HERE, f"{address}: {unreachable}")
                failure = unreachable
        assert failure is not None, "a resolver that finds nothing raises"
        raise failure

    async def _resolve(self, family: int | None) -> list[str]:
        wanted = {None: socket.AF_UNSPEC, 4: socket.AF_INET, 6: socket.AF_INET6}.get(family)
        if wanted is None:
            raise error(Reason.BAD_CONFIG, f"address family {family}", "4, 6 or none")
        literal = _literal(self._host)
        if literal is not None:  # an address needs no resolver, nor the thread that asks it
            if family not in (None, literal.version):
                raise error(Reason.BAD_CONFIG, f"{self._host} is no IPv{family} address")
            if isinstance(literal, ipaddress.IPv6Address) and literal.is_link_local and not literal.scope_id:
                raise error(Reason.BAD_CONFIG, f"{self._host} is on every link", f"name one: {self._host}%eth0")
            return [self._host]
        try:
            found = await resolve(self._host, self._port, wanted)
        except (socket.gaierror, UnicodeError) as unknown:  # UnicodeError: a label that is empty or too long
            why = unknown.strerror if isinstance(unknown, OSError) else "no name"
            raise error(Reason.UNREACHABLE, f"{self._host}: {why}", "check the name, or give an address") from unknown
        return list(dict.fromkeys(host_of(address) for address in found))

    # ---- one address ----

    async def _to(self, address: str) -> Association:
        if address != self._host:
            self._policy = self._policy_for(address)
        head = self._head_start(address)
        try:
            return await self._race(address, head)
        finally:
            if head is not None:
                head.close()

    def _head_start(self, address: str) -> HeadStart | None:
        """The SYN, where the policy says that it comes first, or the memory of peers that nothing else comes."""
        controller, policy, port = self._controller, self._policy, self._port
        silent = controller.peers.silent(address, port)
        if silent and self._need_not_propose:
            return HeadStart(address, port, None, self.ladder)
        if (
            (self._request and policy.early is not Early.NEVER)
            or silent is not None
            or not controller.first_syns.by(policy)
            or any((target.address, target.port) == (address, port) for target in controller.proposals)
            or (controller.hints is not None and controller.hints.knows(self._host, port) is not NOTHING)
        ):
            return None
        return HeadStart(address, port, controller.syn_options, self.ladder)

    @property
    def _need_not_propose(self) -> bool:
        """To a silent peer. If it turns out that it was silent towards another own address, before the route was known,
        the proposal comes behind that SYN, which bears no option."""
        policy = self._policy
        return (
            policy.plain is not Fallback.NEVER
            and policy.via is None
            and policy.on_forced_fallback is not OnForcedFallback.REFUSE
        )

    async def _race(self, address: str, head: HeadStart | None) -> Association:
        policy, plain = self._policy, self._policy.plain
        source, mtu = route(address, self._port)
        lesson = self._controller.lessons.of(address, self._port, source)
        hint = self._take_hint(lesson)
        key, trusted = self._key(lesson, hint) if policy.hides else (None, True)
        early = self._request if policy.early_in_clear or (policy.early_sealed and trusted) else b""
        security = self._security
        if policy.inside.alpn:
            security = replace(security, alpn=policy.inside.alpn)
        adopts = tcp_open(self._controller.plugins, policy, works=bool(lesson.known.no_syn)) is TcpOpen.PARALLEL_SYN
        via = None
        if policy.via is not None:
            own, mtu = route(policy.via, self._port)
            via, adopts = (own, policy.via), False
            self.ladder.note(Way.HERE, f"out-of-band: negotiating by {policy.via}")
        target = Target(source, address, self._port, policy, security, mtu, adopts, early=bool(early), via=via, key=key)
        self.ladder.note(
            Way.HERE,
            f"to {address} port {self._port}, security {policy.secure}, fallback {plain}, "
            f"tcp {TcpOpen.PARALLEL_SYN if target.adopts else TcpOpen.NO_SYN}",
        )
        if plain is not policy.fallback:
            self.ladder.note(Way.HERE, f"no plain connection: {policy.plain_objection}")
        try:
            won = await Contest(self._controller, target, lesson, early, self.ladder, head).run()
        finally:
            if (hints := self._controller.hints) is not None and Learnt.WAITED_IN_VAIN in lesson.learnt:
                hints.refute(self._host, self._port)
        if won.committed is not None and (coming := still_coming(won.committed)) is not None:
            won = await self._up(won, coming)
        report = self._report(address, won, lesson)
        carrier = won.carrier
        if not early:  # bytes that travelled in the negotiation are in no count
            origin = Origin(self._host, self._port, address, self._wishes, self._security)
            carrier, report.association = self._controller.associations.initiated(won, policy, origin)
        association = Association(carrier, report)
        # Not before it is decided: a request that is not idempotent must not travel twice.
        if self._request and not (won.committed and early):
            try:
                await carrier.write(self._request)
            except OSError as broken:
                carrier.abort()
                raise error(Reason.STREAM_BROKEN, f"{address}: {broken.strerror}") from broken
            except BaseException:
                carrier.abort()
                raise
        return association

    async def _up(self, won: Won, coming: Callable[[], Awaitable[Carrier]]) -> Won:
        """A stack whose connection the kernels were still setting up, once that is there. Raises ``AccordError``."""
        assert won.committed is not None
        assert won.negotiation is not None
        try:
            connection = await coming()
        except BaseException as failure:
            won.carrier.abort()
            if isinstance(failure, AccordError) and won.negotiation.exchange.refused is not None:
                raise won.negotiation.exchange.refused from failure
            raise
        lowest = won.committed.sessions[0]
        remark: tuple[Reason, str] | None = getattr(lowest, "remark", None)
        self.ladder.note(Way.HERE, f"{protocol_name(lowest.protocol)}: connected")
        if remark is not None:
            self.ladder.note(Way.HERE, f"{remark[0].name}: {remark[1]}")
        # Alone it is the kernel's own socket from now on, and goes to the program as that.
        carrier = connection if isinstance(won.carrier, AwaitedCarrier) else won.carrier
        return replace(won, ready=self.ladder.elapsed(), carrier=carrier, remark=remark)

    def _key(self, lesson: Lesson, hint: Hint) -> tuple[KeyConfiguration | None, bool]:
        """What to seal to, pinned, learnt or hinted at; and whether more than who listens cannot open it.

        A hint may be anybody's own key: it hides from those who do not answer, and a request is not sealed to it.
        """
        now = self._controller.recursion.wall()
        name = self._security.server_name or ""
        sources = (
            ("pinned by the policy", self._policy.keys, True),
            ("learnt from the peer", lesson.keys(name), True),
            ("from the DNS", hint.keys, False),
        )
        for source, keys, trusted in sources:
            if (key := best(keys, now)) is not None:
                self.ladder.note(Way.HERE, f"inner: sealing to {key.name}, {source}")
                return key, trusted
        return None, True

    def _take_hint(self, lesson: Lesson) -> Hint:
        """What the DNS has said of the name by now, if anything."""
        if (hints := self._controller.hints) is None:
            return NOTHING
        hint = hints.knows(self._host, self._port)
        if hint.accord or hint.quic:
            says = " and ".join(name for name, spoken in (("Accord", hint.accord), ("QUIC", hint.quic)) if spoken)
            self.ladder.note(Way.HERE, f"DNS: {self._host} speaks {says}, so it is said")
        lesson.known = advised(lesson.known, hint)
        return hint

    def _report(self, address: str, won: Won, lesson: Lesson) -> Report:
        controller = self._controller
        report = Report(
            peer=f"{address} port {self._port}",
            stack=list(won.stack),
            ready_ms=round(won.ready * 1000, 3),
            back_end=controller.back_end,
            attach_mode=controller.attach_mode,
            remembered=[what.value for what in lesson.learnt],
        )
        if won.why is not None:
            report.reason, report.detail = won.why.reason.name, won.why.detail
            report.fault = won.why.reason.party.name.lower()
        if won.negotiation is None or won.committed is None:
            return report
        report.negotiated = True
        if won.remark is not None:
            report.reason, report.detail = won.remark[0].name, won.remark[1]
            report.fault = won.remark[0].party.name.lower()
        report.stack = stack_names(won.committed)
        top = won.committed.sessions[-1]
        learnt = getattr(top, "key_learnt", None)
        if isinstance(learnt, KeyConfiguration) and self._security.verify:
            lesson.learn_key(self._security.server_name or "", learnt)
        report.alpn = getattr(top, "alpn_selected", None) or ""
        report.early = bool(getattr(top, "taken", False))
        report.inside = inside_of(won.committed)
        figures = won.negotiation.exchange.figures()
        if figures is not None:
            report.packets_sent, report.packets_received = figures.packets_sent, figures.packets_received
            report.bytes_sent, report.bytes_received = figures.bytes_sent, figures.bytes_received
            report.retransmitted = figures.retransmitted
        return report


@functools.lru_cache(maxsize=1024)
def _literal(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a host is given as; None: it is a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
