# SPDX-License-Identifier: Apache-2.0
"""Answers of which nothing is kept but a slot: whole negotiations between two controllers on loopback."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
from collections.abc import Callable
from pathlib import Path

import pytest

from accord.controller.settings.policy import Secure
from accord.controller.strangers import tls as strangers_tls
from accord.controller.strangers import unkept as strangers_unkept
from accord.datapath import clock, unkept
from accord.datapath.engine import Engine, Event, EventKind, Level
from accord.datapath.path import Path as NetworkPath
from accord.negotiation.interface import Role
from accord.protocols.http import HttpPlugin
from accord.protocols.tls_connection import TlsConnection
from accord.wire.constants import Limit, Reason
from tests.strangers.hosts import Hosts, hosts, run, without_post_quantum

CHECKSUM = slice(30, 32)
BIG = bytes(range(256)) * 800


def sealed(packet: bytes) -> bytes:
    """With its checksum (RFC 1071) made good."""
    blank = packet[:30] + b"\0\0" + packet[32:]
    padded = blank + b"\0" * (len(blank) % 2)
    total = sum(int.from_bytes(padded[at : at + 2], "big") for at in range(0, len(padded), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return packet[:30] + (~total & 0xFFFF).to_bytes(2, "big") + packet[32:]


def one(event: Event) -> bytes:
    """The only packet of a flight."""
    (packet,) = unkept.packets(event.data)
    return packet


def flight(packet: bytes) -> bytes:
    """Of one packet."""
    return len(packet).to_bytes(2, "big") + packet


class Watched:
    """What the server's engine hands up of strangers, and what they are answered."""

    def __init__(self, both: Hosts, patch: pytest.MonkeyPatch) -> None:
        self.met: list[Event] = []
        self.answers: list[bytes] = []
        self.before: Callable[[Event], None] = lambda event: None
        """Called with each event before it is dealt with."""
        self.engine = both.server.endpoint.engine
        self._deal, self._send = both.server.strangers.met, self.engine.send_once
        patch.setattr(both.server.endpoint, "met_stranger", self._meet)
        patch.setattr(self.engine, "send_once", self._answer)
        self.both = both

    def _meet(self, event: Event) -> None:
        self.met.append(event)
        self.before(event)
        self._deal(event)

    def _answer(self, path: object, packet: bytes) -> None:
        self.answers.append(packet)
        self._send(path, packet)

    def of(self, kind: EventKind) -> list[Event]:
        return [event for event in self.met if event.kind is kind]

    def inject(self, event: Event, packet: bytes | None = None, **changes: object) -> Reason:
        """The packet of an event again, or another one, from where it came."""
        assert event.path is not None
        path = dataclasses.replace(event.path, **changes)
        reason = self.engine.input(clock.now_us(), path, one(event) if packet is None else packet)
        self.both.server.endpoint.pump()
        return reason


async def known(both: Hosts) -> None:
    """A first contact, for which a cookie is asked, because nobody knows yet how long the answer is."""
    association = await both.connect()
    await both.accept()
    assert both.server.strangers.deferred == {"the answer is longer than the proposal": 1}
    await association.carrier.close()


async def until(condition: Callable[[], bool]) -> None:
    """A while: the test's own limit is what ends it otherwise."""
    while not condition():
        await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def classical(monkeypatch: pytest.MonkeyPatch) -> None:
    without_post_quantum(monkeypatch)


# ---- One round trip, and nothing kept ----


def test_a_stranger_gets_tls_on_tcp_in_one_round_trip_and_data_flows_both_ways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with hosts(tmp_path) as both:
            await known(both)
            watched = Watched(both, monkeypatch)
            ours = await both.connect()
            theirs = await both.accept()
            assert ours.report.stack == theirs.report.stack == ["http", "tls", "tcp"]
            # One packet, one packet, one packet: that is the round trip.
            assert [event.kind for event in watched.met] == [EventKind.STRANGER, EventKind.RETURNED]
            assert [packet[1] for packet in (one(watched.met[0]), *watched.answers, one(watched.met[1]))] == [0, 1, 2]
            assert len(watched.answers[0]) <= len(one(watched.met[0])), "amplified"
            assert "MAC verified" in str(ours.report.ladder)
            assert "MAC verified" in str(theirs.report.ladder)
            await ours.carrier.write(BIG)
            got = b""
            while len(got) < len(BIG):
                got += await theirs.carrier.read()
            assert got == BIG
            await theirs.carrier.write(b"and back")
            await theirs.carrier.close()
            assert await ours.carrier.read() == b"and back"
            assert await ours.carrier.read() == b""
            assert both.counters.get("QUOTA", 0) == 0

    run(work())


