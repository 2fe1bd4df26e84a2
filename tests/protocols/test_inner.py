# SPDX-License-Identifier: Apache-2.0
"""INNER: what the outer graph shows, how many steps each knowledge of keys takes, and whom a request is served to."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

from accord.negotiation.events import Action, MessageComplete, NodeArrived, Send, Stop
from accord.negotiation.interface import Role
from accord.protocols import tls_context
from accord.protocols.inner import InnerProposer, InnerResponder
from accord.protocols.lifecycle import Phase
from accord.protocols.quic_connection import SecretSink, configuration
from accord.protocols.sealed.configuration import Aead, Kem
from accord.protocols.sealed.host_keys import HostKey, HostKeys, make
from accord.protocols.sealed.replay import ReplayFilter
from accord.protocols.sealed.sealing import PAD_BYTES
from accord.protocols.services import Security
from accord.wire.constants import Protocol, Reason
from accord.wire.message import Encoded
from tests.protocols.conftest import Pki
from tests.protocols.inner_pair import (
    HYBRID,
    INNER_ID,
    PLAIN,
    QUIC_ID,
    START,
    TLS_ID,
    Pair,
    Tamper,
    key_ring,
    pair,
    run,
)
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


def shown(both: Pair) -> bytes:
    """All bytes of all nodes."""
    return b"".join(data for message in both.sent for _, _, data in message.nodes)


@pytest.mark.parametrize("prefer", [TLS_ID, QUIC_ID])
@pytest.mark.parametrize("step", [0, 1, 2])
def test_an_inner_part_that_was_changed_or_cut_ends_the_negotiation(pki: Pki, prefer: int, step: int) -> None:
    def changing(at: int) -> Tamper:
        def tamper(number: int, nodes: Sequence[Encoded]) -> Sequence[Encoded]:
            return [
                (node, protocol, data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :])
                if (number, node) == (step, INNER_ID) and len(data) > max(at, -at)
                else (node, protocol, data)
                for node, protocol, data in nodes
            ]

        return tamper

    def work() -> None:
        # Descriptor 4: the kind; key ID, bindings, enc, and the last byte of the ciphertext.
        for at in (4, 6, 14, 20, 100, 200, -1):
            both = pair(pki, prefer=prefer, tamper=changing(at)).start()
            assert Role.RESPONDER not in both.committed, at
            assert both.aborted[Role.INITIATOR].reason in (Reason.BAD_MAC, Reason.HANDSHAKE_FAILED), at

    run(work)


def test_an_inner_part_of_another_negotiation_does_not_open_in_this_one(pki: Pki) -> None:
    def work() -> None:
        other = pair(pki, transaction=b"o" * 12).start()

        def swap(step: int, nodes: Sequence[Encoded]) -> Sequence[Encoded]:
            """With the handshakes beside which it was sealed, so that it is the transaction alone that differs."""
            return [(n, p, other.payload(0, n) if step == 0 and n in sealed else data) for n, p, data in nodes]

        sealed = (TLS_ID, QUIC_ID, INNER_ID)
        apps = Application(REQUEST), Application(early_limit=200)
        both = pair(pki, tamper=swap, applications=apps).start()
        assert "not opened" in " ".join(both.notes[Role.RESPONDER])
        assert apps[1].fetched == []
        assert both.committed == {}

    run(work)


def test_what_was_sealed_beside_another_clienthello_is_refused(pki: Pki) -> None:
    """Somebody who saw the proposal puts a ClientHello of his own beside it, to get the answer's keys from TLS."""

    def work() -> None:
        other = pair(pki).start().payload(0, TLS_ID)

        def swap(step: int, nodes: Sequence[Encoded]) -> Sequence[Encoded]:
            return [(n, p, other if (step, n) == (0, TLS_ID) else data) for n, p, data in nodes]

        apps = Application(REQUEST), Application(early_limit=200)
        both = pair(pki, applications=apps, tamper=swap).start()
        assert apps[1].fetched == []
        assert both.committed == {}
        assert "another handshake" in both.aborted[Role.RESPONDER].detail

    run(work)


@pytest.mark.parametrize("known", [True, False])
def test_a_first_message_that_comes_again_is_answered_and_its_request_not_served(pki: Pki, known: bool) -> None:
    async def work() -> None:
        clock = [START]
        replay = ReplayFilter(lambda: clock[0], window=5)
        clock[0] += 60
        apps = Application(REQUEST), Application(early_limit=200)
        first = pair(pki, applications=apps, replay=replay, now=clock[0]).start()
        assert len(apps[1].fetched) == 1
        recorded = first.sent[0]
        again = Application(early_limit=200)
        victim = pair(pki, applications=(Application(), again), replay=replay if known else None).responder
        actions: list[Action] = []
        for node, protocol, data in recorded.nodes:
            actions += victim.receive(NodeArrived(0, node, protocol, data))
        actions += victim.receive(MessageComplete(0))
        # The twin: without the filter the same message is served a second time.
        assert len(again.fetched) == (0 if known else 1)
        if known:
            assert [action.step for action in actions if isinstance(action, Send)] == [1]

    run(work)


def test_a_request_sealed_too_long_ago_travels_over_the_stack_instead(pki: Pki) -> None:
    async def work() -> None:
        clock = [START]
        replay = ReplayFilter(lambda: clock[0], window=5)
        clock[0] += 60
        apps = Application(REQUEST), Application(early_limit=200)
        both = pair(pki, applications=apps, replay=replay, now=clock[0] - 6).start()
        assert apps[1].fetched == []
        assert "REPLAYED" in " ".join(both.notes[Role.RESPONDER])
        assert both.steps == [0, 1, 2]
        client, server = stream(both.committed[Role.INITIATOR]), stream(both.committed[Role.RESPONDER])
        assert await server.read() == REQUEST
        await asyncio.gather(client.close(), server.close())

    run(work)


