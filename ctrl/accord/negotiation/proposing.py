# SPDX-License-Identifier: Apache-2.0
"""What an initiator has to propose, and the graph that says as much of it as is to be said in step 0."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from accord.negotiation.choice import CandidateStack
from accord.negotiation.elaboration import fills, insert, is_subgraph
from accord.negotiation.graph import Graph, Stack
from accord.negotiation.interface import Elaboration, Role, Session, elaboration_of
from accord.wire import tlv
from accord.wire.constants import Limit, NodeId, Protocol, Reason, Word
from accord.wire.errors import PeerError, error
from accord.wire.node import Node

GREASE_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Proposed:
    """A node that the caller wants to be proposed. The context is node 0 and has no session."""

    id: int
    protocol: int
    session: Session | None
    children: tuple[int, ...] = ()
    preference: int | None = None
    """0..255, higher is preferred; None: no PREFERENCE on the wire."""
    word: int = Word.NEUTRAL
    """What this side's policy says of the protocol: WORD, which NEUTRAL needs none for."""
    within: int | None = None
    """Not revealed in step 0: the ID of the SUBGRAPH node, without session and children, that stands for it."""
    choices: tuple[int, ...] = ()
    """Of a SUBGRAPH node that nothing is within: protocols that the responder may fill it with, for us to choose."""


@dataclass(slots=True)
class Plan:
    """A whole proposal, and the part of it that step 0 reveals."""

    graph: Graph
    """As it is proposed."""
    full: Graph
    """With what is hidden in place of the placeholders for it."""
    hidden: dict[int, frozenset[int]] = field(default_factory=dict)
    """By placeholder."""
    held: dict[int, tlv.Tlv] = field(default_factory=dict)
    """PLACEHOLDER of the nodes that are placeholders by their protocol's rule, or because they hide something."""


def plan(proposed: Sequence[Proposed], context_tlvs: tuple[tlv.Tlv, ...]) -> Plan:
    """Check what is to be proposed and draw the graph of step 0. Raises ``ValueError``: the caller's mistake."""
    sessions = {node.id for node in proposed if node.session is not None}
    subgraphs = {node.id for node in proposed if node.protocol == Protocol.SUBGRAPH}
    if sessions != {node.id for node in proposed} - subgraphs - {NodeId.CONTEXT}:
        raise ValueError("every proposed node but the context and placeholders needs a session")
    nodes = [_node(node, context_tlvs) for node in proposed]
    try:
        if not subgraphs and all(node.within is None for node in proposed):
            graph = Graph(nodes)
            made = Plan(graph, graph)
        else:
            made = _contracted(proposed, nodes)
    except PeerError as refusal:
        raise ValueError(f"not a graph that can be proposed: {refusal}") from refusal
    for each in proposed:
        rule = elaboration_of(each.session)
        if each.within is not None and rule is Elaboration.EXPLICIT:
            raise ValueError(f"node {each.id} has to be explicit, by its protocol's rule")
        if rule is Elaboration.INITIATOR_PLACEHOLDER:
            made.held[each.id] = tlv.placeholder(by_responder=True)
    return made


def _contracted(proposed: Sequence[Proposed], nodes: Sequence[Node]) -> Plan:
    within = {node.id: node.within for node in proposed if node.within is not None}
    held: dict[int, tlv.Tlv] = {}
    for each in proposed:
        if each.protocol != Protocol.SUBGRAPH:
            continue
        hides = each.id in within.values()
        if hides == bool(each.choices) or (hides and each.children):
            raise ValueError(f"placeholder {each.id} either hides nodes or has choices, and only then children")
        held[each.id] = tlv.placeholder(not hides, each.choices)
    if not set(within.values()) <= held.keys():
        raise ValueError(f"nodes are within {sorted(set(within.values()) - held.keys())}, which are no placeholders")
    where = {node.id: within.get(node.id, node.id) for node in nodes}
    edges: dict[int, set[int]] = {place: set() for place in where.values()}
    for node in nodes:
        edges[where[node.id]] |= {where.get(child, child) for child in node.children} - {where[node.id]}
    hiding = set(within.values())
    if any(edges[lower] & held.keys() and (lower in hiding or edges[lower] & hiding) for lower in held):
        raise ValueError(
            "a placeholder that hides nodes next to another one: nobody could tell what in one stands on what in the "
            "other; let one placeholder hide both, or leave both open"
        )
    shown = [replace(node, children=tuple(sorted(edges[node.id]))) for node in nodes if where[node.id] == node.id]
    return Plan(
        Graph(shown),
        Graph([node for node in nodes if node.id not in hiding]),
        {place: frozenset(node for node, at in within.items() if at == place) for place in hiding},
        held,
    )


def _node(node: Proposed, context_tlvs: tuple[tlv.Tlv, ...]) -> Node:
    if node.id == NodeId.CONTEXT:
        tlvs = context_tlvs
    else:
        tlvs = () if node.preference is None else (tlv.preference(node.preference),)
        if node.word != Word.NEUTRAL:
            tlvs = (*tlvs, tlv.word(node.word))
    return Node(node.id, node.protocol, tuple(sorted(node.children)), tlvs)


def revealed(graph: Graph, stack: Stack, plan: Plan) -> Graph:
    """The graph of one stack with what was hidden in place of our placeholders, as far as the responder knows and
    allows its protocols. Raises ``PeerError`` NO_COMMON_STACK when nothing of it is left."""
    fillings = {}
    for below, node_id, above in zip((NodeId.CONTEXT, *stack), stack, (*stack[1:], None), strict=False):
        node = graph.nodes[node_id]
        if not (is_subgraph(node) and fills(node, Role.INITIATOR)):
            continue
        allowed = node.filling[1]
        ids = {each for each in plan.hidden[node_id] if plan.full.nodes[each].protocol in allowed}
        new = [
            Node(
                each,
                plan.full.nodes[each].protocol,
                tuple([child for child in plan.full.children(each) if child in ids or child == above]),
                (*plan.full.nodes[each].tlvs, tlv.elaborates(node_id)),
            )
            for each in sorted(ids)
        ]
        fillings[node_id] = (ids & set(plan.full.children(below)), new)
    made = insert(graph, fillings) if fillings else graph
    if not made.tops:
        raise error(Reason.NO_COMMON_STACK, "the peer has nothing of what was held back")
    return made


def preferred_first(graph: Graph, ordered: Sequence[CandidateStack]) -> list[int]:
    """Context, the best stack's nodes, then the next one's: the order of sending (HotNets 2009, section 3.2)."""
    ids: dict[int, None] = {NodeId.CONTEXT: None}
    for stack in ordered:
        ids.update(dict.fromkeys(stack.ids))
    ids.update(dict.fromkeys(graph.nodes))
    return list(ids)


def with_grease(nodes: list[Node], grease: bytes, used: Iterable[int]) -> list[Node]:
    """One more node at the end, of a protocol that never means anything; none when there is no room."""
    free = sorted(set(range(1, Limit.MAX_NODES)) - set(used))
    edges = sum(len(node.children) for node in nodes)
    if not grease or not free or edges >= Limit.MAX_EDGES:
        return nodes
    node_id = free[grease[0] % len(free)]
    protocol = int.from_bytes(bytes(byte & 0xF0 | 0x0A for byte in grease[1:5]), "big")
    context = replace(nodes[0], children=tuple(sorted((*nodes[0].children, node_id))))
    return [context, *nodes[1:], Node(node_id, protocol, payload=grease[5:GREASE_BYTES])]
