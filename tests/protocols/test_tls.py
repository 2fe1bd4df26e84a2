# SPDX-License-Identifier: Apache-2.0
"""The TLS plug-in's handshake: against itself, OpenSSL's own programs, and hostile peers."""

from __future__ import annotations

import asyncio
import re
import ssl
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP
from scapy.layers.inet import TCP as ScapyTCP
from scapy.layers.l2 import Ether
from scapy.layers.tls.all import TLS, TLS_Ext_ALPN, TLS_Ext_ServerName, TLSClientHello
from scapy.utils import wrpcap

from accord.datapath.stream import SocketCarrier
from accord.negotiation.interface import Answer, Refuse, Role, Session
from accord.protocols.services import Security
from accord.protocols.tls import TlsPlugin, TlsSession
from accord.wire.constants import Protocol, Reason
from accord.wire.errors import AccordError
from tests.protocols.conftest import Pki
from tests.protocols.support import (
    HOST,
    Neighbour,
    below,
    connect_when_up,
    free_port,
    listener,
    memory_pair,
    payload,
    program,
    read_records,
    refusal,
    services,
    view,
)

HTTP = below(Neighbour(protocol=Protocol.HTTP, alpn=("http/1.1",)))
INITIATOR_COMMIT = view(Role.INITIATOR, 2)
RESPONDER_COMMIT = view(Role.RESPONDER, 2)


def initiator(security: Security) -> TlsSession:
    return TlsPlugin().open(Role.INITIATOR, services(Role.INITIATOR, security))


def responder(security: Security) -> TlsSession:
    return TlsPlugin().open(Role.RESPONDER, services(Role.RESPONDER, security))


def handshake(client: TlsSession, server: TlsSession, over: Sequence[Session] = ()) -> None:
    """All three steps, up to before commit."""
    hello = payload(client.propose(view(Role.INITIATOR, 0, over=over)))
    flight = payload(server.respond(view(Role.RESPONDER, 0, over=over), hello))
    finished = payload(client.advance(view(Role.INITIATOR, 1), flight))
    assert payload(server.advance(view(Role.RESPONDER, 2), finished)) == b""


def test_three_payloads_make_a_session_with_equal_exporters_on_both_sides(pki: Pki) -> None:
    client, server = initiator(pki.trusting()), responder(pki.being(pki.good))
    hello = payload(client.propose(view(Role.INITIATOR, 0)))
    assert client.exporter() is None
    flight = payload(server.respond(view(Role.RESPONDER, 0), hello))
    early = server.exporter()
    finished = payload(client.advance(view(Role.INITIATOR, 1), flight))
    assert early is not None
    assert len(early) == 32
    assert client.exporter() == early
    server.advance(view(Role.RESPONDER, 2), finished)
    assert server.exporter() == early


def test_two_sessions_never_share_an_exporter(pki: Pki) -> None:
    exported = set()
    for _ in range(3):
        client, server = initiator(pki.trusting()), responder(pki.being(pki.good))
        handshake(client, server)
        exported.add(client.exporter())
    assert len(exported) == 3


def test_scapy_finds_the_server_name_and_the_application_protocol_in_the_proposal(pki: Pki) -> None:
    hello = payload(initiator(pki.trusting()).propose(view(Role.INITIATOR, 0, over=HTTP)))
    dissected = TLS(hello).msg[0]
    assert isinstance(dissected, TLSClientHello)
    extensions = {type(each): each for each in dissected.ext}
    assert extensions[TLS_Ext_ServerName].servernames[0].servername == HOST.encode()
    assert [name.protocol for name in extensions[TLS_Ext_ALPN].protocols] == [b"http/1.1", b"accord+http/1.1"]


def test_an_address_is_verified_but_never_sent_as_server_name(pki: Pki) -> None:
    for address in ("192.0.2.2", "2001:db8::2"):
        client, server = initiator(pki.trusting(address)), responder(pki.being(pki.good))
        handshake(client, server)
        hello = payload(initiator(pki.trusting(address)).propose(view(Role.INITIATOR, 0)))
        assert TLS_Ext_ServerName not in {type(each) for each in TLS(hello).msg[0].ext}


