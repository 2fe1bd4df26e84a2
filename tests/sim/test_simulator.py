# SPDX-License-Identifier: Apache-2.0
"""The simulator itself: a slice of its seeds converges, each replays, and what fails is made smaller."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aioquic.quic.connection import QuicConnection

from accord.datapath.path import Path as Way
from accord.negotiation.interface import Role
from accord.protocols import quic_stream
from accord.wire.constants import Protocol
from sim import loop
from sim.campaign import judge_scenario, judge_seed
from sim.host import Life
from sim.scenario import SECOND, Call, Fault, HostSpec, Meet, Scenario, Trouble, draw
from sim.shrink import shrink
from sim.world import Verdict, World

ROOT = Path(__file__).resolve().parents[2]
DELAYS = ((50, 10_000), (10_000, 50))
ALONE = (("tcp", "no-syn"), ("fallback", "never"))
QUIC = (Call(0, 0, 1, (("prefer", ["quic"]),)),)


def simple(*faults: Fault, calls: tuple[Call, ...] = (Call(0, 0, 1),), **host: Any) -> Scenario:
    """Two hosts of one kind, 20 ms apart."""
    return Scenario(1, False, (HostSpec(**host),) * 2, calls, faults, DELAYS)


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """``python -m sim``."""
    return subprocess.run(
        [sys.executable, "-m", "sim", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'ctrl'}", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def test_a_slice_of_the_seeds_converges() -> None:
    failed = {seed: verdict.failures for seed in range(140) if (verdict := judge_seed(seed)).failures}
    assert not failed


def test_every_kind_of_fault_and_real_tls_are_in_that_slice() -> None:
    scenarios = [draw(seed) for seed in range(120)]
    assert {fault.trouble for scenario in scenarios for fault in scenario.faults} == set(Trouble)
    assert any(scenario.real_tls for scenario in scenarios)
    assert any(not host.accord for scenario in scenarios for host in scenario.hosts)


@pytest.mark.parametrize("seed", [2, 3])
def test_a_seed_replays_to_the_same_trace_whatever_python_hashes_by(seed: int) -> None:
    traces = {
        json.loads(command("--seed", str(seed), "--json", PYTHONHASHSEED=hashes).stdout)["trace_hash"]
        for hashes in ("1", "2")
    }
    assert traces == {judge_seed(seed).trace_hash}


def test_real_tls_replays_too() -> None:
    seed = next(seed for seed in range(1000) if draw(seed).real_tls and draw(seed).faults)
    assert judge_seed(seed).trace_hash == judge_seed(seed).trace_hash


def test_another_seed_has_another_trace() -> None:
    assert len({judge_seed(seed).trace_hash for seed in range(10)}) == 10


def test_without_faults_a_stack_is_up_after_one_round_trip_and_carries_data() -> None:
    world = World(simple(), keep_ladder=True)
    assert world.run().ok
    (called,) = world.records.calls
    assert (called.association, called.negotiated, called.said_back) == ("http/tls/tcp", True, True)
    up = next(line for line in world.network.ladder if "call 0: http/tls/tcp" in line)
    assert float(up.split()[0]) == pytest.approx(20.0, abs=0.1)


def test_a_host_without_accord_is_reached_as_always() -> None:
    world = World(replace(simple(), hosts=(HostSpec(), HostSpec(accord=False))))
    assert world.run().ok
    assert (world.records.calls[0].association, world.records.calls[0].negotiated) == ("tls/tcp", False)
    assert world.records.calls[0].said_back


def test_a_crash_of_the_responder_before_the_commit_is_no_disagreement_and_leaves_nothing() -> None:
    fault = Fault(Trouble.CRASH, 1, -1, 15_000, 2 * SECOND)
    world = World(simple(fault, calls=(Call(0, 0, 1, (("tcp", "no-syn"), ("fallback", "never"))),)))
    assert world.run().ok
    assert "never acknowledged" in " ".join(side.outcome for side in world.records.sides.values())


def test_the_last_acknowledgement_may_be_lost_for_ever() -> None:
    """The commit is repeated until its time is over; the stack shows by itself that it is up, and nothing is left."""
    after_the_answer = Fault(Trouble.MASK, 1, 0, 0, 60 * SECOND, (1 << 64) - 2)
    world = World(simple(after_the_answer, calls=(Call(0, 0, 1, ALONE),)))
    assert world.run().ok
    assert world.records.calls[0].said_back
    (one,) = (side for side in world.records.sides.values() if side.role is Role.INITIATOR and side.sent_commit)
    assert (one.confirmed, one.unconfirmed) == (False, True)


@pytest.mark.parametrize("wishes", [(), ALONE], ids=["beside a plain connection", "alone"])
def test_a_responder_may_be_killed_at_any_moment(wishes: tuple[tuple[str, str], ...]) -> None:
    for milliseconds in range(0, 60, 6):
        fault = Fault(Trouble.CRASH, 1, -1, milliseconds * 1000, 60 * SECOND)
        world = World(simple(fault, calls=(Call(0, 0, 1, wishes),)))
        assert world.run().ok
        (called,) = world.records.calls
        assert called.done
        assert called.association or called.reason
        assert called.took < 25, "a stack that is up and silent is given up like any other connection"


@pytest.mark.parametrize("host", [0, 1], ids=["initiator", "responder"])
@pytest.mark.parametrize("length", [15, 700, 11_000], ids=lambda length: f"{length} ms")
@pytest.mark.parametrize("wishes", [(), ALONE], ids=["beside a plain connection", "alone"])
def test_a_host_may_stand_still_at_any_moment_and_go_on(
    wishes: tuple[tuple[str, str], ...], length: int, host: int
) -> None:
    """SIGSTOP before and behind each datagram; SIGCONT before the probe time-out, behind the heartbeat, or too late."""
    for milliseconds in (1, 9, 11, 19, 21, 29, 31, 39, 41):
        fault = Fault(Trouble.HANG, host, -1, milliseconds * 1000, (milliseconds + length) * 1000)
        world = World(simple(fault, calls=(Call(0, 0, 1, wishes),)))
        verdict = world.run()
        assert verdict.ok, (milliseconds, verdict.failures)
        (called,) = world.records.calls
        assert called.said_back or called.reason not in ("", "OK", "CLOSED")
        assert called.said_back or length > 10_000, "nothing waits for less than ten seconds"


def test_a_host_that_stands_still_does_nothing_and_its_kernel_goes_on() -> None:
    """The SYN is answered, no proposal is, and after 450 ms SYNs are not suppressed any more."""
    away = Fault(Trouble.HANG, 1, -1, 5000, 5 * SECOND)
    world = World(simple(away, calls=(Call(0, 0, 1),)), keep_ladder=True)
    assert world.run().ok
    sent = [line for line in world.network.ladder if "1 -> 0" in line]
    meanwhile = [line for line in sent if float(line.split()[0]) < 5000]
    assert meanwhile, "the kernel is silent"
    assert all("TCP SYN-ACK" in line or "TCP ack" in line for line in meanwhile)
    assert not world.hosts[1].kernel.silent_since


def test_every_mask_that_loses_two_of_the_first_four_datagrams_is_survived() -> None:
    for way in ((0, 1), (1, 0)):
        for mask in (0b0011, 0b0101, 0b1001, 0b0110, 0b1010, 0b1100):
            fault = Fault(Trouble.MASK, *way, 0, 60 * SECOND, mask)
            calls = (Call(0, 0, 1, (("tcp", "no-syn"), ("fallback", "never"))),)
            world = World(simple(fault, calls=calls))
            assert world.run().ok
            assert world.records.calls[0].said_back


@pytest.mark.parametrize("missed", range(4))
def test_a_longer_exchange_that_lost_its_race_after_the_first_answer_comes_to_nothing(missed: int) -> None:
    """TLS is up on the plain connection while the peer's second answer is awaited: nobody wants its stack."""
    wishes = (("tcp", "no-syn"), ("secure", "required"), ("choose", ["tls"]))
    lost = Fault(Trouble.MASK, 0, 1, 0, 60 * SECOND, 1 << missed)
    world = World(simple(lost, calls=(Call(0, 0, 1, wishes),), xdp=False))
    assert world.run().ok
    (called,) = world.records.calls
    assert called.said_back
    assert called.negotiated == (missed > 1)


