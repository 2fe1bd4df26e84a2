# SPDX-License-Identifier: Apache-2.0
"""INNER: what the outer graph shows, how many steps each knowledge of keys takes, and whom a request is served to."""

from __future__ import annotations

import asyncio

import pytest

from accord.negotiation.interface import Role
from accord.protocols.sealed.configuration import Aead, Kem
from accord.protocols.sealed.host_keys import HostKey, make
from accord.wire.constants import Protocol
from tests.protocols.conftest import Pki
from tests.protocols.inner_pair import HYBRID, PLAIN, QUIC_ID, START, TLS_ID, Pair, key_ring, pair, run
from tests.protocols.support import HOST, Application
from tests.protocols.test_negotiated import stream

REQUEST = b"GET /secret HTTP/1.1\r\nHost: hidden.example\r\n\r\n"
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nanswer"


async def talk(both: Pair) -> None:
    """Data goes both ways over what both have committed to."""
    client, server = stream(both.committed[Role.INITIATOR]), stream(both.committed[Role.RESPONDER])
    await client.write(b"question")
    assert await server.read() == b"question"
    await server.write(b"answer")
    await server.finish()
    assert await client.read() == b"answer"
    assert await client.read() == b""
    await asyncio.gather(client.close(), server.close())


@pytest.mark.parametrize("prefer", [TLS_ID, QUIC_ID])
@pytest.mark.parametrize("key", [HYBRID, PLAIN], ids=["hybrid", "x25519"])
def test_with_a_known_key_the_inner_negotiation_takes_no_step_more(pki: Pki, prefer: int, key: object) -> None:
    async def work() -> None:
        known = HYBRID if key is HYBRID else PLAIN
        both = pair(pki, key=known.configuration, keys=key_ring(known), prefer=prefer).start()
        assert both.aborted == {}
        assert both.steps == [0, 1, 2]
        for committed in both.committed.values():
            assert committed.protocols[-1] == Protocol.INNER
            assert [each.protocol for each in committed.sessions[-1].nested] == [Protocol.HTTP]  # type: ignore[attr-defined]
        await talk(both)

    run(work)


def test_an_early_request_is_sealed_served_and_answered_in_the_second_message(pki: Pki) -> None:
    async def work() -> None:
        apps = Application(REQUEST), Application(early_limit=200)
        both = pair(pki, applications=apps).start()
        assert both.steps == [0]
        assert apps[1].fetched[0][0] == REQUEST
        both.answer_early(apps[1], RESPONSE)
        assert both.steps == [0, 1, 2]
        shown = b"".join(data for message in both.sent for _, _, data in message.nodes)
        assert not any(word in shown for word in (b"GET", b"hidden", b"answer", HOST.encode(), b"http"))
        assert await stream(both.committed[Role.INITIATOR]).read() == RESPONSE

    run(work)


@pytest.mark.parametrize("prefer", [TLS_ID, QUIC_ID])
@pytest.mark.parametrize(
    ("key", "notes"),
    [
        (None, "is not known"),
        (make(Kem.HYBRID, Aead.CHACHA20_POLY1305, START), "(WRONG_KEY)"),
        (PLAIN, "(WRONG_KEY)"),
    ],
    ids=["unknown", "wrong key", "wrong algorithm"],
)
def test_without_the_right_key_it_is_one_round_trip_longer_and_correct(
    pki: Pki, prefer: int, key: HostKey | None, notes: str
) -> None:
    async def work() -> None:
        both = pair(pki, key=key.configuration if key else None, keys=key_ring(HYBRID), prefer=prefer).start()
        assert both.aborted == {}
        assert both.steps == [0, 1, 2, 3, 4]
        near = both.committed[Role.INITIATOR].sessions[-1]
        assert near.key_learnt == HYBRID.configuration  # type: ignore[attr-defined]
        assert any(notes in note for note in both.notes[Role.INITIATOR])
        await talk(both)

    run(work)


def test_a_request_sealed_after_the_key_was_asked_for_is_served_too(pki: Pki) -> None:
    async def work() -> None:
        apps = Application(REQUEST), Application(early_limit=200)
        both = pair(pki, key=None, applications=apps).start()
        assert both.steps == [0, 1, 2]
        both.answer_early(apps[1], RESPONSE)
        assert both.aborted == {}
        assert both.steps == [0, 1, 2, 3, 4]
        assert await stream(both.committed[Role.INITIATOR]).read() == RESPONSE

    run(work)