def test_the_application_node_above_decides_the_alpn(pki: Pki) -> None:
    security = pki.being(pki.good, alpn=("ignored",))
    client, server = initiator(pki.trusting(alpn=("ignored",))), responder(security)
    handshake(client, server, HTTP)
    assert client.alpn_selected == server.alpn_selected == "http/1.1"


def test_without_an_application_node_the_configured_alpn_holds(pki: Pki) -> None:
    client, server = initiator(pki.trusting(alpn=("a", "b"))), responder(pki.being(pki.good, alpn=("b", "a")))
    handshake(client, server)
    assert client.alpn_selected == server.alpn_selected == "b"


def test_no_application_protocol_in_common_is_refused_by_the_responder(pki: Pki) -> None:
    client, server = initiator(pki.trusting(alpn=("x",))), responder(pki.being(pki.good, alpn=("y",)))
    hello = payload(client.propose(view(Role.INITIATOR, 0)))
    refused = refusal(server.respond(view(Role.RESPONDER, 0), hello))
    assert refused.reason is Reason.HANDSHAKE_FAILED
    assert "ALPN" in refused.detail


@pytest.mark.parametrize(
    ("certificate", "server_name", "reason", "words"),
    [
        ("expired", HOST, Reason.CERTIFICATE_EXPIRED, "has expired"),
        ("future", HOST, Reason.CERTIFICATE_EXPIRED, "not yet valid"),
        ("other_name", HOST, Reason.CERTIFICATE_NAME, "other.accord.test"),
        ("other_name", "192.0.2.2", Reason.CERTIFICATE_NAME, "198.51.100.7"),
        ("nameless", HOST, Reason.CERTIFICATE_NAME, HOST),
        ("unknown_ca", HOST, Reason.BAD_CERTIFICATE, "unable to get local issuer"),
    ],
)
def test_a_bad_certificate_is_refused_before_finished_leaves(
    pki: Pki, certificate: str, server_name: str, reason: Reason, words: str
) -> None:
    client, server = initiator(pki.trusting(server_name)), responder(pki.being(getattr(pki, certificate)))
    hello = payload(client.propose(view(Role.INITIATOR, 0)))
    flight = payload(server.respond(view(Role.RESPONDER, 0), hello))
    refused = refusal(client.advance(view(Role.INITIATOR, 1), flight))
    assert refused.reason is reason
    assert words in refused.detail
    assert client.exporter() is None


def test_the_system_roots_do_not_trust_the_lab(pki: Pki) -> None:
    client, server = initiator(Security(server_name=HOST)), responder(pki.being(pki.good))
    flight = payload(server.respond(view(Role.RESPONDER, 0), payload(client.propose(view(Role.INITIATOR, 0)))))
    assert refusal(client.advance(view(Role.INITIATOR, 1), flight)).reason is Reason.BAD_CERTIFICATE


def test_verification_can_be_switched_off_and_only_then_the_name_may_be_missing(pki: Pki) -> None:
    handshake(initiator(Security(verify=False)), responder(pki.being(pki.expired)))
    refused = refusal(initiator(Security()).propose(view(Role.INITIATOR, 0)))
    assert refused.reason is Reason.BAD_CONFIG
    assert "server_name" in refused.detail or "name" in refused.detail


def test_one_connection_failing_leaves_the_shared_context_clean_for_the_next(pki: Pki) -> None:
    for name, expected in ((HOST, Answer), ("elsewhere.test", Refuse), (HOST, Answer)):
        client, server = initiator(pki.trusting(name)), responder(pki.being(pki.good))
        flight = payload(server.respond(view(Role.RESPONDER, 0), payload(client.propose(view(Role.INITIATOR, 0)))))
        assert isinstance(client.advance(view(Role.INITIATOR, 1), flight), expected)


def test_a_renewed_certificate_is_used_without_a_restart(pki: Pki, tmp_path: Path) -> None:
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    security = Security(certificate=certificate, private_key=key)
    outcomes = []
    for files in (pki.expired, pki.good):
        certificate.write_bytes(files.certificate.read_bytes())
        key.write_bytes(files.private_key.read_bytes())
        client, server = initiator(pki.trusting()), responder(security)
        flight = payload(server.respond(view(Role.RESPONDER, 0), payload(client.propose(view(Role.INITIATOR, 0)))))
        outcomes.append(type(client.advance(view(Role.INITIATOR, 1), flight)))
    assert outcomes == [Refuse, Answer]


