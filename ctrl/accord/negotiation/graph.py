# SPDX-License-Identifier: Apache-2.0
"""Protocol graphs (HotNets 2009, section 2.1): every stack that a side could use, shared nodes held once.

Edges run upwards, from a node to its children: those that may build on it. A *stack* is a path from the
context, which it leaves out, to a *top*: a node that had no children in the proposal as it was sent. Pruning
takes nodes away but makes no new tops, so what the initiator did not propose as a whole stack is none.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain, pairwise
from typing import Final

from accord.wire.constants import Limit, NodeId, Protocol, Reason, protocol_name
from accord.wire.errors import error
from accord.wire.node import Node

MAX_STACKS: Final = 256
"""Paths can be exponentially many in the nodes. The first so many, in ascending order of node IDs, are looked
at, on both sides: an initiator gives what it prefers the lower IDs."""

Stack = tuple[int, ...]
"""Node IDs from the bottom to the top, without the context."""

CONTEXT_PROTOCOLS: Final = frozenset({Protocol.UDP, Protocol.DIRECT, Protocol.INNER})


def stack_name(protocols: Iterable[int]) -> str:
    """A stack as people write it, top first, from its protocol IDs bottom to top: ``http/tls/tcp``."""
    return "/".join(reversed([protocol_name(protocol) for protocol in protocols]))


class Graph:
    """A valid graph. Immutable: ``prune`` makes another one. All methods but ``stacks`` take O(n + e)."""

    def __init__(
        self,
        nodes: Iterable[Node],
        skipped: Mapping[int, int] | None = None,
        *,
        edges: Mapping[int, tuple[int, ...]] | None = None,
        tops: frozenset[int] | None = None,
    ) -> None:
        """Check and hold what a message said.

        ``skipped``: ID to protocol of nodes of which the receiver knows no more, because it does not support
        their protocols; it cannot see where their edges lead. ``tops``: of a graph that follows from another one, and
        has its tops; none: a proposal's, where they show. ``edges`` is for ``prune``: a part of a valid graph is
        valid, so nothing is checked again.

        Raises ``PeerError``: TOO_MANY_NODES, DUPLICATE_NODE, NO_CONTEXT, DANGLING_CHILD, CYCLE, UNREACHABLE_NODE.
        """
        self.skipped: Final[Mapping[int, int]] = skipped or {}
        self.nodes: Final[Mapping[int, Node]] = _by_id(nodes, self.skipped)
        lean = checked = edges is not None
        if edges is None:
            edges = {node.id: node.children for node in self.nodes.values()}
            if self.skipped:
                edges = {
                    node: tuple([child for child in children if child not in self.skipped])
                    for node, children in edges.items()
                }
            lean = self._check(edges)
        if tops is None:
            ids = [node.id for node in self.nodes.values() if not node.children and node.id != NodeId.CONTEXT]
            tops = frozenset(ids)
        self.tops: Final[frozenset[int]] = tops
        if lean and not checked:
            for node_id, children in edges.items():
                lean = lean and (bool(children) or node_id in tops)
        self._lean: Final = lean
        """Every node is on a path from the context to a top: what ``prune`` leaves."""
        self._edges: Final[Mapping[int, tuple[int, ...]]] = edges

    @property
    def context(self) -> Node:
        """The node that everything builds on."""
        return self.nodes[NodeId.CONTEXT]

    def children(self, node_id: int) -> tuple[int, ...]:
        """Those children, ascending, that are in this graph."""
        return self._edges[node_id]

    def protocols(self, stack: Stack) -> tuple[int, ...]:
        """The protocol IDs of a stack's nodes."""
        nodes = self.nodes
        return tuple([nodes[node_id].protocol for node_id in stack])

    def order(self) -> tuple[int, ...]:
        """All node IDs, each after everything that it builds on; the context first, lower IDs first."""
        return tuple(_topological(self._edges))

    def above(self, node_id: int) -> tuple[int, ...]:
        """What may build on a node, nearest first."""
        return tuple(_breadth_first(self._edges, node_id))[1:]

    def below(self, node_id: int) -> tuple[int, ...]:
        """What a node may build on, nearest first, without the context."""
        parents: dict[int, list[int]] = {node: [] for node in self._edges}
        for node, children in self._edges.items():
            for child in children:
                parents[child].append(node)
        return tuple(node for node in _breadth_first(parents, node_id) if node not in (node_id, NodeId.CONTEXT))

    def prune(self, ids: Collection[int]) -> Graph:
        """Without these nodes, and without those that then lie on no path from the context to a top.

        The context stays in any case: a graph without stacks is the context alone.
        """
        removed = (self.nodes.keys() & ids) - {NodeId.CONTEXT}
        edges: Mapping[int, Sequence[int]] = self._edges
        if removed:
            edges = {
                node: [child for child in children if child not in removed]
                for node, children in edges.items()
                if node not in removed
            }
        elif self._lean:
            return Graph(self.nodes.values(), edges=self._edges, tops=self.tops) if self.skipped else self
        reached, alive = {int(NodeId.CONTEXT)}, {int(NodeId.CONTEXT), *self.tops}
        order = _topological(edges)
        for node in order:
            if node in reached:
                reached.update(edges[node])
        for node in reversed(order):
            if not alive.isdisjoint(edges[node]):
                alive.add(node)
        kept = reached & alive
        part = {node: tuple([c for c in kids if c in kept]) for node, kids in edges.items() if node in kept}
        nodes = [node for node in self.nodes.values() if node.id in part]
        return Graph(nodes, edges=part, tops=frozenset(self.tops.intersection(part)))

    def along(self, stacks: Iterable[Stack]) -> Graph:
        """What is on these stacks, nodes and edges: a chain for one, while two nodes of it may have an edge besides."""
        edges: dict[int, set[int]] = {NodeId.CONTEXT: set()}
        for stack in stacks:
            for below, node in pairwise((int(NodeId.CONTEXT), *stack)):
                edges.setdefault(node, set())
                edges[below].add(node)
        part = {node: tuple(sorted(edges[node])) for node in self.nodes if node in edges}
        nodes = [self.nodes[node] for node in part]
        return Graph(nodes, edges=part, tops=frozenset(self.tops.intersection(part)))

    def stacks(self) -> Iterator[Stack]:
        """Paths from the context to a top, in ascending order of their node IDs; at most ``MAX_STACKS``."""
        usable = self._edges if self._lean else self.prune(())._edges
        path: list[int] = []
        ahead: list[Iterator[int]] = [iter(usable[NodeId.CONTEXT])]
        found = 0
        while ahead and found < MAX_STACKS:
            node = next(ahead[-1], None)
            if node is None:
                ahead.pop()
                if path:
                    path.pop()
                continue
            path.append(node)
            ahead.append(iter(usable[node]))
            if node in self.tops:
                found += 1
                yield tuple(path)

    def only_stack(self) -> Stack | None:
        """The stack, when this graph is one chain from the context and nothing else; None otherwise."""
        if self.skipped:
            return None
        path: list[int] = []
        node: int = NodeId.CONTEXT
        edges = self._edges
        while len(children := edges[node]) == 1:
            node = children[0]
            path.append(node)
        whole = len(path) == len(self.nodes) - 1 > 0 and not self.nodes[node].children
        return tuple(path) if whole else None

    def _check(self, stored: Mapping[int, tuple[int, ...]]) -> bool:
        """``stored``: children by node, those aside that were skipped. Whether the context leads to all that is."""
        nodes = self.nodes
        edges = sum([len(node.children) for node in nodes.values()])
        if len(nodes) + len(self.skipped) > Limit.MAX_NODES or edges > Limit.MAX_EDGES:
            raise error(Reason.TOO_MANY_NODES, f"{len(nodes) + len(self.skipped)} nodes, {edges} edges")
        context = nodes.get(NodeId.CONTEXT)
        if context is None or context.protocol not in CONTEXT_PROTOCOLS or context.placeholder:
            raise error(Reason.NO_CONTEXT, "no node 0" if context is None else context.name)
        for node in nodes.values():
            for child in node.children:
                if child == NodeId.CONTEXT:
                    raise error(Reason.CYCLE, f"an edge from {node.name} to the context")
                if child not in nodes and child not in self.skipped:
                    raise error(Reason.DANGLING_CHILD, f"{child} of {node.name}")
        order = _topological(stored)
        if len(order) < len(nodes):
            raise error(Reason.CYCLE)
        reached = {int(NodeId.CONTEXT)}
        for each in order:
            if each in reached:
                reached.update(stored[each])
        # Through a skipped node, everything could be reached; if none of them can be, they are no excuse.
        if len(reached) == len(nodes) + len(self.skipped):
            return True
        into_the_dark = any(child in self.skipped for node in reached for child in nodes[node].children)
        if not into_the_dark:
            lost = sorted(set(chain(nodes, self.skipped)) - reached)
            raise error(Reason.UNREACHABLE_NODE, ", ".join(map(str, lost)))
        return len(reached) == len(nodes)


