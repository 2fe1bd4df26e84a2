# SPDX-License-Identifier: Apache-2.0
"""The engine's side of answers of which nothing is kept but a slot (``dataplane_c/src/unkept.c``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from accord.datapath._core import ffi, lib
from accord.datapath.engine import Engine
from accord.datapath.path import Path
from accord.wire.constants import Limit, Reason
from accord.wire.errors import error

_PACKET_BYTES: Final = int(Limit.MIN_MTU_PACKET)


class PacketNode(NamedTuple):
    """``struct accord_node_in``: a node of a message that is one packet. ``stored``: its protocol is supported."""

    id: int
    protocol: int
    stored: bool
    descriptor: bytes


class Slot(NamedTuple):
    """``struct accord_slot``: what is kept of an answer until its commit."""

    handle: int
    proposal: bytes
    """The packet."""
    seed: bytes
    transcript: bytes
    """T(1)."""
    path: Path


def read(engine: Engine, packet: bytes) -> list[PacketNode]:
    """The nodes of a message that is one packet. Raises ``AccordError`` with the reason for which it is none."""
    nodes = ffi.new("struct accord_node_in[]", lib.ACCORD_MAX_NODES)
    data = ffi.from_buffer("uint8_t[]", packet)
    count = lib.accord_engine_read(engine.pointer, data, len(packet), nodes)
    if count < 0:
        raise error(Reason(-count), "a message in one packet")
    return [
        PacketNode(node.node, node.protocol, bool(node.stored), bytes(ffi.buffer(node.data, node.length)))
        for node in nodes[0:count]
    ]


def compose(transaction: bytes, step: int, nodes: Sequence[tuple[int, int, bytes]]) -> bytes:
    """A responder's message as one packet: (node ID, protocol ID, encoded descriptor) in order.

    Raises ``OurError`` (MESSAGE_TOO_LONG) when it does not fit.
    """
    array = ffi.new("struct accord_node_out[]", len(nodes))
    keep = [ffi.from_buffer("uint8_t[]", descriptor) for _, _, descriptor in nodes]
    for out, (node, protocol, descriptor), data in zip(array, nodes, keep, strict=True):
        out.node, out.protocol, out.length, out.data = node, protocol, len(descriptor), data
    packet = ffi.new("uint8_t[]", _PACKET_BYTES)
    length = lib.accord_packet_compose(transaction, step, array, len(nodes), packet, _PACKET_BYTES)
    if length < 0:
        raise error(Reason(-length), f"step {step} does not fit into one packet")
    return bytes(ffi.buffer(packet, length))


def keep(engine: Engine, now: int, path: Path, proposal: bytes, seed: bytes, transcript: bytes) -> Reason:
    """Take a slot. OK; NO_MEMORY: none is free; CONTRADICTION: the ID is in use."""
    data = ffi.from_buffer("uint8_t[]", proposal)
    result = lib.accord_engine_keep(engine.pointer, now, path.to_c(), data, len(proposal), seed, transcript)
    return Reason.OK if result > 0 else Reason(-result)


def slot(engine: Engine, now: int, transaction: bytes, path: Path | None = None) -> Slot | None:
    """The slot of a transaction, and of the peer at the remote end of ``path``, if one is given."""
    found = ffi.new("struct accord_slot *")
    at = ffi.NULL if path is None else path.to_c()
    return _slot(found) if lib.accord_engine_slot(engine.pointer, now, transaction, at, found) == 0 else None


def slot_of(engine: Engine, now: int, handle: int) -> Slot | None:
    """By the handle that RETURNED bears; None: it is empty by now."""
    found = ffi.new("struct accord_slot *")
    return _slot(found) if lib.accord_engine_slot_of(engine.pointer, now, handle, found) == 0 else None


def failed(engine: Engine, handle: int) -> None:
    """A commit was wrong that bore the right T(1): the third time, the slot is emptied."""
    lib.accord_engine_slot_failed(engine.pointer, handle)


def settle(engine: Engine, now: int, handle: int, commit: bytes) -> Reason:
    """The commit, one packet, is verified: the slot is emptied, repetitions will be acknowledged."""
    data = ffi.from_buffer("uint8_t[]", commit)
    return Reason(-lib.accord_engine_settle(engine.pointer, now, handle, data, len(commit)))


def _slot(found: Any) -> Slot:
    return Slot(
        handle=found.handle,
        proposal=bytes(ffi.buffer(found.proposal, found.length)),
        seed=bytes(ffi.buffer(found.seed)),
        transcript=bytes(ffi.buffer(found.transcript)),
        path=Path.from_c(found.path),
    )
