# SPDX-License-Identifier: Apache-2.0
"""The QUIC plug-in's handshake: against itself, hostile peers, and stock aioquic over UDP."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import pytest
from aioquic.asyncio import connect, serve
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import crypto

from accord.negotiation.interface import Answer, Outcome, Refuse, Role, Session
from accord.protocols.quic import QuicPlugin, QuicSession, decode_datagrams, encode_datagrams
from accord.protocols.services import Security, Services
from accord.wire.constants import Packet, Protocol, Reason
from accord.wire.errors import AccordError
from tests.protocols.conftest import Pki
from tests.protocols.support import HOST, Clock, Neighbour, below, payload, refusal, services, view

HTTP = below(Neighbour(protocol=Protocol.HTTP, alpn=("http/1.1",)))


class Sink:
    """Datagrams in-band that nobody wants."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.callback: Callable[[bytes], None] | None = None

    def send(self, data: bytes) -> None:
        self.sent.append(data)

    def receive(self, callback: Callable[[bytes], None] | None, ending: Callable[[], None] | None = None) -> None:
        self.callback = callback


def session(role: Role, security: Security, clock: Clock | None = None, datagrams: Sink | None = None) -> QuicSession:
    host = services(role, security, clock=clock or Clock(), datagrams=datagrams or Sink())
    return QuicPlugin().open(role, host)


def propose(client: QuicSession, over: Sequence[Session] = ()) -> bytes:
    return payload(client.propose(view(Role.INITIATOR, 0, under=(), over=over)))


def respond(server: QuicSession, proposal: bytes, over: Sequence[Session] = ()) -> bytes:
    return payload(server.respond(view(Role.RESPONDER, 0, under=(), over=over), proposal))


INITIATOR = view(Role.INITIATOR, 1, under=())
RESPONDER = view(Role.RESPONDER, 2, under=())


def test_three_payloads_make_a_connection_with_equal_exporters_on_both_sides(pki: Pki) -> None:
    client, server = session(Role.INITIATOR, pki.trusting()), session(Role.RESPONDER, pki.being(pki.good))
    proposal = propose(client)
    assert client.exporter() is None
    flight = respond(server, proposal)
    early = server.exporter()
    commit = payload(client.advance(INITIATOR, flight))
    assert early is not None
    assert len(early) == 32
    assert client.exporter() == early
    assert payload(server.advance(RESPONDER, commit)) == b""
    assert server.exporter() == early
    assert client.alpn_selected == server.alpn_selected == "accord"


def test_the_exporter_is_neither_the_logged_secret_nor_ever_the_same(pki: Pki, tmp_path: Path) -> None:
    exported = set()
    for number in range(3):
        log = tmp_path / str(number)
        client = session(Role.INITIATOR, pki.trusting(key_log=log))
        server = session(Role.RESPONDER, pki.being(pki.good))
        payload(client.advance(INITIATOR, respond(server, propose(client))))
        key = client.exporter()
        assert key is not None
        found = re.search(r"^SERVER_TRAFFIC_SECRET_0 [0-9a-f]{64} ([0-9a-f]+)$", log.read_text(), re.MULTILINE)
        assert found is not None
        assert key.hex() not in found[1]
        exported.add(key)
    assert len(exported) == 3


def test_the_application_node_above_decides_the_alpn(pki: Pki) -> None:
    client, server = session(Role.INITIATOR, pki.trusting()), session(Role.RESPONDER, pki.being(pki.good))
    commit = payload(client.advance(INITIATOR, respond(server, propose(client, HTTP), HTTP)))
    server.advance(RESPONDER, commit)
    assert client.alpn_selected == server.alpn_selected == "http/1.1"


def test_no_application_protocol_in_common_is_refused_by_the_responder(pki: Pki) -> None:
    client = session(Role.INITIATOR, pki.trusting(alpn=("x",)))
    server = session(Role.RESPONDER, pki.being(pki.good, alpn=("y",)))
    refused = refusal(server.respond(view(Role.RESPONDER, 0, under=()), propose(client)))
    assert refused.reason is Reason.HANDSHAKE_FAILED
    assert "ALPN" in refused.detail


