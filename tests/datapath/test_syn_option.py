# SPDX-License-Identifier: Apache-2.0
"""The option on the SYN, between two hosts, as scapy reads it off the wire."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterator

import pytest

from accord.datapath._core import lib
from accord.datapath.syn_option import ExId, SynFate, SynOptions, saved_syn
from tests.datapath.netns import Host
from tests.datapath.syns import FAMILIES, PORT, UNASKED, borne, bound, flags, listening, segments, stream, syns

pytestmark = pytest.mark.root

KINDS = tuple(ExId)
SO_COOKIE = 57
SYN, ACK = 0x02, 0x10

# <linux/tcp.h>
TCP_MD5SIG = 14
TCP_FASTOPEN = 23
TCP_FASTOPEN_CONNECT = 30
TCP_FASTOPEN_NO_COOKIE = 34
IPPROTO_MPTCP = 262


@pytest.fixture
def options() -> Iterator[SynOptions]:
    """Of this process. At the end of the test no slot may be in use."""
    with contextlib.closing(SynOptions()) as found:
        yield found
        assert found.in_use == 0


@pytest.fixture
def other() -> Iterator[SynOptions]:
    """Of another daemon in the same cgroup."""
    with contextlib.closing(SynOptions()) as found:
        yield found


def cookie(sock: socket.socket) -> int:
    """What the kernel calls this socket."""
    return int(struct.unpack("=Q", sock.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8))[0])


def of_slot(slot: int) -> socket.socket:
    """A new socket of this slot: the kernel counts its sockets, in batches for each CPU."""
    while True:
        sock = socket.socket()
        if cookie(sock) % lib.ACCORD_SYNS_SLOTS == slot:
            return sock
        sock.close()


def drop_the_option(host: Host, family: int) -> None:
    """As a firewall does that knows no such option; captures are taken before it."""
    program = "iptables" if family == 4 else "ip6tables"
    host.command(program, "-A", "INPUT", "-p", "tcp", "--tcp-option", "254", "-j", "DROP")


# ---- which segments bear it ----


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_syn_bears_the_option_and_no_other_segment_does(
    near: Host, far: Host, options: SynOptions, family: int, kind: ExId
) -> None:
    """The listener is one that knows nothing of it."""
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
    assert [borne(segment) for segment in syns(there)] == [[(kind, transaction)]]
    assert not any(borne(segment) for segment in there if flags(segment) != SYN)
    assert len(there) > 3
    assert not any(borne(segment) for segment in segments(back))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_syn_that_is_sent_again_goes_without_it(near: Host, far: Host, options: SynOptions, family: int) -> None:
    wire = far.raw()
    drop_the_option(far, family)
    with listening(far, family) as listener, stream(near, family) as sock:
        options.write(sock, b"0123456789ab", ExId.ADOPT)
        sock.connect((far.address(family), PORT))
        listener.accept()[0].close()
        assert options.fate(sock) == SynFate(written=True, no_room=False, syns=2, marked=False)
    assert [borne(syn) for syn in syns(segments(wire))] == [[(ExId.ADOPT, b"0123456789ab")], []]


def test_other_sockets_of_the_same_process_bear_none(near: Host, far: Host, options: SynOptions) -> None:
    wire = far.raw()
    with listening(far) as listener, stream(near) as asked, stream(near) as plain:
        options.write(asked, bytes(12), ExId.FALLBACK)
        plain.connect((far.address4, PORT))
        asked.connect((far.address4, PORT))
        for _ in range(2):
            listener.accept()[0].close()
        expected = {asked.getsockname()[1]: 1, plain.getsockname()[1]: 0}
        assert options.fate(plain) == UNASKED
    assert {syn.sport: len(borne(syn)) for syn in syns(segments(wire))} == expected


def test_a_request_is_for_one_connection_of_the_socket(near: Host, far: Host, options: SynOptions) -> None:
    """connect(2): a socket whose connection was refused can be connected again."""
    wire = far.raw()
    with stream(near) as sock:
        options.write(sock, b"0123456789ab", ExId.FALLBACK)
        with pytest.raises(ConnectionRefusedError):
            sock.connect((far.address4, PORT))
        fate = options.fate(sock)
        assert (fate.written, fate.syns) == (True, 1)
        with listening(far):
            sock.connect((far.address4, PORT))
    assert [len(borne(syn)) for syn in syns(segments(wire))] == [1, 0]


def test_a_simultaneous_open_bears_it_on_the_syn_and_not_on_the_syn_ack(
    near: Host, far: Host, options: SynOptions
) -> None:
    """RFC 9293, section 3.5, figure 7: near's SYN is lost, far's arrives while near waits for an answer."""
    wire = far.raw()
    drop_the_option(far, 4)
    with stream(near) as sock, bound(far) as peer:
        sock.bind((near.address4, PORT))
        options.write(sock, b"0123456789ab", ExId.ADOPT)
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.connect((far.address4, PORT))
        peer.connect((near.address4, PORT))
        sock.settimeout(5)
        peer.sendall(b"hello")
        assert sock.recv(100) == b"hello"
        fate = options.fate(sock)
        assert (fate.written, fate.no_room, fate.marked) == (True, False, False)
    seen = [(flags(segment), len(borne(segment))) for segment in segments(wire)]
    assert seen[:2] == [(SYN, 1), (SYN | ACK, 0)]
    assert not any(count for _, count in seen[1:])


def test_a_multipath_socket_is_not_ours(near: Host, far: Host, options: SynOptions) -> None:
    wire = far.raw()
    try:
        sock = stream(near, protocol=IPPROTO_MPTCP)
    except OSError:
        pytest.skip("no MPTCP: boot a kernel with CONFIG_MPTCP=y")
    with listening(far), sock:
        options.write(sock, bytes(12), ExId.FALLBACK)
        sock.connect((far.address4, PORT))
        assert options.fate(sock) == UNASKED
    assert [borne(syn) for syn in syns(segments(wire))] == [[]]


# ---- room ----


def fast_open(near: Host, far: Host, family: int = 4, *, cookie: bool = True) -> socket.socket:
    """A listener that takes data on a SYN, and a client's host that sends it."""
    for host in (near, far):
        host.set("ipv4/tcp_fastopen", "3" if cookie else str(0x1 | 0x2 | 0x4 | 0x200))
    sock = bound(far, family)
    sock.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN, 16)
    sock.listen(16)
    return sock


