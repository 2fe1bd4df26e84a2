# SPDX-License-Identifier: Apache-2.0
"""A proposal of which not everything has come, but OUTLINE: what its graph is is known, payloads are missing.

So the responder makes the choice that it would make over the whole proposal, and does not wait for what it did not
choose (PROTOCOL.md, section 7.2).
"""

from __future__ import annotations

from collections.abc import Iterable

from accord.negotiation.graph import Graph
from accord.negotiation.inbox import Inbox
from accord.wire import outline
from accord.wire.constants import NodeId, Reason, TlvType
from accord.wire.errors import error
from accord.wire.node import Node
from accord.wire.outline import Entry


class Outline:
    """What the context says of the other nodes."""

    def __init__(self, context: Node, value: bytes) -> None:
        """Raises ``PeerError`` BAD_TLV."""
        if context.tlv(TlvType.PEER) is not None:
            raise error(Reason.BAD_TLV, "OUTLINE beside PEER: both proposals are to be merged whole")
        self._context = context
        self._entries = outline.decode(value)

    @classmethod
    def of(cls, inbox: Inbox) -> Outline | None:
        """That of a proposal whose context is here; None: it has none, or is not here."""
        context = inbox.nodes.get(NodeId.CONTEXT)
        value = None if context is None else context.tlv(TlvType.OUTLINE)
        return None if context is None or value is None else cls(context, value)

    def check(self, inbox: Inbox) -> None:
        """What has come is what the outline says. Raises ``PeerError`` BAD_TLV."""
        for node in inbox.nodes.values():
            if node.id != NodeId.CONTEXT and self._entries.get(node.id) != Entry.of(node):
                raise error(Reason.BAD_TLV, f"{node.name} is not what OUTLINE says of it")
            if node.placeholder:
                raise error(Reason.BAD_TLV, f"{node.name} is a placeholder in a proposal with OUTLINE")
        for node_id, protocol in inbox.skipped.items():
            if node_id not in self._entries or self._entries[node_id].protocol != protocol:
                raise error(Reason.BAD_TLV, f"node {node_id} is not what OUTLINE says of it")

    def missing(self, inbox: Inbox) -> dict[int, int]:
        """ID to protocol of the nodes that have not come."""
        return {
            node_id: entry.protocol
            for node_id, entry in self._entries.items()
            if node_id not in inbox.nodes and node_id not in inbox.skipped
        }

    def graph(self, inbox: Inbox) -> Graph:
        """The proposal's graph, hollow where nodes are missing. Raises what ``Graph`` raises."""
        hollow = [self._entries[node_id].hollow for node_id in self.missing(inbox)]
        return Graph([*inbox.nodes.values(), *hollow], inbox.skipped)

    def may_decide(self, arrived: Iterable[int]) -> bool:
        """Whether a whole stack can be here: the cheap question, before the policy is asked."""
        here = set(arrived)
        ahead, seen = [child for child in self._context.children if child in here], set[int]()
        while ahead:
            node_id = ahead.pop()
            entry = self._entries.get(node_id)
            if entry is None or node_id in seen:
                continue
            if not entry.children:
                return True
            seen.add(node_id)
            ahead += [child for child in entry.children if child in here]
        return False