def test_between_answer_and_commit_there_is_a_slot_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with hosts(tmp_path) as both:
            await known(both)
            watched = Watched(both, monkeypatch)
            usage, seen = watched.engine.usage, []
            await until(lambda: both.server.endpoint.in_flight == 0)  # the first contact's has lingered

            def look(event: Event) -> None:
                now = usage()
                kept = unkept.slot(watched.engine, clock.now_us(), event.transaction)
                seen.append((event.kind, now.slots, now.unproven, both.server.endpoint.in_flight, kept is not None))

            watched.before = look
            gc.collect()
            before = sum(isinstance(each, strangers_unkept.Unkept) for each in gc.get_objects())
            await both.connect()
            await both.accept()
            assert seen == [(EventKind.STRANGER, 0, 0, 0, False), (EventKind.RETURNED, 1, 0, 0, True)]
            assert usage().slots == 0, "the commit has emptied it"
            gc.collect()
            after = sum(isinstance(each, strangers_unkept.Unkept) for each in gc.get_objects())
            assert after <= before + 1

    run(work())


def test_strangers_who_never_commit_leave_nothing_but_their_slots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with hosts(tmp_path, slots=8, strangers_per_second=10_000) as both:
            await known(both)
            watched = Watched(both, monkeypatch)
            await both.connect()
            await both.accept()
            proposal = watched.met[0]
            for number in range(100):
                packet = bytearray(one(proposal))
                packet[12:20] = number.to_bytes(8, "big")  # bytes 0..3 of the ID are those of the first TSN
                adopt = packet.rfind(bytes(proposal.transaction), 32)
                packet[adopt : adopt + 12] = packet[8:20]
                assert watched.inject(proposal, sealed(bytes(packet))) is Reason.OK
            usage = watched.engine.usage()
            assert (usage.slots, usage.slots_limit, usage.unproven) == (8, 8, 0)
            await until(lambda: both.server.endpoint.in_flight == 0)
            assert both.server.strangers.deferred["no slot is free"] == 92
            assert len(watched.answers) == 1 + 8

    run(work())


def test_the_same_proposal_again_has_the_same_answer_and_another_one_with_its_id_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with hosts(tmp_path) as both:
            await known(both)
            watched = Watched(both, monkeypatch)

            def meddle(event: Event) -> None:
                watched.before = lambda event: None
                if event.kind is EventKind.STRANGER:
                    watched._deal(event)
                    for _ in range(3):
                        watched.inject(event)
                    other = bytearray(one(event))
                    other[-1] ^= 1  # padding: the same graph, and yet other bytes
                    watched.inject(event, sealed(bytes(other)))

            watched.before = meddle
            await both.connect()
            await both.accept()
            assert len(set(watched.answers)) == 1 < len(watched.answers) == 5
            assert watched.engine.usage().slots == 0

    run(work())


# ---- The commit ----


def test_a_replayed_commit_makes_no_second_stack_from_wherever_and_whenever_it_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with hosts(tmp_path) as both:
            await known(both)
            watched = Watched(both, monkeypatch)
            ours = await both.connect()
            theirs = await both.accept()
            (commit,) = watched.of(EventKind.RETURNED)
            for _ in range(100):
                assert watched.inject(commit) is Reason.DUPLICATE
                assert watched.inject(commit, remote_port=9) is Reason.UNKNOWN_TRANSACTION
                assert watched.inject(commit, remote="127.0.0.9") is Reason.UNKNOWN_TRANSACTION
            later = clock.now_us() + 11_000_000  # nobody remembers that there was such a transaction
            watched.engine.output(later)
            assert watched.engine.input(later, commit.path, one(commit)) is Reason.SLOT_GONE
            proposal = watched.met[0]
            watched.engine.input(later, proposal.path, one(proposal))
            both.server.endpoint.pump()
            assert watched.engine.input(later, commit.path, one(commit)) is Reason.BAD_TRANSCRIPT
            assert len(watched.of(EventKind.RETURNED)) == 1
            assert both.server.strangers.commits == 1
            assert both.accepted.empty()
            await ours.carrier.write(b"undisturbed")
            assert await theirs.carrier.read() == b"undisturbed"

    run(work())


def test_two_copies_of_one_commit_in_one_batch_are_one_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        async with hosts(tmp_path) as both:
            await known(both)
            watched = Watched(both, monkeypatch)

            def again(event: Event) -> None:
                watched.before = lambda event: None if event.kind is EventKind.RETURNED else again(event)
                if event.kind is EventKind.RETURNED:
                    watched._deal(event)

            watched.before = again
            await both.connect()
            await both.accept()
            assert both.server.strangers.commits == 1
            assert both.accepted.empty()

    run(work())


