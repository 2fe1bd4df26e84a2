# SPDX-License-Identifier: Apache-2.0
"""TLS as a stream: whole, in order, under back pressure, and never cut short unnoticed."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accord.datapath.stream import SocketCarrier
from accord.negotiation.interface import Role
from accord.protocols import tls
from accord.protocols.services import Carrier, Security
from accord.protocols.tls_carrier import TlsCarrier
from accord.protocols.tls_connection import TlsConnection
from accord.wire.constants import Reason
from accord.wire.errors import AccordError
from tests.protocols.conftest import Pki
from tests.protocols.support import (
    HOST,
    MemoryCarrier,
    connect_when_up,
    free_port,
    listener,
    memory_pair,
    program,
)


def run(coroutine: Coroutine[object, object, None]) -> None:
    asyncio.run(asyncio.wait_for(coroutine, 60))


async def both(pki: Pki, room: int = 65536, split: int = 1 << 20) -> tuple[TlsCarrier, TlsCarrier, MemoryCarrier]:
    """The two ends of a TLS stream in memory, and the stream below the first one."""
    one, other = memory_pair(room, split)
    client, server = await asyncio.gather(
        tls.client(one, pki.trusting(), ()), tls.server(other, pki.being(pki.good), ())
    )
    return client, server, one


async def read_all(carrier: Carrier, limit: int = 65536) -> bytes:
    got = bytearray()
    while piece := await carrier.read(limit):
        assert len(piece) <= limit
        got += piece
    return bytes(got)


@settings(max_examples=15)
@given(
    writes=st.lists(st.integers(0, 70_000), max_size=6),
    room=st.integers(1, 40_000),
    split=st.integers(1, 5000),
    limit=st.integers(1, 30_000),
)
def test_any_chunking_of_writes_and_reads_gives_the_same_bytes(
    pki: Pki, writes: list[int], room: int, split: int, limit: int
) -> None:
    async def talk() -> None:
        client, server, below = await both(pki)
        for end in (below, below.peer):
            end.room, end.split = max(room, 512), max(split, 64)
        sent = [bytes([number % 251]) * size for number, size in enumerate(writes, 1)]

        async def send() -> None:
            for piece in sent:
                await client.write(piece)
            await client.finish()

        _, got = await asyncio.gather(send(), read_all(server, limit))
        assert got == b"".join(sent)

    run(talk())


def test_both_directions_at_once_carry_megabytes_intact(pki: Pki) -> None:
    async def talk() -> None:
        client, server, _ = await both(pki)
        up, down = hashlib.shake_128(b"up").digest(3 << 20), hashlib.shake_128(b"down").digest(2 << 20)

        async def send(end: TlsCarrier, data: bytes) -> None:
            await end.write(data)
            await end.finish()

        results = await asyncio.gather(read_all(client), read_all(server), send(client, up), send(server, down))
        assert results[0] == down
        assert results[1] == up

    run(talk())


def test_a_writer_waits_while_the_peer_does_not_read(pki: Pki) -> None:
    async def talk() -> None:
        client, server, below = await both(pki, room=30_000)
        writing = asyncio.ensure_future(client.write(bytes(1 << 20)))
        for _ in range(200):
            await asyncio.sleep(0)
        assert not writing.done()
        assert below.written < 200_000
        got = 0
        while got < 1 << 20:
            got += len(await server.read())
        await writing

    run(talk())


def test_one_side_may_finish_and_go_on_reading(pki: Pki) -> None:
    async def talk() -> None:
        client, server, below = await both(pki)
        await client.write(b"question")
        await client.finish()
        await client.finish()
        assert below.peer.ended
        assert await read_all(server) == b"question"
        await server.write(b"answer")
        await server.finish()
        assert await read_all(client) == b"answer"
        assert await client.read() == b""
        with pytest.raises(AccordError) as caught:
            await client.write(b"more")
        assert caught.value.reason is Reason.CLOSED
        await client.close()
        await client.close()
        await server.close()

    run(talk())


def test_a_stream_cut_without_close_notify_is_an_error_after_the_last_whole_record(pki: Pki) -> None:
    async def talk() -> None:
        client, server, below = await both(pki)
        await client.write(b"half of it")
        await below.finish()
        assert await server.read() == b"half of it"
        for _ in range(2):
            with pytest.raises(AccordError) as caught:
                await server.read()
            assert caught.value.reason is Reason.STREAM_BROKEN
            assert "close_notify" in caught.value.detail

    run(talk())


def test_a_record_with_a_bit_flipped_is_an_error_and_delivers_nothing(pki: Pki) -> None:
    async def talk() -> None:
        client, server, below = await both(pki)
        await client.write(b"pay Bob 1 pound")
        below.peer.arrived[-10] ^= 1
        with pytest.raises(AccordError) as caught:
            await server.read()
        assert caught.value.reason is Reason.STREAM_BROKEN

    run(talk())


def test_a_write_that_was_given_up_half_way_spoils_the_stream_for_good(pki: Pki) -> None:
    async def talk() -> None:
        client, _, _ = await both(pki, room=2000)
        writing = asyncio.ensure_future(client.write(bytes(100_000)))
        for _ in range(20):
            await asyncio.sleep(0)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        with pytest.raises(AccordError) as caught:
            await client.write(b"next")
        assert caught.value.reason is Reason.STREAM_BROKEN
        client.abort()

    run(talk())


def test_a_peer_that_only_reads_still_gets_the_tickets_that_the_responder_owes_it(pki: Pki) -> None:
    """OpenSSL's server writes its session tickets at the end of the handshake: they come before the first data."""

    async def talk() -> None:
        one, other = memory_pair()
        context = ssl.create_default_context(cafile=str(pki.ca.certificate))
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = context.wrap_bio(incoming, outgoing, server_hostname=HOST)
        serving = asyncio.ensure_future(tls.server(other, pki.being(pki.good), ()))
        while True:
            try:
                client.do_handshake()
                break
            except ssl.SSLWantReadError:
                await one.write(outgoing.read())
                incoming.write(await one.read())
        await one.write(outgoing.read())
        server = await serving
        await server.write(b"data")
        got = b""
        while not got:
            incoming.write(await one.read())
            try:
                got = client.read(100)
            except ssl.SSLWantReadError:
                continue
        assert got == b"data"
        assert client.session is not None

    run(talk())