@pytest.mark.parametrize(
    ("certificate", "server_name", "reason", "words"),
    [
        ("expired", HOST, Reason.CERTIFICATE_EXPIRED, "no longer valid"),
        ("future", HOST, Reason.CERTIFICATE_EXPIRED, "not valid yet"),
        ("other_name", HOST, Reason.CERTIFICATE_NAME, "other.accord.test"),
        ("other_name", "192.0.2.2", Reason.CERTIFICATE_NAME, "198.51.100.7"),
        ("nameless", HOST, Reason.CERTIFICATE_NAME, ""),
        ("unknown_ca", HOST, Reason.BAD_CERTIFICATE, "local issuer"),
    ],
)
def test_a_bad_certificate_is_refused_before_finished_leaves(
    pki: Pki, certificate: str, server_name: str, reason: Reason, words: str
) -> None:
    client = session(Role.INITIATOR, pki.trusting(server_name))
    server = session(Role.RESPONDER, pki.being(getattr(pki, certificate)))
    refused = refusal(client.advance(INITIATOR, respond(server, propose(client))))
    assert refused.reason is reason
    assert words in refused.detail
    assert client.exporter() is None


def test_the_roots_are_read_once_for_many_connections_and_again_when_they_change(
    pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    roots = tmp_path / "roots.pem"
    roots.write_bytes(pki.ca.certificate.read_bytes())
    trusting = Security(server_name=HOST, ca_file=roots)
    read: list[object] = []
    load = crypto.X509Store.load_locations
    monkeypatch.setattr(
        crypto.X509Store, "load_locations", lambda store, *where: (read.append(where), load(store, *where))
    )

    def outcome() -> Outcome:
        client, server = session(Role.INITIATOR, trusting), session(Role.RESPONDER, pki.being(pki.good))
        return client.advance(INITIATOR, respond(server, propose(client)))

    assert all(isinstance(outcome(), Answer) for _ in range(3))
    assert len(read) == 1
    roots.write_bytes(pki.unknown_ca.certificate.read_bytes())
    assert refusal(outcome()).reason is Reason.BAD_CERTIFICATE
    assert len(read) == 2


def test_addresses_are_verified_as_well_as_names(pki: Pki) -> None:
    for name in ("192.0.2.2", "2001:db8::2", HOST + "."):
        client = session(Role.INITIATOR, pki.trusting(name))
        assert isinstance(
            client.advance(INITIATOR, respond(session(Role.RESPONDER, pki.being(pki.good)), propose(client))), Answer
        )


def test_verification_can_be_switched_off_and_only_then_the_name_may_be_missing(pki: Pki) -> None:
    client, server = session(Role.INITIATOR, Security(verify=False)), session(Role.RESPONDER, pki.being(pki.expired))
    assert isinstance(client.advance(INITIATOR, respond(server, propose(client))), Answer)
    refused = refusal(session(Role.INITIATOR, Security()).propose(view(Role.INITIATOR, 0, under=())))
    assert refused.reason is Reason.BAD_CONFIG


def test_unusable_files_are_the_users_fault_and_named(pki: Pki, tmp_path: Path) -> None:
    proposal = propose(session(Role.INITIATOR, pki.trusting()))
    broken = Security(certificate=tmp_path / "absent.pem", private_key=pki.good.private_key)
    refused = refusal(session(Role.RESPONDER, broken).respond(view(Role.RESPONDER, 0, under=()), proposal))
    assert refused.reason is Reason.BAD_CONFIG
    assert "absent.pem" in refused.detail


def test_it_refuses_where_it_cannot_run(pki: Pki) -> None:
    host = services(Role.INITIATOR, pki.trusting(), clock=Clock())
    refused = refusal(QuicPlugin().open(Role.INITIATOR, host).propose(view(Role.INITIATOR, 0, under=())))
    assert refused.reason is Reason.NO_KERNEL_SUPPORT
    server = session(Role.RESPONDER, pki.being(pki.good))
    on_tcp = view(Role.RESPONDER, 0)
    assert refusal(server.respond(on_tcp, propose(session(Role.INITIATOR, pki.trusting())))).detail.endswith("protocol")


def test_every_datagram_is_at_most_1200_bytes_and_none_looks_like_a_negotiation_packet(pki: Pki) -> None:
    for _ in range(20):
        datagrams = Sink()
        client = session(Role.INITIATOR, pki.trusting(), datagrams=datagrams)
        server = session(Role.RESPONDER, pki.being(pki.good))
        proposal = propose(client)
        flight = respond(server, proposal)
        commit = payload(client.advance(INITIATOR, flight))
        for datagram in (*decode_datagrams(proposal), *decode_datagrams(flight), *decode_datagrams(commit)):
            assert len(datagram) <= 1200
            assert not Packet.VERSION_FIRST <= datagram[0] <= Packet.VERSION_LAST


def test_the_answer_is_at_most_three_times_the_proposal(pki: Pki) -> None:
    proposal = propose(session(Role.INITIATOR, pki.trusting()))
    flight = respond(session(Role.RESPONDER, pki.being(pki.good)), proposal)
    assert len(flight) <= 3 * len(proposal)


def test_nothing_leaves_in_band_and_no_timer_runs_before_commit(pki: Pki) -> None:
    clock, datagrams = Clock(), Sink()
    client = session(Role.INITIATOR, pki.trusting(), clock, datagrams)
    server = session(Role.RESPONDER, pki.being(pki.good), clock, datagrams)
    server.advance(RESPONDER, payload(client.advance(INITIATOR, respond(server, propose(client)))))
    client.abort(Reason.TIMEOUT)
    server.prune(Reason.NOT_PREFERRED)
    server.abort(Reason.TIMEOUT)
    assert datagrams.sent == []
    assert datagrams.callback is None
    assert clock.timers == []


def test_a_second_respond_starts_afresh_and_the_last_one_counts(pki: Pki) -> None:
    client, server = session(Role.INITIATOR, pki.trusting()), session(Role.RESPONDER, pki.being(pki.good))
    proposal = propose(client)
    respond(server, proposal)
    server.advance(RESPONDER, payload(client.advance(INITIATOR, respond(server, proposal))))
    assert server.exporter() == client.exporter()


# ---- Hostile input -------------------------------------------------------------------------------------------------


@given(st.lists(st.binary(min_size=1, max_size=1300), min_size=1, max_size=5))
def test_a_list_of_datagrams_survives_its_payload(datagrams: list[bytes]) -> None:
    assert decode_datagrams(encode_datagrams(datagrams)) == datagrams


@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=5), st.integers(1, 1000))
def test_a_payload_cut_inside_a_datagram_is_refused(datagrams: list[bytes], cut: int) -> None:
    whole = encode_datagrams(datagrams)
    cut = cut % len(whole)
    ends = {len(encode_datagrams(datagrams[:count])) for count in range(len(datagrams) + 1)} - {0}
    if cut in ends:
        assert decode_datagrams(whole[:cut]) == datagrams[: len(decode_datagrams(whole[:cut]))]
    else:
        with pytest.raises(AccordError) as caught:
            decode_datagrams(whole[:cut])
        assert caught.value.reason is Reason.HANDSHAKE_FAILED


