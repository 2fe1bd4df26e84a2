# SPDX-License-Identifier: Apache-2.0
"""The option on the SYN, between two hosts, as scapy reads it off the wire."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest
from scapy.layers.inet import TCP
from scapy.layers.l2 import Ether

from accord.datapath.syn_option import ExId, SynFate, SynOptions, saved_syn
from tests.datapath.netns import Host

pytestmark = pytest.mark.root

FAMILIES = (4, 6)
KINDS = tuple(ExId)
PORT = 443
ACCORD = 254
UNASKED = SynFate(written=False, no_room=False, syns=0, marked=False)
SYN, ACK = 0x02, 0x10


@pytest.fixture
def options() -> Iterator[SynOptions]:
    """Of this process, closed at the end, when no slot may be in use."""
    found = SynOptions()
    try:
        yield found
        assert found.in_use == 0
    finally:
        found.close()


@pytest.fixture
def other() -> Iterator[SynOptions]:
    """Of another daemon in the same cgroup."""
    found = SynOptions()
    yield found
    found.close()


def stream(host: Host, family: int = 4) -> socket.socket:
    """A TCP socket of that host."""
    return host.run(lambda: socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6, socket.SOCK_STREAM))


def listening(host: Host, family: int = 4, options: SynOptions | None = None) -> socket.socket:
    """A listener on ``PORT``; with ``options``, one that answers."""
    sock = stream(host, family)
    sock.settimeout(5)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((host.address(family), PORT))
    if options is not None:
        options.answer(sock)
    sock.listen(1024)
    return sock


def segments(wire: socket.socket) -> list[TCP]:
    """What has come in by now, without waiting: TCP only."""
    found = []
    wire.setblocking(False)
    try:
        while True:
            frame = Ether(wire.recv(65536))
            if TCP in frame:
                found.append(frame[TCP])
    except BlockingIOError:
        return found


def borne(segment: TCP) -> list[tuple[int, bytes]]:
    """ExID and transaction ID of each option of ours, as scapy sees them."""
    return [(int.from_bytes(value[:2], "big"), bytes(value[2:])) for kind, value in segment.options if kind == ACCORD]


def is_syn(segment: TCP) -> bool:
    """SYN and not ACK."""
    return int(segment.flags) & (SYN | ACK) == SYN


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_syn_bears_the_option_and_no_other_segment_does(
    near: Host, far: Host, options: SynOptions, family: int, kind: ExId
) -> None:
    wire, back, transaction = far.raw(), near.raw(), os.urandom(12)
    with listening(far, family) as listener, stream(near, family) as sock:
        options.write(sock, transaction, kind)
        assert options.fate(sock) == UNASKED
        sock.connect((far.address(family), PORT))
        accepted, _ = listener.accept()
        sock.sendall(b"question")
        assert accepted.recv(100) == b"question"
        accepted.sendall(b"answer")
        assert sock.recv(100) == b"answer"
        accepted.close()
        assert sock.recv(100) == b""
        assert options.fate(sock) == SynFate(written=True, no_room=False, syns=1, marked=False)
        options.forget(sock)
        assert options.fate(sock) == UNASKED
    there = segments(wire)
    assert [borne(segment) for segment in there if is_syn(segment)] == [[(kind, transaction)]]
    assert not any(borne(segment) for segment in there if not is_syn(segment))
    assert len(there) > 3
    assert not any(borne(segment) for segment in segments(back))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_an_accepted_socket_says_what_its_syn_bore_once(
    near: Host, far: Host, options: SynOptions, family: int, kind: ExId
) -> None:
    transaction = os.urandom(12)
    with listening(far, family, options) as listener, stream(near, family) as sock:
        options.write(sock, transaction, kind)
        sock.connect((far.address(family), PORT))
        accepted, _ = listener.accept()
        with accepted:
            assert saved_syn(accepted) == (kind, transaction)
            assert saved_syn(accepted) is None


def test_other_sockets_of_the_same_process_bear_none(near: Host, far: Host, options: SynOptions) -> None:
    wire = far.raw()
    with listening(far) as listener, stream(near) as asked, stream(near) as plain:
        options.write(asked, bytes(12), ExId.FALLBACK)
        plain.connect((far.address4, PORT))
        asked.connect((far.address4, PORT))
        for _ in range(2):
            listener.accept()[0].close()
        ports = {sock.getsockname()[1]: expected for sock, expected in ((asked, 1), (plain, 0))}
        assert options.fate(plain) == UNASKED
    assert {syn.sport: len(borne(syn)) for syn in segments(wire) if is_syn(syn)} == ports


def test_a_request_that_nobody_forgets_goes_with_its_socket(near: Host, options: SynOptions) -> None:
    sock = stream(near)
    options.write(sock, bytes(12), ExId.ADOPT)
    assert options.in_use == 1
    del sock
    assert options.in_use == 0
    assert options.counts()["unused"] == 1


def test_several_daemons_in_one_cgroup_do_not_disturb_each_other(
    near: Host, far: Host, options: SynOptions, other: SynOptions
) -> None:
    wire = far.raw()
    with listening(far) as listener, stream(near) as one, stream(near) as two:
        options.write(one, b"1" * 12, ExId.FALLBACK)
        other.write(two, b"2" * 12, ExId.ADOPT)
        for sock in (one, two):
            sock.connect((far.address4, PORT))
            listener.accept()[0].close()
        assert options.fate(one).written
        assert other.fate(two).written
        assert options.fate(two) == other.fate(one) == UNASKED
    assert [borne(syn) for syn in segments(wire) if is_syn(syn)] == [
        [(ExId.FALLBACK, b"1" * 12)],
        [(ExId.ADOPT, b"2" * 12)],
    ]