# ---- As without Accord ----------------------------------------------------------------------------------------------


async def served(pki: Pki, handler: Callable[[TlsCarrier], Awaitable[None]], listening: object) -> None:
    loop = asyncio.get_running_loop()
    listening.setblocking(False)  # type: ignore[attr-defined]
    connection, _ = await loop.sock_accept(listening)  # type: ignore[arg-type]
    carrier = await tls.server(SocketCarrier(connection), pki.being(pki.good), ("http/1.1",))
    await handler(carrier)
    await carrier.close()


def test_curl_fetches_a_page_from_the_legacy_server(pki: Pki) -> None:
    body = hashlib.shake_128(b"page").hexdigest(100_000).encode()

    async def page(carrier: TlsCarrier) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            request += await carrier.read()
        assert request.startswith(b"GET /page HTTP/1.1\r\n")
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        await carrier.write(head.encode() + body)

    with listener() as (listening, port):
        argv = ["curl", "--silent", "--show-error", "--tlsv1.3", "--cacert", str(pki.ca.certificate), "--noproxy", "*"]
        argv += ["--resolve", f"{HOST}:{port}:127.0.0.1", f"https://{HOST}:{port}/page"]
        with program(argv) as curl:
            run(served(pki, page, listening))
            said, _ = curl.communicate(timeout=30)
    assert said == body


def test_the_legacy_client_talks_to_pythons_own_server(pki: Pki) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.good.certificate, pki.good.private_key)
    context.set_alpn_protocols(["http/1.1"])
    with listener() as (listening, port):
        seen: list[object] = []

        def serve() -> None:
            connection, _ = listening.accept()
            with context.wrap_socket(connection, server_side=True) as secure:
                seen.append(secure.selected_alpn_protocol())
                while piece := secure.recv(4096):
                    secure.sendall(piece.upper())
                secure.unwrap()

        thread = threading.Thread(target=serve)
        thread.start()

        async def talk() -> None:
            carrier = await tls.client(SocketCarrier(connect_when_up(port)), pki.trusting(), ("http/1.1",))
            await carrier.write(b"shout")
            assert await carrier.read() == b"SHOUT"
            await carrier.finish()
            assert await carrier.read() == b""
            await carrier.close()

        run(talk())
        thread.join(20)
        assert seen == ["http/1.1"]


@pytest.mark.parametrize(
    ("certificate", "reason"),
    [
        ("expired", Reason.CERTIFICATE_EXPIRED),
        ("other_name", Reason.CERTIFICATE_NAME),
        ("unknown_ca", Reason.BAD_CERTIFICATE),
    ],
)
def test_the_legacy_client_names_a_bad_certificate_and_tells_the_server(
    pki: Pki, certificate: str, reason: Reason
) -> None:
    port = free_port()
    files = getattr(pki, certificate)
    argv = ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", files.certificate, "-naccept", "1"]
    with program([*argv, "-key", files.private_key]) as server:

        async def talk() -> None:
            below = SocketCarrier(connect_when_up(port))
            with pytest.raises(AccordError) as caught:
                await tls.client(below, pki.trusting(), ())
            assert caught.value.reason is reason
            await below.close()

        run(talk())
        said, _ = server.communicate(timeout=20)
    assert b"alert" in said


def test_a_legacy_peer_that_speaks_no_tls_is_named(pki: Pki) -> None:
    async def talk() -> None:
        for words, expected in ((b"220 smtp ready\r\n", "TLS"), (b"", "closed")):
            one, other = memory_pair()
            if words:
                await other.write(words)
            await other.finish()
            with pytest.raises(AccordError) as caught:
                await tls.client(one, pki.trusting(), ())
            assert caught.value.reason is Reason.HANDSHAKE_FAILED
            assert expected in caught.value.detail

    run(talk())


