# SPDX-License-Identifier: Apache-2.0
"""Who proves to be which end of which association: by the formulas of docs/PROTOCOL.md, computed here once more."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.controller.renegotiation.identity import HELLO_BYTES, NAME_BYTES, Identity, peer_of
from accord.negotiation.interface import Role
from accord.wire.tlv import RENEGOTIATES_BYTES

KEYS = st.binary(min_size=32, max_size=32)
TRANSACTIONS = st.binary(min_size=12, max_size=12)


class Layer:
    """As much of a session as is asked for."""

    def __init__(self, secret: bytes | None) -> None:
        self.secure = secret is not None
        self._secret = secret

    def exporter(self) -> bytes | None:
        return self._secret


def sha(key: bytes, text: bytes) -> bytes:
    """HMAC-SHA256, after RFC 2104, without the library's own."""
    padded = key.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in padded) + text).digest()
    return hashlib.sha256(bytes(byte ^ 0x5C for byte in padded) + inner).digest()


def test_our_hmac_is_the_library_s() -> None:
    assert sha(b"key", b"text") == hmac.digest(b"key", b"text", "sha256")


@given(KEYS, KEYS, TRANSACTIONS)
def test_the_formulas_are_those_of_the_document(exporter: bytes, transcript: bytes, transaction: bytes) -> None:
    lower, topmost, above = Layer(bytes(32)), Layer(exporter), Layer(None)
    made = Identity.of((lower, topmost, above), transcript)  # type: ignore[arg-type]
    key = sha(exporter, b"accord association" + transcript)
    assert made.key == key
    assert made.name == sha(key, b"accord association name")[:NAME_BYTES]
    claim = made.claim(Role.INITIATOR, transaction)
    assert claim == made.name + sha(key, b"accord re-negotiation by the initiator" + transaction)
    assert len(claim) == RENEGOTIATES_BYTES
    following = Identity.of((), transcript)
    off = made.claim(Role.INITIATOR, transaction, following)
    assert off == made.name + sha(key, b"accord re-negotiation by the initiator" + transaction + following.key)
    hello = made.hello(Role.RESPONDER, following)
    assert hello == sha(key, b"accord hello of the responder" + following.key)
    assert len(hello) == HELLO_BYTES


def test_without_a_security_node_the_transcript_alone_names_an_association() -> None:
    plain = Identity.of((Layer(None),), bytes(32))  # type: ignore[arg-type]
    assert plain == Identity.of((), bytes(32))
    assert plain != Identity.of((), b"\1" + bytes(31))


@given(KEYS, KEYS, TRANSACTIONS, TRANSACTIONS, st.integers(0, RENEGOTIATES_BYTES * 8 - 1))
def test_a_claim_proves_nothing_but_what_it_was_made_for(
    key: bytes, other: bytes, transaction: bytes, another: bytes, bit: int
) -> None:
    mine, yours = Identity.of((), key), Identity.of((), other)
    for role in Role:
        claim = mine.claim(role, transaction)
        assert mine.proves(claim, role, transaction)
        assert not mine.proves(claim, peer_of(role), transaction)
        assert not mine.proves(claim, role, transaction, yours)
        assert mine.proves(claim, role, another) == (transaction == another)
        assert yours.proves(claim, role, transaction) == (key == other)
        flipped = bytearray(claim)
        flipped[bit // 8] ^= 1 << bit % 8
        assert not mine.proves(bytes(flipped), role, transaction)
        assert not mine.proves(claim[:-1], role, transaction)
        assert not mine.proves(claim + b"\0", role, transaction)


@pytest.mark.parametrize("role", list(Role))
def test_a_hello_is_not_the_other_ends_nor_for_another_stack(role: Role) -> None:
    now, one, two = (Identity.of((), bytes((number,)) * 32) for number in range(3))
    assert len({now.hello(role, one), now.hello(role, two), now.hello(peer_of(role), one), one.hello(role, now)}) == 4


def test_the_key_is_in_no_log() -> None:
    made = Identity.of((), bytes(32))
    assert made.key.hex() not in repr(made)
    assert repr(made.key) not in repr(made)
