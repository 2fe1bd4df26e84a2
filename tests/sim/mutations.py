# SPDX-License-Identifier: Apache-2.0
"""Mistakes for the simulator to find, each made by replacing one thing of the code under test.

Those of the C engine are made where it meets the port: what leaves it is withheld or changed, as a wrong engine's would
be.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest

from accord.controller import prepared
from accord.controller.endpoint import Endpoint
from accord.controller.exchange import Exchange
from accord.controller.peers import lessons
from accord.controller.race.racing import Contest
from accord.controller.rendezvous import Rendezvous
from accord.controller.renegotiation.lasting import LastingCarrier
from accord.datapath.engine import Engine
from accord.datapath.path import Path
from accord.negotiation import choosing, initiator, meeting, merge, responder, transcript
from accord.negotiation.machine import Machine
from accord.protocols.tcp_installed import InstalledTcp
from accord.wire import tcp_header
from accord.wire.constants import Packet, Step
from sim.kernel import SimEndpoint
from sim.network import _checksum
from sim.scenario import PORT, SECOND, Call, Fault, HostSpec, Meet, Scenario, Trouble, draw

Patch = pytest.MonkeyPatch


@dataclass(frozen=True)
class Mutation:
    """One mistake; ``within``: seeds in which it has to be found, of those that ``fits``."""

    name: str
    make: Callable[[Patch], None]
    within: int = 60
    fits: Callable[[Scenario], bool] = lambda scenario: True
    draw: Callable[[int], Scenario] = draw
    """Where what it takes is rare: seeds of a scenario that has it."""


def _has(*troubles: Trouble) -> Callable[[Scenario], bool]:
    return lambda scenario: any(fault.trouble in troubles for fault in scenario.faults)


def _two(trouble: Trouble, a: int, b: int, secure: str, amount: float, begin: int = 0) -> Callable[[int], Scenario]:
    """Two hosts, host 0 calls host 1, and one fault."""
    hosts = (HostSpec(policy=2),) * 2
    calls = (Call(0, 0, 1, (("secure", secure), ("tcp", "parallel-syn"))),)
    fault = Fault(trouble, a, b, begin, 60 * SECOND, amount)
    return lambda seed: Scenario(seed, False, hosts, calls, (fault,), ((50, 10_000), (10_000, 50)))


def _any(scenario: Scenario) -> bool:
    return True


def _nothing(*_: object, **__: object) -> None:
    return None


def _output(patch: Patch, change: Callable[[Engine, bytes], bytes | None]) -> None:
    """What the engine sends, changed; None: withheld."""
    real = Engine.output

    def output(self: Engine, now: int) -> list[tuple[Path, bytes]]:
        while sent := real(self, now):
            kept = [(path, changed) for path, data in sent if (changed := change(self, data)) is not None]
            if kept:
                return kept
        return []

    patch.setattr(Engine, "output", output)


def commits_are_never_repeated(patch: Patch) -> None:
    seen: set[bytes] = set()

    def once(_: Engine, data: bytes) -> bytes | None:
        key = data[8:24]
        if data[1] != Step.COMMIT or len(data) == Packet.HEADER_BYTES or key not in seen:
            seen.add(key)
            return data
        return None

    _output(patch, once)


def nothing_is_ever_repeated(patch: Patch) -> None:
    seen: set[bytes] = set()

    def once(_: Engine, data: bytes) -> bytes | None:
        if len(data) > Packet.HEADER_BYTES and data[2:3] + data[8:24] in seen:
            return None
        seen.add(data[2:3] + data[8:24])
        return data

    _output(patch, once)


def commits_are_never_acknowledged(patch: Patch) -> None:
    def mute(_: Engine, data: bytes) -> bytes | None:
        answers = not data[3] & 1
        return None if answers and len(data) == Packet.HEADER_BYTES else data

    _output(patch, mute)


def one_packet_more_is_acknowledged_than_came(patch: Patch) -> None:
    def more(_: Engine, data: bytes) -> bytes:
        if not data[3] & 2:
            return data
        changed = bytearray(data)
        changed[28:30] = (int.from_bytes(data[28:30], "big") + 1).to_bytes(2, "big")
        changed[30:32] = b"\0\0"
        changed[30:32] = _checksum(bytes(changed)).to_bytes(2, "big")
        return bytes(changed)

    _output(patch, more)


def answers_are_padded_beyond_the_limit(patch: Patch) -> None:
    _output(patch, lambda _, data: data if data[3] & 1 or len(data) < 100 else data + bytes(5000))


def every_address_is_taken_for_proven(patch: Patch) -> None:
    real = Exchange.run

    def run(self: Exchange, machine: Any, first: Sequence[Any] = ()) -> None:
        self._endpoint.engine.prove(self._handle)
        real(self, machine, first)

    patch.setattr(Exchange, "run", run)


def repetitions_are_new_negotiations(patch: Patch) -> None:
    real = Endpoint.release
    patch.setattr(Endpoint, "release", lambda self, handle, linger=0.0: real(self, handle))


def the_responder_believes_any_transcript(patch: Patch) -> None:
    believing = SimpleNamespace(**{name: getattr(transcript, name) for name in ("BEGIN", "entries", "extend", "Entry")})
    believing.equal = lambda one, other: True
    patch.setattr(responder, "transcript", believing)


def the_initiator_checks_no_mac(patch: Patch) -> None:
    patch.setattr(initiator, "check_mac", _nothing)


def the_responder_checks_no_mac(patch: Patch) -> None:
    patch.setattr(responder, "check_mac", _nothing)


def every_cookie_and_transaction_is_the_same(patch: Patch) -> None:
    patch.setattr(prepared, "_TRANSACTION_BYTES", 0)


def the_responder_takes_any_graph_for_the_answers(patch: Patch) -> None:
    patch.setattr(
        responder.Responder, "_finish", lambda self, walk: setattr(self, "_stack", self._stack[:1]) or _F(self, walk)
    )


def pruned_nodes_keep_what_they_have(patch: Patch) -> None:
    patch.setattr(InstalledTcp, "drop", _nothing)


def aborted_sessions_are_not_told(patch: Patch) -> None:
    patch.setattr(Machine, "_told", _nothing)


def the_responder_installs_with_the_commit_only(patch: Patch) -> None:
    """The reset race."""
    installed, commit = SimEndpoint.installed, InstalledTcp.commit

    def not_yet(self: SimEndpoint) -> None:
        if self.parameters.port != PORT:
            installed(self)

    def late(self: InstalledTcp, view: Any) -> None:
        endpoint: Any = self._endpoint
        if not self._committed and endpoint.parameters.port == PORT:
            installed(endpoint)
        commit(self, view)

    patch.setattr(SimEndpoint, "installed", not_yet)
    patch.setattr(InstalledTcp, "commit", late)


def the_losing_connection_is_left_open(patch: Patch) -> None:
    patch.setattr(Contest, "_close", _nothing)


def the_losing_negotiation_goes_on(patch: Patch) -> None:
    patch.setattr(Contest, "_give_up", _nothing)
    patch.setattr(lessons.Lesson, "listen_on", _nothing)


def transactions_are_never_released(patch: Patch) -> None:
    patch.setattr(Exchange, "_release_later", _nothing)


def refusals_are_not_told(patch: Patch) -> None:
    real = Machine._abort

    def silent(self: Machine, *arguments: Any, **options: Any) -> None:
        options["tell"] = None
        real(self, *arguments, **options)

    patch.setattr(Machine, "_abort", silent)


def who_hears_a_proposal_yields(patch: Patch) -> None:
    patch.setattr(merge, "leader", lambda own, heard: heard)


def own_preferences_decide(patch: Patch) -> None:
    real = merge.merge

    def tilted(own: merge.Proposal, heard: merge.Proposal, secure: Collection[int]) -> merge.Merged:
        return replace(
            real(own, heard, secure), stacks=real(own, merge.Proposal(heard.identity, own.graph), secure).stacks
        )

    patch.setattr(meeting, "merge", tilted)


def the_socket_of_a_meeting_is_kept(patch: Patch) -> None:
    patch.setattr(Rendezvous, "_end_if_over", _nothing)


def _meets(seed: int) -> Scenario:
    """Two hosts that like opposite stacks best call each other; every other time with losses."""
    hosts = (HostSpec(policy=2), HostSpec(policy=1))
    delays = ((50, 10_000), (10_000, 50))
    faults = (Fault(Trouble.MASK, seed & 1, 1 - (seed & 1), 0, 60 * SECOND, seed & 30),) if seed % 3 else ()
    return Scenario(seed, False, hosts, (), faults, delays, 600, (Meet(0, 0, 1, (seed % 4) * 4000),))


def translators_go_unnoticed(patch: Patch) -> None:
    patch.setattr(tcp_header, "checksum_matches", lambda *_: True)


def a_change_of_stack_forgets_what_has_come(patch: Patch) -> None:
    real = LastingCarrier._move

    async def forgetful(self: LastingCarrier, following: Any, identity: Any) -> None:
        self.sent += 1
        await real(self, following, identity)

    patch.setattr(LastingCarrier, "_move", forgetful)


def tlvs_stand_as_they_were_thought_of(patch: Patch) -> None:
    patch.setattr(choosing, "attrgetter", lambda name: lambda each: 0)


def _translated(seed: int) -> Scenario:
    """Behind a translator, TCP without a SYN is wanted."""
    hosts = (HostSpec(policy=2),) * 2
    calls = (Call(0, 0, 1, (("tcp", "no-syn"), ("fallback", "never"))),)
    return Scenario(seed, False, hosts, calls, (), ((50, 10_000), (10_000, 50)), translated=0)


def _changes(seed: int) -> Scenario:
    """An association is re-negotiated while data flows."""
    hosts = (HostSpec(policy=2),) * 2
    calls = (Call(0, 0, 1, (("secure", "required"), ("renegotiate", True)), 60.0, 5000, renegotiations=2),)
    return Scenario(seed, False, hosts, calls, (), ((50, 10_000), (10_000, 50)))


def _meets_and_retries(seed: int) -> Scenario:
    return replace(_meets(seed), retries=True)


_F: Any = responder.Responder._finish


_LATE = _two(Trouble.DUPLICATION, 0, 1, "required", 1.0)
_CLEAR = _two(Trouble.FORGERY, 1, 0, "no", 0.5)
_BACK = _two(Trouble.FORGERY, 1, 0, "required", 0.5)
_COMMIT = _two(Trouble.FORGERY, 0, 1, "required", 1.0, 15_000)

ALL: tuple[Mutation, ...] = (
    Mutation("commits are never repeated", commits_are_never_repeated, 60, _has(Trouble.LOSS, Trouble.MASK)),
    Mutation("nothing is ever repeated", nothing_is_ever_repeated, 40, _has(Trouble.LOSS, Trouble.MASK)),
    Mutation("acknowledgements of commits are missing", commits_are_never_acknowledged),
    Mutation("one packet too many is acknowledged", one_packet_more_is_acknowledged_than_came),
    Mutation("answers are padded beyond the limit", answers_are_padded_beyond_the_limit),
    Mutation("every address is taken for proven", every_address_is_taken_for_proven, 60, lambda s: s.flight >= 4000),
    Mutation("repetitions are new negotiations", repetitions_are_new_negotiations, 80, _any, _LATE),
    Mutation("the responder believes any transcript", the_responder_believes_any_transcript, 100, _any, _CLEAR),
    Mutation("the initiator checks no MAC", the_initiator_checks_no_mac, 100, _any, _BACK),
    Mutation("the responder checks no MAC", the_responder_checks_no_mac, 150, _any, _COMMIT),
    Mutation("all transactions have one ID", every_cookie_and_transaction_is_the_same),
    Mutation("the responder commits to less than it answered", the_responder_takes_any_graph_for_the_answers),
    Mutation("pruned nodes keep their sockets", pruned_nodes_keep_what_they_have),
    Mutation("aborted sessions are not told", aborted_sessions_are_not_told),
    Mutation("the responder installs with the commit only", the_responder_installs_with_the_commit_only),
    Mutation("the losing connection is left open", the_losing_connection_is_left_open),
    Mutation("the losing negotiation goes on", the_losing_negotiation_goes_on, 150),
    Mutation("transactions are never released", transactions_are_never_released),
    Mutation("refusals are not told", refusals_are_not_told),
    Mutation("who hears a proposal yields", who_hears_a_proposal_yields, 20, _any, _meets),
    Mutation("a side's own preferences decide", own_preferences_decide, 20, _any, _meets),
    Mutation("translators go unnoticed", translators_go_unnoticed, 5, _any, _translated),
    Mutation("a change of stack miscounts", a_change_of_stack_forgets_what_has_come, 5, _any, _changes),
    Mutation("TLVs stand in any order", tlvs_stand_as_they_were_thought_of, 20, _any, _meets_and_retries),
    Mutation("the socket of a meeting is kept", the_socket_of_a_meeting_is_kept, 20, _any, _meets),
)
