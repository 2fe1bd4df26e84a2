# SPDX-License-Identifier: Apache-2.0
"""The mark on the SYN-ACK: only where the SYN bore ADOPT, its proposal was heard, and the listener answers."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from accord.datapath.port import Port, Rung
from accord.datapath.syn_option import ExId, SynFate, SynOptions, parse_saved, saved_syn
from tests.datapath.netns import Host, receive_frame
from tests.datapath.syns import ACK, FAMILIES, PORT, SYN, borne, flags, listening, pretend_heard, segments, stream

pytestmark = pytest.mark.root

MARKED = SynFate(written=True, no_room=False, syns=1, marked=True)
UNMARKED = SynFate(written=True, no_room=False, syns=1, marked=False)


@dataclass
class Daemons:
    """An initiator's and a responder's part of two daemons, which share a cgroup."""

    initiator: SynOptions
    responder: SynOptions
    port: Port


@pytest.fixture
def daemons(far: Host) -> Iterator[Daemons]:
    """The responder has an XDP program on ``far``."""
    with (
        far.run(lambda: Port.open(far.interface, Rung.XDP_NATIVE, Rung.XDP_GENERIC)) as port,
        contextlib.closing(SynOptions()) as initiator,
        contextlib.closing(SynOptions(port)) as responder,
    ):
        yield Daemons(initiator, responder, port)


def connect(
    near: Host,
    far: Host,
    daemons: Daemons,
    transaction: bytes,
    *,
    kind: ExId = ExId.ADOPT,
    family: int = 4,
    answers: bool = True,
) -> SynFate:
    """One connection, some data both ways; what the SYN-ACK bore must be what the initiator is told."""
    wire, there = near.raw(), far.raw()
    with (
        listening(far, family, daemons.responder if answers else None) as listener,
        stream(near, family) as sock,
    ):
        daemons.initiator.write(sock, transaction, kind)
        sock.connect((far.address(family), PORT))
        with listener.accept()[0] as accepted:
            sock.sendall(b"question")
            assert accepted.recv(100) == b"question"
            accepted.sendall(b"answer")
            assert sock.recv(100) == b"answer"
        fate = daemons.initiator.fate(sock)
    found = segments(wire)
    assert [borne(segment) for segment in found if flags(segment) == SYN | ACK] == (
        [[(ExId.ADOPT, transaction)]] if fate.marked else [[]]
    )
    assert not any(borne(segment) for segment in found if flags(segment) != SYN | ACK)
    assert not any(borne(segment) for segment in segments(there) if flags(segment) != SYN)
    return fate


@pytest.mark.parametrize("family", FAMILIES)
def test_a_syn_ack_is_marked_when_the_proposal_was_heard(near: Host, far: Host, daemons: Daemons, family: int) -> None:
    transaction = os.urandom(12)
    pretend_heard(daemons.port, transaction)
    assert connect(near, far, daemons, transaction, family=family) == MARKED


@pytest.mark.parametrize("family", FAMILIES)
def test_a_syn_ack_is_not_marked_when_nothing_or_another_id_was_heard(
    near: Host, far: Host, daemons: Daemons, family: int
) -> None:
    pretend_heard(daemons.port, os.urandom(12))
    assert connect(near, far, daemons, os.urandom(12), family=family) == UNMARKED


def test_a_syn_ack_is_not_marked_when_the_proposal_was_heard_long_ago(near: Host, far: Host, daemons: Daemons) -> None:
    transaction = os.urandom(12)
    pretend_heard(daemons.port, transaction, seconds_ago=11)
    assert connect(near, far, daemons, transaction) == UNMARKED


def test_the_syn_ack_of_a_fallback_syn_is_not_marked(near: Host, far: Host, daemons: Daemons) -> None:
    transaction = os.urandom(12)
    pretend_heard(daemons.port, transaction)
    assert connect(near, far, daemons, transaction, kind=ExId.FALLBACK) == UNMARKED


def test_a_listener_that_was_not_told_to_answer_marks_nothing(near: Host, far: Host, daemons: Daemons) -> None:
    transaction = os.urandom(12)
    pretend_heard(daemons.port, transaction)
    assert connect(near, far, daemons, transaction, answers=False) == UNMARKED


def test_a_syn_cookie_is_not_marked(near: Host, far: Host, daemons: Daemons) -> None:
    """Its connection will not know its SYN any more: an initiator that saw a mark would send no preface."""
    far.set("ipv4/tcp_syncookies", "2")
    transaction = os.urandom(12)
    pretend_heard(daemons.port, transaction)
    with listening(far, options=daemons.responder) as listener, stream(near) as sock:
        daemons.initiator.write(sock, transaction, ExId.ADOPT)
        sock.connect((far.address4, PORT))
        with listener.accept()[0] as accepted:
            assert saved_syn(accepted) is None
        assert daemons.initiator.fate(sock) == UNMARKED


def test_a_mark_is_for_what_the_program_hears_that_was_attached_last(near: Host, far: Host, daemons: Daemons) -> None:
    old, new = os.urandom(12), os.urandom(12)
    with listening(far, options=daemons.responder) as listener:
        pretend_heard(daemons.port, old)
        far.run(lambda: daemons.port.reopen(far.interface))
        pretend_heard(daemons.port, new)
        for transaction, told, expected in ((new, False, UNMARKED), (old, True, UNMARKED), (new, True, MARKED)):
            if told:
                daemons.responder.hear(daemons.port)
            with stream(near) as sock:
                daemons.initiator.write(sock, transaction, ExId.ADOPT)
                sock.connect((far.address4, PORT))
                listener.accept()[0].close()
                assert daemons.initiator.fate(sock) == expected
    assert daemons.responder.in_use == 0


def test_a_listener_that_another_daemon_takes_over_goes_on_marking_for_that_one(
    near: Host, far: Host, daemons: Daemons
) -> None:
    transaction = os.urandom(12)
    pretend_heard(daemons.port, transaction)
    with (
        listening(far, options=daemons.responder) as listener,
        contextlib.closing(SynOptions(daemons.port)) as successor,
        stream(near) as sock,
    ):
        successor.answer(listener)
        daemons.responder.close()
        daemons.initiator.write(sock, transaction, ExId.ADOPT)
        sock.connect((far.address4, PORT))
        with listener.accept()[0] as accepted:
            assert saved_syn(accepted) == (ExId.ADOPT, transaction)
        assert daemons.initiator.fate(sock) == MARKED


def test_a_request_of_a_listener_needs_a_tcp_socket(far: Host, daemons: Daemons) -> None:
    with far.udp(4) as sock, pytest.raises(OSError, match=r"not supported|not available"):
        daemons.responder.answer(sock)


# ---- SYNs that no Linux sends ----

ID = b"0123456789ab"
OURS = b"\xfe\x10\xac\xc1" + ID
OTHER = b"\xfe\x10\xac\xc0" + ID
HOSTILE = {
    "alone": (OURS, True),
    "behind 24 NOPs": (bytes([1] * 24) + OURS, True),
    "behind the options of Linux": (
        bytes.fromhex("020405b40402080a0000000100000000") + b"\x01\x03\x03\x0a" + OURS,
        True,
    ),
    "behind an option of another ExID": (b"\xfe\x06\xac\xc5\x00\x00\x01\x01" + OURS, True),
    "behind the end of the list": (b"\x00\x00\x00\x00" + OURS, False),
    "behind an option of length 0": (b"\x63\x00\x01\x01" + OURS, False),
    "behind an option of length 1": (b"\x63\x01\x01\x01" + OURS, False),
    "behind an option longer than the rest": (b"\x63\x28\x01\x01" + OURS, False),
    "in an option of others": (b"\x63\x14\x01\x01" + OURS, False),
    "one byte short": (b"\xfe\x0f\xac\xc1" + ID[:11] + b"\x01", False),
    "one byte long": (b"\xfe\x11\xac\xc1" + ID + b"x\x01\x01\x01", False),
    "ExID alone": (b"\xfe\x04\xac\xc1", False),
    "of the other experimental kind": (b"\xfd" + OURS[1:], False),
    "FALLBACK alone": (OTHER, False),
    "FALLBACK before it": (OTHER + OURS, False),
    "FALLBACK behind it": (OURS + OTHER, False),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_marked_is_what_the_accepted_socket_will_say(
    near: Host, far: Host, daemons: Daemons, family: int
) -> None:
    """Of each SYN that is marked the saved headers lead to ADOPT and the same ID, so its initiator needs no preface.

    Kernels since 6.7 do not answer a SYN whose options cannot be read; the last SYN is one that all of them answer.
    """
    wire = near.raw()
    pretend_heard(daemons.port, ID)
    network = (IP if family == 4 else IPv6)(src=near.address(family), dst=far.address(family))
    packets = []
    for port, (options, _) in enumerate([*HOSTILE.values(), (b"", False)], 1024):
        tcp = TCP(sport=port, dport=PORT, flags="S", seq=7, window=1000, dataofs=5 + len(options) // 4)
        packets.append(network / tcp / Raw(options))
    answers = {}
    with listening(far, family, daemons.responder):
        for packet in packets:
            wire.send(bytes(Ether(src=near.mac, dst=far.mac) / packet))
        while packets[-1].sport not in answers:
            frame = Ether(receive_frame(wire))
            if TCP in frame and flags(frame[TCP]) == SYN | ACK:
                answers[frame.dport] = borne(frame[TCP])
    for packet, (name, (_, marked)) in zip(packets, HOSTILE.items(), strict=False):
        expected = [(ExId.ADOPT, ID)] if marked else []
        assert answers.get(packet.sport, None if marked else []) == expected, name
        if marked:
            assert parse_saved(bytes(packet)) == (ExId.ADOPT, ID), name
