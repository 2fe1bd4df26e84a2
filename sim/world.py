# SPDX-License-Identifier: Apache-2.0
"""One run of one scenario: from the first call to the moment when nothing may be left of it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from accord.datapath.path import Path
from accord.wire.constants import Protocol
from accord.wire.errors import AccordError
from sim import identity, judge, meeting
from sim.host import Host, Life, inside_words
from sim.loop import CALLED, VirtualLoop
from sim.network import Network, from_initiator, ip_bytes, is_packet, transaction_of
from sim.record import Called, Records
from sim.scenario import SECOND, Call, Fault, Scenario, Trouble
from sim.substitutes import installed
from sim.tcp import Segment

_SETTLE_US: Final = 120 * SECOND
"""From the last call and the last fault until everything has to be over: the lifetime of a negotiation, the time that
its commit is repeated, that its end is told, that it lingers, each about ten seconds; and the ninety that a service of
the simulator waits for a client that has vanished."""
_LOOK_US: Final = 500_000
_READ_SECONDS: Final = 45.0


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
        self.transmissions: Counter[tuple[Life, bytes, int]] = Counter()
        """Packets with chunks that initiators have sent, by step."""
        files = identity.files()
        self.hosts = [Host(self, index, spec, files) for index, spec in enumerate(scenario.hosts)]
        self._by_address = {host.address: host for host in self.hosts}
        self._calls: list[asyncio.Task[None]] = []

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
        there = Path(4, path.context, path.remote, path.remote_port, source.address, path.local_port)
        self.network.datagram(
            (source.index, (source.address, path.local_port)),
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
            count[0] += ip_bytes(data, path.context)
        if life.port is not None and life.port.arrive(there, data):
            return
        if path.context == Protocol.UDP and source.life is not None and source.life.port is not None:
            source.life.port.unreachable(path)

    def segment(self, source: Host, segment: Segment) -> None:
        """A host's TCP sends."""
        target = self.by_address(segment.destination[0])
        self.network.segment((source.index, target.index), segment, lambda arriving: target.kernel.arrive(arriving))

    # ---- the course of events ----

    def run(self) -> Verdict:
        """To the end, and judge it."""
        self.run_quietly()
        return judge.verdict(self)

    def run_quietly(self) -> None:
        """To the end; what is logged as an error goes to ``complaints``."""
        handler = _Complaints(self.complaints)
        log = logging.getLogger("accord")
        before, propagates = log.level, log.propagate
        log.addHandler(handler)
        log.setLevel(logging.ERROR)
        log.propagate = False
        try:
            with installed():
                self.loop.run_until_complete(self._course())
        finally:
            log.removeHandler(handler)
            log.setLevel(before)
            log.propagate = propagates
            self.loop.dispose()

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

    def _reload(self, host: Host, number: int) -> None:
        self.network.note(f"host {host.index}: policy {number}")
        host.policy = number
        if host.life is not None:
            host.life.run(host.life.reload, number)

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
            try:
                async with asyncio.timeout(_READ_SECONDS):
                    if not call.early:
                        await association.carrier.write(request)
                    answer = b""
                    while len(answer) < len(request) and (more := await association.carrier.read()):
                        answer += more
                    called.said_back = answer == request
                    await association.carrier.close()
            except (AccordError, OSError) as failure:
                called.broken = str(failure) or type(failure).__name__
            finally:
                association.carrier.abort()
            end = "said back" if called.said_back else "broken"
            self.network.note(f"call {called.number}: {end}")
            self.network.remark(f"    {called.broken}")
        finally:
            called.done = True
            called.took = self.loop.time() - call.at / SECOND


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
