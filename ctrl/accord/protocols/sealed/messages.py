# SPDX-License-Identifier: Apache-2.0
"""Payloads of an INNER node, and the messages of the negotiation in it.

    ASK       u8 1                                                      initiator, step 0: no key is known
    SEALED    u8 2 | key ID, 8 | count u8 | count (protocol u32, hash 32) | enc and ciphertext, to the end
    MESSAGE   u8 3 | ciphertext, to the end
    KEYS      u8 4 | reason u8 | key configurations, to the end         responder: seal to one of these

The hashes of SEALED are SHA-256 of the first handshake bytes of each security node that the INNER node may build on,
by ascending protocol ID. They, the key ID and the place are what HPKE's info binds the sealed bytes to.

    contents of SEALED     secret, 32 | Unix time u64 | inner message
    contents of MESSAGE    length u16 | key configurations, of so many bytes | inner message
    inner message          step u8 | count u8 | count (node ID u8 | protocol u32 | length u32 | descriptor)
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from accord.protocols.sealed.configuration import ID_BYTES
from accord.protocols.sealed.sealing import SECRET_BYTES
from accord.wire.constants import Limit, Packet, Reason
from accord.wire.errors import AccordError, error
from accord.wire.message import Encoded

HASH_BYTES: Final = 32
MAX_BINDINGS: Final = 8

_LABEL: Final = b"accord inner 1"
_BINDING: Final = struct.Struct(">I32s")
_NODE: Final = struct.Struct(">BII")
_MESSAGE: Final = struct.Struct(">BB")
_TIME: Final = struct.Struct(">Q")


class Kind(enum.IntEnum):
    """A payload's first byte."""

    ASK = 1
    SEALED = 2
    MESSAGE = 3
    KEYS = 4


Binding = tuple[int, bytes]
"""Protocol ID of a security node, SHA-256 of its first handshake bytes."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """SEALED, taken apart."""

    key_id: bytes
    bindings: tuple[Binding, ...]
    sealed: bytes


def about(transaction: bytes, node_id: int) -> bytes:
    """What every sealed message of an INNER node is bound to."""
    if len(transaction) != Packet.TRANSACTION_BYTES:
        raise ValueError(f"a transaction ID has {Packet.TRANSACTION_BYTES} bytes")
    return _LABEL + transaction + bytes((node_id,))


def info(place: bytes, key_id: bytes, bindings: Sequence[Binding], *, again: bool) -> bytes:
    """HPKE's info for SEALED; ``place`` is that of ``about``. ``again``: after KEYS."""
    return place + bytes((again,)) + key_id + _encode_bindings(bindings)


def encode_ask() -> bytes:
    """ASK."""
    return bytes((Kind.ASK,))


def encode_sealed(key_id: bytes, bindings: Sequence[Binding], sealed: bytes) -> bytes:
    """SEALED."""
    return bytes((Kind.SEALED,)) + key_id + _encode_bindings(bindings) + sealed


def encode_message(ciphertext: bytes) -> bytes:
    """MESSAGE."""
    return bytes((Kind.MESSAGE,)) + ciphertext


def encode_keys(reason: Reason, configurations: bytes) -> bytes:
    """KEYS. ``reason``: OK after ASK, else why the sealed bytes were not opened."""
    return bytes((Kind.KEYS, reason)) + configurations


def kind_of(payload: bytes) -> Kind:
    """Raises ``PeerError`` (HANDSHAKE_FAILED) when it is of none."""
    try:
        return Kind(payload[0])
    except (IndexError, ValueError):
        raise _broken(f"a payload of {len(payload)} bytes and no known kind") from None


def decode_sealed(payload: bytes) -> Sealed:
    """Raises ``PeerError`` (HANDSHAKE_FAILED): cut short, or bindings that do not ascend."""
    at = 1 + ID_BYTES
    count = payload[at] if len(payload) > at else MAX_BINDINGS + 1
    end = at + 1 + count * _BINDING.size
    if count > MAX_BINDINGS or len(payload) < end:
        raise _broken(f"SEALED of {len(payload)} bytes")
    bindings = tuple(_BINDING.iter_unpack(payload[at + 1 : end]))
    if list(bindings) != sorted(set(bindings)):
        raise _broken("bindings that do not ascend")
    return Sealed(payload[1:at], bindings, payload[end:])


