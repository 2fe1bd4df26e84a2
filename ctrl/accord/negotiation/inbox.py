# SPDX-License-Identifier: Apache-2.0
"""The peer's messages, gathered as their nodes arrive, and what each step's message may hold."""

from __future__ import annotations

from collections.abc import Set
from typing import Final

from accord.negotiation.events import NodeArrived, NodeSkipped
from accord.wire.constants import Limit, NodeId, Protocol, Reason, Step, TlvType
from accord.wire.errors import error
from accord.wire.node import Node, decode_descriptor

_ANSWERS: Final = frozenset({TlvType.PRUNED, TlvType.MAC, TlvType.PLACEHOLDER, TlvType.CONTINUES})
_COMMITS: Final = _ANSWERS | {
    TlvType.TRANSCRIPT, TlvType.ELABORATES, TlvType.PREFERENCE, TlvType.WORD, TlvType.REPEAT
}  # fmt: skip
_ALLOWED: Final[dict[int, frozenset[TlvType]]] = {
    Step.PROPOSAL: frozenset(
        {
            TlvType.PREFERENCE,
            TlvType.WORD,
            TlvType.OUTLINE,
            TlvType.SERVICE,
            TlvType.PEER,
            TlvType.RENEGOTIATES,
            TlvType.DATA_PATH,
            TlvType.PLACEHOLDER,
        }
    ),
    Step.ANSWER: _ANSWERS | {TlvType.COOKIE, TlvType.PEER, TlvType.ELABORATES, TlvType.REPEAT},
    **{step: _COMMITS if step % 2 == 0 else _ANSWERS for step in range(Step.COMMIT, Limit.MAX_STEPS)},
}
"""TLVs of each step's message. A known TLV in a step that it means nothing in is an error, not ignored: what one
side says and the other passes over is where negotiations get tilted."""
_OF_NEW_NODES: Final = frozenset({TlvType.PREFERENCE, TlvType.WORD})
"""After the proposal: only beside ELABORATES."""
_ALLOWED_IN_ABORT: Final = frozenset({TlvType.REASON, TlvType.PRUNED})


class Inbox:
    """One message of the peer."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.nodes: dict[int, Node] = {}
        self.skipped: dict[int, int] = {}
        """ID to protocol of nodes whose protocol is not supported here."""
        self._raw: dict[int, bytes] = {}
        self._bytes = 0

    def add(self, event: NodeArrived | NodeSkipped) -> None:
        """Take a node; the same one again changes nothing.

        Raises ``PeerError``: those of ``decode_descriptor``, CONTRADICTION, TOO_MANY_NODES, MESSAGE_TOO_LONG.
        """
        data = event.data if isinstance(event, NodeArrived) else None
        if event.id in self.nodes or event.id in self.skipped:
            before = self.nodes[event.id].protocol if event.id in self.nodes else self.skipped[event.id]
            if (before, self._raw.get(event.id)) != (event.protocol, data):
                raise error(Reason.CONTRADICTION, f"node {event.id} of step {self.step} came twice and differs")
            return
        if len(self.nodes) + len(self.skipped) >= Limit.MAX_NODES:
            raise error(Reason.TOO_MANY_NODES, f"step {self.step} has more than {Limit.MAX_NODES}")
        if data is None:
            self.skipped[event.id] = event.protocol
            return
        self._bytes += len(data)
        if self._bytes > Limit.MAX_MESSAGE_BYTES:
            raise error(Reason.MESSAGE_TOO_LONG, f"step {self.step}")
        self.nodes[event.id] = decode_descriptor(event.id, event.protocol, data)
        self._raw[event.id] = data

    @property
    def met(self) -> Set[int]:
        """IDs of the nodes that have come, and of those that were not stored."""
        return self.nodes.keys() | self.skipped.keys()

    @property
    def abort(self) -> Node | None:
        """The context node, when this message is an abort.

        Raises ``PeerError`` BAD_TLV when it is one and says more than an abort may.
        """
        context = self.nodes.get(NodeId.CONTEXT)
        if context is None or context.reason is None:
            return None
        if len(self.nodes) + len(self.skipped) > 1 or context.children or context.payload:
            raise error(Reason.BAD_TLV, "REASON in a message that is more than an abort")
        _check_allowed(context, _ALLOWED_IN_ABORT, "an abort")
        return context

    def check(self) -> None:
        """Whether every TLV means something in this step. Raises ``PeerError`` BAD_TLV."""
        allowed = _ALLOWED[self.step]
        for node in self.nodes.values():
            if node.tlvs or node.placeholder:
                _check_allowed(node, allowed, f"step {self.step}")
                _check_placeholder(node, self.step)


def _check_allowed(node: Node, allowed: frozenset[TlvType], where: str) -> None:
    for tlv in node.tlvs:
        if tlv.type in _KNOWN and tlv.type not in allowed:
            raise error(Reason.BAD_TLV, f"{TlvType(tlv.type).name} of {node.name} has no meaning in {where}")


def _check_placeholder(node: Node, step: int) -> None:
    if node.placeholder is (node.tlv(TlvType.PLACEHOLDER) is None):
        raise error(Reason.BAD_TLV, f"{node.name}: PLACEHOLDER and the flag P are only there together")
    if node.placeholder and node.payload:
        raise error(Reason.BAD_TLV, f"{node.name} is a placeholder with a payload")
    if node.protocol == Protocol.SUBGRAPH and not node.placeholder:
        raise error(Reason.BAD_TLV, f"{node.name} is never anything but a placeholder")
    if step > Step.PROPOSAL and node.elaborates is None and any(node.tlv(each) for each in _OF_NEW_NODES):
        raise error(Reason.BAD_TLV, f"{node.name} is not new, and says what only a new node may")


_KNOWN: Final = frozenset(map(int, TlvType))