def test_a_commit_with_another_transcript_does_not_even_reach_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with hosts(tmp_path) as both:
            await known(both)
            watched = Watched(both, monkeypatch)
            results = set()

            def forge(event: Event) -> None:
                if event.kind is not EventKind.RETURNED:
                    return
                watched.before = lambda event: None
                kept = unkept.slot_of(watched.engine, clock.now_us(), event.handle)
                at = one(event).index(kept.transcript)
                for bit in range(256):
                    packet = bytearray(one(event))
                    packet[at + bit // 8] ^= 1 << bit % 8
                    results.add(watched.inject(event, sealed(bytes(packet))))

            watched.before = forge
            await both.connect()
            await both.accept()
            assert results == {Reason.BAD_TRANSCRIPT}
            assert len(watched.of(EventKind.RETURNED)) == 1

    run(work())


@pytest.mark.parametrize("forged", [1, 2, 3])
def test_a_forged_commit_burns_no_slot_until_the_third(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forged: int
) -> None:
    """Whoever has seen the answer knows T(1), and not the keys of the MAC."""

    async def work() -> None:
        async with hosts(tmp_path) as both:
            await known(both)
            watched = Watched(both, monkeypatch)
            verdicts = []

            def forge(event: Event) -> None:
                if event.kind is not EventKind.RETURNED:
                    return
                watched.before = lambda event: None
                for number in range(forged):
                    packet = bytearray(one(event))
                    packet[-1 - 20 * number] ^= 1  # of TLS's Finished, of the MAC, or of a TCP node
                    watched._deal(event._replace(data=flight(sealed(bytes(packet)))))
                    verdicts.append(unkept.slot_of(watched.engine, clock.now_us(), event.handle) is not None)

            watched.before = forge
            ours = await both.connect()
            if forged == 3:
                await until(lambda: len(verdicts) == 3)
                assert verdicts == [True, True, False]
                assert both.server.strangers.commits == 0
                assert both.accepted.empty()
                return
            theirs = await both.accept()
            assert verdicts == [True] * forged
            assert both.server.strangers.commits == 1
            await ours.carrier.write(b"after all")
            assert await theirs.carrier.read() == b"after all"

    run(work())


# ---- What is deferred, and that load chooses nothing ----


def test_what_prefers_quic_gets_quic_after_a_cookie_and_no_other_stack_without(tmp_path: Path) -> None:
    async def work() -> None:
        async with hosts(tmp_path) as both:
            association = await both.connect(prefer=["quic", "tls/tcp"])
            await both.accept()
            assert association.report.stack == ["http", "quic"]
            assert both.counters["CHALLENGED"] == 1
            assert both.server.strangers.commits == 0

    run(work())


def test_a_plug_in_that_does_not_say_that_it_is_repeatable_is_deferred(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(HttpPlugin, "repeatable")

    async def work() -> None:
        async with hosts(tmp_path) as both:
            association = await both.connect()
            await both.accept()
            assert association.report.stack == ["http", "tls", "tcp"]
            assert both.server.strangers.deferred == {"the plug-in http": 1}

    run(work())


TCP_ALONE = {"prefer": ["tcp"], "secure": "no", "packets_min": 1}


def test_tcp_alone_is_answered_without_memory_at_the_first_contact_of_who_makes_room(tmp_path: Path) -> None:
    async def work() -> None:
        async with hosts(tmp_path, secure=Secure.NO) as both:
            ours = await both.connect(**TCP_ALONE)
            theirs = await both.accept()
            assert ours.report.stack == theirs.report.stack == ["http", "tcp"]
            assert (both.server.strangers.answers, both.server.strangers.commits) == (1, 1)
            assert both.server.strangers.slotless == 1, "there are no secrets to be kept in a slot"
            await ours.carrier.write(b"in clear")
            assert await theirs.carrier.read() == b"in clear"

    run(work())


def test_a_commit_that_brings_another_proposal_or_is_repeated_comes_to_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with hosts(tmp_path, secure=Secure.NO, slots=0) as both:
            watched, verdicts = Watched(both, monkeypatch), []

            def forge(event: Event) -> None:
                if event.kind is not EventKind.RETURNED:
                    return
                watched.before = lambda event: None
                packet = one(event)
                at = packet.index(bytes([0x80, 0x0C])) + 4  # REPEAT's value: the cookie, then the proposal
                end = at + int.from_bytes(packet[at - 2 : at], "big")
                assert usage().slots == 0
                for where in range(at + 16, end):
                    changed = bytearray(packet)
                    changed[where] ^= 1
                    watched._deal(event._replace(data=flight(sealed(bytes(changed)))))
                    verdicts.append(both.server.strangers.commits)

            usage = watched.engine.usage
            watched.before = forge
            ours = await both.connect(**TCP_ALONE)
            theirs = await both.accept()
            assert len(verdicts) > 40
            assert set(verdicts) == {0}
            assert both.server.strangers.commits == 1
            (commit,) = watched.of(EventKind.RETURNED)
            for _ in range(10):
                assert watched.inject(commit) is Reason.DUPLICATE
                assert watched.inject(commit, remote_port=9) is not Reason.OK
            assert both.accepted.empty()
            await ours.carrier.write(b"undisturbed")
            assert await theirs.carrier.read() == b"undisturbed"

    run(work())


def test_an_early_request_is_served_to_nobody_whose_address_is_not_proven(tmp_path: Path) -> None:
    async def work() -> None:
        async with hosts(tmp_path, secure=Secure.NO) as both:
            both.early = b"GET / HTTP/1.1\r\n\r\n"
            await both.connect(**TCP_ALONE, early="idempotent")
            assert both.server.strangers.deferred == {"an early request": 1}
            assert both.server.strangers.commits == 0

    run(work())


@pytest.mark.root
def test_tcp_without_a_syn_waits_for_a_socket_and_so_for_a_cookie(tmp_path: Path) -> None:
    async def work() -> None:
        async with hosts(tmp_path) as both:
            association = await both.connect(tcp="no-syn", packets_min=1)
            await both.accept()
            assert association.report.stack == ["http", "tls", "tcp"]
            assert both.server.strangers.deferred == {"TCP without a SYN": 1}

    run(work())


# ---- Proposals of a few packets ----

DEFAULT = {"prefer": ["tls/tcp", "quic", "tcp"], "only": False}


class Groups:
    """What pyOpenSSL's client says that was agreed upon, by its own name."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.agreed: list[str | None] = []
        handshake = TlsConnection.handshake

        def watched(connection: TlsConnection) -> bool:
            done = handshake(connection)
            if done and connection._role is Role.INITIATOR:
                self.agreed.append(connection._ssl.get_group_name())
            return done

        patch.setattr(TlsConnection, "handshake", watched)


def test_a_default_proposal_is_answered_at_first_contact_with_the_post_quantum_key_exchange_that_it_asks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    groups = Groups(monkeypatch)

    async def work() -> None:
        async with hosts(tmp_path) as both:
            watched = Watched(both, monkeypatch)
            ours = await both.connect(**DEFAULT)
            theirs = await both.accept()
            assert ours.report.stack == theirs.report.stack == ["http", "tls", "tcp"]
            assert [event.kind for event in watched.met] == [EventKind.STRANGER, EventKind.RETURNED]
            came = unkept.packets(watched.met[0].data)
            assert (len(came), len(watched.answers)) == (3, 2)
            assert sum(map(len, watched.answers)) <= sum(map(len, came)), "amplified"
            assert groups.agreed == ["X25519MLKEM768"]
            assert (both.server.strangers.answers, both.server.strangers.commits) == (1, 1)
            assert both.counters.get("CHALLENGED", 0) == both.server.endpoint.engine.usage().slots == 0
            await ours.carrier.write(BIG)
            got = b""
            while len(got) < len(BIG):
                got += await theirs.carrier.read()
            assert got == BIG

    run(work())


def test_load_neither_switches_post_quantum_key_exchange_off_nor_has_it_cost_a_cookie_once_the_peer_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    groups = Groups(monkeypatch)

    async def work() -> None:
        async with hosts(tmp_path) as both:
            await known(both)
            watched = Watched(both, monkeypatch)
            await both.connect()
            await both.accept()
            assert groups.agreed == ["X25519MLKEM768"] * 2
            came = unkept.packets(watched.met[0].data)
            assert [len(packet) for packet in came] == [1200, 1200], "padded, as the answer's length is known"
            assert both.counters["CHALLENGED"] == both.server.strangers.commits == 1

    run(work())


@pytest.mark.parametrize("doomed", [{0}, {1}, {0, 1}])
def test_a_lost_packet_of_an_answer_is_had_again_and_no_cookie_contradicts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, doomed: set[int]
) -> None:
    monkeypatch.undo()

    async def work() -> None:
        async with hosts(tmp_path) as both:
            watched = Watched(both, monkeypatch)
            send = watched.engine.send_once
            sent: list[bytes] = []

            def lose(path: NetworkPath, packet: bytes) -> None:
                sent.append(packet)
                if len(sent) - 1 not in doomed:
                    send(path, packet)

            monkeypatch.setattr(watched.engine, "send_once", lose)
            association = await both.connect(**DEFAULT)
            await both.accept()
            assert association.report.stack == ["http", "tls", "tcp"]
            assert len(sent) >= 4
            assert len(set(sent)) == 2, "the same bytes again"
            assert both.counters.get("CHALLENGED", 0) == 0
            assert both.server.strangers.commits == 1
            heard = sum(map(len, unkept.packets(watched.met[0].data))) * (len(watched.of(EventKind.STRANGER)))
            assert sum(map(len, sent)) <= heard, "amplified"

    run(work())


def test_a_malformed_proposal_gets_silence_and_never_reaches_openssl(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with hosts(tmp_path, strangers_per_second=10_000) as both:
            await known(both)
            watched = Watched(both, monkeypatch)
            await both.connect()
            await both.accept()
            proposal, sent = watched.met[0], len(watched.answers)

            def never(*_: object) -> None:
                raise AssertionError("OpenSSL was asked")

            monkeypatch.setattr(strangers_tls, "RepeatableTls", never)
            context = 32 + 8
            for at, value in [(context, 0), (context, 200), (context + 1, 0x80), (context + 3, 0xFF), (32, 7), (33, 1)]:
                packet = bytearray(one(proposal))
                packet[16:20] = bytes([at, value, 1, 1])
                packet[at] = value
                watched.inject(proposal, sealed(bytes(packet)))
            assert len(watched.answers) == sent
            assert both.server.strangers.deferred == {"the answer is longer than the proposal": 1}
            assert watched.engine.usage().slots == 0

    run(work())


def test_with_the_budget_spent_a_cookie_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        async with hosts(tmp_path) as both:
            await known(both)
            both.server.strangers._budget.spend(1000.0)
            association = await both.connect()
            await both.accept()
            assert association.report.stack == ["http", "tls", "tcp"]
            assert both.server.strangers.deferred["the budget is spent"] == 1
            assert both.server.strangers.commits == 0

    run(work())


def test_without_slots_a_cookie_is_asked_for(tmp_path: Path) -> None:
    async def work() -> None:
        async with hosts(tmp_path, slots=0, floor=Level.ANSWER) as both:
            for _ in range(2):
                await both.connect()
                await both.accept()
            assert both.server.strangers.deferred["no slot is free"] == 1

    run(work())


def test_a_certificate_that_changes_in_between_costs_that_negotiation_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with hosts(tmp_path) as both:
            await known(both)
            watched = Watched(both, monkeypatch)

            def renew(event: Event) -> None:
                if event.kind is EventKind.RETURNED:
                    monkeypatch.setattr(strangers_tls, "derive", lambda *_, **__: bytes(32))

            watched.before = renew
            await both.connect()
            assert both.server.strangers.commits == 0
            assert both.accepted.empty()

    run(work())


# ---- Another process goes on ----


def test_slots_go_to_another_engine_whole_once_and_with_the_time_that_they_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As at a live upgrade: the answer has left, the commit is still to come."""

    async def work() -> None:
        async with hosts(tmp_path) as both:
            await known(both)
            watched = Watched(both, monkeypatch)
            engine, moved = watched.engine, []
            answer = engine.send_once

            def move(path: NetworkPath, packet: bytes) -> None:
                answer(path, packet)
                now, image = clock.now_us(), unkept.image(engine, clock.now_us())
                unkept.clear(engine)
                assert engine.usage().slots == 0
                late = now + Limit.MAX_LIFETIME_MS * 1000
                for wrong in (image[:-1], image[:12], b"", b"x" + image[1:], image[:8] + b"\1" + image[9:]):
                    assert unkept.restore(engine, now, wrong) == 0
                other = Engine(transactions=4, slots=4)
                assert unkept.restore(other, late, image) == 0, "its time is over"
                assert [unkept.restore(engine, now, image) for _ in range(2)] == [1, 0]
                moved.append(unkept.image(engine, now))

            monkeypatch.setattr(engine, "send_once", move)
            ours = await both.connect()
            theirs = await both.accept()
            assert len(moved) == 1
            assert (ours.report.negotiated, theirs.report.stack) == (True, ["http", "tls", "tcp"])
            await ours.carrier.write(b"to the next one")
            assert await theirs.carrier.read() == b"to the next one"
            assert engine.usage().slots == 0, "it has served its commit"

    run(work())
