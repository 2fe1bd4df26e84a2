# SPDX-License-Identifier: Apache-2.0
"""The demo's account of a capture, against packets that scapy made and counted."""

from __future__ import annotations

from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw
from scapy.utils import wrpcap

from accord.cli.capture import tally

OURS = Raw(b"\x04\x00\x00\x00ACRD" + bytes(40))


def test_packets_are_counted_by_what_they_are(tmp_path: Path) -> None:
    packets = [
        Ether() / ARP(),
        Ether() / IP(dst="10.0.0.2") / TCP(flags="S"),
        Ether() / IPv6(dst="fd00::2") / TCP(flags="S"),
        Ether() / IP(dst="10.0.0.2") / TCP(flags="SA"),
        Ether() / IP(dst="10.0.0.2") / TCP(flags="R"),
        Ether() / IP(dst="10.0.0.2") / TCP(flags="SEC"),
        Ether() / IP(dst="10.0.0.2", options=b"\x01" * 4) / UDP(dport=443) / OURS,
        Ether() / IPv6(dst="fd00::2") / UDP(dport=443) / OURS,
        Ether() / IP(dst="10.0.0.2") / UDP(dport=443) / Raw(b"somebody else's"),
        Ether() / IP(dst="10.0.0.2") / ICMP(),
    ]
    path = tmp_path / "c.pcap"
    wrpcap(str(path), packets)
    counted = tally(path)
    assert counted.packets == 8, "ARP and ICMP are not counted"
    assert counted.syn_packets == 3
    assert counted.reset_packets == 1
    assert counted.negotiation_packets == 2
    assert counted.bytes == sum(len(packet.payload) for packet in packets[1:9])


@pytest.mark.parametrize("data", [b"", b"\x0a\x0d\x0d\x0a" + bytes(60), b"\xa1\xb2\xc3\xd4" + bytes(20)])
def test_a_file_of_another_format_is_refused_and_not_miscounted(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "c.pcap"
    path.write_bytes(data)
    with pytest.raises(ValueError, match="pcap"):
        tally(path)


def test_a_capture_that_was_cut_off_counts_what_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "c.pcap"
    wrpcap(str(path), [Ether() / IP(dst="10.0.0.2") / TCP(flags="S")] * 3)
    path.write_bytes(path.read_bytes()[:-70])
    assert tally(path).syn_packets in (2, 3)