def test_unusable_files_are_the_users_fault_and_named(pki: Pki, tmp_path: Path) -> None:
    hello = payload(initiator(pki.trusting()).propose(view(Role.INITIATOR, 0)))
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("not PEM")
    broken = [
        Security(),
        Security(certificate=tmp_path / "absent.pem", private_key=pki.good.private_key),
        Security(certificate=garbage, private_key=pki.good.private_key),
        Security(certificate=pki.good.certificate, private_key=garbage),
        Security(certificate=pki.good.certificate, private_key=pki.expired.private_key),
    ]
    for security in broken:
        refused = refusal(responder(security).respond(view(Role.RESPONDER, 0), hello))
        assert refused.reason is Reason.BAD_CONFIG
        at_fault = security.certificate if security.certificate != pki.good.certificate else security.private_key
        assert at_fault is None or str(at_fault) in refused.detail
    absent = Security(server_name=HOST, ca_file=tmp_path / "absent.pem")
    assert "absent.pem" in refusal(initiator(absent).propose(view(Role.INITIATOR, 0))).detail
    unreadable = Security(server_name=HOST, ca_file=garbage)
    assert "garbage.pem" in refusal(initiator(unreadable).propose(view(Role.INITIATOR, 0))).detail


def test_a_responder_without_a_stream_below_refuses(pki: Pki) -> None:
    hello = payload(initiator(pki.trusting()).propose(view(Role.INITIATOR, 0)))
    server = responder(pki.being(pki.good))
    assert refusal(server.respond(view(Role.RESPONDER, 0, under=()), hello)).reason is Reason.HANDSHAKE_FAILED


def test_a_second_respond_starts_afresh_and_the_last_one_counts(pki: Pki) -> None:
    client, server = initiator(pki.trusting()), responder(pki.being(pki.good))
    hello = payload(client.propose(view(Role.INITIATOR, 0)))
    first = payload(server.respond(view(Role.RESPONDER, 0), hello))
    second = payload(server.respond(view(Role.RESPONDER, 0), hello))
    assert first != second
    server.advance(view(Role.RESPONDER, 2), payload(client.advance(view(Role.INITIATOR, 1), second)))
    assert server.exporter() == client.exporter()


def test_calls_out_of_order_are_our_own_fault(pki: Pki) -> None:
    client = initiator(pki.trusting())
    for call in (lambda: client.advance(view(Role.INITIATOR, 1), b""), lambda: client.commit(INITIATOR_COMMIT)):
        with pytest.raises(AccordError) as caught:
            call()
        assert caught.value.reason is Reason.PLUGIN_FAILED
    client.abort(Reason.TIMEOUT)
    client.prune(Reason.NOT_PREFERRED)
    with pytest.raises(AccordError):
        client.propose(view(Role.INITIATOR, 0))


def test_secrets_are_logged_so_that_a_capture_can_be_read(pki: Pki, tmp_path: Path) -> None:
    log = tmp_path / "keys.log"
    handshake(initiator(pki.trusting(key_log=log)), responder(pki.being(pki.good, key_log=log)))
    lines = log.read_text().splitlines()
    assert log.stat().st_mode & 0o077 == 0
    secrets = [line for line in lines if line.startswith("SERVER_TRAFFIC_SECRET_0 ")]
    assert len(secrets) == 2
    assert len(set(secrets)) == 1


# ---- Hostile input -------------------------------------------------------------------------------------------------


def test_every_truncation_of_a_client_hello_is_refused(pki: Pki) -> None:
    hello = payload(initiator(pki.trusting()).propose(view(Role.INITIATOR, 0)))
    for length in range(0, len(hello), 7):
        refused = refusal(responder(pki.being(pki.good)).respond(view(Role.RESPONDER, 0), hello[:length]))
        assert refused.reason is Reason.HANDSHAKE_FAILED


