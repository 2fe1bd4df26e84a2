# SPDX-License-Identifier: Apache-2.0
"""Messages that hold one stack, and the MAC that binds such a message to the whole negotiation before it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from accord.negotiation import transcript
from accord.negotiation.graph import Graph, Stack
from accord.negotiation.interface import Role
from accord.wire import tlv
from accord.wire.constants import Limit, NodeId, Reason, TlvType
from accord.wire.errors import error
from accord.wire.node import Node, descriptor_bytes


def chain(context: Node, graph: Graph, stack: Stack, payloads: Mapping[int, bytes], security: int | None) -> list[Node]:
    """The nodes of a message that holds one stack, context first; the security node bears a MAC of zeros."""
    above = dict(zip((NodeId.CONTEXT, *stack), stack, strict=False))
    nodes = [Node(context.id, context.protocol, (stack[0],), context.tlvs, context.payload)]
    for node_id in stack:
        children = (above[node_id],) if node_id in above else ()
        tlvs = (tlv.mac(transcript.NO_MAC),) if node_id == security else ()
        nodes.append(Node(node_id, graph.nodes[node_id].protocol, children, tlvs, payloads.get(node_id, b"")))
    return nodes


def filled(nodes: Iterable[Node], payloads: Mapping[int, bytes]) -> list[Node]:
    """The nodes of a message that has no payloads yet, with those."""
    return [
        Node(node.id, node.protocol, node.children, node.tlvs, payloads[node.id]) if node.id in payloads else node
        for node in nodes
    ]


def room_for(nodes: Iterable[Node]) -> int:
    """Payload bytes that a message may take besides these nodes, which are as yet without payload."""
    return Limit.MAX_MESSAGE_BYTES - sum([descriptor_bytes(node) for node in nodes])


def seal(nodes: Sequence[Node], exporters: Mapping[int, bytes], sender: Role, hashed: bytes) -> list[Node]:
    """The nodes with the sender's MACs over the transcript in place of the zeros. ``exporters``: by node ID."""
    return [
        transcript.with_mac(node, transcript.compute_mac(exporters[node.id], sender, hashed))
        if node.id in exporters
        else node
        for node in nodes
    ]


def check_macs(nodes: Iterable[Node], wanted: Collection[int], allowed: Collection[int] = ()) -> None:
    """MAC is on these nodes, perhaps on some that are ``allowed``, and nowhere else. Raises ``PeerError`` BAD_TLV."""
    bearing = {node.id for node in nodes if node.tlv(TlvType.MAC) is not None}
    if not bearing.issuperset(wanted) or not bearing.issubset({*wanted, *allowed}):
        raise error(Reason.BAD_TLV, f"MAC is on nodes {sorted(bearing)}, and has to be on nodes {sorted(wanted)}")


def check_mac(node: Node, exporter: bytes, sender: Role, hashed: bytes) -> None:
    """Raises ``PeerError`` BAD_MAC."""
    given = node.tlv(TlvType.MAC) or b""
    if not transcript.equal(given, transcript.compute_mac(exporter, sender, hashed)):
        raise error(Reason.BAD_MAC, f"on {node.name}")
