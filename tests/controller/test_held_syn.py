# SPDX-License-Identifier: Apache-2.0
"""A held SYN: what the kernel wrote is proposed, its SYN-ACK is the peer's, and it goes one of two ways, once."""

from __future__ import annotations

from typing import Any

import pytest
from scapy.compat import raw
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from accord.controller.unmodified.held_syn import HeldSyn
from accord.datapath.captures import completed, decode
from accord.protocols.services import TcpParameters
from accord.wire.constants import Reason
from accord.wire.errors import AccordError

LINUX = [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (7, 0)), ("NOP", None), ("WScale", 9)]
PEER = TcpParameters(443, 0xFFFFFFFF, 1300, 65160, 7, True, 1234)
ETHERNET = Ether(dst="02:00:00:00:00:02", src="02:00:00:00:00:01")


def syn(family: int = 4, options: Any = LINUX, **fields: Any) -> bytes:
    ip = IP(src="10.0.0.1", dst="10.0.0.2") if family == 4 else IPv6(src="2001:db8::1", dst="2001:db8::2")
    return raw(
        ETHERNET
        / ip
        / TCP(**{"sport": 40000, "dport": 443, "flags": "S", "seq": 0xFFFFFFFF, **fields}, options=options)
    )


def without_checksum(frame: bytes) -> bytes:
    """As the kernel leaves it to the NIC."""
    at = 14 + (20 if frame[12:14] == b"\x08\x00" else 40) + 16
    return frame[:at] + b"\xab\xcd" + frame[at + 2 :]


class Way:
    def __init__(self) -> None:
        self.released: list[bytes] = []
        self.handed_in: list[bytes] = []

    def release(self, frame: bytes) -> None:
        self.released.append(frame)

    def hand_in(self, frame: bytes) -> None:
        self.handed_in.append(frame)


@pytest.mark.parametrize("family", [4, 6])
def test_the_kernels_numbers_are_what_is_proposed_and_the_frame_gets_its_checksum(family: int) -> None:
    found = decode(without_checksum(syn(family)))
    assert found.own == TcpParameters(40000, 0xFFFFFFFF, 1460, 8192, 9, True, 7)
    assert (found.source, found.destination, found.port) == (
        ("10.0.0.1", "10.0.0.2", 443) if family == 4 else ("2001:db8::1", "2001:db8::2", 443)
    )
    assert found.frame == syn(family)


@pytest.mark.parametrize("family", [4, 6])
def test_the_syn_ack_is_the_peers_as_another_implementation_reads_it(family: int) -> None:
    answer = Ether(decode(syn(family)).answer(PEER))
    assert (answer.src, answer.dst) == (ETHERNET.dst, ETHERNET.src)
    again = answer.copy()
    if family == 4:
        del again[IP].chksum
    del again[TCP].chksum
    assert raw(again) == raw(answer), "both checksums are as scapy makes them"
    ip, tcp = answer[IP if family == 4 else IPv6], answer[TCP]
    assert (ip.src, ip.dst) == (("10.0.0.2", "10.0.0.1") if family == 4 else ("2001:db8::2", "2001:db8::1"))
    assert (tcp.sport, tcp.dport, str(tcp.flags)) == (443, 40000, "SA")
    assert (tcp.seq, tcp.ack, tcp.window) == (0xFFFFFFFF, 0, 65160)
    options = dict(tcp.options)
    assert (options["MSS"], options["WScale"], options["Timestamp"]) == (1300, 7, (1234, 7))
    assert "SAckOK" in options


def test_what_is_cut_or_is_no_syn_is_refused_without_another_error() -> None:
    for family in (4, 6):
        whole = syn(family)
        for length in range(len(whole)):
            with pytest.raises((ValueError, AccordError)):
                decode(whole[:length])
        with pytest.raises(ValueError, match="SYN-ACK"):
            decode(syn(family, flags="SA", ack=1))
    with pytest.raises(ValueError, match="no TCP over IP"):
        completed(syn()[:40])
    with pytest.raises(AccordError):
        decode(syn(options=[(19, b"\0" * 16)]))  # TCP with signatures
    assert completed(without_checksum(syn(options=[(19, b"\0" * 16)]))) == syn(options=[(19, b"\0" * 16)])


def test_it_is_handed_in_once_and_then_never_leaves() -> None:
    way = Way()
    held = HeldSyn(decode(syn()), way)
    assert held.reserve(None).parameters == decode(syn()).own
    held.install(PEER)
    assert way.handed_in == [], "nothing lasting before the commit"
    held.installed()
    held.installed()
    held.let_go()
    assert way.handed_in == [decode(syn()).answer(PEER)]
    assert way.released == []


def test_once_it_has_left_no_answer_is_handed_in() -> None:
    way = Way()
    held = HeldSyn(decode(syn()), way)
    held.install(PEER)
    held.let_go()
    held.let_go()
    with pytest.raises(AccordError) as refused:
        held.installed()
    assert refused.value.reason is Reason.LEGACY_FIRST
    assert way.released == [syn()]
    assert way.handed_in == []
