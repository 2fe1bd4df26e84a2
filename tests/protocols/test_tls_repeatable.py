# SPDX-License-Identifier: Apache-2.0
"""TLS whose answer is made again from a seed: the same bytes, real peers, and what it leaves to who has memory."""

from __future__ import annotations

import contextlib
import datetime
import os
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL
from scapy.layers.tls.all import TLS

from accord.controller.strangers.seed import derive, stream
from accord.controller.strangers.tls import HybridExchange, RepeatableAnswers, group_of, identity_of
from accord.datapath.tls_repeatable import EXPORTER_LABEL, RepeatableTls, ServerIdentity
from accord.negotiation.interface import Role
from accord.protocols import tls_connection
from accord.protocols.tls_connection import TlsConnection
from accord.protocols.tls_hello import Hello, read_hello
from accord.wire.constants import Reason
from accord.wire.errors import AccordError, error
from tests.protocols.conftest import Pki
from tests.protocols.support import HOST, program

SEED = bytes(range(32))


class Client:
    """The standard library's ssl on memory buffers: another OpenSSL than pyOpenSSL's."""

    def __init__(self, pki: Pki, curve: str = "X25519", alpn: tuple[str, ...] = (), session: object = None) -> None:
        self.context = ssl.create_default_context(cafile=pki.ca.certificate)
        if curve != "X25519":
            self.context.set_ecdh_curve(curve)
        if alpn:
            self.context.set_alpn_protocols(list(alpn))
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = self.context.wrap_bio(self.incoming, self.outgoing, server_hostname=HOST)

    def step(self, data: bytes = b"") -> bytes:
        """Bytes of the server's in, bytes for it out."""
        self.incoming.write(data)
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        return self.outgoing.read()


def hello_of(pki: Pki) -> bytes:
    return Client(pki).step()


def identity(pki: Pki) -> ServerIdentity:
    return identity_of(pki.being(pki.good))


