# SPDX-License-Identifier: Apache-2.0
"""The HTTP node: it decides the ALPN, and carries the first request only where that is allowed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.negotiation.interface import Answer, Outcome, Refuse, Role, Session, Wait
from accord.protocols.alpn import decode_names, encode_names
from accord.protocols.http import HttpPlugin, HttpSession
from accord.protocols.services import Carrier
from accord.protocols.wishes import Wishes
from accord.wire.constants import Reason
from accord.wire.errors import PeerError
from tests.protocols.support import (
    BARE,
    Application,
    MemoryCarrier,
    Neighbour,
    below,
    memory_pair,
    payload,
    refusal,
    services,
    view,
)

REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
NAMES = b"\x00\x09\x08http/1.1"
SECURE = below(Neighbour(protocol=0x0304, secure=True), Neighbour())
OVERHEAD = len(NAMES) + 1


def initiator(request: bytes = b"") -> HttpSession:
    return HttpPlugin().open(Role.INITIATOR, services(Role.INITIATOR, application=Application(request)))


def responder(application: Application | None) -> HttpSession:
    return HttpPlugin().open(Role.RESPONDER, services(Role.RESPONDER, application=application))


def propose(client: HttpSession, budget: int = 1 << 16) -> bytes:
    return payload(client.propose(view(Role.INITIATOR, 0, budget=budget)))


def respond(server: HttpSession, proposal: bytes, under: Sequence[Session] = BARE, budget: int = 1000) -> Outcome:
    return server.respond(view(Role.RESPONDER, 0, under=under, budget=budget), proposal)


def advance(client: HttpSession, answer: bytes, under: Sequence[Session] = BARE) -> Outcome:
    return client.advance(view(Role.INITIATOR, 1, under=under), answer)


def resume(server: HttpSession, budget: int = 1000) -> Outcome:
    return server.resume(view(Role.RESPONDER, 0, budget=budget))


def committed(session: HttpSession, role: Role, carrier: MemoryCarrier) -> Carrier:
    session.commit(view(role, 2))
    return session.carrier(carrier)


def test_without_a_request_the_payloads_are_the_two_name_lists() -> None:
    client, server = initiator(), responder(Application())
    proposal = propose(client)
    assert proposal == NAMES
    answer = payload(respond(server, proposal))
    assert answer == NAMES + b"\x00"
    assert advance(client, answer) == Answer(b"")
    assert server.advance(view(Role.RESPONDER, 2), b"") == Answer(b"")
    assert client.alpn_selected == server.alpn_selected == "http/1.1"
    assert client.alpn == ("http/1.1",)


def test_what_the_security_session_has_selected_is_selected_here_too() -> None:
    host = replace(services(Role.RESPONDER), wishes=Wishes(alpn=("h2", "http/1.1")))
    agreed = below(Neighbour(protocol=0x0304, secure=True, alpn_selected="http/1.1"), Neighbour())
    server = HttpPlugin().open(Role.RESPONDER, host)
    assert payload(respond(server, encode_names(["h2", "http/1.1"]), under=agreed)) == NAMES + b"\x00"
    assert server.inside == {"alpn": "http/1.1"}


@pytest.mark.parametrize(("selected", "offered"), [("h2", ["http/1.1"]), ("spdy/1", ["spdy/1", "http/1.1"])])
def test_two_nodes_that_would_select_different_names_are_refused(selected: str, offered: list[str]) -> None:
    host = replace(services(Role.RESPONDER), wishes=Wishes(alpn=("h2", "http/1.1")))
    agreed = below(Neighbour(protocol=0x0304, secure=True, alpn_selected=selected), Neighbour())
    refused = refusal(respond(HttpPlugin().open(Role.RESPONDER, host), encode_names(offered), under=agreed))
    assert refused.reason is Reason.HANDSHAKE_FAILED
    assert f"{selected} in the security session" in refused.detail


def test_the_names_are_the_policys() -> None:
    host = replace(services(Role.INITIATOR), wishes=Wishes(alpn=("h2", "http/1.1")))
    client = HttpPlugin().open(Role.INITIATOR, host)
    assert client.alpn == ("h2", "http/1.1")
    assert propose(client) == encode_names(["h2", "http/1.1"])


def test_a_request_taken_is_answered_in_the_answer_and_the_reader_gets_it_first() -> None:
    application = Application(early_limit=100)
    client, server = initiator(REQUEST), responder(application)
    proposal = propose(client)
    assert proposal == NAMES + REQUEST
    assert isinstance(respond(server, proposal), Wait)
    assert application.fetched == [(REQUEST, 1000 - OVERHEAD)]
    assert isinstance(resume(server), Wait)
    application.fetches[0].response = RESPONSE
    answer = payload(resume(server))
    assert answer == NAMES + b"\x01" + RESPONSE
    assert server.fetch_taken is application.fetches[0]
    assert advance(client, answer) == Answer(b"")
    assert client.taken

    async def talk() -> None:
        one, other = memory_pair()
        carrier = committed(client, Role.INITIATOR, one)
        assert await carrier.read(8) == RESPONSE[:8]
        assert await carrier.read() == RESPONSE[8:]
        await other.write(b" world")
        assert await carrier.read() == b" world"
        await carrier.write(b"next")
        assert await other.read() == b"next"

    asyncio.run(talk())


def test_a_response_larger_than_the_budget_goes_on_over_the_stack() -> None:
    application = Application(early_limit=100)
    client, server = initiator(REQUEST), responder(application)
    respond(server, propose(client))
    application.fetches[0].response = RESPONSE
    answer = payload(resume(server, budget=OVERHEAD + 10))
    assert len(answer) == OVERHEAD + 10
    advance(client, answer)
    server.advance(view(Role.RESPONDER, 2), b"")

    async def talk() -> bytes:
        one, other = memory_pair()
        near = committed(client, Role.INITIATOR, one)
        far = committed(server, Role.RESPONDER, other)
        await far.write(b" and the rest")
        await far.finish()
        got = b""
        while piece := await near.read(7):
            got += piece
        return got

    assert asyncio.run(talk()) == RESPONSE + b" and the rest"


@pytest.mark.parametrize("response", [b"", None])
def test_a_request_that_was_not_taken_is_sent_by_the_carrier_by_itself(response: bytes | None) -> None:
    application = Application(early_limit=100 if response is not None else 0)
    client, server = initiator(REQUEST), responder(application)
    outcome = respond(server, propose(client))
    if isinstance(outcome, Wait):
        application.fetches[0].response = response
        outcome = resume(server)
        assert application.fetches[0].cancelled
    assert payload(outcome) == NAMES + b"\x00"
    assert server.fetch_taken is None
    advance(client, payload(outcome))
    assert not client.taken

    async def talk() -> None:
        one, other = memory_pair()
        carrier = committed(client, Role.INITIATOR, one)
        assert await other.read() == REQUEST
        await carrier.write(b"second")
        assert await other.read() == b"second"

    asyncio.run(talk())


def test_what_the_application_writes_comes_after_the_request_that_is_owed() -> None:
    client, server = initiator(REQUEST * 100), responder(Application())
    advance(client, payload(respond(server, propose(client))))

    async def talk() -> bytes:
        one, other = memory_pair(room=50)
        carrier = committed(client, Role.INITIATOR, one)

        async def send() -> None:
            await carrier.write(b"second")
            await carrier.finish()

        sending = asyncio.ensure_future(send())
        got = b""
        while piece := await other.read():
            got += piece
        await sending
        return got

    assert asyncio.run(talk()) == REQUEST * 100 + b"second"


def test_a_request_that_does_not_fit_into_the_proposal_follows_after_commit() -> None:
    client = initiator(REQUEST)
    assert propose(client, budget=len(NAMES) + len(REQUEST) - 1) == NAMES
    advance(client, NAMES + b"\x00")

    async def talk() -> bytes:
        one, other = memory_pair()
        committed(client, Role.INITIATOR, one)
        return await other.read()

    assert asyncio.run(talk()) == REQUEST


def test_a_request_in_clear_is_never_taken_under_a_secure_session() -> None:
    application = Application(early_limit=100)
    server = responder(application)
    assert payload(respond(server, NAMES + REQUEST, under=SECURE)) == NAMES + b"\x00"
    assert application.fetched == []
    client = initiator(REQUEST)
    propose(client)
    refused = refusal(advance(client, NAMES + b"\x01" + RESPONSE, under=SECURE))
    assert refused.reason is Reason.HANDSHAKE_FAILED


def test_requests_over_the_services_limit_or_without_room_for_an_answer_are_not_taken() -> None:
    for limit, budget in ((len(REQUEST) - 1, 1000), (100, OVERHEAD), (100, 0)):
        application = Application(early_limit=limit)
        assert payload(respond(responder(application), NAMES + REQUEST, budget=budget)) == NAMES + b"\x00"
        assert application.fetched == []
    assert payload(respond(responder(None), NAMES + REQUEST)) == NAMES + b"\x00"


def test_prune_abort_and_another_respond_take_the_request_back() -> None:
    for end in ("prune", "abort"):
        application = Application(early_limit=100)
        server = responder(application)
        respond(server, NAMES + REQUEST)
        getattr(server, end)(Reason.NOT_PREFERRED)
        assert application.fetches[0].cancelled
    application = Application(early_limit=100)
    server = responder(application)
    respond(server, NAMES + REQUEST)
    respond(server, NAMES + REQUEST)
    assert [fetch.cancelled for fetch in application.fetches] == [True, False]


def test_after_commit_the_request_stays_with_the_service() -> None:
    application = Application(early_limit=100)
    server = responder(application)
    respond(server, NAMES + REQUEST)
    application.fetches[0].response = RESPONSE
    resume(server)
    server.advance(view(Role.RESPONDER, 2), b"")
    server.commit(view(Role.RESPONDER, 2))
    server.abort(Reason.CLOSED)
    assert not application.fetches[0].cancelled
    assert server.fetch_taken is application.fetches[0]


def test_the_security_session_below_must_have_agreed_on_the_same_name() -> None:
    for selected, expected in (("http/1.1", Answer), (None, Answer), ("h2", Refuse)):
        client = initiator()
        propose(client)
        under = below(Neighbour(secure=True, alpn_selected=selected))
        assert isinstance(advance(client, NAMES + b"\x00", under=under), expected)


@pytest.mark.parametrize(
    "proposal",
    [b"", b"\x00", b"\x00\x00", b"\x00\x01\x00", b"\x00\x09\x08http/1.", b"\x00\x03\x02h2", b"\x00\x08\x08http/1.1"],
)
def test_a_proposal_that_is_malformed_or_has_nothing_in_common_is_refused(proposal: bytes) -> None:
    assert refusal(respond(responder(Application()), proposal)).reason is Reason.HANDSHAKE_FAILED


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        NAMES,
        NAMES + b"\x02",
        NAMES + b"\x00x",
        NAMES[:-1],
        b"\x00\x03\x02h2\x00",
        b"\x00\x0c\x08http/1.1\x02h2\x00",
        NAMES + b"\x01",
        NAMES + b"\x01" + RESPONSE,
    ],
)
def test_an_answer_that_is_malformed_or_answers_what_was_not_asked_is_refused(answer: bytes) -> None:
    client = initiator()
    propose(client)
    assert refusal(advance(client, answer)).reason is Reason.HANDSHAKE_FAILED


def test_bytes_in_the_commit_are_refused() -> None:
    server = responder(Application())
    respond(server, NAMES)
    assert refusal(server.advance(view(Role.RESPONDER, 2), b"x")).reason is Reason.HANDSHAKE_FAILED


def test_it_needs_a_stream_below() -> None:
    assert refusal(respond(responder(Application()), NAMES, under=())).reason is Reason.HANDSHAKE_FAILED


@given(
    st.lists(st.text(st.characters(max_codepoint=255), min_size=1, max_size=255), min_size=1, max_size=20, unique=True),
    st.binary(max_size=40),
)
def test_name_lists_survive_their_encoding_and_keep_what_follows(names: list[str], rest: bytes) -> None:
    assert decode_names(encode_names(names) + rest) == (tuple(names), rest)


@given(st.binary(max_size=60))
def test_any_bytes_decode_to_names_that_encode_to_the_same_bytes_or_are_refused(data: bytes) -> None:
    try:
        names, rest = decode_names(data)
    except PeerError:
        return
    assert encode_names(names) + rest == data


@given(st.binary(max_size=80))
def test_no_bytes_crash_either_side(data: bytes) -> None:
    assert isinstance(respond(responder(Application(early_limit=50)), data), Answer | Refuse | Wait)
    client = initiator(REQUEST)
    propose(client)
    assert isinstance(advance(client, data), Answer | Refuse)


def test_nobody_can_write_a_name_list_that_has_no_encoding() -> None:
    for names in ([], [""], ["x" * 256], ["x" * 255] * 300):
        with pytest.raises(ValueError, match="ALPN"):
            encode_names(names)
