# SPDX-License-Identifier: Apache-2.0
"""The engine's side of answers of which nothing is kept but a slot (``dataplane_c/src/unkept.c``)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from accord.datapath._core import ffi, lib
from accord.datapath.engine import Engine
from accord.datapath.path import Path
from accord.wire.constants import CookieKind, Packet, Reason
from accord.wire.errors import error

_COOKIE_BYTES: Final = int(Packet.COOKIE_BYTES)

# A flight is a short message as its packets, each behind its length, a big-endian u16 (``dataplane_c/src/flight.h``).

_IMAGE: Final = struct.Struct("=8sII")
"""Magic, bytes of a slot, this machine's number."""
_IMAGE_MAGIC: Final = b"slots 2\0"


class FlightNode(NamedTuple):
    """``struct accord_node_in``: a node of a flight. ``stored``: its protocol is supported."""

    id: int
    protocol: int
    stored: bool
    descriptor: bytes


@dataclass(frozen=True, slots=True)
class Slot:
    """``struct accord_slot``: what is kept of an answer until its commit. ``handle`` and ``path``: of one that is."""

    proposal: bytes
    """The flight."""
    seed: bytes
    transcript: bytes
    """T(1)."""
    answer_packets: int
    answer_length: int
    """Bytes of all of them."""
    kept: bytes = field(default=b"", repr=False)
    """What was random in the answer and cannot be had from the seed again."""
    handle: int = 0
    path: Path | None = None


def packets(flight: bytes) -> list[bytes]:
    """The packets of a flight that is well formed."""
    found, at = [], 0
    while at < len(flight):
        end = at + 2 + int.from_bytes(flight[at : at + 2], "big")
        found.append(flight[at + 2 : end])
        at = end
    return found


def read(engine: Engine, flight: bytes) -> list[FlightNode]:
    """The nodes of a flight. Raises ``AccordError`` with the reason for which it is none."""
    nodes = ffi.new("struct accord_node_in[]", lib.ACCORD_MAX_NODES)
    data, room = ffi.from_buffer("uint8_t[]", flight), ffi.new("uint8_t[]", len(flight) or 1)
    count = lib.accord_engine_read(engine.pointer, data, len(flight), nodes, room)
    if count < 0:
        raise error(Reason(-count), "a message in one flight")
    return [
        FlightNode(node.node, node.protocol, bool(node.stored), bytes(ffi.buffer(node.data, node.length)))
        for node in nodes[0:count]
    ]


def compose(
    transaction: bytes, step: int, nodes: Sequence[tuple[int, int, bytes]], *, sent: int, heard: int
) -> list[bytes]:
    """A responder's message as packets: (node ID, protocol ID, encoded descriptor) in order.

    ``sent``: packets of its messages before; ``heard``: of the initiator's. Raises ``OurError`` (MESSAGE_TOO_LONG).
    """
    array = ffi.new("struct accord_node_out[]", len(nodes))
    keep = [ffi.from_buffer("uint8_t[]", descriptor) for _, _, descriptor in nodes]
    for out, (node, protocol, descriptor), data in zip(array, nodes, keep, strict=True):
        out.node, out.protocol, out.length, out.data = node, protocol, len(descriptor), data
    room: int = lib.ACCORD_FLIGHT_BYTES
    flight = ffi.new("uint8_t[]", room)
    length = lib.accord_flight_compose(transaction, step, sent, heard, array, len(nodes), flight, room)
    if length < 0:
        raise error(Reason(-length), f"step {step} does not fit into a flight")
    return packets(bytes(ffi.buffer(flight, length)))


def keep(engine: Engine, now: int, path: Path, what: Slot) -> Reason:
    """Take a slot. OK; NO_MEMORY: none is free; CONTRADICTION: the ID is in use."""
    slot = ffi.new("struct accord_slot *")
    proposal, kept = ffi.from_buffer("uint8_t[]", what.proposal), ffi.from_buffer("uint8_t[]", what.kept)
    slot.proposal, slot.length = proposal, len(what.proposal)
    slot.kept, slot.kept_length = kept, len(what.kept)
    slot.seed, slot.transcript = what.seed, what.transcript
    slot.answer_packets, slot.answer_length = what.answer_packets, what.answer_length
    result = lib.accord_engine_keep(engine.pointer, now, path.to_c(), slot)
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