def rsa_identity() -> ServerIdentity:
    """Self-signed: who looks at the signature is not the point."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(days=1))
    ).sign(key, hashes.SHA256())
    encoded = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return ServerIdentity([certificate.public_bytes(Encoding.DER)], encoded)


def refusing(seen: list[str]) -> Callable[[str], AccordError]:
    def defer(why: str) -> AccordError:
        seen.append(why)
        return error(Reason.QUOTA, why)

    return defer


def server_random(flight: bytes) -> bytes:
    """Record header 5, handshake header 4, version 2."""
    return flight[11:43]


# ---- The same bytes ----


def test_one_seed_and_hello_give_one_flight_and_another_seed_another(pki: Pki) -> None:
    hello, who, flights = hello_of(pki), identity(pki), set()
    for number in range(100):
        seed = derive(SEED, b"test", bytes([number]))
        made = {RepeatableTls(who, (), "X25519").answer(seed, hello) for _ in range(3)}
        assert len(made) == 1
        flights |= made
    assert len(flights) == len({server_random(flight) for flight in flights}) == 100


def test_a_certificate_with_an_rsa_key_gives_one_flight_too_whatever_was_signed_before(pki: Pki) -> None:
    hello, who = hello_of(pki), rsa_identity()
    first = RepeatableTls(who, (), "X25519").answer(SEED, hello)
    for number in range(40):  # OpenSSL makes an RSA key's blinding anew after 32 signatures
        RepeatableTls(who, (), "X25519").answer(derive(SEED, b"test", bytes([number])), hello)
    assert RepeatableTls(who, (), "X25519").answer(SEED, hello) == first


def test_connections_that_go_on_in_between_change_nothing(pki: Pki) -> None:
    who = identity(pki)
    one, other = Client(pki), Client(pki)
    hello = one.step()
    first = RepeatableTls(who, (), "X25519").answer(SEED, hello)
    between = RepeatableTls(who, (), "X25519")
    between.feed(other.step(between.answer(derive(SEED, b"other"), other.step())))
    assert between.handshake()
    between.write(b"x" * 100_000)
    assert len(between.output()) > 100_000
    assert RepeatableTls(who, (), "X25519").answer(SEED, hello) == first


def test_one_seed_of_a_negotiation_never_serves_two_client_hellos(pki: Pki) -> None:
    answers = RepeatableAnswers(SEED, refusing([]))
    randoms = {server_random(answers.answer(pki.being(pki.good), (), hello_of(pki))[1]) for _ in range(20)}
    assert len(randoms) == 20


def test_what_is_derived_differs_by_purpose_and_by_where_one_input_ends() -> None:
    assert len({derive(SEED, b"a"), derive(SEED, b"b"), derive(SEED, b"a", b""), derive(bytes(32), b"a")}) == 4
    assert derive(SEED, b"a", b"xy", b"z") != derive(SEED, b"a", b"x", b"yz")


@given(st.lists(st.integers(0, 200), max_size=8))
def test_a_stream_is_the_same_however_it_is_asked_for(sizes: list[int]) -> None:
    one, other = stream(SEED, b"a"), stream(SEED, b"a")
    assert b"".join(map(one, sizes)) == other(sum(sizes))


# ---- Real peers ----


def test_the_flight_that_was_sent_and_the_one_made_again_are_one_handshake_to_another_openssl(pki: Pki) -> None:
    client = Client(pki, alpn=("http/1.1", "h2"))
    hello = client.step()
    sent = RepeatableTls(identity(pki), ("h2", "http/1.1"), "X25519").answer(SEED, hello)
    finished = client.step(sent)
    again = RepeatableTls(identity(pki), ("h2", "http/1.1"), "X25519")
    assert again.answer(SEED, hello) == sent
    again.feed(finished)
    assert again.handshake()
    assert again.alpn == client.tls.selected_alpn_protocol() == "h2"
    cipher = client.tls.cipher()
    assert cipher is not None
    assert again.inside == {"version": "TLSv1.3", "cipher": cipher[0], "alpn": "h2"}
    client.tls.write(b"from the client" * 5000)
    again.feed(client.outgoing.read())
    got = b""
    while piece := again.read(9000):
        got += piece
    assert got == b"from the client" * 5000
    again.write(b"from the server")
    again.close_notify()
    again.close_notify()
    client.incoming.write(again.output())
    assert client.tls.read(100) == b"from the server"
    assert client.tls.read(100) == b""


def test_pyopenssls_client_exports_the_same_keys_as_the_responder_did_before_its_answer_left(
    pki: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_tmp_ecdh(ec.SECP256R1())
    client = SSL.Connection(context)
    client.set_connect_state()
    with pytest.raises(SSL.WantReadError):
        client.do_handshake()
    hello = client.bio_read(4096)
    server = RepeatableTls(identity(pki), (), "P-256")
    client.bio_write(server.answer(SEED, hello))
    early = server.exporter()
    client.do_handshake()
    assert early is not None
    assert client.export_keying_material(EXPORTER_LABEL, 32) == early
    assert tls_connection.EXPORTER_LABEL == EXPORTER_LABEL
    server.feed(client.bio_read(4096))
    assert server.handshake()
    assert server.exporter() == early


@pytest.mark.parametrize("group", ["X25519", "P-256"])
def test_openssls_own_program_is_served_a_page_by_a_connection_made_again(pki: Pki, group: str) -> None:
    with served(pki, group) as port:
        argv = ["openssl", "s_client", "-quiet", "-verify_return_error", "-CAfile", pki.ca.certificate]
        argv += ["-servername", HOST, "-groups", group, "-connect", f"127.0.0.1:{port}"]
        done = subprocess.run(argv, input=b"GET / HTTP/1.0\r\n\r\n", capture_output=True, timeout=20)
    assert b"made again" in done.stdout, done.stderr


def test_curl_is_served_a_page_by_a_connection_made_again(pki: Pki) -> None:
    with served(pki, "X25519") as port:
        argv = ["curl", "-sS", "--curves", "X25519", "--cacert", pki.ca.certificate]
        argv += ["--resolve", f"{HOST}:{port}:127.0.0.1", f"https://{HOST}:{port}/"]
        done = subprocess.run(argv, capture_output=True, timeout=20)
    assert done.stdout == b"made again", done.stderr


class served:
    """A server that answers the ClientHello, forgets all but a seed, and goes on with what it makes anew."""

    def __init__(self, pki: Pki, group: str) -> None:
        self.identity, self.group = identity(pki), group
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self) -> int:
        self.thread.start()
        return int(self.listening.getsockname()[1])

    def __exit__(self, *_: object) -> None:
        self.thread.join(20)
        self.listening.close()

    def run(self) -> None:
        peer, _ = self.listening.accept()
        with peer:
            hello = peer.recv(65536)
            seed = os.urandom(32)
            sent = RepeatableTls(self.identity, ("http/1.1",), self.group).answer(seed, hello)
            peer.sendall(sent)
            again = RepeatableTls(self.identity, ("http/1.1",), self.group)
            assert again.answer(seed, hello) == sent
            while not again.handshake():
                again.feed(peer.recv(65536))
            while again.read(65536) is None:
                again.feed(peer.recv(65536))
            again.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nConnection: close\r\n\r\nmade again")
            again.close_notify()
            peer.sendall(again.output())
            peer.settimeout(5)
            while peer.recv(65536):
                pass


# ---- What it is not for ----


@pytest.mark.parametrize("curve", ["X25519", "prime256v1"])
@pytest.mark.parametrize("alpn", [(), ("h2", "http/1.1")])
def test_what_is_agreed_upon_is_what_a_responder_with_memory_agrees_upon(
    pki: Pki, curve: str, alpn: tuple[str, ...]
) -> None:
    security = pki.being(pki.good)
    for offered in (alpn, tuple(reversed(alpn))):
        hello = Client(pki, curve, offered).step()
        kept = TlsConnection(Role.RESPONDER, security, alpn)
        kept.feed(hello)
        kept.handshake()
        answer, flight = RepeatableAnswers(SEED, refusing([])).answer(security, alpn, hello)
        assert answer.inside == kept.inside
        assert flight[:5] + flight[43:78] == (other := kept.output())[:5] + other[43:78], "cipher suite, session ID"
        assert share_of(flight) == share_of(other)


def share_of(flight: bytes) -> int:
    """The group of the ServerHello's key_share, by scapy."""
    extensions = {extension.type: extension for extension in TLS(flight).msg[0].ext}
    return int(extensions[51].server_share.group)