def test_what_fails_is_made_smaller() -> None:
    whole = draw(next(seed for seed in range(100) if len(draw(seed).faults) > 3 and len(draw(seed).hosts) > 2))

    def judge(scenario: Scenario) -> Verdict:
        """Fails as long as host 0 calls somebody, and any fault is left."""
        verdict = Verdict(scenario.seed, "", 0, 0, 0, 0)
        if scenario.faults and any(call.source == whole.calls[0].source for call in scenario.calls):
            verdict.failures["diverged"] = ["made up"]
        return verdict

    smaller = shrink(whole, judge)
    assert (len(smaller.faults), len(smaller.calls)) == (1, 1)
    assert judge(smaller).failures


def test_of_hosts_that_call_each_other_one_is_up_after_a_round_trip_the_other_half_a_one_later() -> None:
    calls_each_other = replace(simple(calls=()), meetings=(Meet(0, 0, 1),))
    world = World(calls_each_other, keep_ladder=True)
    assert world.run().ok
    one, other = world.records.met
    assert (one.stack, one.heard, other.heard) == ("http/tls/tcp", True, True)
    at = {line.split("as ")[1]: float(line.split()[0]) for line in world.network.ladder if "meeting 0 at host" in line}
    assert at == {"initiator": pytest.approx(20.0, abs=0.1), "responder": pytest.approx(30.0, abs=0.1)}


