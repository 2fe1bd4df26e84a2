# SPDX-License-Identifier: Apache-2.0
"""One run of one scenario: from the first call to the moment when nothing may be left of it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from accord.controller.association import Association
from accord.datapath.path import Path
from accord.protocols.services import Carrier
from accord.wire.constants import Protocol
from accord.wire.errors import AccordError
from sim import identity, judge, meeting
from sim.host import Host, Life, inside_words
from sim.loop import CALLED, Standstill, VirtualLoop
from sim.network import Network, bears_cookie, from_initiator, ip_bytes, is_packet, transaction_of
from sim.record import Called, Records
from sim.scenario import SECOND, Call, Fault, Scenario, Trouble
from sim.substitutes import installed
from sim.tcp import Address, Segment
from sim.translator import Translator

_SETTLE_US: Final = 120 * SECOND
"""From the last call and the last fault until everything has to be over: the lifetime of a negotiation, the time that
its commit is repeated, that its end is told, that it lingers, each about ten seconds; and the ninety that a service of
the simulator waits for a client that has vanished."""
_LOOK_US: Final = 500_000
_READ_SECONDS: Final = 45.0
_PIECE_BYTES: Final = 200
_PIECE_SECONDS: Final = 0.02
_MOST_BYTES: Final = 40_000


@dataclass(slots=True)
class Verdict:
    """What a run came to. ``failures``: invariants that did not hold, in words; empty: it converged."""

    seed: int
    trace_hash: str
    steps: int
    packets: int
    negotiations: int
    committed: int
    failures: dict[str, list[str]] = field(default_factory=dict)
    ladder: list[str] = field(default_factory=list)
    features: list[str] = field(default_factory=list)
    """What it has had in it (``features.FEATURES``)."""

    @property
    def ok(self) -> bool:
        """Every invariant held."""
        return not self.failures


class World:
    """The hosts and the network of one scenario."""

    def __init__(self, scenario: Scenario, *, keep_ladder: bool = False) -> None:
        self.scenario = scenario
        self.loop = VirtualLoop()
        self.network = Network(self.loop, scenario, keep_ladder=keep_ladder)
        self.records = Records()
        self.complaints: list[str] = []
        self.amplified: dict[tuple[int, int, bytes], list[int]] = {}
        self.repeated: set[tuple[int, int, bytes]] = set()
        """Transactions whose initiator has repeated a cookie, by host and life."""
        self.transmissions: Counter[tuple[Life, bytes, int]] = Counter()
        """Packets with chunks that initiators have sent, by step."""
        files = identity.files()
        self.hosts = [Host(self, index, spec, files) for index, spec in enumerate(scenario.hosts)]
        self._by_address = {host.address: host for host in self.hosts}
        self.translator: Translator | None = None
        if scenario.translated >= 0:
            behind = self.hosts[scenario.translated]
            self.translator = Translator(behind.address, "10.9.9.9" if scenario.family == 4 else "fd09::9")
            self._by_address[self.translator.outside] = behind
        self._calls: list[asyncio.Task[None]] = []
        self.stands_still = False
        """It was given up, because it would never have ended."""

    @property
    def restarted(self) -> bool:
        """A host has had more than one life."""
        return any(host.lives > 1 for host in self.hosts)

    def by_address(self, address: str) -> Host:
        """The host that has it."""
        return self._by_address[address]

    # ---- the network ----

    def datagram(self, source: Host, path: Path, data: bytes) -> None:
        """A host sends."""
        judge.sent(self, source, path, data)
        self.carry(source, path, data)

    def carry(self, source: Host, path: Path, data: bytes) -> None:
        """A datagram is on the network, whoever put it there."""
        target = self.by_address(path.remote)
        seen: Address = (source.address, path.local_port)
        mine: Address | None = (path.remote, path.remote_port)
        if self.translator is not None and source.address == self.translator.inside:
            seen = self.translator.out(path.context, path.local_port, path.remote)
        elif self.translator is not None and path.remote == self.translator.outside:
            mine = self.translator.back(path.context, path.remote_port, source.address)
        if mine is None:
            return
        there = Path(path.family, path.context, *mine, *seen)
        self.network.datagram(
            (source.index, seen),
            (target.index, (target.address, path.remote_port)),
            data,
            lambda arriving: self._arrive(source, target, path, there, arriving),
        )

    def _arrive(self, source: Host, target: Host, path: Path, there: Path, data: bytes) -> None:
        life = target.life
        if life is None:
            return
        if is_packet(data) and from_initiator(data):
            count = self.amplified.setdefault((target.index, life.number, transaction_of(data)), [0, 0])
            count[0] += ip_bytes(data, path.context, path.family)
            if target.index in self.scenario.flooded | self.scenario.unkept and bears_cookie(data):
                self.repeated.add((target.index, life.number, transaction_of(data)))
        if life.port is not None and life.port.arrive(there, data):
            return
        if path.context == Protocol.UDP and source.life is not None and source.life.port is not None:
            source.life.port.unreachable(path)

    def segment(self, source: Host, segment: Segment) -> None:
        """A host's TCP sends."""
        target = self.by_address(segment.destination[0])
        if self.translator is not None and source.address == self.translator.inside:
            seen = self.translator.out(Protocol.TCP, segment.source[1], segment.destination[0])
            segment = dataclasses.replace(segment, source=seen)
        elif self.translator is not None and segment.destination[0] == self.translator.outside:
            mine = self.translator.back(Protocol.TCP, segment.destination[1], source.address)
            if mine is None:
                return
            segment = dataclasses.replace(segment, destination=mine)
        self.network.segment((source.index, target.index), segment, lambda arriving: target.kernel.arrive(arriving))

    # ---- the course of events ----

    def run(self) -> Verdict:
        """To the end, and judge it."""
        self.run_quietly()
        return judge.verdict(self)

    def run_quietly(self) -> None:
        """To the end, or to where it would never end; what is logged as an error goes to ``complaints``."""
        handler = _Complaints(self.complaints)
        log = logging.getLogger("accord")
        before, propagates = log.level, log.propagate
        log.addHandler(handler)
        log.setLevel(logging.ERROR)
        log.propagate = False
        with installed():
            try:
                self.loop.run_until_complete(self._course())
            except Standstill as why:
                self.stands_still = True
                judge.complain(self, "stuck", str(why))
            finally:
                log.removeHandler(handler)
                silence = logging.NullHandler()
                log.addHandler(silence)  # for what ends with the loop, and nobody waits for
                self.network.over = True
                self.loop.dispose()
                self.network.over = False
                log.removeHandler(silence)
                log.setLevel(before)
                log.propagate = propagates

    async def _course(self) -> None:
        for host in self.hosts:
            host.start()
        for fault in self.scenario.faults:
            self._plan(fault)
        self.begin_calls()
        for number, meet in enumerate(self.scenario.meetings):
            meeting.plan(self, meet, number)
        await asyncio.sleep(self.scenario.quiet / SECOND)
        await self._settle(_SETTLE_US, lambda: not judge.unfinished(self))
        judge.finished(self)
        for host in self.hosts:
            if host.life is not None:
                host.life.run(host.life.close)
        await asyncio.sleep(15)
        judge.closed(self)

    def begin_calls(self) -> None:
        """Each at its time."""
        for number, call in enumerate(self.scenario.calls):
            called = Called(number)
            self.records.calls.append(called)
            self.loop.call_at(call.at / SECOND, self._call, call, called)

    async def _settle(self, longest: int, settled: Any) -> None:
        end = self.loop.now_us + longest
        while self.loop.now_us < end and not settled():
            await asyncio.sleep(_LOOK_US / SECOND)

    def _plan(self, fault: Fault) -> None:
        host = self.hosts[fault.a]
        match fault.trouble:
            case Trouble.CRASH | Trouble.POWER | Trouble.RESTART:
                self.loop.call_at(fault.begin / SECOND, self._end_life, host, fault.trouble)
                self.loop.call_at(fault.end / SECOND, self._begin_life, host)
            case Trouble.SUSPEND:
                self.loop.call_at(fault.begin / SECOND, self._suspend, host, fault.end - fault.begin)
            case Trouble.HANG:
                self.loop.call_at(fault.begin / SECOND, self._stand_still, host)
                self.loop.call_at(fault.end / SECOND, self._go_on, host)
            case Trouble.POLICY:
                self.loop.call_at(fault.begin / SECOND, self._reload, host, int(fault.amount))
            case Trouble.NO_INSTALL:
                self.loop.call_at(fault.begin / SECOND, self._installs, host, False)
                self.loop.call_at(fault.end / SECOND, self._installs, host, True)
            case _:
                pass  # the network's

    def _end_life(self, host: Host, how: Trouble) -> None:
        if host.life is None:
            return
        self.network.note(f"host {host.index}: {how.value}")
        {Trouble.CRASH: host.kill, Trouble.POWER: host.power_off, Trouble.RESTART: host.stop}[how]()

    def _begin_life(self, host: Host) -> None:
        if host.life is None:
            self.network.note(f"host {host.index}: starts")
            host.start()

    def _suspend(self, host: Host, microseconds: int) -> None:
        self.network.note(f"host {host.index}: its clock jumps {microseconds / SECOND:g} s ahead")
        host.skew += microseconds

    def _stand_still(self, host: Host) -> None:
        self.network.note(f"host {host.index}: stands still")
        host.stand_still()

    def _go_on(self, host: Host) -> None:
        self.network.note(f"host {host.index}: goes on")
        host.go_on()

    def _reload(self, host: Host, number: int) -> None:
        self.network.note(f"host {host.index}: policy {number}")
        host.policy = number
        if host.life is not None:
            host.life.run(self.loop.call_soon, host.life.reload, number)

    def _installs(self, host: Host, able: bool) -> None:
        self.network.note(f"host {host.index}: kernel {'installs' if able else 'refuses'}")
        host.kernel.installs = able

    # ---- calls ----

    def _call(self, call: Call, called: Called) -> None:
        host = self.hosts[call.source]
        if host.life is None:
            called.done = True
            return
        life = called.life = host.life
        self._calls.append(life.run(life.spawn, self._converse(life, call, called)))

    async def _converse(self, life: Life, call: Call, called: Called) -> None:
        CALLED.set(called)
        try:
            target = self.hosts[call.target]
            request = (called.number + 1).to_bytes(4, "big") + bytes(call.request)
            self.network.note(f"call {called.number}: host {call.source} to {call.target} {dict(call.wishes)}")
            try:
                async with asyncio.timeout(call.patience):
                    early = request if call.early else b""
                    association = await life.connect(target.address, dict(call.wishes), early)
            except TimeoutError:
                called.called_off = True
                self.network.note(f"call {called.number}: called off")
                return
            except AccordError as failure:
                called.reason = failure.reason.name
                self.network.note(f"call {called.number}: failed {called.reason}")
                self.network.remark(f"    {failure}")
                return
            report = association.report
            called.association, called.negotiated = "/".join(report.stack), report.negotiated
            called.inside = inside_words(report.inside)
            called.reason = report.reason
            self.network.note(f"call {called.number}: {called.association} {report.reason}")
            await self._talk(life, call, called, association, request)
            end = "said back" if called.said_back else "broken"
            self.network.note(f"call {called.number}: {end}")
            self.network.remark(f"    {called.broken}")
        finally:
            called.done = True
            called.took = self.loop.time() - call.at / SECOND

    async def _talk(self, life: Life, call: Call, called: Called, association: Association, request: bytes) -> None:
        carrier = association.carrier
        try:
            async with asyncio.timeout(_READ_SECONDS):
                if call.silence:
                    await asyncio.sleep(call.silence)
                if call.renegotiations and association.report.association:
                    await self._talk_and_change(life, call, called, association, request)
                else:
                    if not call.early:
                        await carrier.write(request)
                    called.said_back = await _heard(carrier, len(request)) == request
                await carrier.close()
        except (AccordError, OSError) as failure:
            called.broken = str(failure) or type(failure).__name__
        finally:
            carrier.abort()

    async def _talk_and_change(
        self, life: Life, call: Call, called: Called, association: Association, request: bytes
    ) -> None:
        """Talk, both ways at once, while the association is given other stacks; nothing may be lost, or come twice."""
        changing = asyncio.ensure_future(self._change(life, call, called, association.report.association))
        listening = asyncio.ensure_future(_heard(association.carrier))
        sent = b""
        try:
            while len(sent) < len(request) or (not changing.done() and len(sent) < _MOST_BYTES):
                piece = request[len(sent) : len(sent) + _PIECE_BYTES] or bytes(_PIECE_BYTES)
                await association.carrier.write(piece)
                sent += piece
                await asyncio.sleep(_PIECE_SECONDS)
            await changing
            await association.carrier.finish()
            heard = await listening
            called.said_back = heard == sent
            if not sent.startswith(heard):
                self.complaints.append(f"diverged: call {called.number} heard what it has not said")
        finally:
            changing.cancel()
            listening.cancel()

    async def _change(self, life: Life, call: Call, called: Called, name: str) -> None:
        assert life.controller is not None
        for _ in range(call.renegotiations):
            try:
                await life.controller.associations.get(name).renegotiate()
            except AccordError as failure:
                self.network.note(f"call {called.number}: not changed, {failure.reason.name}")
            else:
                called.changed += 1
                self.network.note(f"call {called.number}: has another stack")
            await asyncio.sleep(_PIECE_SECONDS)


async def _heard(carrier: Carrier, count: int = 1 << 30) -> bytes:
    """So many bytes, or up to the end."""
    heard = b""
    while len(heard) < count and (more := await carrier.read()):
        heard += more
    return heard


class _Complaints(logging.Handler):
    """What the control plane logs as an error: nothing may."""

    def __init__(self, into: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._into = into

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            text += f": {type(record.exc_info[1]).__name__}: {record.exc_info[1]}"
        with contextlib.suppress(Exception):
            self._into.append(text)


def run(scenario: Scenario, *, keep_ladder: bool = False) -> Verdict:
    """Run it."""
    return World(scenario, keep_ladder=keep_ladder).run()