def image(engine: Engine, now: int) -> bytes:
    """All slots and the number that their cookies name, for a process of the same version on this machine. They hold
    secrets."""
    size, room = lib.accord_slot_bytes(), engine.usage().slots
    data = ffi.new("uint8_t[]", max(1, size * room))
    count = lib.accord_engine_slots_image(engine.pointer, now, data, room)
    machine = lib.accord_engine_machine(engine.pointer)
    return _IMAGE.pack(_IMAGE_MAGIC, size, machine) + bytes(ffi.buffer(data, size * count))


def restore(engine: Engine, now: int, data: bytes) -> int:
    """Take what ``image`` gave, the number too; how many slots there are of it now. Of another version's nothing."""
    size = lib.accord_slot_bytes()
    if len(data) < _IMAGE.size:
        return 0
    magic, each, machine = _IMAGE.unpack_from(data)
    if (magic, each) != (_IMAGE_MAGIC, size):
        return 0
    lib.accord_engine_set_machine(engine.pointer, machine)
    slots = ffi.from_buffer("uint8_t[]", memoryview(data)[_IMAGE.size :])
    return int(lib.accord_engine_slots_restore(engine.pointer, now, slots, len(slots) // size))


def clear(engine: Engine) -> None:
    """Empty all slots: another process has them."""
    lib.accord_engine_slots_clear(engine.pointer)


def failed(engine: Engine, handle: int) -> None:
    """A commit was wrong that bore the right T(1): the third time, the slot is emptied."""
    lib.accord_engine_slot_failed(engine.pointer, handle)


def settle(engine: Engine, now: int, handle: int, commit: bytes) -> Reason:
    """The commit, a flight, is verified: the slot is emptied, repetitions will be acknowledged."""
    data = ffi.from_buffer("uint8_t[]", commit)
    return Reason(-lib.accord_engine_settle(engine.pointer, now, handle, data, len(commit)))


def token(engine: Engine, path: Path, transaction: bytes, kind: CookieKind, bound: bytes = bytes(4)) -> bytes:
    """The cookie of REPEAT, 16 bytes; one of kind SLOT is bound to this machine. Raises ``OurError`` (QUOTA) when there
    is no key."""
    cookie = ffi.new("uint8_t[]", _COOKIE_BYTES)
    number = int.from_bytes(bound, "big")
    result = lib.accord_engine_token(engine.pointer, path.to_c(), transaction, kind, number, cookie)
    if result < 0:
        raise error(Reason(-result), "no key to make a cookie with")
    return bytes(ffi.buffer(cookie))


def token_seed(engine: Engine, path: Path, transaction: bytes, cookie: bytes) -> bytes | None:
    """The seed of an answer that a cookie of kind ANSWER was in, the same wherever its key is; None: it is not good."""
    seed = ffi.new("uint8_t[]", lib.ACCORD_SLOT_SEED)
    result = lib.accord_engine_token_seed(engine.pointer, path.to_c(), transaction, cookie, seed)
    return None if result < 0 else bytes(ffi.buffer(seed))


def settle_token(engine: Engine, now: int, path: Path, answer_packets: int, commit: bytes) -> Reason:
    """As ``settle``, of an answer without a slot."""
    data = ffi.from_buffer("uint8_t[]", commit)
    return Reason(-lib.accord_engine_settle_token(engine.pointer, now, path.to_c(), answer_packets, data, len(commit)))


def _slot(found: Any) -> Slot:
    return Slot(
        handle=found.handle,
        proposal=bytes(ffi.buffer(found.proposal, found.length)),
        seed=bytes(ffi.buffer(found.seed)),
        transcript=bytes(ffi.buffer(found.transcript)),
        kept=bytes(ffi.buffer(found.kept, found.kept_length)),
        answer_packets=found.answer_packets,
        answer_length=found.answer_length,
        path=Path.from_c(found.path),
    )
