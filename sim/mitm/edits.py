# SPDX-License-Identifier: Apache-2.0
"""What the man in the middle does: one change of one conversation, as data."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from sim.mitm import hello
from sim.mitm.wire import CONTINUES, ELABORATES, REASON, TRANSCRIPT, Nodes, RawNode

NAIVE: Final = -1


class Kind(enum.StrEnum):
    """What is done. ``Edit`` says what its fields mean for each."""

    STRIP = "node stripped"
    """Node ``node`` is taken out, and what built on it builds on what it was on."""
    PAIR = "two nodes stripped"
    """Nodes ``node`` and ``args[0]``, likewise."""
    PRUNE = "node pruned"
    """Node ``node`` is taken out, with the edges to it, and every node that nothing leads to any more."""
    CUT = "node cut out"
    """Node ``node`` is missing, edges lead to it still."""
    ORDER = "nodes reordered"
    """The nodes stand in the order ``args``, by their places in the message."""
    PROTOCOL = "protocol replaced"
    """Node ``node`` is of protocol ``args[0]``."""
    SWAP = "payloads swapped"
    """Of ``node`` and ``args[0]``."""
    COPY = "node added"
    """A copy of ``node`` with the ID ``args[0]`` beside it."""
    EDGE = "edge changed"
    """From ``node`` to ``args[0]``: there if it was not, gone if it was."""
    TLV = "TLV changed"
    """TLV ``args[0]`` of ``node`` has the value ``data``, whether there was one or not."""
    UNTLV = "TLV removed"
    """TLV ``args[0]`` of ``node``."""
    PREFERENCE = "preference changed"
    """As TLV, of PREFERENCE and WORD."""
    PRUNED = "PRUNED edited"
    """As TLV, of that."""
    COOKIE = "COOKIE edited"
    """As TLV, of that."""
    PAYLOAD = "payload changed"
    """Byte ``args[0]`` of the payload of ``node`` is XORed with ``args[1]``; -1: it is ``data`` instead."""
    TLS = "TLS downgraded"
    """In the hello of ``node``: ``hello.EDITS[args[0]]``, with ``args[1]``."""
    SPLICE = "spliced"
    """Node ``node``, or for -1 the whole message, is that of another conversation of the same kind."""
    DROP = "messages dropped"
    """Those of this step: each packet ``args[0]`` times, 0: always. Step -1: all datagrams of this way."""
    ABORT = "reason forged"
    """In place of this message an abort with the reason ``args[0]``; ``args[1]`` 1: it is sent back instead."""
    FLIP = "byte flipped"
    """Byte ``args[0]`` of the ``step``-th packet of this way is XORed with ``args[1]``, the checksum made good."""
    ACK = "acknowledgement forged"
    """At the ``step``-th packet of this way its sender is told that ``args[0]`` packets have arrived; with ``args[1]``
    1 it never arrives."""
    CHALLENGE = "challenge forged"
    """At the ``step``-th packet of this way its sender is asked for the cookie ``data``; with ``args[0]`` 1 the packet
    never arrives."""
    STREAM = "stream changed"
    """Byte ``args[0]`` of the ``step``-th segment with data of this way of TCP is XORed with ``args[1]``."""
    OPTION = "TCP option changed"
    """On SYNs (way 0) or SYN-ACKs (1): 0: taken off; 1: another ID; 2: the other kind; 3: new where was none."""
    REPLAY = "replayed"
    """All that the initiator has sent is sent again, ``args[0]`` ms after the first of it, ``args[1]`` times."""


MESSAGE_KINDS: Final = frozenset(Kind) - {
    Kind.DROP,
    Kind.FLIP,
    Kind.ACK,
    Kind.CHALLENGE,
    Kind.STREAM,
    Kind.OPTION,
    Kind.REPLAY,
}
"""Those for which he takes messages apart and puts them together again."""


@dataclass(frozen=True, slots=True)
class Edit:
    """One change. ``way``: 0 of what the initiator sends, 1 of what the responder does."""

    kind: Kind
    way: int
    step: int
    node: int = -1
    args: tuple[int, ...] = ()
    data: bytes = b""
    excuse: int = NAIVE
    """Skilled: PRUNED tells this reason of what is missing from an answer, and TRANSCRIPT is what the receiver has."""
    session: int = 0
    """The how manyth negotiation of the conversation."""

    def __str__(self) -> str:
        who = "initiator" if self.way == 0 else "responder"
        place = f"step {self.step}" if self.kind in MESSAGE_KINDS or self.kind is Kind.DROP else f"packet {self.step}"
        words = [f"{self.kind.value}, {who}'s {place}"]
        if self.node >= 0:
            words.append(f"node {self.node}")
        if self.args:
            words.append("arguments " + " ".join(map(str, self.args)))
        if self.data:
            words.append(self.data.hex())
        words.append("hashes repaired" if self.excuse != NAIVE else "no hash repaired")
        if self.session:
            words.append(f"negotiation {self.session}")
        return ", ".join(words)


@dataclass(slots=True)
class Record:
    """One undisturbed conversation, as it was on the path."""

    messages: dict[tuple[int, int], Nodes] = field(default_factory=dict)
    """By negotiation and step."""
    packets: tuple[list[int], list[int]] = field(default_factory=lambda: ([], []))
    """Lengths, by way."""
    segments: tuple[list[int], list[int]] = field(default_factory=lambda: ([], []))
    """Lengths of TCP segments with data, by way: 0 from whoever opened the connection."""
    options: bool = False
    """A SYN bore the option."""


def apply(edit: Edit, nodes: Nodes, other: Record | None) -> Nodes:
    """The message as it goes on. ``other``: what is spliced in."""
    if edit.kind is Kind.ABORT:
        return (replace(nodes[0], children=(), payload=b"", tlvs=((REASON, bytes((edit.args[0],))),)),)
    if edit.kind is Kind.SPLICE:
        theirs = other.messages.get((edit.session, edit.step), ()) if other is not None else ()
        if edit.node < 0:
            return theirs or nodes
        by_id = {node.id: node for node in theirs}
        return tuple(by_id.get(node.id, node) if node.id == edit.node else node for node in nodes)
    return _APPLY[edit.kind](edit, nodes)


def _strip(edit: Edit, nodes: Nodes) -> Nodes:
    for gone in (edit.node, *(edit.args if edit.kind is Kind.PAIR else ())):
        nodes = without(nodes, gone)
    return nodes


def without(nodes: Nodes, gone: int) -> Nodes:
    """Without a node; whoever it built on is built on by what was above it."""
    above = next((node.children for node in nodes if node.id == gone), ())
    kept = []
    for node in nodes:
        if node.id == gone:
            continue
        if gone in node.children:
            children = {*node.children, *above} - {gone, node.id}
            node = replace(node, children=tuple(sorted(children)))
        kept.append(node)
    return tuple(kept)


def _prune(edit: Edit, nodes: Nodes) -> Nodes:
    gone = {edit.node}
    while True:
        kept = [node for node in nodes if node.id not in gone]
        reached = {child for node in kept for child in node.children} | {0}
        lost = {node.id for node in kept} - reached
        if not lost:
            break
        gone |= lost
    return tuple(replace(node, children=tuple(c for c in node.children if c not in gone)) for node in kept)


def _cut(edit: Edit, nodes: Nodes) -> Nodes:
    return tuple(node for node in nodes if node.id != edit.node)


def _order(edit: Edit, nodes: Nodes) -> Nodes:
    return tuple(nodes[place] for place in edit.args)


def _changed(edit: Edit, nodes: Nodes, change: Callable[[RawNode], RawNode]) -> Nodes:
    return tuple(change(node) if node.id == edit.node else node for node in nodes)


def _protocol(edit: Edit, nodes: Nodes) -> Nodes:
    return _changed(edit, nodes, lambda node: replace(node, protocol=edit.args[0]))


def _swap(edit: Edit, nodes: Nodes) -> Nodes:
    payloads = {node.id: node.payload for node in nodes}
    partner = {edit.node: edit.args[0], edit.args[0]: edit.node}
    if not payloads.keys() >= partner.keys():
        return nodes  # among real hosts the node of a reserved protocol has another ID each time
    return tuple(replace(node, payload=payloads[partner[node.id]]) if node.id in partner else node for node in nodes)


def _copy(edit: Edit, nodes: Nodes) -> Nodes:
    made = []
    for node in nodes:
        if edit.node in node.children:
            node = replace(node, children=tuple(sorted({*node.children, edit.args[0]})))
        made.append(node)
        if node.id == edit.node:
            made.append(replace(node, id=edit.args[0]))
    return tuple(made)


def _edge(edit: Edit, nodes: Nodes) -> Nodes:
    return _changed(edit, nodes, lambda node: replace(node, children=tuple(sorted({*node.children} ^ {edit.args[0]}))))


def _tlv(edit: Edit, nodes: Nodes) -> Nodes:
    return _changed(edit, nodes, lambda node: node.with_tlv(edit.args[0], edit.data))


def _untlv(edit: Edit, nodes: Nodes) -> Nodes:
    return _changed(edit, nodes, lambda node: node.with_tlv(edit.args[0], None))


def _payload(edit: Edit, nodes: Nodes) -> Nodes:
    at, mask = edit.args
    if at < 0:
        return _changed(edit, nodes, lambda node: replace(node, payload=edit.data))
    return _changed(edit, nodes, lambda node: replace(node, payload=flipped(node.payload, at, mask)))


def _tls(edit: Edit, nodes: Nodes) -> Nodes:
    what, argument = edit.args
    return _changed(edit, nodes, lambda node: replace(node, payload=hello.EDITS[what](node.payload, argument)))


def flipped(data: bytes, at: int, mask: int) -> bytes:
    """One byte XORed; as it was, if it is not that long."""
    return data[:at] + bytes((data[at] ^ mask,)) + data[at + 1 :] if at < len(data) else data


_APPLY: Final[Mapping[Kind, Callable[[Edit, Nodes], Nodes]]] = {
    Kind.STRIP: _strip,
    Kind.PAIR: _strip,
    Kind.PRUNE: _prune,
    Kind.CUT: _cut,
    Kind.ORDER: _order,
    Kind.PROTOCOL: _protocol,
    Kind.SWAP: _swap,
    Kind.COPY: _copy,
    Kind.EDGE: _edge,
    Kind.TLV: _tlv,
    Kind.UNTLV: _untlv,
    Kind.PREFERENCE: _tlv,
    Kind.PRUNED: _tlv,
    Kind.COOKIE: _tlv,
    Kind.PAYLOAD: _payload,
    Kind.TLS: _tls,
}


def repaired(nodes: Nodes, edit: Edit, proposed: Nodes, believed: bytes) -> Nodes:
    """A message of a skilled one: PRUNED tells of what is missing, CONTINUES of what is there, TRANSCRIPT what the
    receiver has computed.

    ``proposed``: the message before as the receiver sent it; ``believed``: T of it, as he has it.
    """
    context = nodes[0]
    if context.tlv(REASON) is not None:
        return nodes
    if edit.kind is not Kind.PRUNED:
        replaced = {value[0] for node in nodes if (value := node.tlv(ELABORATES))}
        missing = {node.id for node in proposed} - {node.id for node in nodes} - replaced
        told = context.pruned
        context = context.with_pruned({node: told.get(node, edit.excuse) for node in sorted(missing)})
    if (waits := context.tlv(CONTINUES)) is not None and edit.args[:1] != (CONTINUES,):
        there = {node.id for node in nodes}
        context = context.with_tlv(CONTINUES, bytes(node for node in waits if node in there) or None)
    if context.tlv(TRANSCRIPT) is not None and not (edit.kind in (Kind.TLV, Kind.UNTLV) and edit.args[0] == TRANSCRIPT):
        context = context.with_tlv(TRANSCRIPT, believed)
    return (context, *nodes[1:])
