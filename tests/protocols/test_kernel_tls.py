# SPDX-License-Identifier: Apache-2.0
"""Negotiated TLS that the kernel goes on with: the keys it is given, and when it is not given any."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from accord.negotiation.interface import Role
from accord.protocols.services import Carrier, RecordKeys, Security
from accord.protocols.tls import TlsPlugin, TlsSession
from accord.protocols.tls_keys import record_keys
from accord.protocols.wishes import Wishes
from tests.protocols.conftest import Pki
from tests.protocols.support import MemoryCarrier, memory_pair, payload, services, view


@dataclass
class Kernel:
    """A kernel that keeps what it is given."""

    refuses: str | None = None
    installed: list[tuple[Carrier, RecordKeys, RecordKeys]] = field(default_factory=list)

    def refusal(self, cipher: str) -> str | None:
        return self.refuses

    def install(self, stream: Carrier, send: RecordKeys, receive: RecordKeys) -> Carrier:
        self.installed.append((stream, send, receive))
        return stream


def session(role: Role, security: Security, kernel: Kernel | None, *, wished: bool = True) -> TlsSession:
    host = services(role, security)
    return TlsPlugin().open(role, replace(host, kernel_tls=kernel, wishes=Wishes(kernel_tls=wished)))


def committed(client: TlsSession, server: TlsSession) -> None:
    hello = payload(client.propose(view(Role.INITIATOR, 0)))
    flight = payload(server.respond(view(Role.RESPONDER, 0), hello))
    finished = payload(client.advance(view(Role.INITIATOR, 1), flight))
    assert payload(server.advance(view(Role.RESPONDER, 2), finished)) == b""
    client.commit(view(Role.INITIATOR, 2))
    server.commit(view(Role.RESPONDER, 2))


@pytest.fixture
def ends() -> Iterator[tuple[MemoryCarrier, MemoryCarrier]]:
    """A stream whose ends say that they are kernel sockets."""

    async def made() -> tuple[MemoryCarrier, MemoryCarrier]:
        return memory_pair()

    one, other = asyncio.run(made())
    with socket.socket() as first, socket.socket() as second:
        one.kernel_socket, other.kernel_socket = first, second
        yield one, other


@pytest.mark.parametrize(
    ("secret", "key", "iv"),
    [
        (
            "9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5",
            "17422dda596ed5d9acd890e3c63f5051",
            "5b78923dee08579033e523d9",
        ),
        (
            "a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643",
            "9f02283b6c9c07efc26bb9f2ac92e356",
            "cf782b88dd83549aadf1e984",
        ),
    ],
)
def test_keys_of_records_are_those_of_rfc_8448_section_3(secret: str, key: str, iv: str) -> None:
    found = record_keys("TLS_AES_128_GCM_SHA256", bytes.fromhex(secret))
    assert (found.key.hex(), found.iv.hex(), found.sequence) == (key, iv, 0)


@pytest.mark.parametrize(("cipher", "size"), [("TLS_AES_256_GCM_SHA384", 32), ("TLS_CHACHA20_POLY1305_SHA256", 32)])
def test_a_suite_has_the_key_length_that_it_has(cipher: str, size: int) -> None:
    found = record_keys(cipher, bytes(48 if "384" in cipher else 32))
    assert (len(found.key), len(found.iv)) == (size, 12)


def test_both_sides_give_their_kernels_the_same_keys_crosswise(
    pki: Pki, ends: tuple[MemoryCarrier, MemoryCarrier]
) -> None:
    here, there = Kernel(), Kernel()
    client, server = session(Role.INITIATOR, pki.trusting(), here), session(Role.RESPONDER, pki.being(pki.good), there)
    committed(client, server)
    assert client.carrier(ends[0]) is ends[0]
    assert server.carrier(ends[1]) is ends[1]
    (_, sends, receives), (_, others_send, others_receive) = here.installed[0], there.installed[0]
    assert sends == others_receive
    assert receives == others_send
    assert sends != receives
    assert client.inside["kernel"] == server.inside["kernel"] == "yes"


def test_a_record_of_openssl_opens_with_the_keys_that_the_kernel_is_given(
    pki: Pki, ends: tuple[MemoryCarrier, MemoryCarrier]
) -> None:
    """AES-GCM of another library reads the first record: the nonce is the IV, the header is authenticated (RFC 8446,
    section 5.2), and behind the plaintext is the type, 23."""
    there = Kernel()
    client, server = session(Role.INITIATOR, pki.trusting(), None), session(Role.RESPONDER, pki.being(pki.good), there)
    committed(client, server)
    server.carrier(ends[1])
    receive = there.installed[0][2]

    async def written() -> bytes:
        near, far = memory_pair()
        await client.carrier(near).write(b"first")
        return await far.read()

    record = asyncio.run(written())
    assert receive.cipher == "TLS_AES_128_GCM_SHA256"
    assert AESGCM(receive.key).decrypt(receive.iv, record[5:], record[:5]) == b"first\x17"


@pytest.mark.parametrize(
    ("kernel", "is_socket", "why"),
    [
        (Kernel("no such protocol"), True, "no: no such protocol"),
        (Kernel(), False, "no: the stream below is no kernel socket"),
    ],
)
def test_where_the_kernel_cannot_the_records_are_made_here_and_the_report_says_why(
    pki: Pki, ends: tuple[MemoryCarrier, MemoryCarrier], kernel: Kernel, is_socket: bool, why: str
) -> None:
    client, server = (
        session(Role.INITIATOR, pki.trusting(), kernel),
        session(Role.RESPONDER, pki.being(pki.good), None),
    )
    committed(client, server)

    async def carried() -> bytes:
        near, far = memory_pair()
        near.kernel_socket = ends[0].kernel_socket if is_socket else None
        writer, reader = client.carrier(near), server.carrier(far)
        await writer.write(b"by hand")
        return await reader.read()

    assert asyncio.run(carried()) == b"by hand"
    assert kernel.installed == []
    assert client.inside["kernel"] == why


def test_a_policy_that_does_not_wish_it_keeps_no_secrets(pki: Pki, ends: tuple[MemoryCarrier, MemoryCarrier]) -> None:
    kernel = Kernel()
    client = session(Role.INITIATOR, pki.trusting(), kernel, wished=False)
    server = session(Role.RESPONDER, pki.being(pki.good), None)
    committed(client, server)
    assert client.carrier(ends[0]) is not ends[0]
    assert kernel.installed == []
    assert "kernel" not in client.inside