def decode_keys(payload: bytes) -> tuple[int, bytes]:
    """Reason number and key configurations. Raises ``PeerError`` (HANDSHAKE_FAILED)."""
    if len(payload) < 2:
        raise _broken("KEYS without a reason")
    return payload[1], payload[2:]


def encode_first(secret: bytes, now: float, message: bytes) -> bytes:
    """Contents of SEALED. ``now``: Unix time, seconds."""
    return secret + _TIME.pack(max(0, int(now))) + message


def decode_first(contents: bytes) -> tuple[bytes, int, bytes]:
    """Secret, Unix time and inner message. Raises ``PeerError`` (HANDSHAKE_FAILED)."""
    begin = SECRET_BYTES + _TIME.size
    if len(contents) < begin:
        raise _broken(f"{len(contents)} bytes were sealed")
    (sent,) = _TIME.unpack_from(contents, SECRET_BYTES)
    return contents[:SECRET_BYTES], sent, contents[begin:]


def encode_later(configurations: bytes, message: bytes) -> bytes:
    """Contents of MESSAGE. ``configurations``: empty, unless the peer should seal to other keys from now on."""
    return len(configurations).to_bytes(2, "big") + configurations + message


def decode_later(contents: bytes) -> tuple[bytes, bytes]:
    """Key configurations and inner message. Raises ``PeerError`` (HANDSHAKE_FAILED)."""
    length = int.from_bytes(contents[:2], "big")
    if len(contents) < 2 + length:
        raise _broken(f"{length} bytes of key configurations in {len(contents)}")
    return contents[2 : 2 + length], contents[2 + length :]


def encode_inner(step: int, nodes: Sequence[Encoded]) -> bytes:
    """An inner message, its nodes in the order in which they are sent."""
    pieces = [_MESSAGE.pack(step, len(nodes))]
    for node_id, protocol, descriptor in nodes:
        pieces += (_NODE.pack(node_id, protocol, len(descriptor)), descriptor)
    return b"".join(pieces)


def decode_inner(message: bytes) -> tuple[int, list[Encoded]]:
    """Step and nodes. Raises ``PeerError`` (HANDSHAKE_FAILED) unless it is whole and nothing is left over."""
    if len(message) < _MESSAGE.size:
        raise _broken(f"an inner message of {len(message)} bytes")
    step, count = _MESSAGE.unpack_from(message)
    if count > Limit.MAX_NODES or step >= Limit.MAX_STEPS:
        raise _broken(f"an inner message of step {step} and {count} nodes")
    at, nodes = _MESSAGE.size, []
    for _ in range(count):
        if len(message) - at < _NODE.size:
            raise _broken("an inner message that breaks off")
        node_id, protocol, length = _NODE.unpack_from(message, at)
        at += _NODE.size
        descriptor = message[at : at + length]
        at += length
        if len(descriptor) < length:
            raise _broken("an inner message that breaks off")
        nodes.append((node_id, protocol, descriptor))
    if at != len(message):
        raise _broken(f"{len(message) - at} bytes behind an inner message")
    return step, nodes


def overhead(nodes: int) -> int:
    """Bytes of an inner message beside its descriptors."""
    return _MESSAGE.size + nodes * _NODE.size


def _encode_bindings(bindings: Sequence[Binding]) -> bytes:
    if len(bindings) > MAX_BINDINGS:
        raise ValueError(f"{len(bindings)} security nodes below, more than {MAX_BINDINGS}")
    return bytes((len(bindings),)) + b"".join(_BINDING.pack(*each) for each in bindings)


def _broken(detail: str) -> AccordError:
    return error(Reason.HANDSHAKE_FAILED, f"inner: {detail}")