def test_empty_datagrams_have_no_encoding() -> None:
    for bad in (b"", b"\x00\x00", b"\x00\x01a\x00\x00", b"\x00"):
        with pytest.raises(AccordError):
            decode_datagrams(bad)


@settings(max_examples=50)
@given(junk=st.binary(max_size=1300), pad=st.booleans())
def test_random_datagrams_are_refused_by_name_on_both_sides(pki: Pki, junk: bytes, pad: bool) -> None:
    datagram = (b"\xc0\x00\x00\x00\x01\x08" + junk).ljust(1200 if pad else 1, b"\x00")[:1300]
    for outcome in (
        session(Role.RESPONDER, pki.being(pki.good)).respond(
            view(Role.RESPONDER, 0, under=()), encode_datagrams([datagram])
        ),
        _advance_with(pki, encode_datagrams([datagram])),
    ):
        assert refusal(outcome).reason is Reason.HANDSHAKE_FAILED


def _advance_with(pki: Pki, answer: bytes) -> Outcome:
    client = session(Role.INITIATOR, pki.trusting())
    propose(client)
    return client.advance(INITIATOR, answer)


@settings(max_examples=50)
@given(place=st.integers(0, 1 << 20), bit=st.integers(0, 7))
def test_a_flight_with_any_bit_flipped_never_completes_with_other_keys(pki: Pki, place: int, bit: int) -> None:
    """A flip may hit padding behind a datagram's packets; then the handshake is the same one, and so is its key."""
    client, server = session(Role.INITIATOR, pki.trusting()), session(Role.RESPONDER, pki.being(pki.good))
    flight = bytearray(respond(server, propose(client)))
    flight[place % len(flight)] ^= 1 << bit
    outcome = client.advance(INITIATOR, bytes(flight))
    if isinstance(outcome, Refuse):
        assert outcome.reason is Reason.HANDSHAKE_FAILED
    else:
        assert client.exporter() == server.exporter()