def _by_id(nodes: Iterable[Node], skipped: Mapping[int, int]) -> Mapping[int, Node]:
    by_id: dict[int, Node] = {}
    for node in nodes:
        if node.id in by_id or node.id in skipped:
            raise error(Reason.DUPLICATE_NODE, node.name)
        by_id[node.id] = node
    return by_id


def _breadth_first(edges: Mapping[int, Iterable[int]], start: int) -> Iterator[int]:
    seen = {start}
    queue = deque([start])
    while queue:
        node = queue.popleft()
        yield node
        for child in edges[node]:
            if child not in seen:
                seen.add(child)
                queue.append(child)


def _topological(edges: Mapping[int, Sequence[int]]) -> list[int]:
    """Kahn's algorithm, lower IDs first. Nodes on a cycle, or above one, are left out."""
    for node, children in edges.items():
        if children and min(children) <= node:
            break
    else:  # as they are mostly given out: the lowest that is left has everything that it builds on before it
        return sorted(edges)
    incoming = dict.fromkeys(edges, 0)
    for child in chain.from_iterable(edges.values()):
        incoming[child] += 1
    ready = [node for node, count in incoming.items() if count == 0]
    heapq.heapify(ready)
    order: list[int] = []
    while ready:
        node = heapq.heappop(ready)
        order.append(node)
        for child in edges[node]:
            incoming[child] -= 1
            if incoming[child] == 0:
                heapq.heappush(ready, child)
    return order