def test_the_group_is_the_one_that_a_responder_with_memory_takes_or_the_hello_is_left_to_that(pki: Pki) -> None:
    connection = TlsConnection(Role.INITIATOR, pki.trusting(), ())
    connection.handshake()
    read = read_hello(connection.output())
    assert read is not None
    assert group_of(read) == "X25519MLKEM768", "this OpenSSL offers none: nothing is tested"
    assert group_of(Hello((29, 23), (29,), False)) == "X25519"
    assert group_of(Hello((0x2A2A, 29, 23), (0x2A2A, 29), False)) == "X25519"
    assert group_of(Hello((0x2A2A, 4588, 29), (0x2A2A, 4588), False)) == "X25519MLKEM768"
    for groups, shares in [((29, 4588), (29,)), ((4587, 4588), (4587,)), ((29, 0xFE00), (29,)), ((23, 29), (29,))]:
        assert group_of(Hello(groups, shares, False)) is None
    assert group_of(Hello((4588, 29), (29, 4588), False)) is None
    assert group_of(Hello((29,), (), False)) is None
    assert group_of(Hello((24, 29), (24,), False)) is None


# ---- The hybrid key exchange, whose half is done elsewhere ----


def hybrid_client(pki: Pki) -> tuple[TlsConnection, bytes]:
    """pyOpenSSL's, which has ML-KEM, and its ClientHello."""
    client = TlsConnection(Role.INITIATOR, pki.trusting(), ())
    client.handshake()
    return client, client.output()


