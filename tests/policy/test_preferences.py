# SPDX-License-Identifier: Apache-2.0
"""Required, preferred, neutral, avoid, forbidden: what the words of both sides come to."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.controller.settings.policy import EffectivePolicy, Fallback, Secure, parse_policy
from accord.controller.settings.ranking import worth
from accord.controller.settings.stacks import PROTOCOLS, SECURE, USUAL, parse_stack
from accord.negotiation.choice import CandidateStack
from accord.wire.constants import Protocol, Reason, Word
from accord.wire.errors import UserError

TCP, TLS, QUIC, HTTP, COMPRESSION, FRAMING = (
    PROTOCOLS[name] for name in ("tcp", "tls", "quic", "http", "compression", "framing")
)
PRIVATE = 0x7E000001
ALL = {"tcp", "tls", "quic", "http", "compression", "framing"}


def policy(text: str) -> EffectivePolicy:
    return parse_policy(f"[default]\n{text}").for_destination("a.example", 1)


def candidate(name: str, peer: dict[str, Word] | None = None, preference: int = 0) -> CandidateStack:
    """``peer``: what the initiator's policy says of protocols."""
    protocols = parse_stack(name)
    words = tuple((peer or {}).get(each, Word.NEUTRAL) for each in reversed(name.split("/")))
    secure = any(number in SECURE for number in protocols)
    return CandidateStack(tuple(range(1, 1 + len(protocols))), protocols, secure, preference, words if peer else ())


def names(stacks: Sequence[CandidateStack]) -> list[str]:
    return [stack.name for stack in stacks]


words = st.dictionaries(st.sampled_from([TCP, TLS, QUIC, COMPRESSION, FRAMING, PRIVATE]), st.sampled_from(Word))
policies = st.builds(
    lambda secure, prefer, only, said, crime: EffectivePolicy(
        secure=secure,
        prefer=tuple(prefer),
        only=only,
        preferences=tuple(sorted((number, word) for number, word in said.items() if word is not Word.NEUTRAL)),
        compress_encrypted=crime,
    ),
    st.sampled_from(Secure),
    st.lists(st.sampled_from([*USUAL, (TCP, TLS, COMPRESSION)]), unique=True),
    st.booleans(),
    words,
    st.booleans(),
)


@st.composite
def candidates(draw: st.DrawFn) -> CandidateStack:
    protocols = tuple(draw(st.lists(st.sampled_from([TCP, TLS, QUIC, HTTP, COMPRESSION, FRAMING, PRIVATE]),
                                    min_size=1, max_size=5, unique=True)))  # fmt: skip
    first = draw(st.integers(1, 40))
    said = draw(st.tuples() | st.tuples(*[st.sampled_from([1, 2, 3, 4])] * len(protocols)))
    secure = draw(st.booleans()) or any(number in SECURE for number in protocols)
    return CandidateStack(tuple(range(first, first + len(protocols))), protocols, secure, draw(st.integers(0, 3)), said)


several = st.lists(candidates(), max_size=6, unique_by=lambda stack: (stack.ids, stack.protocols))


@given(policies, several, st.randoms())
def test_the_order_is_total_antisymmetric_transitive_and_the_same_whatever_arrived_first(host, stacks, random) -> None:  # type: ignore[no-untyped-def]
    ordered = list(host.order(stacks))
    shuffled = list(stacks)
    random.shuffle(shuffled)
    assert list(host.order(shuffled)) == ordered
    for one, other in itertools.combinations(ordered, 2):  # total, and in both directions the same
        assert list(host.order([one, other])) == list(host.order([other, one])) == [one, other]
    for first, second, third in itertools.combinations(ordered, 3):
        assert next(iter(host.order([second, third]))) is second
        assert next(iter(host.order([third, first]))) is first


@given(policies, several)
def test_the_order_is_the_one_of_the_documents_seven_rules(host, stacks) -> None:  # type: ignore[no-untyped-def]
    """Rule by rule, as docs/POLICY.md has them, by a comparison that shares nothing with the code."""
    own = dict(host.preferences)

    def said(stack: CandidateStack, word: Word) -> int:
        both = [own.get(number, Word.NEUTRAL) for number in stack.protocols] + [Word(each) for each in stack.words]
        return sum(each is word for each in both)

    def place(stack: CandidateStack) -> int:
        bare = list(stack.protocols)
        while bare and bare[-1] == HTTP:
            bare.pop()
        asked = [number for number in (COMPRESSION, FRAMING) if own.get(number) in (Word.PREFERRED, Word.REQUIRED)]
        forms = [tuple(bare), stack.protocols, tuple(number for number in bare if number not in asked)]
        return min([number for number, listed in enumerate(host.prefer) if listed in forms], default=99)

    def compare(one: CandidateStack, other: CandidateStack) -> int:
        for better in (
            lambda stack: 0 if host.secure is Secure.NO else -int(stack.secure),
            lambda stack: said(stack, Word.AVOID),
            lambda stack: -said(stack, Word.PREFERRED),
            place,
            lambda stack: -stack.preference,
            lambda stack: len(stack.protocols),
            lambda stack: stack.protocols,
            lambda stack: stack.ids,
        ):
            if better(one) != better(other):
                return -1 if better(one) < better(other) else 1
        raise AssertionError("two stacks that are not the same and yet equal")

    ordered = host.order(stacks)
    assert list(ordered) == sorted(ordered, key=functools.cmp_to_key(compare))


