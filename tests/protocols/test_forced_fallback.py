# SPDX-License-Identifier: Apache-2.0
"""TLS between two that speak Accord tells both; with the standard library at one end nothing is different."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from accord.negotiation.interface import Role
from accord.protocols import alpn, tls
from accord.protocols.authority import issue, make_ca
from accord.protocols.services import Security
from accord.protocols.tls_connection import TlsConnection

NAME = "server.accord.test"
Files = tuple[Path, Path, Path]
"""Roots, chain, key."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    directory = tmp_path_factory.mktemp("tls")
    ca, server = make_ca(directory), issue(directory, [NAME])
    return ca.certificate, server.certificate, server.private_key


class Other:
    """OpenSSL by the standard library."""

    def __init__(self, context: ssl.SSLContext, server_side: bool) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        name = None if server_side else NAME
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=server_side, server_hostname=name)

    def feed(self, data: bytes) -> None:
        self.incoming.write(data)

    def output(self) -> bytes:
        return self.outgoing.read()

    def handshake(self) -> bool:
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True


def shake(one: TlsConnection | Other, other: TlsConnection | Other) -> None:
    for _ in range(4):
        for speaker, hearer in ((one, other), (other, one)):
            speaker.handshake()
            hearer.feed(speaker.output())
    assert one.handshake()
    assert other.handshake()


def client(files: Files, *names: str) -> TlsConnection:
    return tls.begin(Security(server_name=NAME, ca_file=files[0]), names)


def server(files: Files, *names: str) -> TlsConnection:
    """As on the plain connection of an exposed port."""
    security = Security(certificate=files[1], private_key=files[2])
    return TlsConnection(Role.RESPONDER, security, alpn.taken_by_accord(names))


def test_two_that_speak_accord_both_know_and_have_the_protocol_that_they_would_have_had(
    files: Files,
) -> None:
    one, other = client(files, "h2", "http/1.1"), server(files, "http/1.1")
    shake(one, other)
    assert (one.both_speak_accord, other.both_speak_accord) == (True, True)
    assert one.alpn == other.alpn == "http/1.1"


@pytest.mark.parametrize("names", [["http/1.1"], ["h2", "http/1.1"], []])
def test_a_server_without_accord_selects_what_it_always_selects(files: Files, names: list[str]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files[1], files[2])
    if names:
        context.set_alpn_protocols(names)
    one, other = client(files, "http/1.1"), Other(context, server_side=True)
    shake(one, other)
    assert not one.both_speak_accord
    assert one.alpn == other.tls.selected_alpn_protocol() == ("http/1.1" if names else None)


def test_a_client_without_accord_is_told_nothing(files: Files) -> None:
    context = ssl.create_default_context(cafile=str(files[0]))
    context.set_alpn_protocols(["http/1.1"])
    one, other = Other(context, server_side=False), server(files, "http/1.1")
    shake(one, other)
    assert not other.both_speak_accord
    assert one.tls.selected_alpn_protocol() == other.alpn == "http/1.1"


def test_where_no_protocol_is_named_nothing_is_offered_that_a_server_could_refuse(
    files: Files,
) -> None:
    one, other = client(files), server(files, "http/1.1")
    shake(one, other)
    assert (one.both_speak_accord, other.both_speak_accord, one.alpn) == (False, False, None)


def test_names_that_mean_a_negotiation_or_would_be_too_long_are_left_alone() -> None:
    assert alpn.offered_by_accord((alpn.ACCORD,)) == (alpn.ACCORD,)
    assert alpn.offered_by_accord(("x" * 250,)) == ("x" * 250,)
    assert alpn.offered_by_accord(("a", "b")) == ("a", "b", "accord+a", "accord+b")
