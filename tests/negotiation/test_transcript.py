# SPDX-License-Identifier: Apache-2.0
"""The transcript hash and its MACs, against the formula written out byte by byte and openssl's HMAC."""

from __future__ import annotations

import hashlib
import subprocess
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.negotiation import transcript
from accord.negotiation.interface import Role
from accord.negotiation.transcript import extend
from accord.wire import tlv
from accord.wire.node import Node
from tests.wire.strategies import nodes

CONTEXT = Node(0, 17, (1,), (tlv.cookie(b"c" * 16),))
SECURITY = Node(1, 0x304, (), (tlv.mac(b"m" * 32),), b"finished")


def test_the_hash_is_over_exactly_the_bytes_of_the_specification() -> None:
    previous = bytes(range(32))
    written_out = (
        b"accord transcript 1" + previous + bytes.fromhex("01 0003")
        # Node 0, UDP, stored, 25 bytes: one child, 20 bytes of TLVs, COOKIE.
        + bytes.fromhex("00 00000011 01 00000019 01 00 0014 01 0001 0010") + b"c" * 16
        # Node 1, TLS, stored, 48 bytes; the value of MAC counts as zeros.
        + bytes.fromhex("01 00000304 01 00000030 00 00 0024 8004 0020") + bytes(32) + b"finished"
        # Node 7, not stored.
        + bytes.fromhex("07 0a0a0a0a 00")
    )  # fmt: skip
    entries: list[transcript.Entry] = [(7, 0x0A0A0A0A, None), *transcript.entries([SECURITY, CONTEXT])]
    assert extend(previous, 1, entries) == hashlib.sha256(written_out).digest()


def test_the_chain_begins_with_zeros() -> None:
    assert bytes(32) == transcript.BEGIN


@given(st.lists(nodes(), max_size=6, unique_by=lambda node: node.id), st.randoms())
def test_the_order_of_arrival_does_not_matter(message: list[Node], random: Random) -> None:
    shuffled = list(message)
    random.shuffle(shuffled)
    assert extend(transcript.BEGIN, 0, transcript.entries(message)) == extend(
        transcript.BEGIN, 0, transcript.entries(shuffled)
    )


@given(nodes(), st.binary(min_size=32, max_size=32))
def test_only_the_value_of_a_mac_is_left_out(node: Node, other: bytes) -> None:
    base = extend(transcript.BEGIN, 0, transcript.entries([node]))
    assert extend(transcript.BEGIN, 0, transcript.entries([transcript.with_mac(node, other)])) == base
    for changed in (
        replace(node, payload=node.payload + b"x"),
        replace(node, protocol=node.protocol ^ 1),
        replace(node, placeholder=not node.placeholder),
        replace(node, id=node.id ^ 1, tlvs=(), children=()),
    ):
        assert extend(transcript.BEGIN, 0, transcript.entries([changed])) != base
    assert extend(transcript.BEGIN, 1, transcript.entries([node])) != base
    assert extend(other, 0, transcript.entries([node])) != base or other == transcript.BEGIN
    assert extend(transcript.BEGIN, 0, [(node.id, node.protocol, None)]) != base
    assert extend(transcript.BEGIN, 0, []) != base


@pytest.mark.parametrize(("sender", "label"), [(Role.RESPONDER, "responder"), (Role.INITIATOR, "initiator")])
def test_a_mac_is_what_openssl_makes_of_label_and_hash(sender: Role, label: str) -> None:
    key, hashed = bytes(range(32)), hashlib.sha256(b"T").digest()
    message = b"accord " + label.encode() + hashed
    command = ["openssl", "mac", "-digest", "SHA256", "-macopt", f"hexkey:{key.hex()}", "-in", "-", "HMAC"]
    theirs = subprocess.run(command, input=message, capture_output=True, check=True, timeout=30).stdout
    assert transcript.compute_mac(key, sender, hashed).hex() == theirs.decode().strip().lower()


def test_the_two_sides_macs_differ_so_that_none_can_be_reflected() -> None:
    hashed = bytes(32)
    assert transcript.compute_mac(b"k" * 32, Role.INITIATOR, hashed) != transcript.compute_mac(
        b"k" * 32, Role.RESPONDER, hashed
    )
