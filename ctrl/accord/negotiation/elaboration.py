# SPDX-License-Identifier: Apache-2.0
"""Placeholders (HotNets 2009, section 2.3): what a graph may become from one message to the next. Pure, O(n + e).

A placeholder stands for one protocol, and is later the same node without the flag, or, with the protocol SUBGRAPH, for
any number of nodes, and is later replaced by new ones that name it in ELABORATES. PLACEHOLDER says who fills it. A new
node *stands where* its placeholder stood: an edge between two nodes is allowed where there was one between the places
where they stand, or where both stand in one place.

    before          0 -> 1 -> P -> 9         P is a placeholder for a subgraph
    may become      0 -> 1 -> 5 -> 9,        5, 6, 7 elaborate P
                         1 -> 6 -> 7 -> 9
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Final

from accord.negotiation.graph import Graph, Stack
from accord.negotiation.interface import Role
from accord.wire import tlv
from accord.wire.constants import Limit, NodeId, Protocol, Reason, TlvType
from accord.wire.errors import error
from accord.wire.node import Node

FILLER: Final = {Role.INITIATOR: False, Role.RESPONDER: True}
"""The first byte of PLACEHOLDER, by who fills it."""


def fills(node: Node, role: Role) -> bool:
    """A placeholder that this side fills."""
    return node.placeholder and node.filling[0] is FILLER[role]


def is_subgraph(node: Node) -> bool:
    """A placeholder for any number of nodes."""
    return node.protocol == Protocol.SUBGRAPH


def place(node: Node) -> int:
    """Where a node stands, in the graph of the message before."""
    return node.id if node.elaborates is None else node.elaborates


def successor(before: Graph, nodes: Iterable[Node], sender: Role, used: Collection[int]) -> Graph:
    """What the sender made of the graph: nodes taken away, placeholders filled, nothing else.

    ``used``: every node ID that the negotiation has had. Raises ``PeerError``: NOT_PROPOSED, BAD_ELABORATION, and what
    ``Graph`` raises.
    """
    nodes = list(nodes)
    # A list: faster than a generator, and most messages end here.
    if not any([node.placeholder or (node.tlvs and node.elaborates is not None) for node in nodes]):  # noqa: C419
        return _part(before, nodes, sender)
    where = {node.id: place(node) for node in nodes}
    filled = {node.elaborates for node in nodes} - {None}
    tops = [node.id for node in nodes if where[node.id] in before.tops and not node.children]
    graph = Graph(nodes, tops=frozenset(tops))
    above = {node_id: frozenset(before.children(node_id)) for node_id in before.nodes}
    for node in nodes:
        if node.elaborates is not None:
            _check_new(before, node, sender, used)
        else:
            _check_kept(before, node, sender)
            if node.id in filled:
                raise error(Reason.BAD_ELABORATION, f"{node.name} is there beside what elaborates it")
        at = where[node.id]
        if not all(where[child] in above[at] or (where[child] == at != child) for child in node.children):
            raise error(Reason.NOT_PROPOSED, f"{node.name} with children {node.children}")
    if filled and len(graph.prune(()).nodes) < len(graph.nodes):
        raise error(Reason.BAD_ELABORATION, "a node that is on no stack")
    return graph


def _part(before: Graph, nodes: list[Node], sender: Role) -> Graph:
    """As ``successor``, where nodes were only taken away, as in most messages."""
    graph = Graph(nodes, tops=frozenset([node.id for node in nodes if not node.children and node.id in before.tops]))
    for node in nodes:
        _check_kept(before, node, sender)
        if not set(node.children).issubset(before.children(node.id)):
            raise error(Reason.NOT_PROPOSED, f"{node.name} with children {node.children}")
    return graph


def _check_new(before: Graph, node: Node, sender: Role, used: Collection[int]) -> None:
    placeholder = before.nodes.get(node.elaborates or 0)
    if placeholder is None or not is_subgraph(placeholder) or not fills(placeholder, sender):
        raise error(Reason.BAD_ELABORATION, f"{node.name} elaborates {node.elaborates}")
    if node.id in used or node.id == NodeId.CONTEXT:
        raise error(Reason.BAD_ELABORATION, f"{node.name} is not the first node with that ID")
    if is_subgraph(node) or node.protocol not in placeholder.filling[1]:
        raise error(Reason.BAD_ELABORATION, f"{node.name} is not what {placeholder.name} may be filled with")


def _check_kept(before: Graph, node: Node, sender: Role) -> None:
    old = before.nodes.get(node.id)
    if old is None or node.protocol != old.protocol:
        raise error(Reason.NOT_PROPOSED, f"{node.name} with children {node.children}")
    if not node.placeholder:
        if old.placeholder and (is_subgraph(old) or not fills(old, sender)):
            raise error(Reason.BAD_ELABORATION, f"{node.name} was the other side's to fill")
    elif not old.placeholder:
        # What was proposed is answered later: the responder's own information dependency.
        if sender is Role.INITIATOR or not fills(node, sender):
            raise error(Reason.NOT_PROPOSED, f"{node.name} was no placeholder")
    elif node.filling != old.filling and (node.filling[0] != old.filling[0] or fills(node, sender)):
        raise error(Reason.BAD_ELABORATION, f"{node.name} stands for something else than before")


def gone(before: Iterable[int], after: Graph) -> set[int]:
    """Nodes that were there and are no more, but for placeholders that were replaced: what PRUNED has to name."""
    return set(before) - after.nodes.keys() - {node.elaborates for node in after.nodes.values() if node.tlvs}


def places(graph: Graph, stack: Stack) -> Stack:
    """A stack as it stood in the message before: what an initiator's placeholder holds is one place."""
    return tuple(dict.fromkeys(place(graph.nodes[node_id]) for node_id in stack))