def test_every_truncation_of_a_flight_is_refused(pki: Pki) -> None:
    for cut in range(1, 1200, 61):
        client, server = initiator(pki.trusting()), responder(pki.being(pki.good))
        flight = payload(server.respond(view(Role.RESPONDER, 0), payload(client.propose(view(Role.INITIATOR, 0)))))
        refused = refusal(client.advance(view(Role.INITIATOR, 1), flight[:-cut]))
        assert refused.reason is Reason.HANDSHAKE_FAILED
        assert "not complete" in refused.detail


@settings(max_examples=60)
@given(place=st.integers(0, 1 << 20), bit=st.integers(0, 7))
def test_a_flight_with_any_bit_flipped_never_completes(pki: Pki, place: int, bit: int) -> None:
    client, server = initiator(pki.trusting()), responder(pki.being(pki.good))
    flight = bytearray(
        payload(server.respond(view(Role.RESPONDER, 0), payload(client.propose(view(Role.INITIATOR, 0)))))
    )
    # The record headers' legacy version is the one field that TLS 1.3 says to ignore (RFC 8446 section 5.1).
    ignored, at = set(), 0
    while at < len(flight):
        ignored |= {at + 1, at + 2}
        at += 5 + int.from_bytes(flight[at + 3 : at + 5], "big")
    candidates = [index for index in range(len(flight)) if index not in ignored]
    flight[candidates[place % len(candidates)]] ^= 1 << bit
    outcome = client.advance(view(Role.INITIATOR, 1), bytes(flight))
    assert isinstance(outcome, Refuse)
    assert outcome.reason in (Reason.HANDSHAKE_FAILED, Reason.BAD_CERTIFICATE)


@settings(max_examples=60)
@given(
    junk=st.binary(max_size=400), prefix=st.sampled_from([b"", b"\x16\x03\x01", b"\x16\x03\x03\x00\x20\x01", b"GET / "])
)
def test_random_bytes_are_refused_by_name_on_both_sides(pki: Pki, junk: bytes, prefix: bytes) -> None:
    server = responder(pki.being(pki.good))
    assert refusal(server.respond(view(Role.RESPONDER, 0), prefix + junk)).reason is Reason.HANDSHAKE_FAILED
    client = initiator(pki.trusting())
    client.propose(view(Role.INITIATOR, 0))
    assert refusal(client.advance(view(Role.INITIATOR, 1), prefix + junk)).reason is Reason.HANDSHAKE_FAILED


def test_a_forged_finished_is_refused_by_the_responder(pki: Pki) -> None:
    for position in (0, 5, 20, -1):
        client, server = initiator(pki.trusting()), responder(pki.being(pki.good))
        flight = payload(server.respond(view(Role.RESPONDER, 0), payload(client.propose(view(Role.INITIATOR, 0)))))
        finished = bytearray(payload(client.advance(view(Role.INITIATOR, 1), flight)))
        finished[position] ^= 0x01
        refused = refusal(server.advance(view(Role.RESPONDER, 2), bytes(finished)))
        assert refused.reason is Reason.HANDSHAKE_FAILED
        assert server.exporter() is None


def test_openssl_s_client_is_asked_for_another_share_and_finishes(pki: Pki) -> None:
    server = responder(pki.being(pki.good))
    argv: list[str | Path] = ["openssl", "s_client", "-tls1_3", "-groups", "ffdhe2048:X25519", "-quiet"]
    with listener() as (listening, port), program([*argv, "-connect", f"127.0.0.1:{port}"]):
        connection, _ = listening.accept()
        with connection:
            retry = server.respond(view(Role.RESPONDER, 0), read_records(connection, 0, 1))
            assert isinstance(retry, Answer)
            assert retry.more
            assert server.exporter() is None
            connection.sendall(retry.payload)
            flight = server.advance(view(Role.RESPONDER, 2), read_records(connection, 0, 2))
            assert isinstance(flight, Answer)
            assert not flight.more
            assert server.exporter() is not None
            connection.sendall(flight.payload)
            assert payload(server.advance(view(Role.RESPONDER, 4), read_records(connection, 1))) == b""


