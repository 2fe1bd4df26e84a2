# SPDX-License-Identifier: Apache-2.0
"""Protocol graphs, against an independent reading of the same rules: graphlib, sets, and a naive search."""

from __future__ import annotations

import contextlib
import graphlib
import itertools
import sys
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any

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
    """Every set of edges over nodes 0..count-1, without self edges, which no descriptor can express. Of five nodes
    without those to the context either: they are 15 of 16, and what one does shows among four."""
    low_end = 1 if count > 4 else 0
    pairs = [(low, high) for low in range(count) for high in range(low_end, count) if low != high]
    for chosen in itertools.product((False, True), repeat=len(pairs)):
        edges: dict[int, tuple[int, ...]] = dict.fromkeys(range(count), ())
        for (low, high), there in zip(pairs, chosen, strict=True):
            if there:
                edges[low] += (high,)
        yield edges


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_every_small_graph_is_accepted_exactly_when_the_naive_check_accepts_it(count: int) -> None:
    # Made once for each node: there are 65536 graphs of five.
    made: dict[tuple[int, tuple[int, ...]], Node] = {}
    for edges in all_graphs(count):
        sound = closure(edges, 0) == set(edges) and not any(0 in kids for kids in edges.values()) and acyclic(edges)
        nodes = [
            made.get(each) or made.setdefault(each, Node(each[0], Protocol.TCP if each[0] else Protocol.UDP, each[1]))
            for each in edges.items()
        ]
        try:
            Graph(nodes)
        except PeerError:
            assert not sound, edges
        else:
            assert sound, edges


@pytest.mark.parametrize("count", [2, 3])
def test_every_small_graph_with_nodes_that_are_skipped_or_not_there_is_judged_by_the_naive_check(count: int) -> None:
    """Each node but the context is stored, skipped, or missing though edges lead to it."""
    for edges in all_graphs(count):
        for fates in itertools.product(["stored", "skipped", "missing"], repeat=count - 1):
            fate = dict(enumerate(fates, 1))
            stored = {node: kids for node, kids in edges.items() if fate.get(node, "stored") == "stored"}
            skipped = {node: 99 for node in fate if fate[node] == "skipped"}
            pointed = {child for kids in stored.values() for child in kids}
            inside = {node: tuple(child for child in kids if child in stored) for node, kids in stored.items()}
            reached = closure(inside, 0)
            sound = 0 not in pointed and pointed <= stored.keys() | skipped.keys() and acyclic(inside)
            # Behind a skipped node there may be anything, if the context leads to one.
            seen = {child for node in reached for child in stored.get(node, ())}
            sound = sound and (bool(seen & skipped.keys()) or reached == stored.keys() | skipped.keys())
            assert (refusal(stored, skipped) is None) == sound, (stored, skipped)


def lines_run(work: Callable[[], object]) -> int:
    """How many lines of Python that takes: a measure that no load of the machine changes."""
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


FAMILIES: dict[str, Callable[[int], dict[int, tuple[int, ...]]]] = {
    "a chain": lambda n: {node: (node + 1,) if node + 1 < n else () for node in range(n)},
    "a star": lambda n: {0: tuple(range(1, n)), **dict.fromkeys(range(1, n), ())},
    "pairs that share everything above": lambda n: {
        0: (1, 2), **{node: tuple(c for c in (2 * ((node + 1) // 2) + 1, 2 * ((node + 1) // 2) + 2) if c < n)
                      for node in range(1, n)}
    },
    "every edge upwards": lambda n: {node: tuple(range(node + 1, n)) for node in range(n)},
    "a ring": lambda n: {0: (1,), **{node: (node % (n - 1) + 1,) for node in range(1, n)}},
    "a ring at the end of a chain": lambda n: {node: (node + 1 if node + 1 < n else n // 2,) for node in range(n)},
    "nodes that nothing reaches": lambda n: dict.fromkeys(range(n), ()),
}  # fmt: skip
SIZES = {"every edge upwards": 22}
"""Where 64 nodes would have more edges than there may be."""


@pytest.mark.parametrize("family", FAMILIES)
def test_a_graph_is_checked_in_time_that_grows_as_nodes_and_edges_do(family: str) -> None:
    most = SIZES.get(family, int(Limit.MAX_NODES))
    for size in range(4, most + 1, 3):
        edges = FAMILIES[family](size)
        nodes = [Node(node, Protocol.TCP if node else Protocol.UDP, kids) for node, kids in edges.items()]

        def check(nodes: list[Node] = nodes) -> None:
            with contextlib.suppress(PeerError):
                Graph(nodes)

        amount = len(edges) + sum(map(len, edges.values()))
        assert lines_run(check) < 80 + 12 * amount, f"{size} nodes"


@pytest.mark.parametrize("family", ["pairs that share everything above", "every edge upwards"])
def test_stacks_of_exponentially_many_paths_are_listed_in_time_that_their_bound_allows(family: str) -> None:
    size = SIZES.get(family, int(Limit.MAX_NODES))
    graph = graph_of(FAMILIES[family](size))
    assert lines_run(lambda: list(graph.stacks())) < 3 * MAX_STACKS * size


def test_more_edges_than_there_may_be_are_refused_before_any_is_followed() -> None:
    edges = {node: tuple(range(node + 1, 64)) for node in range(64)}
    nodes = [Node(node, Protocol.TCP if node else Protocol.UDP, kids) for node, kids in edges.items()]

    def check() -> None:
        with pytest.raises(PeerError, match="2016 edges"):
            Graph(nodes)

    assert lines_run(check) < 3000


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
