# SPDX-License-Identifier: Apache-2.0
"""The XDP program under a flood (docs/PROTOCOL.md, section 21), held against scapy's reading of the specification."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw

from accord.datapath.cookies import CookieKey
from accord.datapath.xdp_test import Program, Run, Verdict
from accord.scapy_layer import Accord, AccordChunk, challenge, cookie
from accord.wire.constants import Reason
from tests.xdp.craft import ALIVE_MS, DIRECT, ETHER, ID, IP4, IP6, OURS, PORT, THEIRS, UDP_OURS, ip4, ip6

pytestmark = pytest.mark.root

KEYS = [CookieKey(7, bytes(range(16))), CookieKey(200, os.urandom(16))]
SLOT = 0xFFFF
FRONTS = {
    "IPv4, UDP": ETHER / IP4 / UDP_OURS,
    "IPv6, UDP": ETHER / IP6 / UDP_OURS,
    "IPv4, direct": ETHER / ip4(proto=DIRECT),
    "IPv6, direct": ETHER / ip6(nh=DIRECT),
    "IPv4, UDP, VLAN": ETHER / Dot1Q(vlan=7) / IP4 / UDP_OURS,
    "IPv6, UDP, two VLAN tags": ETHER / Dot1Q(vlan=7) / Dot1Q(vlan=8) / IP6 / UDP_OURS,
}


@pytest.fixture(scope="module")
def flooded() -> Iterator[Program]:
    """A program whose daemon is at level 2."""
    with Program() as program:
        program.configure(challenge=True)
        program.cookies(KEYS, SLOT)
        program.steer(PORT)
        program.join()
        program.heartbeat(ALIVE_MS)
        yield program


def proposal(data: bytes = bytes(40), flags: str = "I+E", transaction: bytes = ID, **fields: object) -> Packet:
    """The first packet of a proposal."""
    tsn = int.from_bytes(transaction[:4])
    chunks = [AccordChunk(node=0, protocol=17, data=data)]
    return Accord(flags=flags, transaction=transaction, **{"tsn": tsn, "chunks": chunks, **fields})


def behind(front: Packet, packet: Packet) -> Packet:
    """A frame, dissected anew from its bytes: no field is left to be computed."""
    return Ether(bytes(front / packet))


def run(program: Program, frame: Packet) -> Run:
    return program.run(bytes(frame))


@pytest.mark.parametrize("name", FRONTS)
@pytest.mark.parametrize("length", [1, 2, 3, 4, 7, 16, 31, 32, 33, 63, 64, 65, 575, 576, 1159, 1160])
def test_a_stranger_s_proposal_is_answered_by_the_challenge_that_the_specification_has(
    flooded: Program, name: str, length: int
) -> None:
    given = behind(FRONTS[name], proposal(random.Random(length).randbytes(length)))
    came = run(flooded, given)
    if length + 8 < 16:  # shorter than its answer
        assert (came.verdict, came.reason) == (Verdict.DROP, Reason.QUOTA)
        return
    assert (came.verdict, came.reason) == (Verdict.TX, Reason.CHALLENGED)
    answer = Ether(came.output)
    assert (answer.src, answer.dst) == (OURS, THEIRS)
    assert bytes(answer[Accord]) == bytes(challenge(given, KEYS[0].id, KEYS[0].key, SLOT))
    assert len(came.output) <= len(bytes(given))
    there, back = (given[IPv6], answer[IPv6]) if IPv6 in given else (given[IP], answer[IP])
    assert (back.src, back.dst) == (there.dst, there.src)
    if UDP in given:
        assert (answer[UDP].sport, answer[UDP].dport) == (given[UDP].dport, given[UDP].sport)
    # Lengths and checksums are those that scapy would have written.
    anew = answer.copy()
    for layer in (IP, IPv6, UDP):
        for field in ("len", "plen", "chksum"):
            if layer in anew and field in anew[layer].fields:
                anew[layer].delfieldval(field)
    assert bytes(Ether(bytes(anew))) == came.output


def test_the_challenge_binds_all_bytes_however_many_they_are(flooded: Program) -> None:
    """The sum is made in steps of several lengths."""
    chance = random.Random(1)
    for length in range(8, 150):
        given = behind(ETHER / IP4 / UDP_OURS, proposal(chance.randbytes(length)))
        came = run(flooded, given)
        assert came.reason is Reason.CHALLENGED, length
        assert bytes(Ether(came.output)[Accord]) == bytes(challenge(given, KEYS[0].id, KEYS[0].key, SLOT)), length


@pytest.mark.parametrize("name", FRONTS)
def test_a_packet_shorter_than_its_answer_gets_none_however_long_its_frame(flooded: Program, name: str) -> None:
    given = bytes(FRONTS[name] / proposal(bytes(7)))
    for padding in (0, 1, 64, 1000):
        came = flooded.run(given + bytes(padding))
        assert (came.verdict, came.reason) == (Verdict.DROP, Reason.QUOTA), padding


@pytest.mark.parametrize("name", FRONTS)
@pytest.mark.parametrize("key", KEYS, ids=["the present key", "the key before"])
@pytest.mark.parametrize("age", [-1, 0, 1, 2])
def test_a_good_cookie_goes_on_to_the_daemon_unchanged(flooded: Program, name: str, key: CookieKey, age: int) -> None:
    bare = behind(FRONTS[name], proposal())
    given = behind(FRONTS[name], proposal(flags="I+E+C", cookie=cookie(bare, key.id, key.key, SLOT - age)))
    came = run(flooded, given)
    assert (came.verdict, came.reason) == (Verdict.REDIRECT, Reason.STEERED)
    assert came.output == bytes(given)


@pytest.mark.parametrize("name", ["IPv4, UDP", "IPv6, direct"])
def test_a_wrong_cookie_is_dropped_whichever_bit_is_wrong(flooded: Program, name: str) -> None:
    front = FRONTS[name]
    good = cookie(behind(front, proposal()), KEYS[0].id, KEYS[0].key, SLOT)
    forgotten = 0
    for bit in range(128):
        bent = bytearray(good)
        bent[bit // 8] ^= 1 << bit % 8
        came = run(flooded, behind(front, proposal(flags="I+E+C", cookie=bytes(bent))))
        assert came.verdict in (Verdict.DROP, Verdict.TX)
        if came.verdict is Verdict.TX:  # a key or slot that may have been good
            assert bit < 32
            forgotten += 1
        else:
            assert came.reason is Reason.BAD_COOKIE
    assert 8 + 14 <= forgotten <= 24


def test_a_cookie_is_for_one_packet_from_one_address(flooded: Program) -> None:
    good = cookie(behind(ETHER / IP4 / UDP_OURS, proposal()), KEYS[0].id, KEYS[0].key, SLOT)
    bears = {"flags": "I+E+C", "cookie": good}
    others = {
        "another address": ETHER / ip4(src="192.0.2.9") / UDP_OURS / proposal(**bears),
        "another address here": ETHER / ip4(dst="192.0.2.9") / UDP_OURS / proposal(**bears),
        "another port": ETHER / IP4 / UDP(sport=50001, dport=PORT) / proposal(**bears),
        "another transaction": ETHER / IP4 / UDP_OURS / proposal(transaction=b"Transaction.", **bears),
        "other chunks": ETHER / IP4 / UDP_OURS / proposal(b"\1" + bytes(39), **bears),
        "more chunks": ETHER / IP4 / UDP_OURS / proposal(bytes(42), **bears),
        "direct": ETHER / ip4(proto=DIRECT) / proposal(**bears),
    }
    for name, frame in others.items():
        came = run(flooded, Ether(bytes(frame)))
        assert (came.verdict, came.reason) == (Verdict.DROP, Reason.BAD_COOKIE), name


def test_what_is_no_first_packet_of_a_proposal_is_the_daemon_s(flooded: Program) -> None:
    first = int.from_bytes(ID[:4])
    theirs = int.from_bytes(ID[4:8])
    options = IP(src="192.0.2.1", dst="192.0.2.2", options=[b"\1\1\1\1"])
    frames = {
        "a later packet": ETHER / IP4 / UDP_OURS / proposal(tsn=first + 1),
        "an answer": ETHER / IP4 / UDP_OURS / proposal(flags="E", step=1, tsn=theirs),
        "a commit": ETHER / IP4 / UDP_OURS / proposal(step=2),
        "an acknowledgement": ETHER / IP4 / UDP_OURS / proposal(flags="I+A", ack_tsn=theirs, ack_count=1, chunks=[]),
        "another version": ETHER / IP4 / UDP_OURS / proposal(version=5),
        "IPv4 options": ETHER / options / UDP_OURS / proposal(),
        "an extension header": ETHER / ip6() / IPv6ExtHdrDestOpt() / UDP_OURS / proposal(),
    }
    for name, frame in frames.items():
        came = run(flooded, frame)
        assert (came.verdict, came.reason) == (Verdict.REDIRECT, Reason.STEERED), name
        assert came.output == bytes(frame), name


def test_a_damaged_proposal_gets_silence(flooded: Program) -> None:
    for front in (ETHER / IP4 / UDP_OURS, ETHER / ip6(nh=DIRECT)):
        whole = bytes(front / proposal())
        for at in range(len(whole) - 80 + 30, len(whole)):  # from the checksum on
            bent = bytearray(whole)
            bent[at] ^= 0x40
            came = flooded.run(bytes(bent))
            assert (came.verdict, came.reason) == (Verdict.DROP, Reason.BAD_CHECKSUM), at
    cut = behind(ETHER / IP4 / UDP_OURS, proposal(flags="I+C", chunks=[]) / Raw(b""))
    short = bytes(cut[Accord])[:40]
    came = run(flooded, ETHER / IP4 / UDP_OURS / Raw(short))
    assert (came.verdict, came.reason) == (Verdict.DROP, Reason.SHORT_PACKET)


def test_no_answer_and_no_drop_without_the_flag_or_without_a_daemon() -> None:
    with Program() as program:
        program.cookies(KEYS, SLOT)
        program.steer(PORT)
        program.join()
        program.heartbeat(ALIVE_MS)
        frame = bytes(ETHER / IP4 / UDP_OURS / proposal())
        bad = bytes(ETHER / IP4 / UDP_OURS / proposal(flags="I+E+C", cookie=bytes(16)))
        assert {program.run(given).reason for given in (frame, bad)} == {Reason.STEERED}
        program.configure(challenge=True)
        program.heartbeat(600)
        came = program.run(frame)
        assert (came.verdict, came.reason, came.output) == (Verdict.PASS, Reason.STALE_HEARTBEAT, frame)


def test_what_was_done_is_counted_for_the_daemon(flooded: Program) -> None:
    before = flooded.challenges()
    front = ETHER / IP4 / UDP_OURS
    good = cookie(behind(front, proposal()), KEYS[0].id, KEYS[0].key, SLOT)
    flooded.run(bytes(front / proposal()))
    for _ in range(2):
        flooded.run(bytes(front / proposal(flags="I+E+C", cookie=good[:15] + b"?")))
    for _ in range(3):
        flooded.run(bytes(front / proposal(flags="I+E+C", cookie=good)))
    assert [now - then for now, then in zip(flooded.challenges(), before, strict=True)] == [1, 2, 3]


def test_what_was_found_out_of_one_destination_is_not_believed_of_another_one(flooded: Program) -> None:
    """The program remembers the last destination that was this host's, for some ticks."""
    there = ETHER / IP4 / UDP_OURS / proposal()
    others = {
        "a port that nobody registered": (ETHER / IP4 / UDP(sport=50000, dport=PORT + 1), Reason.NOT_OURS_PORT),
        "another interface": (Ether(dst=THEIRS, src=OURS) / IP4 / UDP_OURS, Reason.NOT_LOCAL),
    }
    for name, (front, reason) in others.items():
        assert run(flooded, there).reason is Reason.CHALLENGED
        came = run(flooded, front / proposal())
        assert (came.verdict, came.reason) == (Verdict.PASS, reason), name
    direct = ETHER / ip4(proto=DIRECT) / proposal()
    for _ in range(2):
        assert run(flooded, direct).reason is Reason.CHALLENGED
        nobody = ETHER / IP4 / UDP(sport=50000, dport=0) / proposal()  # what has no ports has not port 0
        assert run(flooded, nobody).reason is Reason.NOT_OURS_PORT
    assert run(flooded, there).reason is Reason.CHALLENGED
    flooded.heartbeat(600)
    assert run(flooded, there).reason is Reason.STALE_HEARTBEAT
    flooded.heartbeat(ALIVE_MS)