def test_a_hybrid_flight_made_again_from_seed_and_what_was_kept_is_one_handshake_with_pyopenssl(pki: Pki) -> None:
    client, hello = hybrid_client(pki)
    first = HybridExchange(SEED)
    flight = RepeatableAnswers(SEED, refusing([]), first).answer(pki.being(pki.good), (), hello)[1]
    assert len(first.kept) == 1120
    again, same = RepeatableAnswers(SEED, refusing([]), HybridExchange(SEED, first.kept)).answer(
        pki.being(pki.good), (), hello
    )
    assert same == flight
    client.feed(flight)
    assert client.handshake()
    assert client._ssl.get_group_name() == again.group == "X25519MLKEM768"
    again.feed(client.output())
    assert again.handshake()
    assert again.exporter() == client.exporter()
    other = RepeatableAnswers(SEED, refusing([]), HybridExchange(SEED)).answer(pki.being(pki.good), (), hello)[1]
    assert other != flight, "ML-KEM was encapsulated anew, under the same seed"


def test_a_share_that_is_none_is_refused_and_a_second_one_left_to_who_has_memory(pki: Pki) -> None:
    _, hello = hybrid_client(pki)
    read = read_hello(hello)
    assert read is not None
    share = read.keys[0]
    for bad in (b"", share[:-1], share + b"\0", b"\xff" * 1216, share[:1184] + bytes(32)):
        with pytest.raises(AccordError) as refused:
            HybridExchange(SEED).with_share(bad)
        assert refused.value.reason is Reason.HANDSHAKE_FAILED
    exchange = HybridExchange(SEED)
    assert exchange.with_share(share) == exchange.with_share(share)
    second = read_hello(hybrid_client(pki)[1])
    assert second is not None
    assert exchange.with_share(second.keys[0]) is None


def test_without_the_exchange_a_hybrid_flight_fails_and_does_not_take_another_group(pki: Pki) -> None:
    _, hello = hybrid_client(pki)
    with pytest.raises(AccordError) as refused:
        RepeatableTls(identity(pki), (), "X25519MLKEM768").answer(SEED, hello)
    assert refused.value.reason is Reason.HANDSHAKE_FAILED


def test_a_hello_that_would_be_asked_for_another_share_is_left_to_who_has_memory(pki: Pki) -> None:
    hello, seen = Client(pki, "secp384r1").step(), []
    with pytest.raises(AccordError):
        RepeatableAnswers(SEED, refusing(seen)).answer(pki.being(pki.good), (), hello)
    assert seen == ["TLS: groups (24,), shares (24,)"]
    with socket.create_server(("127.0.0.1", 0)) as listening:
        argv = ["openssl", "s_client", "-groups", "P-256:X25519"]
        with program([*argv, "-connect", f"127.0.0.1:{listening.getsockname()[1]}"]):
            hello = listening.accept()[0].recv(65536)
    with pytest.raises(AccordError, match="no whole flight"):  # a HelloRetryRequest
        RepeatableTls(identity(pki), (), "X25519").answer(SEED, hello)


def test_resumption_is_left_to_who_has_memory_and_never_offered(pki: Pki) -> None:
    security = pki.being(pki.good)
    client = Client(pki)
    kept = TlsConnection(Role.RESPONDER, security, ())
    kept.feed(client.step())
    kept.handshake()
    kept.feed(client.step(kept.output()))
    kept.handshake()
    client.incoming.write(kept.output())
    with pytest.raises(ssl.SSLWantReadError):
        client.tls.read()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    resuming = client.context.wrap_bio(incoming, outgoing, server_hostname=HOST, session=client.tls.session)
    with pytest.raises(ssl.SSLWantReadError):
        resuming.do_handshake()
    seen: list[str] = []
    with pytest.raises(AccordError):
        RepeatableAnswers(SEED, refusing(seen)).answer(security, (), outgoing.read())
    assert seen == ["TLS: resumption"]
    other = Client(pki)
    server = RepeatableTls(identity(pki), (), "X25519")
    server.feed(other.step(server.answer(SEED, other.step())))
    assert server.handshake()
    assert server.output() == b"", "a ticket would be resumed with somebody who kept nothing"


