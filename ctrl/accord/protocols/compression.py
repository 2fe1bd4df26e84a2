# SPDX-License-Identifier: Apache-2.0
"""Compression as a node: deflate (RFC 1951) by zlib, over any stream.

    proposal    what the initiator takes in: u8 window (binary logarithm, 9..15), u16 unpacked bytes of a block,
                u16 factor by which a block may grow; then the IDs of the dictionaries that it has, u8 each, ascending
    answer      the same five bytes of the responder; u8 ID of the dictionary for both directions, 0: none
    commit      nothing

Each side packs with a window no larger than the other keeps. The level is the sender's own affair. Above encryption a
policy has to allow it (``compress_encrypted``): lengths tell of contents.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from itertools import pairwise
from typing import Final

from accord.negotiation.interface import Answer, Elaboration, Outcome, Refuse, Role, View
from accord.protocols.compressed_carrier import CompressedCarrier
from accord.protocols.deflate import DICTIONARIES, Bounds, Packer, Unpacker
from accord.protocols.lifecycle import Call
from accord.protocols.services import Carrier, Services
from accord.protocols.stream_layer import StreamLayer
from accord.protocols.wishes import MAX_WINDOW, MIN_WINDOW
from accord.wire.constants import Protocol, Reason

BLOCK_BYTES: Final = 32768
FACTOR: Final = 256
"""Deflate itself reaches 1032: enough for any text, and a quarter of the harm."""
MIN_BLOCK: Final = 256
MIN_FACTOR: Final = 16
"""Less of a peer would make a sender that packs well send mostly padding."""
_BOUNDS: Final = struct.Struct("!BHH")


class CompressionSession(StreamLayer):
    """One compression node."""

    protocol: int = Protocol.COMPRESSION
    secure: bool = False
    elaboration: Elaboration = Elaboration.FREE

    def __init__(self, role: Role, services: Services) -> None:
        self._wishes = services.wishes.compression
        self._own = Bounds(self._wishes.window, BLOCK_BYTES, FACTOR)
        self._peers = self._own
        self._dictionary = 0
        super().__init__("compression", role)

    @property
    def inside(self) -> Mapping[str, object]:
        """What was agreed, and the own level."""
        return {
            "algorithm": "deflate",
            "level": self._wishes.level,
            "window": 1 << self._window,
            "dictionary": self._dictionary,
        }

    @property
    def _window(self) -> int:
        """Binary logarithm of what both directions use."""
        return min(self._own.window, self._peers.window)

    def propose(self, view: View) -> Outcome:
        """The own bounds, and the dictionaries."""
        self._life.enter(Call.PROPOSE)
        return Answer(self._said() + bytes(sorted(DICTIONARIES)))

    def respond(self, view: View, payload: bytes) -> Outcome:
        """The initiator's bounds in, the own and a dictionary out."""
        self._life.enter(Call.RESPOND)
        if not view.below:
            return _refuse("no stream below to run over")
        refusal = self._take(payload)
        if refusal is not None:
            return refusal
        offered = payload[_BOUNDS.size :]
        if any(low >= high for low, high in pairwise(offered)) or 0 in offered:
            return _refuse("dictionaries that do not ascend")
        self._dictionary = max((each for each in offered if each in DICTIONARIES), default=0)
        return Answer(self._said() + bytes((self._dictionary,)))

    def advance(self, view: View, payload: bytes) -> Outcome:
        """Initiator: the responder's bounds, and its dictionary. Responder: nothing may come."""
        self._life.enter(Call.ADVANCE)
        if view.role is Role.RESPONDER:
            return _refuse(f"{len(payload)} bytes in the commit") if payload else Answer()
        refusal = self._take(payload)
        if refusal is not None:
            return refusal
        if len(payload) != _BOUNDS.size + 1:
            return _refuse(f"an answer of {len(payload)} bytes")
        self._dictionary = payload[_BOUNDS.size]
        if self._dictionary and self._dictionary not in DICTIONARIES:
            return _refuse(f"dictionary {self._dictionary}, which was not offered")
        return Answer()

    def carrier(self, below: Carrier | None) -> CompressedCarrier:
        """The stream below, compressed."""
        below = self._above(below)
        packer = Packer(self._peers, self._wishes.level, self._window, self._dictionary)
        return CompressedCarrier(below, packer, Unpacker(self._own, self._window, self._dictionary))

    def _said(self) -> bytes:
        return _BOUNDS.pack(self._own.window, self._own.block, self._own.factor)

    def _take(self, payload: bytes) -> Refuse | None:
        if len(payload) < _BOUNDS.size:
            return _refuse(f"bounds of {len(payload)} bytes instead of {_BOUNDS.size}")
        self._peers = Bounds(*_BOUNDS.unpack_from(payload))
        if not MIN_WINDOW <= self._peers.window <= MAX_WINDOW:
            return _refuse(f"a window of 2^{self._peers.window} bytes")
        if self._peers.block < MIN_BLOCK or self._peers.factor < MIN_FACTOR:
            return _refuse(f"blocks of {self._peers.block} bytes that may grow {self._peers.factor} times")
        return None


class CompressionPlugin:
    """Deflate, found as ``compression``."""

    name: str = "compression"
    protocol: int = Protocol.COMPRESSION
    repeatable = True
    elaboration: Elaboration = Elaboration.FREE

    def open(self, role: Role, services: Services) -> CompressionSession:
        """A session for one node of one negotiation."""
        return CompressionSession(role, services)


def _refuse(why: str) -> Refuse:
    return Refuse(Reason.HANDSHAKE_FAILED, f"compression: {why}")
