# SPDX-License-Identifier: Apache-2.0
"""The worked example of docs/PROTOCOL.md, built by scapy, hashlib and hmac from the rules as they are written there.

Nothing here calls the package's own encoder, transcript or state machines: the test compares them with this.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass
from typing import Any

from accord.scapy_layer import AccordNode, AccordTlv, packets

TRANSACTION = bytes.fromhex("00000100 00000200 61636364")
COOKIE = bytes(range(0xA0, 0xB0))
EXPORTER = bytes(range(0x20, 0x40))
UDP, TCP, TLS, HTTP, UNSUPPORTED = 17, 6, 0x0304, 0x0800, 0x7E000001
DCCP, DTLS = 33, 0x7E000002
"""Of the paper's Figure 1. Below 256 an ID is the IP protocol number; nothing here has a number for DTLS."""


@dataclass(frozen=True)
class Example:
    """Three packets and what was computed on the way."""

    proposal: bytes
    answer: bytes
    commit: bytes
    hashes: tuple[bytes, bytes, bytes]
    macs: tuple[bytes, bytes]


def node(children: tuple[int, ...] = (), tlvs: tuple[tuple[int, bytes], ...] = (), handshake: bytes = b"") -> bytes:
    """One descriptor."""
    listed = [AccordTlv(type=number, value=value) for number, value in tlvs]
    return bytes(AccordNode(children=list(children), tlvs=listed, handshake=handshake))


def extend(previous: bytes, step: int, nodes: list[tuple[int, int, bytes | None]]) -> bytes:
    """T(step), with the values of MAC TLVs already zero."""
    data = b"accord transcript 1" + previous + struct.pack("!BH", step, len(nodes))
    for number, protocol, descriptor in sorted(nodes):
        data += struct.pack("!BIB", number, protocol, descriptor is not None)
        if descriptor is not None:
            data += struct.pack("!I", len(descriptor)) + descriptor
    return hashlib.sha256(data).digest()


def _single(step: int, nodes: list[tuple[int, int, bytes]], ack: tuple[int, int] | None = None) -> bytes:
    built: list[Any] = packets(TRANSACTION, step, nodes, tsn={0: 0x100, 1: 0x200, 2: 0x101}[step], ack=ack)
    (packet,) = built
    return bytes(packet)


def build() -> Example:
    """http on tls on tcp, http on tcp, and a node of a private protocol that the responder does not support."""
    proposal: list[tuple[int, int, bytes]] = [
        (0, UDP, node(children=(1, 4))),
        (1, TCP, node(children=(2, 3), handshake=b"SYN")),
        (2, TLS, node(children=(3,), tlvs=((3, b"\x05"),), handshake=b"ClientHello")),
        (3, HTTP, node(handshake=b"names")),
        (4, UNSUPPORTED, node(handshake=b"?")),
    ]
    stored: list[tuple[int, int, bytes | None]] = [*proposal[:4], (4, UNSUPPORTED, None)]
    first = extend(bytes(32), 0, stored)

    def answer(mac: bytes) -> list[tuple[int, int, bytes]]:
        return [
            (0, UDP, node(children=(1,), tlvs=((1, COOKIE), (2, bytes((4, 128)))))),
            (1, TCP, node(children=(2,), handshake=b"SYN-ACK")),
            (2, TLS, node(children=(3,), tlvs=((0x8004, mac),), handshake=b"ServerHello..Finished")),
            (3, HTTP, node(handshake=b"name")),
        ]

    second = extend(first, 1, list(answer(bytes(32))))
    responder_mac = hmac.digest(EXPORTER, b"accord responder" + second, "sha256")

    def commit(mac: bytes) -> list[tuple[int, int, bytes]]:
        return [
            (0, UDP, node(children=(1,), tlvs=((0x8003, second),))),
            (1, TCP, node(children=(2,))),
            (2, TLS, node(children=(3,), tlvs=((0x8004, mac),), handshake=b"Finished")),
            (3, HTTP, node()),
        ]

    third = extend(second, 2, list(commit(bytes(32))))
    initiator_mac = hmac.digest(EXPORTER, b"accord initiator" + third, "sha256")
    return Example(
        _single(0, proposal),
        _single(1, answer(responder_mac), ack=(0x100, 1)),
        _single(2, commit(initiator_mac), ack=(0x200, 1)),
        (first, second, third),
        (responder_mac, initiator_mac),
    )


def figure() -> Example:
    """Figure 1 of the paper: an application over TCP, over TLS over TCP, over DTLS over DCCP; all of it supported."""
    proposal: list[tuple[int, int, bytes]] = [
        (0, UDP, node(children=(1, 3))),
        (1, TCP, node(children=(2, 5), handshake=b"SYN: SACK, timestamps")),
        (2, TLS, node(children=(5,), handshake=b"ClientHello: AES, 3DES")),
        (3, DCCP, node(children=(4,), handshake=b"Request: CCID 2, CCID 3")),
        (4, DTLS, node(children=(5,), handshake=b"ClientHello: AES, 3DES")),
        (5, HTTP, node(handshake=b"names")),
    ]
    first = extend(bytes(32), 0, [*proposal])

    def answer(mac: bytes) -> list[tuple[int, int, bytes]]:
        return [
            (0, UDP, node(children=(1,), tlvs=((1, COOKIE), (2, bytes((3, 129, 4, 129)))))),
            (1, TCP, node(children=(2,), handshake=b"SYN-ACK: SACK")),
            (2, TLS, node(children=(5,), tlvs=((0x8004, mac),), handshake=b"ServerHello: AES..Finished")),
            (5, HTTP, node(handshake=b"name")),
        ]

    second = extend(first, 1, [*answer(bytes(32))])
    responder_mac = hmac.digest(EXPORTER, b"accord responder" + second, "sha256")

    def commit(mac: bytes) -> list[tuple[int, int, bytes]]:
        return [
            (0, UDP, node(children=(1,), tlvs=((0x8003, second),))),
            (1, TCP, node(children=(2,))),
            (2, TLS, node(children=(5,), tlvs=((0x8004, mac),), handshake=b"Finished")),
            (5, HTTP, node()),
        ]

    third = extend(second, 2, [*commit(bytes(32))])
    initiator_mac = hmac.digest(EXPORTER, b"accord initiator" + third, "sha256")
    return Example(
        _single(0, proposal),
        _single(1, answer(responder_mac), ack=(0x100, 1)),
        _single(2, commit(initiator_mac), ack=(0x200, 1)),
        (first, second, third),
        (responder_mac, initiator_mac),
    )