def test_openssl_s_server_that_asks_for_another_share_gets_it_and_verifies_what_follows(pki: Pki) -> None:
    client, port = initiator(pki.trusting()), free_port()
    argv: list[str | Path] = ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", pki.good.certificate]
    argv += ["-key", pki.good.private_key, "-groups", "P-256", "-quiet"]
    with program(argv), connect_when_up(port) as connection:
        connection.sendall(payload(client.propose(view(Role.INITIATOR, 0))))
        again = client.advance(view(Role.INITIATOR, 1), read_records(connection, 0, 2))
        assert isinstance(again, Answer)
        assert again.more
        connection.sendall(again.payload)
        finished = client.advance(view(Role.INITIATOR, 3), read_records(connection, 4, 1))
        assert isinstance(finished, Answer)
        assert not finished.more
        assert client.exporter() is not None


def test_a_client_that_has_only_tls_1_2_is_refused_for_that(pki: Pki) -> None:
    server = responder(pki.being(pki.good))
    with listener() as (listening, port), program(["openssl", "s_client", "-tls1_2", "-connect", f"127.0.0.1:{port}"]):
        connection, _ = listening.accept()
        with connection:
            refused = refusal(server.respond(view(Role.RESPONDER, 0), read_records(connection, 0, 1)))
    assert refused.reason is Reason.HANDSHAKE_FAILED
    assert refused.detail.startswith("TLS: the peer has no TLS 1.3, and this side nothing else (")


def test_a_server_that_has_only_tls_1_2_is_refused_for_that(pki: Pki) -> None:
    client, port = initiator(pki.trusting()), free_port()
    argv: list[str | Path] = ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", pki.good.certificate]
    with program([*argv, "-key", pki.good.private_key, "-tls1_2", "-quiet"]), connect_when_up(port) as connection:
        connection.sendall(payload(client.propose(view(Role.INITIATOR, 0))))
        refused = refusal(client.advance(view(Role.INITIATOR, 1), read_records(connection, 0, 1)))
    assert refused.reason is Reason.HANDSHAKE_FAILED
    assert "the peer has no TLS 1.3" in refused.detail


def test_the_client_hello_offers_version_1_3_alone_and_the_names_of_the_policy_as_tshark_reads_it(
    pki: Pki, tmp_path: Path
) -> None:
    names = below(Neighbour(0x0800, alpn=("h2", "http/1.1")))
    hello = payload(initiator(pki.trusting()).propose(view(Role.INITIATOR, 0, over=names)))
    wrpcap(str(tmp_path / "hello.pcap"), Ether() / IP() / ScapyTCP(sport=40000, dport=443, flags="PA") / hello)
    command = ["tshark", "-r", str(tmp_path / "hello.pcap"), "-T", "fields"]
    for field in ("tls.handshake.extensions.supported_version", "tls.handshake.extensions_alpn_str"):
        command += ["-e", field]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    versions, offered = done.stdout.strip().split("\t")
    assert versions == "0x0304"
    assert offered == "h2,http/1.1,accord+h2,accord+http/1.1"


def test_a_second_request_for_another_share_is_refused(pki: Pki) -> None:
    client, port = initiator(pki.trusting()), free_port()
    argv: list[str | Path] = ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", pki.good.certificate]
    argv += ["-key", pki.good.private_key, "-groups", "P-256", "-quiet"]
    with program(argv), connect_when_up(port) as connection:
        connection.sendall(payload(client.propose(view(Role.INITIATOR, 0))))
        retry = read_records(connection, 0, 2)
    assert isinstance(client.advance(view(Role.INITIATOR, 1), retry), Answer)
    assert refusal(client.advance(view(Role.INITIATOR, 3), retry)).reason is Reason.HANDSHAKE_FAILED


# ---- OpenSSL's own programs ---------------------------------------------------------------------------------------


