# SPDX-License-Identifier: Apache-2.0
"""Protocol graphs, against an independent reading of the same rules: graphlib, sets, and a naive search."""

from __future__ import annotations

import graphlib
import itertools
from collections.abc import Iterator, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.negotiation.graph import MAX_STACKS, Graph, stack_name
from accord.wire.constants import Limit, Protocol, Reason
from accord.wire.errors import PeerError
from accord.wire.node import Node

Edges = Mapping[int, tuple[int, ...]]


def graph_of(edges: Edges, skipped: Mapping[int, int] | None = None) -> Graph:
    return Graph(
        [Node(node, Protocol.TCP if node else Protocol.UDP, children) for node, children in edges.items()], skipped
    )


def refusal(edges: Edges, skipped: Mapping[int, int] | None = None) -> Reason | None:
    try:
        graph_of(edges, skipped)
    except PeerError as fault:
        return fault.reason
    return None


def closure(edges: Edges, start: int) -> set[int]:
    """Everything that can be reached from ``start``, by adding until nothing is new."""
    found = {start}
    while more := {child for node in found for child in edges.get(node, ())} - found:
        found |= more
    return found


def acyclic(edges: Edges) -> bool:
    try:
        graphlib.TopologicalSorter(edges).prepare()
    except graphlib.CycleError:
        return False
    return True


def paths(edges: Edges, node: int, tops: set[int]) -> Iterator[tuple[int, ...]]:
    """Every path upwards from ``node`` to a top, without ``node``."""
    for child in sorted(edges.get(node, ())):
        if child in tops:
            yield (child,)
        for rest in paths(edges, child, tops):
            yield (child, *rest)


def all_graphs(count: int) -> Iterator[dict[int, tuple[int, ...]]]:
    """Every set of edges over nodes 0..count-1, without self edges, which no descriptor can express."""
    pairs = [(low, high) for low in range(count) for high in range(count) if low != high]
    for chosen in itertools.product((False, True), repeat=len(pairs)):
        edges: dict[int, tuple[int, ...]] = dict.fromkeys(range(count), ())
        for (low, high), there in zip(pairs, chosen, strict=True):
            if there:
                edges[low] += (high,)
        yield edges


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_every_small_graph_is_accepted_exactly_when_the_naive_check_accepts_it(count: int) -> None:
    for edges in all_graphs(count):
        sound = acyclic(edges) and closure(edges, 0) == set(edges) and not any(0 in kids for kids in edges.values())
        assert (refusal(edges) is None) == sound, edges


@pytest.mark.parametrize("count", [2, 3, 4])
def test_every_small_graph_has_the_stacks_order_and_neighbours_that_a_naive_search_finds(count: int) -> None:
    for edges in all_graphs(count):
        if refusal(edges) is not None:
            continue
        graph = graph_of(edges)
        tops = {node for node, kids in edges.items() if not kids and node}
        assert list(graph.stacks()) == sorted(paths(edges, 0, tops))
        place = {node: index for index, node in enumerate(graph.order())}
        assert all(place[node] < place[child] for node, kids in edges.items() for child in kids)
        for node in edges:
            assert set(graph.above(node)) == closure(edges, node) - {node}
            assert set(graph.below(node)) == {low for low in edges if node in closure(edges, low)} - {0, node}


@pytest.mark.parametrize("count", [2, 3, 4])
def test_pruning_any_nodes_keeps_exactly_what_lies_between_the_context_and_a_top(count: int) -> None:
    for edges in all_graphs(count):
        if refusal(edges) is not None:
            continue
        graph = graph_of(edges)
        for size in range(count):
            for gone in itertools.combinations(range(1, count), size):
                left = {
                    node: tuple(c for c in kids if c not in gone) for node, kids in edges.items() if node not in gone
                }
                tops = {node for node in left if node and not edges[node]}
                on_a_stack = {node for stack in paths(left, 0, tops) for node in stack}
                pruned = graph.prune(gone)
                assert set(pruned.nodes) == {0, *on_a_stack}
                assert list(pruned.stacks()) == sorted(paths(left, 0, tops))


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_only_a_single_whole_chain_is_one_stack(count: int) -> None:
    for edges in all_graphs(count):
        if refusal(edges) is None:
            graph = graph_of(edges)
            chain = count > 1 and all(len(kids) <= 1 for kids in edges.values())
            assert (graph.only_stack() is not None) == chain
            assert not chain or [graph.only_stack()] == list(graph.stacks())