def replaced(
    graph: Graph, placeholder: int, stacks: Sequence[Sequence[int]], used: Collection[int]
) -> tuple[Graph, dict[int, int]]:
    """The graph with stacks of protocols, bottom to top, in place of a placeholder; beginnings are shared.

    New nodes get the lowest IDs that nobody has had, earlier stacks first; when there are none left, the rest of the
    stacks is left out. Also returned: the protocols of the new nodes, by ID.
    """
    free = iter(sorted(set(range(1, Limit.MAX_NODES)) - set(used)))
    ids: dict[tuple[int, ...], int] = {}
    below: dict[int, set[int]] = {}
    first: set[int] = set()
    for stack in stacks:
        prefixes = [tuple(stack[: depth + 1]) for depth in range(len(stack))]
        fresh = [next(free, None) for prefix in prefixes if prefix not in ids]
        if not stack or None in fresh:
            continue
        for prefix, node_id in zip([each for each in prefixes if each not in ids], fresh, strict=True):
            ids[prefix] = node_id or 0
            below[ids[prefix]] = set()
        for lower, upper in pairwise(prefixes):
            below[ids[lower]].add(ids[upper])
        below[ids[prefixes[-1]]].update(graph.children(placeholder))
        first.add(ids[prefixes[0]])
    protocols = {node_id: prefix[-1] for prefix, node_id in ids.items()}
    new = [
        Node(node_id, protocols[node_id], tuple(sorted(children)), (tlv.elaborates(placeholder),))
        for node_id, children in below.items()
    ]
    return insert(graph, {placeholder: (first, new)}), protocols


def insert(graph: Graph, fillings: Mapping[int, tuple[Collection[int], Sequence[Node]]]) -> Graph:
    """The graph with new nodes in place of placeholders: by placeholder, those that stand on its parents, and all."""
    kept = [replace(node, children=graph.children(node.id)) for node in graph.nodes.values() if node.id not in fillings]
    nodes: dict[int, Node] = {}
    for node in (*kept, *(new for _, filling in fillings.values() for new in filling)):
        children = set(node.children)
        for held in children & fillings.keys():
            children = children - {held} | set(fillings[held][0])
        nodes[node.id] = replace(node, children=tuple(sorted(children)))
    reached, ahead = {int(NodeId.CONTEXT)}, [int(NodeId.CONTEXT)]
    while ahead:
        fresh = set(nodes[ahead.pop()].children) - reached
        reached |= fresh
        ahead += fresh
    left = [node for node in nodes.values() if node.id in reached]
    tops = [node.id for node in left if place(node) in graph.tops and not node.children]
    return Graph(left, tops=frozenset(tops)).prune(())


def settled(graph: Graph) -> Graph:
    """The graph of a message, from which the next one is made: nothing in it is new any more."""
    if not any(node.elaborates for node in graph.nodes.values()):
        return graph
    nodes = [
        replace(
            node,
            children=graph.children(node.id),
            tlvs=tuple(each for each in node.tlvs if each.type != TlvType.ELABORATES),
        )
        for node in graph.nodes.values()
    ]
    return Graph(nodes, tops=graph.tops)


def vouching(graph: Graph, secure: Callable[[int], bool]) -> frozenset[int]:
    """The topmost security node of each stack: their MACs together vouch for every choice that is left."""
    bare_above: set[int] = set()
    """Nodes from which a top can be reached without another security node."""
    for node_id in reversed(graph.order()):
        children = graph.children(node_id)
        if node_id in graph.tops or any(child in bare_above and not secure(child) for child in children):
            bare_above.add(node_id)
    return frozenset(node_id for node_id in bare_above if node_id != NodeId.CONTEXT and secure(node_id))


def compose(
    context: Node,
    graph: Graph,
    order: Iterable[int],
    payloads: Mapping[int, bytes],
    tlvs: Mapping[int, Sequence[tlv.Tlv]],
    macs: Collection[int],
) -> list[Node]:
    """The nodes of a message that is more than one stack, context first; MACs of zeros where there are to be some.

    ``tlvs``: of each node, but for MAC; a node with PLACEHOLDER is one.
    """
    nodes = [replace(context, children=graph.children(NodeId.CONTEXT))]
    for node_id in order:
        own = [*tlvs.get(node_id, ()), *([tlv.mac(bytes(tlv.HASH_BYTES))] if node_id in macs else [])]
        own.sort(key=lambda each: each.type)
        held = any(each.type == TlvType.PLACEHOLDER for each in own)
        protocol, payload = graph.nodes[node_id].protocol, payloads.get(node_id, b"")
        nodes.append(Node(node_id, protocol, graph.children(node_id), tuple(own), payload, held))
    return nodes
