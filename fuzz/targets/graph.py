# SPDX-License-Identifier: Apache-2.0
"""Invariant: a descriptor is refused as the peer's mistake, or encoded again it is the same bytes; the nodes of a
message make a graph if, and only if, a reading of the rules by themselves says so, and what follows from a graph, its
order, its stacks and what pruning leaves, agrees with it.

The input is nodes: ID, protocol, two bytes of length, descriptor.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from accord.negotiation.graph import MAX_STACKS, Graph
from accord.negotiation.inbox import Inbox
from accord.wire.constants import Limit, Protocol, TlvType
from accord.wire.errors import PeerError
from accord.wire.node import Node, decode_descriptor, descriptor_bytes, encode_descriptor
from fuzz.bytes_in import BytesIn

PROTOCOLS = (17, 6, 0x304, 0x500, 0x800, 253, 0xB00, 0x900, 99, 0)
MOST_NODES = 70


def one(data: bytes) -> None:
    """See above."""
    source = BytesIn(data)
    nodes: list[Node] = []
    skipped: dict[int, int] = {}
    step = source.number() % (Limit.MAX_STEPS + 1)
    while source.left and len(nodes) + len(skipped) < MOST_NODES:
        number, protocol = source.number(), source.one_of(PROTOCOLS)
        if number & 0x80:
            skipped[number & 0x7F] = protocol
            continue
        node = _node(number, protocol, source.piece(source.number(2) % 1500))
        if node is not None:
            nodes.append(node)
    if step < Limit.MAX_STEPS:
        _message(step, nodes)
    try:
        graph = Graph(nodes, skipped)
    except PeerError:
        assert not valid(nodes, skipped), "a valid graph was refused"
        return
    assert valid(nodes, skipped), "an invalid graph was taken"
    _consequences(graph, source.number())


def _node(number: int, protocol: int, descriptor: bytes) -> Node | None:
    try:
        node = decode_descriptor(number, protocol, descriptor)
    except PeerError:
        return None
    assert descriptor_bytes(node) == len(descriptor)
    fresh = Node(node.id, node.protocol, node.children, node.tlvs, node.payload, node.placeholder)
    assert encode_descriptor(fresh) == descriptor, "another encoding of the same node"
    # What the properties say must not raise: the check is there so that nobody has to look again.
    _ = (node.preference, node.word, node.pruned, node.service, node.reason, node.renegotiates, node.data_path)
    _ = (node.continues, node.elaborates, node.name)
    if node.tlv(TlvType.PLACEHOLDER) is not None:
        _ = node.filling
    return node


def _message(step: int, nodes: list[Node]) -> None:
    inbox = Inbox(step)
    inbox.nodes = {node.id: node for node in nodes}
    try:
        if inbox.abort is None:
            inbox.check()
    except PeerError:
        pass


def valid(nodes: list[Node], skipped: Mapping[int, int]) -> bool:
    """The rules of the specification's section 5.3, one after another, by the definition of each."""
    children = {node.id: set(node.children) for node in nodes}
    if len(children) != len(nodes) or children.keys() & skipped.keys():
        return False
    if len(nodes) + len(skipped) > 64 or sum(map(len, children.values())) > 256:
        return False
    contexts = [node for node in nodes if node.id == 0]
    if not contexts or contexts[0].protocol not in (Protocol.UDP, Protocol.DIRECT, Protocol.INNER):
        return False
    if contexts[0].placeholder or any(0 in below for below in children.values()):
        return False
    if any(child not in children and child not in skipped for below in children.values() for child in below):
        return False
    # A graph has no cycle if leaves can be taken away until nothing is left.
    left = {node: below & children.keys() for node, below in children.items()}
    while leaves := [node for node, below in left.items() if not below & left.keys()]:
        for leaf in leaves:
            del left[leaf]
    if left:
        return False
    reached, grown = {0}, True
    while grown:
        more = {child for node in reached & children.keys() for child in children[node]}
        grown = not more <= reached
        reached |= more
    if reached & skipped.keys():
        return True  # behind what is not known there may be anything
    return children.keys() | skipped.keys() <= reached


def _consequences(graph: Graph, chosen: int) -> None:
    order = graph.order()
    place = {node: index for index, node in enumerate(order)}
    assert sorted(order) == sorted(graph.nodes)
    for node in graph.nodes:
        assert all(place[child] > place[node] for child in graph.children(node)), "an order against an edge"
    stacks = list(graph.stacks())
    assert len(stacks) <= MAX_STACKS
    assert stacks == sorted(set(stacks)), "stacks twice, or out of order"
    for stack in stacks:
        assert stack[0] in graph.children(0)
        assert stack[-1] in graph.tops
        assert all(above in graph.children(below) for below, above in pairwise(stack))
    pruned = graph.prune({chosen % 64})
    rest = list(pruned.stacks())
    if len(stacks) < MAX_STACKS and chosen % 64:
        assert rest == [stack for stack in stacks if chosen % 64 not in stack], "pruning took more or less than a node"
    kept = {0, *(node for stack in rest for node in stack)}
    if len(rest) < MAX_STACKS:
        assert kept == set(pruned.nodes), "what is left over is on no stack"