def test_tls_1_2_is_refused_on_both_sides(pki: Pki) -> None:
    old = ssl.create_default_context(cafile=str(pki.ca.certificate))
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = old.wrap_bio(incoming, outgoing, server_hostname=HOST)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    server = TlsConnection(Role.RESPONDER, pki.being(pki.good), ())
    server.feed(outgoing.read())
    with pytest.raises(AccordError) as caught:
        server.handshake()
    assert caught.value.reason is Reason.HANDSHAKE_FAILED
    assert "protocol" in caught.value.detail


def test_a_peer_that_asks_for_new_keys_gets_them_before_our_next_data(pki: Pki) -> None:
    """s_client's K command sends KeyUpdate with update_requested (RFC 8446 section 4.6.3); data follows under it."""
    with listener() as (listening, port):
        argv: list[str | Path] = [
            "openssl",
            "s_client",
            "-CAfile",
            pki.ca.certificate,
            "-connect",
            f"127.0.0.1:{port}",
            "-msg",
        ]
        with program(argv) as client:
            stdin, stdout = client.stdin, client.stdout
            assert stdin is not None
            assert stdout is not None

            def say(line: bytes) -> None:
                stdin.write(line)
                stdin.flush()

            async def heard(*words: bytes) -> None:
                while line := await asyncio.to_thread(stdout.readline):
                    if all(word in line for word in words):
                        return
                raise AssertionError(f"s_client never said {words!r}")

            async def read_only(carrier: TlsCarrier) -> None:
                say(b"before\n")
                assert await carrier.read() == b"before\n"
                say(b"K\n")
                await heard(b"KEYUPDATE")
                say(b"after\n")
                assert await carrier.read() == b"after\n"
                await carrier.write(b"done\n")

            run(served(pki, read_only, listening))
            said, _ = client.communicate(timeout=20)
    assert 0 < said.index(b"<<< TLS 1.3, Handshake [length 0005], KeyUpdate") < said.index(b"done")


def test_security_without_a_server_name_cannot_be_a_verifying_client() -> None:
    with pytest.raises(AccordError) as caught:
        TlsConnection(Role.INITIATOR, Security(), ())
    assert caught.value.reason is Reason.BAD_CONFIG


def begun_with(
    pki: Pki, security: Security
) -> tuple[TlsConnection, SocketCarrier, socket.socket, TlsConnection, bytes]:
    """A client that has said its ClientHello over loopback; the other end of that, and a server's flight for it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        near = socket.create_connection(listening.getsockname())
        far, _ = listening.accept()
    far.settimeout(10)
    begun = tls.begin(security, ())
    server = TlsConnection(Role.RESPONDER, pki.being(pki.good), ())
    server.feed(begun.output())
    assert not server.handshake()
    return begun, SocketCarrier(near), far, server, server.output()


def test_a_flight_that_is_here_is_answered_without_a_wait(pki: Pki) -> None:
    async def talk() -> None:
        begun, near, far, server, flight = begun_with(pki, pki.trusting())
        far.sendall(flight)
        client = tls.client_now(near, begun)
        assert client is not None
        server.feed(far.recv(65536))
        assert server.handshake(), "Finished has left, though nobody has written or read"
        server.write(b"first")
        far.sendall(server.output())
        assert await client.read() == b"first"
        await client.write(b"second")
        server.feed(far.recv(65536))
        assert server.read(100) == b"second"
        client.abort()
        far.close()

    run(talk())


@pytest.mark.parametrize("cut", [0, 1, 5, 700, -1])
def test_a_part_of_a_flight_is_kept_for_whoever_waits_for_the_rest(pki: Pki, cut: int) -> None:
    async def talk() -> None:
        begun, near, far, server, flight = begun_with(pki, pki.trusting())
        far.sendall(flight[:cut])
        assert tls.client_now(near, begun) is None
        far.sendall(flight[cut:])
        client = await tls.client(near, pki.trusting(), (), begun)
        server.feed(far.recv(65536))
        assert server.handshake()
        client.abort()
        far.close()

    run(talk())


def test_what_is_wrong_with_a_flight_is_told_to_whoever_goes_on(pki: Pki) -> None:
    """The same again, however often it is asked for; and the alert leaves with it."""

    async def talk() -> None:
        stranger = Security(server_name="elsewhere.test", ca_file=pki.trusting().ca_file)
        begun, near, far, server, flight = begun_with(pki, stranger)
        far.sendall(flight)
        assert tls.client_now(near, begun) is None
        for _ in range(2):
            with pytest.raises(AccordError) as refused:
                await tls.client(near, stranger, (), begun)
            assert refused.value.reason is Reason.CERTIFICATE_NAME
        server.feed(far.recv(65536))
        with pytest.raises(AccordError, match="alert"):
            server.handshake()
        near.abort()
        far.close()

    run(talk())


def test_a_peer_that_is_gone_is_left_to_whoever_goes_on(pki: Pki) -> None:
    async def talk() -> None:
        begun, near, far, _, _ = begun_with(pki, pki.trusting())
        far.close()
        assert tls.client_now(near, begun) is None
        with pytest.raises(AccordError, match="closed the connection"):
            await tls.client(near, pki.trusting(), (), begun)
        near.abort()

    run(talk())