def opened_fast(near: Host, far: Host, options: SynOptions, listener: socket.socket) -> SynFate:
    """A connection whose first data may ride on the SYN."""
    with stream(near) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
        options.write(sock, b"0123456789ab", ExId.ADOPT)
        sock.connect((far.address4, PORT))
        sock.sendall(b"early")
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.recv(100) == b"early"
        return options.fate(sock)


def test_a_fast_open_cookie_leaves_no_room_and_that_is_told(near: Host, far: Host, options: SynOptions) -> None:
    """RFC 7413: the first SYN asks for a cookie, which takes 2 bytes, the second bears one of 8, and data."""
    wire = far.raw()
    with fast_open(near, far) as listener:
        assert opened_fast(near, far, options, listener).written
        assert opened_fast(near, far, options, listener) == SynFate(False, True, 1, False)
    first, second = syns(segments(wire))
    assert (len(borne(first)), len(first.payload)) == (1, 0)
    assert (len(borne(second)), bytes(second.payload)) == (0, b"early")
    assert {kind for kind, _ in second.options} > {"TFO"} or 34 in {kind for kind, _ in second.options}
    assert options.counts()["no_room"] == 1
    assert options.counts()["written"] == 1


def test_a_syn_with_data_and_without_a_cookie_bears_it(near: Host, far: Host, options: SynOptions) -> None:
    wire = far.raw()
    with fast_open(near, far, cookie=False) as listener:
        assert opened_fast(near, far, options, listener).written
    (syn,) = syns(segments(wire))
    assert borne(syn) == [(ExId.ADOPT, b"0123456789ab")]
    assert bytes(syn.payload) == b"early"