@pytest.mark.parametrize(
    ("edges", "reason"),
    [
        ({0: (1,), 1: (2,), 2: (1,)}, Reason.CYCLE),
        ({0: (1,), 1: (0,)}, Reason.CYCLE),
        ({0: (1,), 1: (2,), 2: (3,), 3: (1,)}, Reason.CYCLE),
        ({0: (1, 9), 1: ()}, Reason.DANGLING_CHILD),
        ({0: (1,), 1: (), 2: ()}, Reason.UNREACHABLE_NODE),
        ({1: ()}, Reason.NO_CONTEXT),
        ({}, Reason.NO_CONTEXT),
    ],
)
def test_a_broken_graph_is_refused_by_name(edges: Edges, reason: Reason) -> None:
    assert refusal(edges) is reason


@pytest.mark.parametrize("context", [Node(0, Protocol.TCP), Node(0, Protocol.UDP, placeholder=True)])
def test_a_context_that_nothing_can_build_on_is_refused(context: Node) -> None:
    with pytest.raises(PeerError) as caught:
        Graph([context])
    assert caught.value.reason is Reason.NO_CONTEXT


def test_two_nodes_with_one_id_are_refused_also_when_one_of_them_was_skipped() -> None:
    for twice, skipped in (([Node(1, 6), Node(1, 6)], {}), ([Node(1, 6)], {1: 99})):
        with pytest.raises(PeerError) as caught:
            Graph([Node(0, Protocol.UDP, (1,)), *twice], skipped)
        assert caught.value.reason is Reason.DUPLICATE_NODE


def test_limits_hold_at_the_limit_and_one_beyond() -> None:
    chain = {node: (node + 1,) for node in range(Limit.MAX_NODES - 1)} | {Limit.MAX_NODES - 1: ()}
    assert refusal(chain) is None
    assert refusal(chain, {70: 1}) is Reason.TOO_MANY_NODES
    most = list(itertools.combinations(range(Limit.MAX_NODES), 2))
    wanted = [(node, node + 1) for node in range(Limit.MAX_NODES - 1)]
    wanted += [pair for pair in most if pair not in wanted][: Limit.MAX_EDGES - len(wanted)]
    edges = {node: tuple(high for low, high in wanted if low == node) for node in range(Limit.MAX_NODES)}
    assert refusal(edges) is None
    spare = next(pair for pair in most if pair not in wanted)
    edges[spare[0]] = tuple(sorted((*edges[spare[0]], spare[1])))
    assert refusal(edges) is Reason.TOO_MANY_NODES


def test_a_skipped_node_may_be_what_leads_to_nodes_that_nothing_else_reaches() -> None:
    graph = graph_of({0: (1, 2), 1: (), 3: ()}, {2: 99})
    assert set(graph.prune({2}).nodes) == {0, 1}
    assert refusal({0: (1,), 1: (), 3: ()}, {2: 99}) is Reason.UNREACHABLE_NODE


def test_a_node_whose_children_were_all_skipped_is_no_top() -> None:
    assert list(graph_of({0: (1, 3), 1: (2,), 3: ()}, {2: 99}).stacks()) == [(3,)]


def test_stacks_of_exponentially_many_paths_are_bounded_and_lazy() -> None:
    ladder: dict[int, tuple[int, ...]] = {0: (1, 2)}
    for low in range(1, 60, 2):
        ladder |= {low: (low + 2, low + 3), low + 1: (low + 2, low + 3)}
    ladder |= {61: (), 62: ()}
    graph = graph_of(ladder)  # 2^31 paths
    assert next(graph.stacks()) == tuple(range(1, 63, 2))
    assert len(list(graph.stacks())) == MAX_STACKS
    dead = graph.prune({61, 62})
    assert (list(dead.stacks()), set(dead.nodes)) == ([], {0})


def test_stacks_are_named_top_first() -> None:
    assert stack_name([Protocol.TCP, Protocol.TLS13, Protocol.HTTP]) == "http/tls/tcp"
    assert stack_name([0x7E000001]) == "0x7e000001"


@given(st.data())
def test_random_graphs_are_judged_as_the_naive_check_judges_them(data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 12))
    number = st.integers(0, count - 1)
    drawn = data.draw(st.sets(st.tuples(number, number).filter(lambda pair: pair[0] != pair[1]), max_size=30))
    edges = {node: tuple(sorted(high for low, high in drawn if low == node)) for node in range(count)}
    sound = acyclic(edges) and closure(edges, 0) == set(edges) and not any(0 in kids for kids in edges.values())
    assert (refusal(edges) is None) == sound
    if sound:
        tops = {node for node, kids in edges.items() if not kids}
        assert list(graph_of(edges).stacks()) == list(itertools.islice(paths(edges, 0, tops), MAX_STACKS))