def test_a_share_of_the_seeds_has_hosts_that_call_each_other() -> None:
    assert sum(bool(draw(seed).meetings) for seed in range(500)) > 50


def test_every_feature_is_reached_by_random_seeds() -> None:
    scenarios = [draw(seed) for seed in range(300)]
    assert {scenario.family for scenario in scenarios} == {4, 6}
    assert any(scenario.translated >= 0 for scenario in scenarios)
    assert any(scenario.retries for scenario in scenarios)
    assert any("quic" in scenario.hosts[0].plugins for scenario in scenarios)
    calls = [call for scenario in scenarios for call in scenario.calls]
    assert any(call.renegotiations for call in calls)
    assert {"defer", "choose"} <= {key for call in calls for key, _ in call.wishes}
    assert max(len(scenario.calls) for scenario in scenarios) > 8


@pytest.mark.parametrize(
    ("change", "stack", "feature"),
    [
        ({"family": 6}, "http/tls/tcp", "IPv6"),
        ({"translated": 0}, "http/tls/tcp", "address translation"),
        ({"retries": True}, "http/tls/tcp", "another share"),
        ({"calls": (Call(0, 0, 1, (("defer", ["tls"]), *ALONE)),)}, "http/tls/tcp", "deferred"),
        ({"calls": (Call(0, 0, 1, (("choose", ["tls"]), *ALONE)),)}, "http/tls/tcp", "initiator choice"),
        (
            {"calls": (Call(0, 0, 1, (("renegotiate", True),), 60.0, 5000, renegotiations=2),)},
            "http/tls/tcp",
            "re-negotiation",
        ),
        ({"hosts": (HostSpec(plugins=("tcp", "tls", "http", "quic")),) * 2, "calls": QUIC}, "http/quic", "QUIC"),
    ],
)
def test_a_feature_comes_about_and_is_counted(change: dict[str, Any], stack: str, feature: str) -> None:
    world = World(replace(simple(), **change))
    verdict = world.run()
    assert verdict.ok, verdict.failures
    (called,) = world.records.calls
    assert (called.association, called.negotiated, called.said_back) == (stack, True, True)
    assert feature in verdict.features