def test_a_flight_of_two_datagrams_completes_and_with_one_missing_does_not(pki: Pki) -> None:
    flights = []
    for _ in range(2):
        client, server = session(Role.INITIATOR, pki.trusting()), session(Role.RESPONDER, pki.being(pki.long))
        flights.append(decode_datagrams(respond(server, propose(client))))
    assert [len(flight) for flight in flights] == [2, 2]
    refused = refusal(client.advance(INITIATOR, encode_datagrams(flights[1][:-1])))
    assert refused.reason is Reason.HANDSHAKE_FAILED
    assert "not complete" in refused.detail
    client, server = session(Role.INITIATOR, pki.trusting()), session(Role.RESPONDER, pki.being(pki.long))
    assert isinstance(client.advance(INITIATOR, respond(server, propose(client))), Answer)


def test_a_certificate_beyond_three_times_the_proposal_is_refused_as_incomplete(pki: Pki) -> None:
    client, server = session(Role.INITIATOR, pki.trusting()), session(Role.RESPONDER, pki.being(pki.huge))
    flight = respond(server, propose(client))
    assert len(flight) < 3700
    assert "not complete" in refusal(client.advance(INITIATOR, flight)).detail


def test_repeated_and_reordered_datagrams_do_no_harm(pki: Pki) -> None:
    client, server = session(Role.INITIATOR, pki.trusting()), session(Role.RESPONDER, pki.being(pki.good))
    flight = decode_datagrams(respond(server, propose(client)))
    commit = payload(client.advance(INITIATOR, encode_datagrams([*flight, *flight])))
    again = decode_datagrams(commit)
    assert isinstance(server.advance(RESPONDER, encode_datagrams([*again, *again])), Answer)


# ---- Stock aioquic over UDP ----------------------------------------------------------------------------------------


