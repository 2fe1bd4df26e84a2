# SPDX-License-Identifier: Apache-2.0
"""The TCP node over the connection of a parallel SYN: what its sessions say, and when they refuse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from accord.negotiation.interface import Answer, Refuse, Role, View, Wait
from accord.protocols.tcp import TcpPlugin, TcpSession
from accord.protocols.tcp_wishes import Offer, Verdict, encode_offer, encode_verdict
from accord.protocols.wishes import TcpWishes, Wishes
from accord.wire.constants import Protocol, Reason, TcpOption, Word
from accord.wire.errors import AccordError, error
from accord.wire.tcp_option import encode
from tests.protocols.support import Neighbour, below, services

ID = bytes(range(12))
OTHER = bytes(range(1, 13))
PREFACE = encode(TcpOption.EXID_ADOPT, ID)


class Syn:
    """A ``SynConnection`` whose SYN-ACK comes when the test says so."""

    option = PREFACE

    def __init__(self) -> None:
        self.connected = self.marked = self.greeted = False
        self.failure: AccordError | None = None
        self.taken: list[bytes] = []
        self.aborted = False

    def when_connected(self, callback: Callable[[], None]) -> None:
        raise AssertionError("whoever drives the negotiation waits, not the session")

    def take(self, first: bytes = b"") -> Any:
        if self.failure is not None:
            raise self.failure
        self.taken.append(first)
        return self

    def abort(self) -> None:
        self.aborted = True


class Kept:
    """``Adoptions`` and its one ``Adoption``, which remember what was done with them."""

    option = PREFACE

    def __init__(self, refusal: AccordError | None = None) -> None:
        self.refusal = refusal
        self.done: list[str] = []

    def expect(self) -> Kept:
        if self.refusal is not None and self.refusal.reason is Reason.NO_MEMORY:
            raise self.refusal
        self.done.append("expect")
        return self

    def greeted_by(self, hello: bytes) -> None:
        if self.refusal is not None and self.refusal.reason is Reason.LEGACY_FIRST:
            raise self.refusal
        self.done.append(f"greeted by {len(hello)}")

    def claim(self, *, behind_preface: bool) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.done.append(f"claim {behind_preface}")

    def carrier(self) -> Any:
        self.done.append("carrier")
        return self

    def release(self) -> None:
        self.done.append("release")


def session(role: Role, syn: Syn | None = None, kept: Kept | None = None) -> TcpSession:
    given: Any = {"syn": syn, "adoptions": kept}
    return TcpPlugin().open(role, replace(services(role), **given))


def seen(role: Role, *above: object) -> View:
    return View(role, 0, 1, (), below(*above))


TLS = Neighbour(int(Protocol.TLS13), secure=True)
HTTP = Neighbour(int(Protocol.HTTP))


@pytest.mark.parametrize("marked", [True, False])
@pytest.mark.parametrize("above", [(TLS, HTTP), (HTTP,), (Neighbour(0x7E000001, secure=True),), ()])
def test_the_stream_begins_behind_the_preface_unless_the_mark_and_tls_make_it_needless(
    marked: bool, above: tuple[Neighbour, ...]
) -> None:
    syn, kept = Syn(), Kept()
    initiator, responder = session(Role.INITIATOR, syn), session(Role.RESPONDER, kept=kept)
    mine, yours = seen(Role.INITIATOR, *above), seen(Role.RESPONDER, *above)
    proposal = initiator.propose(mine)
    assert proposal == Answer(PREFACE)
    answer = responder.respond(yours, PREFACE)
    assert answer == Answer(PREFACE)
    assert isinstance(initiator.advance(mine, PREFACE), Wait)
    assert isinstance(initiator.resume(mine), Wait), "woken for nothing, it waits on"
    assert initiator.adopted
    assert responder.adopted
    syn.connected, syn.marked = True, marked
    needless = marked and above[:1] == (TLS,)
    commit = initiator.resume(mine)
    assert commit == Answer(b"\0" if needless else b"\1")
    assert isinstance(commit, Answer)
    initiator.commit(mine)
    initiator.commit(mine)
    assert syn.taken == [b"" if needless else PREFACE]
    assert initiator.carrier(None) is syn
    assert responder.advance(yours, commit.payload) == Answer()
    responder.commit(yours)
    assert responder.carrier(None) is kept
    responder.abort(Reason.CLOSED)
    assert kept.done == ["expect", f"claim {not needless}", "carrier"], (
        "once it is somebody's stream, abort is too late"
    )
    assert not syn.aborted


@pytest.mark.parametrize("marked", [True, False])
def test_a_stream_on_which_the_client_hello_was_said_begins_behind_it_and_has_no_preface(marked: bool) -> None:
    syn = Syn()
    initiator, mine = session(Role.INITIATOR, syn), seen(Role.INITIATOR, TLS, HTTP)
    initiator.propose(mine)
    initiator.advance(mine, PREFACE)
    syn.connected, syn.marked, syn.greeted = True, marked, True
    assert initiator.resume(mine) == Answer(b"\1")
    initiator.commit(mine)
    assert syn.taken == [b""]


@pytest.mark.parametrize("above", [(HTTP,), (Neighbour(0x7E000001, secure=True),), ()])
def test_no_other_stack_is_put_on_a_connection_that_has_begun_with_tls(above: tuple[Neighbour, ...]) -> None:
    syn = Syn()
    initiator, mine = session(Role.INITIATOR, syn), seen(Role.INITIATOR, *above)
    initiator.propose(mine)
    initiator.advance(mine, PREFACE)
    syn.connected = syn.greeted = True
    assert refused(initiator.resume(mine)) is Reason.LEGACY_FIRST
    assert syn.taken == []


def refused(outcome: object) -> Reason:
    assert isinstance(outcome, Refuse), outcome
    return outcome.reason


def test_a_port_without_a_listener_of_ours_cannot_adopt_and_a_full_one_says_so() -> None:
    view = seen(Role.RESPONDER)
    assert refused(session(Role.RESPONDER).respond(view, PREFACE)) is Reason.NOT_ADOPTABLE
    full = Kept(error(Reason.NO_MEMORY, "full"))
    assert refused(session(Role.RESPONDER, kept=full).respond(view, PREFACE)) is Reason.NO_MEMORY


@pytest.mark.parametrize("payload", [encode(TcpOption.EXID, ID), encode(TcpOption.EXID_ADOPT, OTHER), bytes(16)])
def test_an_option_that_does_not_name_this_negotiation_is_refused_on_both_sides(payload: bytes) -> None:
    kept, syn = Kept(), Syn()
    responder = session(Role.RESPONDER, kept=kept)
    assert refused(responder.respond(seen(Role.RESPONDER), payload)) is Reason.HANDSHAKE_FAILED
    initiator = session(Role.INITIATOR, syn)
    initiator.propose(seen(Role.INITIATOR))
    assert refused(initiator.advance(seen(Role.INITIATOR), payload)) is Reason.HANDSHAKE_FAILED
    assert (kept.done, syn.taken) == ([], [])


@pytest.mark.parametrize("length", [length for length in range(64) if length != 16])
def test_a_payload_of_another_length_is_no_option_whatever_else_it_may_be(length: int) -> None:
    kept = Kept()
    responder = session(Role.RESPONDER, kept=kept)
    assert isinstance(responder.respond(seen(Role.RESPONDER), bytes(length)), Refuse)
    assert kept.done == []
    syn = Syn()
    initiator = session(Role.INITIATOR, syn)
    initiator.propose(seen(Role.INITIATOR))
    assert refused(initiator.advance(seen(Role.INITIATOR), (PREFACE * 4)[:length])) is Reason.HANDSHAKE_FAILED


@pytest.mark.parametrize("payload", [b"", b"\2", b"\0\0", PREFACE])
def test_a_commit_that_does_not_say_where_the_stream_begins_is_refused(payload: bytes) -> None:
    kept = Kept()
    responder = session(Role.RESPONDER, kept=kept)
    responder.respond(seen(Role.RESPONDER), PREFACE)
    assert refused(responder.advance(seen(Role.RESPONDER), payload)) is Reason.HANDSHAKE_FAILED
    responder.abort(Reason.HANDSHAKE_FAILED)
    assert kept.done == ["expect", "release"]


def test_a_connection_that_cannot_be_had_ends_the_node_at_every_point() -> None:
    view = seen(Role.INITIATOR)
    for at in range(3):
        syn = Syn()
        syn.failure = error(Reason.UNREACHABLE, "no route") if at == 0 else None
        initiator = session(Role.INITIATOR, syn)
        outcome = initiator.propose(view)
        if at == 1:
            initiator.advance(view, PREFACE)
            syn.failure = error(Reason.UNREACHABLE, "reset")
            outcome = initiator.resume(view)
        if at < 2:
            assert refused(outcome) is Reason.UNREACHABLE
            continue
        syn.connected = True
        initiator.advance(view, PREFACE)
        syn.failure = error(Reason.LEGACY_FIRST, "taken by another")
        with pytest.raises(AccordError, match="taken by another"):
            initiator.commit(view)


def test_an_abort_before_the_commit_leaves_the_connection_to_whoever_opened_it_and_one_after_it_ends_it() -> None:
    view = seen(Role.INITIATOR)
    for committed in (False, True):
        syn = Syn()
        syn.connected = True
        initiator = session(Role.INITIATOR, syn)
        initiator.propose(view)
        initiator.advance(view, PREFACE)
        if committed:
            initiator.commit(view)
        initiator.abort(Reason.CLOSED)
        assert syn.aborted == committed


def test_a_responder_whose_peer_fell_back_refuses_the_commit() -> None:
    view = seen(Role.RESPONDER)
    kept = Kept(error(Reason.LEGACY_FIRST, "plain"))
    responder = session(Role.RESPONDER, kept=kept)
    responder.respond(view, PREFACE)
    assert responder.advance(view, b"\0") == Answer()
    with pytest.raises(AccordError, match="plain"):
        responder.commit(view)


def test_commit_without_an_agreement_and_a_second_stream_are_mistakes_of_the_caller() -> None:
    view = seen(Role.INITIATOR)
    initiator = session(Role.INITIATOR, Syn())
    initiator.propose(view)
    with pytest.raises(RuntimeError, match="no agreed beginning"):
        initiator.commit(view)
    with pytest.raises(RuntimeError, match="only after commit"):
        initiator.carrier(None)


# ---- what the policies say of the insides of TCP


class Tuning:
    """A kernel that has two algorithms."""

    def __init__(self) -> None:
        self.used: list[str] = []

    def algorithms(self) -> tuple[str, ...]:
        return ("bbr", "reno")

    def use(self, stream: object, algorithm: str) -> None:
        self.used.append(algorithm)

    def describe(self, stream: object) -> dict[str, object]:
        return {"congestion": self.used[-1]}


def wishing(
    role: Role, wishes: TcpWishes, syn: Syn | None = None, kept: Kept | None = None
) -> tuple[TcpSession, Tuning]:
    tuning = Tuning()
    given: Any = {"syn": syn, "adoptions": kept, "tuning": tuning, "wishes": Wishes(tcp=wishes)}
    return TcpPlugin().open(role, replace(services(role), **given)), tuning


class Settled(Syn):
    """A connection whose SYN had these options, or not."""

    def __init__(self, **options: bool) -> None:
        super().__init__()
        self.found = {"sack": True, "timestamps": True, "window_scale": True} | options

    def options(self) -> dict[str, bool]:
        return self.found


def test_both_sides_of_an_adopted_connection_use_the_algorithm_that_was_agreed() -> None:
    syn, kept = Settled(), Kept()
    client, here = wishing(Role.INITIATOR, TcpWishes(congestion=(("reno", Word.PREFERRED),)), syn)
    server, there = wishing(Role.RESPONDER, TcpWishes(), kept=kept)
    mine, yours = seen(Role.INITIATOR, TLS), seen(Role.RESPONDER, TLS)
    proposal = client.propose(mine)
    offer = Offer(algorithms=(("reno", Word.PREFERRED), ("bbr", Word.NEUTRAL)))
    assert proposal == Answer(b"\0\0" + PREFACE + encode_offer(offer))
    assert isinstance(proposal, Answer)
    answer = server.respond(yours, proposal.payload)
    assert answer == Answer(b"\0\0" + PREFACE + encode_verdict(Verdict(algorithm="reno")))
    assert isinstance(answer, Answer)
    assert client.adopted
    assert server.adopted
    assert isinstance(client.advance(mine, answer.payload), Wait)
    syn.connected = True
    commit = client.resume(mine)
    assert isinstance(commit, Answer)
    client.commit(mine)
    assert server.advance(yours, commit.payload) == Answer()
    server.commit(yours)
    client.carrier(None)
    server.carrier(None)
    assert here.used == there.used == ["reno"]
    assert client.inside == {"way": "parallel-syn", "congestion": "reno"}


@pytest.mark.parametrize(
    ("ours", "theirs", "settled", "reason"),
    [
        (TcpWishes(timestamps=Word.FORBIDDEN), TcpWishes(), {}, Reason.POLICY),
        (TcpWishes(sack=Word.REQUIRED), TcpWishes(), {"sack": False}, Reason.REQUIRED_MISSING),
        (TcpWishes(mss=900, sack=Word.PREFERRED), TcpWishes(timestamps=Word.FORBIDDEN), {}, Reason.POLICY),
        (TcpWishes(sack=Word.PREFERRED), TcpWishes(window_scale=Word.REQUIRED), {"window_scale": False},
         Reason.REQUIRED_MISSING),
        (TcpWishes(sack=Word.REQUIRED), TcpWishes(sack=Word.FORBIDDEN), {}, Reason.REQUIRED_MISSING),
        (TcpWishes(sack=Word.PREFERRED), TcpWishes(sack=Word.AVOID), {"sack": False}, None),
    ],
)  # fmt: skip
def test_what_the_kernels_settled_is_refused_where_a_word_of_either_side_is_against_it(
    ours: TcpWishes, theirs: TcpWishes, settled: dict[str, bool], reason: Reason | None
) -> None:
    syn = Settled(**settled)
    client, _ = wishing(Role.INITIATOR, ours, syn)
    server, _ = wishing(Role.RESPONDER, theirs, kept=Kept())
    proposal = client.propose(seen(Role.INITIATOR))
    assert isinstance(proposal, Answer)
    answer = server.respond(seen(Role.RESPONDER), proposal.payload)
    assert isinstance(answer, Answer)
    syn.connected = True
    outcome = client.advance(seen(Role.INITIATOR), answer.payload)
    if reason is None:
        assert isinstance(outcome, Answer)
        return
    assert isinstance(outcome, Refuse)
    assert outcome.reason is reason
    assert 'tcp = "no-syn"' in outcome.detail


def test_an_algorithm_that_is_required_and_lacking_refuses_the_node_before_a_place_is_kept() -> None:
    kept = Kept()
    server, _ = wishing(Role.RESPONDER, TcpWishes(congestion=(("vegas", Word.REQUIRED),)), kept=kept)
    refused = server.respond(seen(Role.RESPONDER), PREFACE)
    assert isinstance(refused, Refuse)
    assert refused.reason is Reason.REQUIRED_MISSING
    assert kept.done == []


@pytest.mark.parametrize("behind", [b"\0", encode_offer(Offer())[:-1], encode_verdict(Verdict(algorithm="x"))[:3]])
def test_junk_behind_the_option_is_refused_on_both_sides(behind: bytes) -> None:
    server, _ = wishing(Role.RESPONDER, TcpWishes(), kept=Kept())
    refused = server.respond(seen(Role.RESPONDER), b"\0\0" + PREFACE + behind)
    assert isinstance(refused, Refuse)
    assert refused.reason is Reason.HANDSHAKE_FAILED
    for wishes in (TcpWishes(), TcpWishes(sack=Word.AVOID)):
        client, _ = wishing(Role.INITIATOR, wishes, Settled())
        client.propose(seen(Role.INITIATOR))
        assert isinstance(client.advance(seen(Role.INITIATOR), b"\0\0" + PREFACE + behind), Refuse)