def test_behind_a_translator_tcp_without_a_syn_is_refused_and_both_find_the_other_on_the_plain_connection() -> None:
    world = World(replace(simple(calls=(Call(0, 0, 1, (("tcp", "no-syn"),)),)), translated=0))
    assert world.run().ok
    (called,) = world.records.calls
    assert (called.association, called.reason) == ("tls/tcp", "FORCED_FALLBACK")


def test_a_seed_with_quic_replays_too() -> None:
    seed = next(seed for seed in range(1000) if draw(seed).opaque and not draw(seed).real_tls)
    assert judge_seed(seed).trace_hash == judge_seed(seed).trace_hash


def test_a_flooded_host_is_reached_by_who_repeats_its_cookie() -> None:
    plain, flooded = (World(replace(simple(), flooded=frozenset(hosts))) for hosts in ((), (1,)))
    assert plain.run().ok
    assert flooded.run().ok
    assert not plain.repeated
    assert len(flooded.repeated) == 1


def test_where_more_call_than_there_are_places_what_lingers_may_give_way() -> None:
    assert judge_seed(3293).ok


def test_a_cookie_is_in_no_trace_for_it_binds_what_real_cryptography_has_drawn() -> None:
    assert judge_seed(3280).trace_hash == judge_seed(3280).trace_hash


def test_a_share_of_the_seeds_has_hosts_that_ask_for_cookies() -> None:
    assert sum(bool(draw(seed).flooded) for seed in range(500)) > 50


def test_an_exception_in_a_host_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from accord.controller.exchange import Exchange

    def broken(*_: object) -> None:
        raise ZeroDivisionError("made up")

    monkeypatch.setattr(Exchange, "on_event", broken)
    assert "ZeroDivisionError" in str(judge_scenario(simple()).failures["exception"])


def test_a_seed_for_which_time_stands_still_is_stuck_and_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quic_stream, "_TICK_SECONDS", 0.0)
    monkeypatch.setattr(QuicConnection, "get_timer", lambda self: 0.0)  # always due, as by a rounding error
    hosts = (HostSpec(plugins=("tcp", "tls", "http", "quic")),) * 2
    verdict = judge_scenario(replace(simple(calls=QUIC), hosts=hosts), keep_ladder=True)
    assert verdict.failures == {
        "stuck": ["10000 events, and it is still 0.020000 s: QuicCarrier._time, World._converse"]
    }
    assert "20.00 ms  !! stuck" in verdict.ladder[-1]


def test_packets_without_end_at_one_moment_are_stuck_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def storm(life: Life, *path_and_data: Any) -> None:
        while True:
            life.world.datagram(life.host, Way(4, Protocol.UDP, "10.0.0.1", 1, "10.0.0.2", 2), b"again")

    monkeypatch.setattr(Life, "observe", storm)
    assert "10000 events, and it is still 0.000000 s" in judge_scenario(simple()).failures["stuck"][0]


def test_a_seed_that_takes_more_turns_than_any_needs_is_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "MOST_TURNS", 20)
    assert "20 turns of the loop in 0.0" in judge_scenario(simple()).failures["stuck"][0]


def test_a_run_ends_without_a_word_whatever_it_still_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this seed a race is on when the run ends, and has a connection to be closed."""
    said: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: said.append(str(what.exc_value)))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert judge_seed(75).ok
        gc.collect()
    assert [*said, *(str(warning.message) for warning in warned if warning.category is RuntimeWarning)] == []


def test_the_command_says_what_held_in_one_json_object() -> None:
    done = command("--seeds", "40", "--jobs", "1", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["seeds"], found["converged"], found["replay_identical"]) == (40, 40, True)
    assert found["diverged"] == found["stuck"] == found["leaked"] == 0


def test_a_trace_is_drawn_as_a_ladder() -> None:
    done = command("--seed", "1", "--trace")
    assert done.returncode == 0, done.stderr
    assert "proposal 0" in done.stdout
    assert "converged" in done.stdout


def test_a_trace_of_no_seed_is_a_usage_error() -> None:
    assert command("--trace").returncode == 2