def test_no_application_protocol_in_common_is_the_peers_failure_with_an_alert_in_clear(pki: Pki) -> None:
    server = RepeatableTls(identity(pki), ("x",), "X25519")
    with pytest.raises(AccordError, match="no application protocol") as caught:
        server.answer(SEED, Client(pki, alpn=("y",)).step())
    assert caught.value.reason is Reason.HANDSHAKE_FAILED
    assert server.exporter() is None


def test_a_finished_that_is_not_the_clients_fails_and_gives_no_keys_to_anybody(pki: Pki) -> None:
    client = Client(pki)
    server = RepeatableTls(identity(pki), (), "X25519")
    finished = bytearray(client.step(server.answer(SEED, client.step())))
    finished[-1] ^= 1
    server.feed(bytes(finished))
    with pytest.raises(AccordError) as caught:
        server.handshake()
    assert caught.value.reason is Reason.HANDSHAKE_FAILED


def test_no_beginning_of_a_hello_has_an_answer(pki: Pki) -> None:
    hello, who = hello_of(pki), identity(pki)
    for length in range(0, len(hello), 7):
        assert read_hello(hello[:length]) is None
        with pytest.raises(AccordError):
            RepeatableTls(who, (), "X25519").answer(SEED, hello[:length])


@settings(max_examples=100)
@given(st.data())
def test_a_damaged_hello_is_read_or_not_and_answered_or_refused_but_nothing_else(pki: Pki, data: st.DataObject) -> None:
    damaged = bytearray(hello_of(pki))
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    seen: list[str] = []
    refusals, flight = [], b""
    try:
        _, flight = RepeatableAnswers(SEED, refusing(seen)).answer(pki.being(pki.good), (), bytes(damaged))
    except AccordError as refused:
        refusals.append(refused.reason)
    if refusals == [Reason.QUOTA]:
        assert seen
    else:
        assert not seen
        assert refusals == [Reason.HANDSHAKE_FAILED] or len(flight) > 500


def test_what_is_read_of_a_hello_is_what_scapy_reads(pki: Pki) -> None:
    for curve in ("X25519", "prime256v1", "secp384r1"):
        hello = Client(pki, curve).step()
        extensions = {extension.type: extension for extension in TLS(hello).msg[0].ext}
        shares = tuple(share.group for share in extensions[51].client_shares)
        assert read_hello(hello) == Hello(tuple(extensions[10].groups), shares, False)


def test_an_identity_that_does_not_fit_together_is_the_users_fault(pki: Pki) -> None:
    loaded = identity_of(pki.being(pki.good))
    assert loaded is identity_of(pki.being(pki.good)), "made once"
    with pytest.raises(AccordError) as caught:
        ServerIdentity([b"\x30\x03"], b"\x30\x03")
    assert caught.value.reason is Reason.BAD_CONFIG


def test_a_key_log_has_the_secrets_of_the_connection(pki: Pki, tmp_path: Path) -> None:
    log = tmp_path / "keys.log"
    client = Client(pki)
    hello = client.step()
    answers = RepeatableAnswers(SEED, refusing([]))
    server, flight = answers.answer(pki.being(pki.good, key_log=log), (), hello)
    server.feed(client.step(flight))
    assert server.handshake()
    words = {line.split()[0] for line in log.read_text().splitlines()}
    assert {"CLIENT_TRAFFIC_SECRET_0", "SERVER_TRAFFIC_SECRET_0", "EXPORTER_SECRET"} <= words
    assert {line.split()[1] for line in log.read_text().splitlines()} == {hello[11:43].hex()}
