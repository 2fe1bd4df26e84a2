# SPDX-License-Identifier: Apache-2.0
"""A man in the middle between two real daemons: whatever he changes, it is the same stack, or a reason at both ends."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import accord
from accord.lab.hosts import PORT, SERVER_NAME
from sim.mitm import lab, wire
from sim.mitm.edits import Edit, Kind
from sim.mitm.lab import BROKEN, GET, PAGE, PLAIN, TALKS, Between, Talk
from sim.mitm.middle import Leg

pytestmark = pytest.mark.root

STACK = TALKS[0].stack
EDITS = 20
ROOT = Path(__file__).parents[2]
SPRAYED = 200
_QUIET = (Kind.REPLAY, Kind.ABORT, Kind.ORDER)
"""Not in the slice: what is tested by itself, and what has no effect by design."""


@pytest.fixture(scope="module")
def between(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Between]:
    with lab.between(tmp_path_factory.mktemp("mitm")) as both:
        yield both


@pytest.mark.parametrize(
    ("talk", "count"), list(zip(TALKS, (EDITS, 6, 6), strict=True)), ids=[*(talk.name for talk in TALKS)]
)
def test_each_edit_ends_in_the_same_stack_or_in_a_plain_one_of_which_both_ends_know_why(
    between: Between, talk: Talk, count: int
) -> None:
    one, other = between.record(talk), between.record(talk)
    edits = [edit for edit in lab.edits_of(one, 1) if edit.kind not in _QUIET][:count]
    outcomes: Counter[tuple[tuple[str, ...], str]] = Counter()
    for edit in edits:
        outcome = between.play(talk, edit, other)
        assert not outcome.said, (str(edit), outcome)
        outcomes[outcome.stack, outcome.reason] += 1
    assert outcomes.total() == count
    if count == EDITS:  # enough that some of them matter, whichever they are
        assert len({stack for stack, _ in outcomes}) > 1, outcomes


def test_answers_that_somebody_sprays_who_does_not_know_the_id_change_nothing(between: Between) -> None:
    """From the server's address and port to the client's, with everything right but the transaction ID."""
    client = between.hosts.lab.client

    def dropped() -> int:
        counters: dict[str, int] = between.ask(client, op="status")["counters"]["engine"]
        return sum(count for reason, count in counters.items() if reason != "OK")

    between.forget()
    him, before = between.him.edit(None), dropped()
    carried, sprayed = him.datagram, 0

    def spray(leg: Leg, data: bytes) -> None:
        nonlocal sprayed
        if leg.source == 0 and data[1] == 0 and not sprayed:  # the client's proposal
            answer = data[:1] + b"\x01" + (int.from_bytes(data[2:4], "big") & ~wire.INITIATOR).to_bytes(2, "big")
            for _ in range(SPRAYED):
                between.him.inject(leg.path.back, wire.sealed(answer + data[4:8] + os.urandom(12) + data[20:]))
                between.him.inject(leg.path.back, wire.challenge(os.urandom(12), os.urandom(16)))
            sprayed = 2 * SPRAYED
        carried(leg, data)

    him.datagram = spray  # type: ignore[method-assign]
    assert asyncio.run(between.connect()) == (STACK, "OK")
    assert sprayed
    assert dropped() >= before + sprayed


def test_what_was_said_into_a_stack_that_the_responder_never_committed_to_is_not_waited_upon(between: Between) -> None:
    """It is silent about a commit without T(1), whoever sent it; its kernel has acknowledged the request by then."""
    transcript = 0x8003
    between.forget()
    for _ in range(3):
        him = between.him.edit(Edit(Kind.UNTLV, 0, 2, 0, (transcript,)))
        assert asyncio.run(between.connect()) == (STACK, BROKEN)
        assert him.struck


def test_who_drops_every_proposal_is_found_out_by_both_daemons(between: Between) -> None:
    between.forget()
    server = between.hosts.lab.server
    between.him.edit(Edit(Kind.DROP, 0, -1, args=(0,)))
    before = between.ask(server, op="status")["counters"]["negotiation"].get("FORCED_FALLBACK", 0)
    assert asyncio.run(between.connect(tcp="parallel-syn")) == (PLAIN, "FORCED_FALLBACK")
    assert between.ask(server, op="status")["counters"]["negotiation"]["FORCED_FALLBACK"] == before + 1
    refused = asyncio.run(between.connect(tcp="parallel-syn", on_forced_fallback="refuse"))
    assert refused == ((), "FORCED_FALLBACK")


def test_a_whole_negotiation_that_is_replayed_a_hundred_times_after_its_commit_changes_nothing(
    between: Between,
) -> None:
    between.forget()
    server = between.hosts.lab.server
    him = between.him.edit(Edit(Kind.REPLAY, 0, 0, args=(150, 100)))

    async def talk() -> None:
        lab = between.hosts.lab
        wishes = {"tcp": "no-syn", "prefer": ["tls/tcp"], "fallback": "never"}
        control, remote = between.hosts.control(lab.client), f"{lab.server.address4}:{PORT}"
        options: dict[str, Any] = {"ca_file": between.hosts.ca, "server_name": SERVER_NAME}
        async with accord.connect(remote, wishes, control=control, **options) as association:
            await asyncio.sleep(0.6)  # all of it comes again meanwhile
            await association.write(GET)
            said = b""
            while more := await association.read():
                said += more
            assert said.endswith(PAGE)

    def committed() -> float:
        return float(between.ask(server, op="status")["counters"]["negotiation"].get("OK", 0))

    before = committed()
    asyncio.run(talk())
    assert him.struck
    assert committed() == before + 1
    deadline = time.monotonic() + 20
    while between.ask(server, op="status")["in_flight"]:
        assert time.monotonic() < deadline, "a repetition has begun something"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("stack", "reason", "holds"),
    [
        (("http", "tls", "tcp"), "OK", True),
        (("http", "tls", "tcp"), BROKEN, True),
        (("http", "tcp"), "OK", False),
        (("tcp",), "LEGACY_FIRST", False),
        (PLAIN, "FORCED_FALLBACK", True),
        (PLAIN, "OK", False),
        (PLAIN, BROKEN, False),
        ((), "BAD_MAC", True),
        ((), "", False),
    ],
)
def test_what_comes_of_an_edit_is_judged_by_stack_and_reason(stack: tuple[str, ...], reason: str, holds: bool) -> None:
    assert (lab.judged(TALKS[0], stack, reason) == "") is holds
    if stack == PLAIN:
        assert lab.judged(TALKS[2], stack, reason), "the policy rules it out"


def test_the_lab_is_for_many_edits_by_root() -> None:
    command = [sys.executable, "-m", "sim", "--lab"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=60)
    assert (done.returncode, "--lab is for --mitm" in done.stderr) == (2, True), done.stderr


def test_a_campaign_in_the_lab_says_what_came_of_each_edit() -> None:
    command = [sys.executable, "-m", "sim", "--mitm", "--lab", "--edits", "6", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=100)
    found = json.loads(done.stdout)
    assert (found["edits"], found["undetected_differences"], done.returncode) == (6, 0, 0), done.stderr
    assert set(found["outcomes"]) == {talk.name for talk in TALKS}