@given(policies, several)
def test_what_is_forbidden_is_never_chosen_and_what_is_required_never_missing(host, stacks) -> None:  # type: ignore[no-untyped-def]
    allowed = host.order(stacks)
    for number, word in host.preferences:
        assert all(number not in stack.protocols for stack in allowed) or word is not Word.FORBIDDEN
        assert all(number in stack.protocols for stack in allowed) or word is not Word.REQUIRED
    if stacks and not allowed:
        assert host.refusal(stacks) in {Reason.INSECURE, Reason.POLICY, Reason.REQUIRED_MISSING}
        assert host.explain(stacks)


@given(policies)
def test_nothing_is_proposed_that_the_own_policy_would_not_take(host) -> None:  # type: ignore[no-untyped-def]
    for stack in host.stacks_wanted(ALL - {"http"}):
        assert host.order([candidate("/".join(["http", *reversed(stack)]))])


@given(words, words, candidates())
def test_it_does_not_matter_which_side_says_a_word(ours, theirs, stack) -> None:  # type: ignore[no-untyped-def]
    def seen_from(own: dict[int, Word], peers: dict[int, Word]) -> tuple[bool, int, int]:
        host = EffectivePolicy(preferences=tuple(sorted(own.items())))
        said = tuple(peers.get(number, Word.NEUTRAL) for number in stack.protocols)
        return worth(host, CandidateStack(stack.ids, stack.protocols, stack.secure, 0, said))

    assert seen_from(ours, theirs) == seen_from(theirs, ours)


def test_the_words_of_the_initiator_decide_where_the_responder_has_none() -> None:
    host = EffectivePolicy(prefer=())
    both = [candidate("http/quic", {"quic": Word.AVOID}, 9), candidate("http/tls/tcp", {"tls": Word.NEUTRAL}, 1)]
    assert names(host.order(both)) == ["http/tls/tcp", "http/quic"]
    both = [candidate("http/quic", {"quic": Word.PREFERRED}), candidate("http/tls/tcp", {"tls": Word.NEUTRAL})]
    assert names(EffectivePolicy().order(both)) == ["http/quic", "http/tls/tcp"]


def test_what_one_side_avoids_comes_last_even_if_the_other_prefers_it() -> None:
    host = policy("preferences = {quic = 'preferred'}")
    both = [candidate("http/quic", {"quic": Word.AVOID}), candidate("http/tls/tcp", {"tls": Word.NEUTRAL})]
    assert names(host.order(both)) == ["http/tls/tcp", "http/quic"]
    assert names(host.order(both[:1])) == ["http/quic"], "avoided, not forbidden"


def test_words_do_not_come_before_security() -> None:
    host = policy("secure = 'preferred'\npreferences = {tls = 'avoid', quic = 'avoid', tcp = 'preferred'}")
    assert names(host.order([candidate("tcp"), candidate("tls/tcp"), candidate("quic")]))[-1] == "tcp"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", ["tls/tcp", "quic"]),
        ("preferences = {quic = 'forbidden'}", ["tls/tcp"]),
        ("preferences = {quic = 'preferred'}", ["quic", "tls/tcp"]),
        ("preferences = {tcp = 'avoid'}", ["quic", "tls/tcp"]),
        ("preferences = {quic = 'required'}", ["quic"]),
        ("preferences = {framing = 'required'}", ["framing/tls/tcp", "framing/quic"]),
        ("preferences = {framing = 'preferred'}", ["framing/tls/tcp", "framing/quic", "tls/tcp", "quic"]),
        ("preferences = {framing = 'avoid'}", ["tls/tcp", "quic"]),
        # Compression above encryption is in no stack before the policy says so.
        ("preferences = {compression = 'preferred'}", ["tls/tcp", "quic"]),
        ("preferences = {compression = 'required'}", []),
        ("secure = 'no'\npreferences = {compression = 'required'}", ["compression/tcp"]),
        ("compress_encrypted = true\npreferences = {compression = 'required'}",
         ["compression/tls/tcp", "compression/quic"]),
        ("compress_encrypted = true\nprefer = ['compression/tls/tcp']",
         ["compression/tls/tcp", "tls/tcp", "quic"]),
        ("only = true\nprefer = ['tls/tcp']\npreferences = {framing = 'required'}", ["framing/tls/tcp"]),
        ("only = true\nprefer = ['tls/tcp']\npreferences = {tls = 'forbidden'}", []),
        ("compress_encrypted = true\nprefer = ['quic']\nonly = true\npreferences = {compression = 'preferred', "
         "framing = 'required'}", ["framing/compression/quic", "framing/quic"]),
    ],
)  # fmt: skip
def test_the_stacks_that_are_proposed_follow_the_words(text: str, wanted: list[str]) -> None:
    assert ["/".join(reversed(stack)) for stack in policy(text).stacks_wanted(ALL - {"http"})] == wanted