class Udp(asyncio.DatagramProtocol):
    """A UDP socket as ``DatagramService``."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[bytes] = asyncio.Queue()
        self.callback: Callable[[bytes], None] | None = None
        self.peer: tuple[str, int] | None = None
        self.transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.peer = addr
        if self.callback is not None:
            self.callback(data)
        else:
            self.queue.put_nowait(data)

    def send(self, data: bytes) -> None:
        self.transport.sendto(data, self.peer)

    def receive(self, callback: Callable[[bytes], None] | None, ending: Callable[[], None] | None = None) -> None:
        self.callback = callback
        while callback is not None and not self.queue.empty():
            callback(self.queue.get_nowait())

    async def burst(self) -> list[bytes]:
        """The next datagram, and those that were sent in the same breath by this very process."""
        got = [await self.queue.get()]
        for _ in range(10):
            await asyncio.sleep(0)
        while not self.queue.empty():
            got.append(self.queue.get_nowait())
        return got


def host(role: Role, security: Security, udp: Udp) -> Services:
    return services(role, security, datagrams=udp)


def test_a_stock_server_accepts_the_initiators_datagrams_and_echoes_in_band(pki: Pki) -> None:
    async def talk() -> None:
        stock = QuicConfiguration(is_client=False, alpn_protocols=["accord"])
        stock.load_cert_chain(pki.good.certificate, pki.good.private_key)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]

        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write((await reader.read()).upper())
            writer.write_eof()

        tasks: list[asyncio.Task[None]] = []
        server = await serve(
            "127.0.0.1",
            port,
            configuration=stock,
            stream_handler=lambda reader, writer: tasks.append(asyncio.ensure_future(echo(reader, writer))),
        )
        transport, udp = await asyncio.get_running_loop().create_datagram_endpoint(Udp, local_addr=("127.0.0.1", 0))
        udp.peer = ("127.0.0.1", port)
        client = QuicPlugin().open(Role.INITIATOR, host(Role.INITIATOR, pki.trusting(), udp))
        for datagram in decode_datagrams(propose(client)):
            udp.send(datagram)
        for datagram in decode_datagrams(payload(client.advance(INITIATOR, encode_datagrams(await udp.burst())))):
            udp.send(datagram)
        client.commit(INITIATOR)
        carrier = client.carrier(None)
        await carrier.write(b"shout" * 10_000)
        await carrier.finish()
        got = b""
        while piece := await carrier.read():
            got += piece
        assert got == b"SHOUT" * 10_000
        await carrier.close()
        server.close()
        transport.close()

    asyncio.run(asyncio.wait_for(talk(), 30))


def test_a_stock_client_accepts_the_responders_datagrams(pki: Pki) -> None:
    async def talk() -> None:
        transport, udp = await asyncio.get_running_loop().create_datagram_endpoint(Udp, local_addr=("127.0.0.1", 0))
        port = transport.get_extra_info("sockname")[1]

        async def respond_to_it() -> None:
            server = QuicPlugin().open(Role.RESPONDER, host(Role.RESPONDER, pki.being(pki.good), udp))
            first = await udp.burst()
            for datagram in decode_datagrams(respond(server, encode_datagrams(first))):
                udp.send(datagram)
            assert isinstance(server.advance(RESPONDER, encode_datagrams(await udp.burst())), Answer)
            server.commit(RESPONDER)
            carrier = server.carrier(None)
            request = b""
            while piece := await carrier.read():
                request += piece
            await carrier.write(request[::-1])
            await carrier.close()

        responding = asyncio.ensure_future(respond_to_it())
        stock = QuicConfiguration(is_client=True, alpn_protocols=["accord"], server_name=HOST)
        stock.load_verify_locations(str(pki.ca.certificate))
        async with connect("127.0.0.1", port, configuration=stock) as client:
            reader, writer = await client.create_stream()
            writer.write(b"stressed")
            writer.write_eof()
            assert await reader.read() == b"desserts"
        await responding
        transport.close()

    asyncio.run(asyncio.wait_for(talk(), 30))


def test_what_our_use_of_aioquics_insides_relies_on_is_still_there(pki: Pki) -> None:
    connection = QuicConnection(configuration=QuicConfiguration(server_name=HOST))
    connection.connect(("192.0.2.2", 443), 0.0)
    with contextlib.suppress(KeyError):
        connection.send_stream_data(0, b"12345")
    stream = connection._streams[0]
    assert stream.sender.highest_offset == 0
    assert stream.sender.is_finished is False
    assert stream.max_stream_data_local > 0