def test_openssl_s_client_accepts_the_responders_bytes_and_exports_the_same_key(pki: Pki) -> None:
    server = responder(pki.being(pki.good, alpn=("http/1.1",)))
    argv: list[str | Path] = [
        "openssl",
        "s_client",
        "-CAfile",
        pki.ca.certificate,
        "-verify_return_error",
        "-servername",
        HOST,
    ]
    argv += ["-verify_hostname", HOST, "-alpn", "http/1.1", "-keymatexport", "EXPORTER-accord-transcript"]
    with listener() as (listening, port):
        argv += ["-keymatexportlen", "32", "-connect", f"127.0.0.1:{port}"]
        with program(argv) as client:
            connection, _ = listening.accept()
            connection.settimeout(20)
            hello = read_records(connection, 0, 1)
            connection.sendall(payload(server.respond(view(Role.RESPONDER, 0), hello)))
            assert payload(server.advance(view(Role.RESPONDER, 2), read_records(connection, 1))) == b""
            server.commit(RESPONDER_COMMIT)

            async def talk() -> bytes:
                carrier = server.carrier(SocketCarrier(connection))
                assert client.stdin is not None
                client.stdin.write(b"hello from s_client\n")
                client.stdin.flush()
                line = await carrier.read()
                await carrier.write(b"hello from accord\n")
                await carrier.finish()
                await carrier.close()
                return line

            assert asyncio.run(talk()) == b"hello from s_client\n"
            said, _ = client.communicate(timeout=20)
    exported = server.exporter()
    assert exported is not None
    found = re.search(rb"Keying material: ([0-9A-F]{64})", said)
    assert found is not None, said.decode()
    assert bytes.fromhex(found[1].decode()) == exported
    assert b"hello from accord" in said
    assert b"Verify return code: 0 (ok)" in said
    assert b"ALPN protocol: http/1.1" in said


def test_openssl_s_server_accepts_the_initiators_bytes(pki: Pki) -> None:
    client = initiator(pki.trusting(alpn=("http/1.1",)))
    port = free_port()
    argv: list[str | Path] = ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", pki.good.certificate]
    argv += ["-key", pki.good.private_key, "-alpn", "http/1.1", "-quiet", "-rev"]
    with program(argv):
        connection = connect_when_up(port)
        connection.sendall(payload(client.propose(view(Role.INITIATOR, 0))))
        # ServerHello and ChangeCipherSpec; then EncryptedExtensions, Certificate, CertificateVerify, Finished.
        flight = read_records(connection, 4)
        connection.sendall(payload(client.advance(view(Role.INITIATOR, 1), flight)))
        client.commit(INITIATOR_COMMIT)
        assert client.alpn_selected == "http/1.1"

        async def talk() -> bytes:
            carrier = client.carrier(SocketCarrier(connection))
            await carrier.write(b"desserts\n")
            got = b""
            while not got.endswith(b"\n"):
                got += await carrier.read()
            await carrier.close()
            return got

        assert asyncio.run(talk()) == b"stressed\n"


def test_application_data_right_behind_the_flight_is_not_lost(pki: Pki) -> None:
    """A server may write before the client's Finished (RFC 8446 section 2); Python's own ssl is the server here."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.good.certificate, pki.good.private_key)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(incoming, outgoing, server_side=True)
    client = initiator(pki.trusting())
    incoming.write(payload(client.propose(view(Role.INITIATOR, 0))))
    with pytest.raises(ssl.SSLWantReadError):
        server.do_handshake()
    finished = payload(client.advance(view(Role.INITIATOR, 1), outgoing.read()))
    incoming.write(finished)
    server.do_handshake()
    server.write(b"first words")
    client.commit(INITIATOR_COMMIT)

    async def talk() -> bytes:
        one, other = memory_pair(split=3)
        await other.write(outgoing.read())
        return await client.carrier(one).read()

    assert asyncio.run(talk()) == b"first words"


def test_data_that_came_with_the_finished_is_not_lost(pki: Pki) -> None:
    client, server = initiator(pki.trusting()), responder(pki.being(pki.good))
    flight = payload(server.respond(view(Role.RESPONDER, 0), payload(client.propose(view(Role.INITIATOR, 0)))))
    finished = payload(client.advance(view(Role.INITIATOR, 1), flight))
    client.commit(INITIATOR_COMMIT)

    async def talk() -> bytes:
        one, other = memory_pair()
        await client.carrier(one).write(b"together")
        server.advance(view(Role.RESPONDER, 2), finished + await other.read())
        server.commit(RESPONDER_COMMIT)
        return await server.carrier(other).read()

    assert asyncio.run(talk()) == b"together"
