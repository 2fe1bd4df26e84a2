# SPDX-License-Identifier: Apache-2.0
"""What two policies' words come to inside a TCP node, and the option that tells them."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import TCP

from accord.protocols.tcp_wishes import (
    Offer,
    Verdict,
    alone,
    choose,
    decode_offer,
    decode_verdict,
    encode_offer,
    encode_verdict,
    offer,
    on,
)
from accord.protocols.wishes import TcpWishes
from accord.wire.constants import Reason, Word
from accord.wire.errors import AccordError

NAMES = ("bbr", "cubic", "reno", "vegas", "dctcp")
words = st.sampled_from(Word)
triples = st.tuples(words, words, words)
said = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from([1, 2, 3, 4]).map(Word)), max_size=5,
                unique_by=lambda pair: pair[0]).map(tuple)  # fmt: skip
wishes = st.builds(
    lambda congestion: TcpWishes(congestion=tuple(sorted(congestion.items()))),
    st.dictionaries(st.sampled_from(NAMES), words, max_size=4).filter(
        lambda found: list(found.values()).count(Word.REQUIRED) < 2
    ),
)
available = st.lists(st.sampled_from(NAMES), min_size=1, unique=True).map(tuple)

F, A, N, P, R = Word


# ---- on the wire


@given(triples, said)
def test_an_offer_is_read_as_it_was_said(three, algorithms) -> None:  # type: ignore[no-untyped-def]
    made = Offer(three, algorithms)
    assert decode_offer(encode_offer(made)) == made


@given(triples, st.sampled_from(["", *NAMES]))
def test_a_verdict_is_read_as_it_was_said(three, name) -> None:  # type: ignore[no-untyped-def]
    made = Verdict(three, name)
    assert decode_verdict(encode_verdict(made)) == made


def test_the_option_is_tcps_own_form_as_scapy_reads_it() -> None:
    data = encode_offer(Offer((R, A, N), (("bbr", P),)))
    assert data == bytes.fromhex("fe 0c acc2 04 01 02 03 03") + b"bbr"
    segment = TCP(bytes(TCP(dataofs=8))[:12] + b"\x80" + bytes(TCP())[13:20] + data)
    assert segment.options == [(254, data[2:])]


@given(triples, said, st.integers(0, 60))
def test_a_truncated_offer_is_refused(three, algorithms, cut) -> None:  # type: ignore[no-untyped-def]
    data = encode_offer(Offer(three, algorithms))
    if cut < len(data):
        with pytest.raises(AccordError):
            decode_offer(data[:cut])


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "fe07acc1020202",  # another ExID
        "fd07acc2020202",
        "fe08acc2020202",
        "fe07acc2050202",  # no word
        "fe08acc202020203",
        "fe0aacc2020202030262",
        "fe0bacc20202020003626272",  # an algorithm that is forbidden is not offered
        "fe0cacc20202020303426272",  # capitals
        "fe0cacc2020202030362 6200",
        "fe11acc20202020303626272" + "0303626272",  # twice
    ],
)
def test_an_option_of_the_wrong_form_is_refused(bad: str) -> None:
    with pytest.raises(AccordError) as caught:
        decode_offer(bytes.fromhex(bad))
    assert caught.value.reason is Reason.HANDSHAKE_FAILED


@given(st.binary(max_size=40))
def test_any_bytes_are_an_option_or_refused_by_name(data) -> None:  # type: ignore[no-untyped-def]
    for decode in (decode_offer, decode_verdict):
        for each in (data, bytes((254, len(data) + 4, 0xAC, 0xC2)) + data):
            try:
                decode(each)
            except AccordError as failure:
                found = failure.reason
            else:
                found = Reason.HANDSHAKE_FAILED
            assert found is Reason.HANDSHAKE_FAILED


def test_no_more_than_eight_algorithms_are_offered_or_taken() -> None:
    many = tuple(f"name{number}" for number in range(12))
    assert len(offer(TcpWishes(), many).algorithms) == 8
    with pytest.raises(AccordError):
        decode_offer(encode_offer(Offer(algorithms=tuple((name, N) for name in many))))


# ---- the rule for an option: docs/POLICY.md, "Inside protocols"


def test_the_rule_for_an_option_is_the_documents_for_every_pair_of_words() -> None:
    for own, peers, able in itertools.product(Word, Word, (True, False)):
        both = {own, peers}
        if both == {R, F} or (R in both and not able):
            with pytest.raises(AccordError) as caught:
                on("sack", own, peers, able=able)
            assert caught.value.reason is Reason.REQUIRED_MISSING
            continue
        expected = (
            able
            and F not in both
            and (R in both or [own, peers].count(A) <= [own, peers].count(P))
        )  # fmt: skip
        assert on("sack", own, peers, able=able) is expected, (own, peers, able)
        assert on("sack", peers, own, able=able) is expected, "whichever side says it"


def test_the_error_names_both_sides_words() -> None:
    with pytest.raises(AccordError, match="sack is required by this host's policy, forbidden by the peer's"):
        on("sack", R, F, able=True)
    with pytest.raises(AccordError, match="timestamps, which the peer's policy requires, is not to be had"):
        on("timestamps", N, R, able=False)


# ---- the rule for an algorithm


@given(wishes, available, wishes, available)
def test_what_is_chosen_both_have_and_nobody_forbids_and_is_what_is_required(ours, own, theirs, peers) -> None:  # type: ignore[no-untyped-def]
    mine, yours = dict(ours.congestion), dict(theirs.congestion)
    required = {name for words in (mine, yours) for name, word in words.items() if word is R}
    try:
        offered = offer(theirs, peers)
        chosen = choose(ours, own, offered)
    except AccordError as failure:
        reason = failure.reason
        assert required, "only what is required fails"
        assert reason is Reason.REQUIRED_MISSING
        return
    assert required <= {chosen}
    if chosen:
        assert chosen in own
        assert chosen in peers
        assert F not in (mine.get(chosen), yours.get(chosen))
        allowed = [n for n in own if n in peers and F not in (mine.get(n), yours.get(n))]

        def rank(name: str) -> tuple[int, int]:
            both = [mine.get(name, N), yours.get(name, N)]
            return both.count(A), -both.count(P)

        assert required or rank(chosen) == min(map(rank, allowed))


@pytest.mark.parametrize(
    ("ours", "own", "theirs", "peers", "chosen"),
    [
        ({}, "bbr reno", {}, "bbr reno", ""),  # nobody says anything
        ({"reno": P}, "bbr reno", {}, "bbr reno", "reno"),
        ({}, "bbr reno", {"reno": P}, "bbr reno", "reno"),
        ({"bbr": P}, "bbr reno", {"reno": P}, "bbr reno", "reno"),  # the initiator's comes first
        ({"bbr": A}, "bbr reno", {"bbr": P}, "bbr reno", "reno"),
        ({"vegas": P}, "bbr reno", {"vegas": P}, "bbr vegas", ""),  # this host has not got it: each as it likes
        ({"bbr": F}, "bbr", {"bbr": P}, "bbr", ""),
        ({"cubic": R}, "bbr cubic", {"cubic": A}, "bbr cubic", "cubic"),
    ],
)
def test_the_algorithm_is_the_one_of_the_rule(
    ours: dict[str, Word], own: str, theirs: dict[str, Word], peers: str, chosen: str
) -> None:
    made = offer(TcpWishes(congestion=tuple(theirs.items())), peers.split())
    assert choose(TcpWishes(congestion=tuple(ours.items())), own.split(), made) == chosen


@pytest.mark.parametrize(
    ("ours", "own", "theirs", "peers"),
    [
        ({"vegas": R}, "bbr", {}, "bbr vegas"),
        ({"bbr": R}, "bbr reno", {"reno": R}, "bbr reno"),
        ({"bbr": F}, "bbr reno", {"bbr": R}, "bbr reno"),
    ],
)
def test_a_required_algorithm_that_is_not_to_be_had_by_both_refuses_the_node(
    ours: dict[str, Word], own: str, theirs: dict[str, Word], peers: str
) -> None:
    made = offer(TcpWishes(congestion=tuple(theirs.items())), peers.split())
    with pytest.raises(AccordError) as caught:
        choose(TcpWishes(congestion=tuple(ours.items())), own.split(), made)
    assert caught.value.reason is Reason.REQUIRED_MISSING


def test_an_initiator_that_lacks_what_it_requires_does_not_propose() -> None:
    with pytest.raises(AccordError, match="vegas, which this host's policy requires, is not to be had here"):
        offer(TcpWishes(congestion=(("vegas", R),)), ("bbr",))


@given(wishes, available)
def test_an_offer_lists_what_is_liked_best_first_and_nothing_forbidden(ours, own) -> None:  # type: ignore[no-untyped-def]
    try:
        made = offer(ours, own)
    except AccordError:
        assert any(word is R and name not in own for name, word in ours.congestion)
        return
    ranks = [word for _, word in made.algorithms]
    assert ranks == sorted(ranks, reverse=True)
    assert {name for name, _ in made.algorithms} == {n for n in own if dict(ours.congestion).get(n) is not F}


def test_alone_a_side_takes_what_it_likes_best_and_leaves_the_default_if_that_is_it() -> None:
    assert alone(TcpWishes(congestion=(("reno", P),)), ("bbr", "reno")) == "reno"
    assert alone(TcpWishes(congestion=(("bbr", P),)), ("bbr", "reno")) == ""
    assert alone(TcpWishes(congestion=(("bbr", A),)), ("bbr", "reno")) == "reno"
    assert alone(TcpWishes(congestion=(("bbr", F), ("reno", F))), ("bbr", "reno")) == ""
    assert alone(TcpWishes(congestion=(("vegas", P),)), ("bbr", "reno")) == ""