def test_compression_above_encryption_is_refused_by_a_responder_that_does_not_say_otherwise() -> None:
    crime, harmless = candidate("http/compression/tls/tcp"), candidate("tls/compression/tcp")
    assert names(EffectivePolicy().order([crime, harmless])) == ["tls/compression/tcp"]
    assert EffectivePolicy().refusal([crime]) is Reason.POLICY
    assert "compress_encrypted" in EffectivePolicy().explain([crime])
    assert names(policy("compress_encrypted = true").order([crime])) == ["http/compression/tls/tcp"]


def test_the_reason_when_nothing_is_left_names_whose_word_excluded_what() -> None:
    host = policy("preferences = {quic = 'forbidden', framing = 'required'}")
    offered = [candidate("http/quic", {"quic": Word.REQUIRED}), candidate("http/tls/tcp")]
    assert host.refusal(offered) is Reason.POLICY
    assert host.explain(offered) == (
        "http/quic: quic is forbidden by this host's policy (the peer's says: required); "
        "http/tls/tcp: framing, which this host's policy requires, is not in it"
    )
    assert host.refusal(offered[1:]) is Reason.REQUIRED_MISSING
    assert host.forbids(QUIC)
    assert not host.forbids(TLS)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("", Fallback.PARALLEL),
        ("preferences = {tcp = 'forbidden'}", Fallback.NEVER),
        ("preferences = {quic = 'required'}", Fallback.NEVER),
        ("preferences = {framing = 'required'}", Fallback.NEVER),
        ("preferences = {tls = 'required'}", Fallback.PARALLEL),
        ("preferences = {tls = 'forbidden'}", Fallback.NEVER),
        ("secure = 'no'\npreferences = {tls = 'forbidden'}", Fallback.PARALLEL),
        ("preferences = {framing = 'preferred'}\nfallback = 'delayed'", Fallback.DELAYED),
    ],
)
def test_the_plain_connection_is_judged_by_the_same_words(text: str, plain: Fallback) -> None:
    assert policy(text).plain is plain


def test_tls_that_is_required_is_required_of_the_plain_connection_too() -> None:
    assert policy("secure = 'no'\npreferences = {tls = 'required'}").plain_secure is Secure.REQUIRED
    assert policy("secure = 'no'").plain_secure is Secure.NO


def test_a_destination_changes_the_words_that_it_mentions_and_keeps_the_others() -> None:
    both = parse_policy(
        "[default.preferences]\nquic = 'forbidden'\nframing = 'preferred'\n"
        "[[destination]]\nmatch = ['10.0.0.0/8']\npreferences = {quic = 'neutral', '0x7e000001' = 'avoid'}\n"
    )
    assert both.for_destination("a", 1).preferences == ((QUIC, Word.FORBIDDEN), (FRAMING, Word.PREFERRED))
    assert both.for_destination("10.0.0.1", 1).preferences == ((FRAMING, Word.PREFERRED), (PRIVATE, Word.AVOID))


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("preferences = {quick = 'avoid'}", "preferences.quick: 'quick' is no protocol; allowed: tcp, tls"),
        ("preferences = {quic = 'never'}", "allowed: forbidden, avoid, neutral, preferred, required"),
        ("preferences = {http = 'forbidden'}", "is the application's own node"),
        ("preferences = 'quic'", "is no table"),
        ("prefer = ['compression/tls/tcp']", "compresses what it encrypts, so lengths tell of secrets (CRIME)"),
        ("compress_encrypted = 'yes'", "neither true nor false"),
    ],
)
def test_a_word_that_cannot_be_meant_is_explained(text: str, wrong: str) -> None:
    with pytest.raises(UserError) as caught:
        policy(text)
    assert caught.value.reason is Reason.BAD_CONFIG
    assert wrong in caught.value.detail


@pytest.mark.parametrize(
    ("text", "wish", "may"),
    [
        ("preferences = {quic = 'forbidden'}", {"quic": "neutral"}, False),
        ("preferences = {quic = 'forbidden'}", {"framing": "required"}, True),
        ("preferences = {quic = 'required'}", {"quic": "preferred"}, False),
        ("preferences = {quic = 'avoid'}", {"quic": "preferred"}, True),
        ("", {"quic": "required"}, True),
    ],
)
def test_an_application_takes_back_no_forbidden_and_no_required(text: str, wish: dict[str, str], may: bool) -> None:
    if may:
        assert policy(text).override({"preferences": wish}) != policy(text)
        return
    with pytest.raises(UserError) as caught:
        policy(text).override({"preferences": wish})
    assert caught.value.reason is Reason.POLICY


def test_an_application_does_not_compress_what_is_encrypted_against_the_file() -> None:
    with pytest.raises(UserError):
        policy("compress_encrypted = false").override({"compress_encrypted": True})
    assert policy("").override({"compress_encrypted": True}).compress_encrypted


def test_every_protocol_that_comes_with_accord_has_a_name_for_policies() -> None:
    assert {Protocol(number).name for number in PROTOCOLS.values()} >= {"TCP", "TLS13", "QUIC", "HTTP", "FRAMING"}
