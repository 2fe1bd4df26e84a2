# SPDX-License-Identifier: Apache-2.0
"""The function of both proposals: symmetric, total, blind to what only one side sees, and to the order of anything."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.negotiation.graph import Graph
from accord.negotiation.merge import Merged, Proposal, leader, merge
from accord.wire import tlv
from accord.wire.constants import Protocol, Reason
from accord.wire.errors import PeerError
from accord.wire.node import Node
from tests.meeting.hosts import identity_of

TCP, TLS, QUIC, HTTP = int(Protocol.TCP), int(Protocol.TLS13), int(Protocol.QUIC), int(Protocol.HTTP)
SECURE = frozenset({TLS, QUIC})
IDENTITIES = st.binary(min_size=16, max_size=16)
# Stacks by protocol IDs, bottom to top: few numbers, so that two sides often have some in common.
STACKS = st.lists(st.integers(1, 5), min_size=1, max_size=3, unique=True).map(tuple)
OFFERS = st.dictionaries(STACKS, st.integers(0, 4), min_size=1, max_size=6)


def graph_of(offers: dict[tuple[int, ...], int], supported: frozenset[int] | None = None) -> Graph:
    """Each stack as a chain of its own, its preference on the top; of others than ``supported`` no more is known than
    that they are there."""
    nodes: list[Node] = []
    skipped: dict[int, int] = {}
    first: list[int] = []
    for stack, liking in offers.items():
        base = 1 + len(nodes) + len(skipped)
        first.append(base)
        for depth, protocol in enumerate(stack):
            top = depth == len(stack) - 1
            children = () if top else (base + depth + 1,)
            if supported is not None and protocol not in supported:
                skipped[base + depth] = protocol
            else:
                nodes.append(Node(base + depth, protocol, children, (tlv.preference(liking),) if top else ()))
    context = Node(0, Protocol.UDP, tuple(first))
    return Graph([context, *nodes], skipped)


def merged(one: dict[tuple[int, ...], int], other: dict[tuple[int, ...], int]) -> Merged:
    return merge(Proposal(identity_of("one"), graph_of(one)), Proposal(identity_of("other"), graph_of(other)), SECURE)


@given(OFFERS, OFFERS, IDENTITIES, IDENTITIES)
def test_whoever_computes_it_gets_the_same(
    one: dict[tuple[int, ...], int], other: dict[tuple[int, ...], int], name: bytes, other_name: bytes
) -> None:
    if name == other_name:
        return
    ours, theirs = Proposal(name, graph_of(one)), Proposal(other_name, graph_of(other))
    result = merge(ours, theirs, SECURE)
    assert result == merge(theirs, ours, SECURE)
    assert result.leader in (name, other_name)
    assert set(result.stacks) == one.keys() & other.keys()


@given(OFFERS, OFFERS, st.frozensets(st.integers(1, 5)), st.frozensets(st.integers(1, 5)))
def test_each_side_sees_less_of_the_other_and_still_gets_the_same(
    one: dict[tuple[int, ...], int],
    other: dict[tuple[int, ...], int],
    more_of_one: frozenset[int],
    more_of_other: frozenset[int],
) -> None:
    """A side supports what it proposes, and perhaps more; the rest of the other's proposal it does not store."""
    at_one = more_of_one | {protocol for stack in one for protocol in stack}
    at_other = more_of_other | {protocol for stack in other for protocol in stack}
    first, second = identity_of("first"), identity_of("second")
    here = merge(Proposal(first, graph_of(one)), Proposal(second, graph_of(other, at_one)), SECURE)
    there = merge(Proposal(second, graph_of(other)), Proposal(first, graph_of(one, at_other)), SECURE)
    assert here == there


@given(OFFERS, OFFERS, st.randoms(use_true_random=False))
def test_the_order_in_which_stacks_are_proposed_changes_nothing(
    one: dict[tuple[int, ...], int], other: dict[tuple[int, ...], int], chance: random.Random
) -> None:
    shuffled = list(one.items())
    chance.shuffle(shuffled)
    assert merged(one, other) == merged(dict(shuffled), other)


@given(OFFERS, OFFERS)
def test_nobody_loses_what_both_like_better(one: dict[tuple[int, ...], int], other: dict[tuple[int, ...], int]) -> None:
    """Pareto: before each stack there is none that one side likes less, and the other no more, strictly."""
    order = merged(one, other).stacks
    for better, worse in itertools.combinations(order, 2):
        assert not (one[worse] > one[better] and other[worse] >= other[better])
        assert not (other[worse] > other[better] and one[worse] >= one[better])


@given(OFFERS, OFFERS, st.sampled_from([2, 7, 50]))
def test_how_loud_a_side_speaks_changes_nothing(
    one: dict[tuple[int, ...], int], other: dict[tuple[int, ...], int], factor: int
) -> None:
    louder = {stack: liking * factor + 3 for stack, liking in one.items()}
    assert merged(one, other) == merged(louder, other)


def test_what_only_one_side_offers_has_no_weight() -> None:
    both = {(TCP, TLS, HTTP): 2, (QUIC, HTTP): 1}
    alone = {**both, (TCP, 1, HTTP): 9, (TCP, 2, HTTP): 8, (TCP, 3, HTTP): 7}
    assert merged(both, alone) == merged(both, both)


def test_the_middle_one_wins_where_each_likes_most_what_the_other_likes_least() -> None:
    one = {(TCP, TLS, HTTP): 3, (QUIC, HTTP): 2, (TCP, HTTP): 1}
    other = {(TCP, TLS, HTTP): 1, (QUIC, HTTP): 2, (TCP, HTTP): 3}
    assert merged(one, other).stacks[0] == (QUIC, HTTP)


def test_a_secure_stack_wins_a_tie() -> None:
    one, other = {(TCP, HTTP): 2, (QUIC, HTTP): 1}, {(TCP, HTTP): 1, (QUIC, HTTP): 2}
    assert merged(one, other).stacks == ((QUIC, HTTP), (TCP, HTTP))


def test_nothing_in_common_is_an_order_of_nothing() -> None:
    assert merged({(TCP,): 1}, {(QUIC,): 1}).stacks == ()


def test_the_digest_tells_when_a_preference_on_the_way_was_changed() -> None:
    one, other = {(TCP, HTTP): 2, (QUIC, HTTP): 1}, {(TCP, HTTP): 2, (QUIC, HTTP): 1}
    changed = {(TCP, HTTP): 1, (QUIC, HTTP): 2}
    stripped = {(TCP, HTTP): 2}
    digests = {merged(one, variant).digest for variant in (other, changed, stripped)}
    assert len(digests) == 3


@given(IDENTITIES, st.lists(IDENTITIES, min_size=200, max_size=200, unique=True))
def test_each_side_leads_about_half_of_the_peers(identity: bytes, others: list[bytes]) -> None:
    """A side that does not know the other's identity cannot choose its role: the bound is ten deviations wide."""
    led = sum(leader(identity, other) == identity for other in others if other != identity)
    assert 30 < led < 170


def test_ones_own_proposal_thrown_back_is_refused() -> None:
    mirror = Proposal(identity_of("me"), graph_of({(TCP,): 1}))
    with pytest.raises(PeerError) as refusal:
        merge(mirror, mirror, SECURE)
    assert refusal.value.reason is Reason.NOT_MERGED