def test_a_signature_leaves_no_room_and_that_is_told(near: Host, far: Host, options: SynOptions) -> None:
    """RFC 2385: 18 bytes of every segment."""

    def sign(sock: socket.socket, peer: str) -> None:
        address = struct.pack("=HH4s120x", socket.AF_INET, 0, socket.inet_aton(peer))
        try:
            sock.setsockopt(socket.IPPROTO_TCP, TCP_MD5SIG, address + struct.pack("=BBHI80s", 0, 0, 3, 0, b"key"))
        except OSError:
            pytest.skip("no TCP_MD5SIG: boot a kernel with CONFIG_TCP_MD5SIG=y")

    wire = far.raw()
    with bound(far) as listener, stream(near) as sock:
        sign(listener, near.address4)
        listener.listen(16)
        sign(sock, far.address4)
        options.write(sock, bytes(12), ExId.FALLBACK)
        sock.connect((far.address4, PORT))
        assert options.fate(sock) == SynFate(written=False, no_room=True, syns=1, marked=False)
    assert [borne(syn) for syn in syns(segments(wire))] == [[]]


# ---- slots ----


def test_a_thousand_connections_bear_their_ids_and_leave_no_slot(near: Host, far: Host, options: SynOptions) -> None:
    wire, expected = far.raw(), []
    wire.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
    found = []
    with listening(far) as listener:
        for number in range(1000):
            transaction, kind = os.urandom(12), KINDS[number % 2]
            with stream(near) as sock:
                options.write(sock, transaction, kind)
                sock.connect((far.address4, PORT))
                listener.accept()[0].close()
                assert options.fate(sock) == SynFate(written=True, no_room=False, syns=1, marked=False)
                options.forget(sock)
            expected.append([(kind, transaction)])
            if number % 100 == 99:
                found += syns(segments(wire))
    assert [borne(syn) for syn in found] == expected
    assert options.in_use == 0
    assert {result: count for result, count in options.counts().items() if count} == {"written": 1000}


def test_of_two_sockets_that_share_a_slot_the_older_loses(near: Host, far: Host, options: SynOptions) -> None:
    wire = far.raw()
    with listening(far), stream(near) as older, contextlib.ExitStack() as stack:
        slot = cookie(older) % lib.ACCORD_SYNS_SLOTS
        options.write(older, b"older" * 2 + b"..", ExId.FALLBACK)
        newer = near.run(lambda: of_slot(slot))
        stack.enter_context(newer)
        options.write(newer, b"newer" * 2 + b"..", ExId.ADOPT)
        assert options.in_use == 1
        older.connect((far.address4, PORT))
        newer.connect((far.address4, PORT))
        assert options.fate(older) == UNASKED
        assert options.fate(newer).written
        options.forget(older)
        assert options.in_use == 1
        assert options.counts()["displaced"] == 1
    assert [borne(syn) for syn in syns(segments(wire))] == [[], [(ExId.ADOPT, b"newer" * 2 + b"..")]]


def test_a_request_that_nobody_forgets_goes_with_its_socket(near: Host, options: SynOptions) -> None:
    sock = stream(near)
    options.write(sock, bytes(12), ExId.ADOPT)
    assert options.in_use == 1
    del sock
    assert options.in_use == 0
    assert options.counts()["unused"] == 1


def test_a_request_of_a_socket_that_is_closed_is_forgotten_though_somebody_keeps_the_object(
    near: Host, options: SynOptions
) -> None:
    kept = [stream(near) for _ in range(600)]
    for sock in kept:
        options.write(sock, bytes(12), ExId.ADOPT)
        sock.close()
    assert lib.accord_syns_in_use(options._pointer) < 600  # on its own, by and by
    assert options.in_use == 0
    assert options.counts()["unused"] == 600


def test_an_id_of_another_length_is_refused(near: Host, options: SynOptions) -> None:
    with stream(near) as sock:
        for length in (0, 11, 13):
            with pytest.raises(ValueError, match="transaction ID"):
                options.write(sock, bytes(length), ExId.ADOPT)


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
    assert [borne(syn) for syn in syns(segments(wire))] == [[(ExId.FALLBACK, b"1" * 12)], [(ExId.ADOPT, b"2" * 12)]]


# ---- what the accepted socket says ----


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


def test_an_accepted_socket_says_nothing_of_a_plain_syn_or_without_having_been_told_to(
    near: Host, far: Host, options: SynOptions
) -> None:
    with listening(far, options=options) as listener, stream(near) as sock:
        sock.connect((far.address4, PORT))
        with listener.accept()[0] as accepted:
            assert saved_syn(accepted) is None
    with listening(far) as listener, stream(near) as sock:
        options.write(sock, bytes(12), ExId.ADOPT)
        sock.connect((far.address4, PORT))
        with listener.accept()[0] as accepted:
            assert saved_syn(accepted) is None