def test_lengths_come_in_steps_whatever_the_request(pki: Pki) -> None:
    def lengths(request: bytes) -> int:
        apps = Application(request), Application(early_limit=2000)
        return len(pair(pki, applications=apps).start().payload(0))

    def work() -> None:
        sizes = {lengths(b"G" * count) for count in range(1, 600, 37)}
        assert len(sizes) == 3
        assert {size % PAD_BYTES for size in sizes} == {min(sizes) % PAD_BYTES}

    run(work)


@pytest.mark.parametrize("prefer", [TLS_ID, QUIC_ID])
def test_a_name_that_is_not_sent_is_verified(pki: Pki, prefer: int) -> None:
    def work() -> None:
        both = pair(pki, prefer=prefer, server_name="elsewhere.test").start()
        assert both.committed == {}
        assert both.aborted[Role.INITIATOR].reason is Reason.CERTIFICATE_NAME
        assert b"elsewhere" not in shown(both)

    run(work)


def test_quic_sends_no_server_name_when_it_is_to_be_hidden(pki: Pki) -> None:
    for sni, sent in ((True, HOST), (False, None)):
        security = dataclasses.replace(pki.trusting(HOST), sni=sni)
        made = configuration(Role.INITIATOR, security, ("accord",), SecretSink(None), 30)
        assert made.server_name == sent


def test_a_peer_that_cannot_open_what_is_sealed_to_its_own_key_ends_it(pki: Pki) -> None:
    class Confused(HostKeys):
        def find(self, key_id: bytes) -> HostKey | None:
            return None

    def work() -> None:
        both = pair(pki, keys=Confused([HYBRID], lambda: START)).start()
        assert both.committed == {}
        assert both.aborted[Role.RESPONDER].reason is Reason.WRONG_KEY
        assert both.steps[:3] == [0, 1, 2]

    run(work)


def test_a_peer_whose_keys_are_all_of_unknown_algorithms_ends_it(pki: Pki) -> None:
    class Foreign(HostKeys):
        @property
        def published_bytes(self) -> bytes:
            return dataclasses.replace(HYBRID.configuration, kem=0x0010).encode()

    def work() -> None:
        both = pair(pki, key=None, keys=Foreign([HYBRID], lambda: START)).start()
        assert both.aborted[Role.INITIATOR].reason is Reason.WRONG_KEY
        assert both.committed == {}

    run(work)


def test_a_rotated_key_still_opens_and_the_answer_brings_the_new_one(pki: Pki) -> None:
    async def work() -> None:
        new = make(Kem.HYBRID, Aead.CHACHA20_POLY1305, START, days=120)
        both = pair(pki, key=HYBRID.configuration, keys=key_ring(HYBRID, new)).start()
        assert both.steps == [0, 1, 2]
        assert both.committed[Role.INITIATOR].sessions[-1].key_learnt == new.configuration  # type: ignore[attr-defined]
        await talk(both)

    run(work)


def test_an_inner_graph_without_a_stack_in_common_ends_both_with_its_reason(pki: Pki) -> None:
    def work() -> None:
        both = pair(pki, supported=()).start()
        assert both.committed == {}
        assert {end.reason for end in both.aborted.values()} == {Reason.NO_COMMON_STACK}

    run(work)


def test_nothing_inside_commits_before_the_outer_negotiation_does(pki: Pki) -> None:
    def work() -> None:
        """The twin of the other tests, in which it does; here the commit, or the answer, is lost."""
        for lost, nested in ((1, 0), (2, 1)):
            both = pair(pki, tamper=lambda step, nodes, lost=lost: None if step == lost else nodes).start()
            near = both.initiator._sessions[INNER_ID]
            assert isinstance(near, InnerProposer)
            assert len(near.nested) == nested
            assert all(session._life.phase is Phase.COMMITTED for session in near.nested)  # type: ignore[attr-defined]
            far = both.responder._sessions[INNER_ID]
            assert isinstance(far, InnerResponder)
            assert far.nested == ()
            machine = far._machine
            assert machine is not None
            (http,) = machine._sessions.values()
            assert http._life.phase is Phase.ANSWERED  # type: ignore[attr-defined]
            both.responder_hears(Stop(Reason.SHUTDOWN))
            assert http._life.phase is Phase.GONE  # type: ignore[attr-defined]

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


@pytest.mark.parametrize("known", [True, False])
def test_beside_a_handshake_that_has_to_be_retried_nothing_sealed_is_believed_before_it_is_done(
    pki: Pki, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The responder has none of the groups that the ClientHello brings shares for (RFC 8446, section 4.1.4)."""
    context = tls_context.context

    def other_group(role: Role, security: Security) -> SSL.Context:
        if role is Role.INITIATOR:
            return context(role, security)
        made = tls_context._make(role, security)
        made.set_tmp_ecdh(ec.SECP256R1())
        return made

    monkeypatch.setattr(tls_context, "context", other_group)

    async def work() -> None:
        both = pair(pki, key=HYBRID.configuration if known else None).start()
        assert both.aborted == {}
        assert both.steps == ([0, 1, 2, 3, 4] if known else [0, 1, 2, 3, 4, 5, 6])
        await talk(both)

    run(work)
