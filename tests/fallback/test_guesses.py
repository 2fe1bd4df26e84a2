# SPDX-License-Identifier: Apache-2.0
"""The SYNs of the flood are what they are said to be: scapy takes them apart."""

from __future__ import annotations

import _guesses
import pytest
from scapy.layers.inet import IP, TCP
from scapy.packet import Raw

from accord.wire.constants import TcpOption


@pytest.mark.parametrize("kind", [TcpOption.EXID, TcpOption.EXID_ADOPT])
def test_each_guess_is_a_syn_with_a_good_checksum_and_an_id_of_its_own(kind: TcpOption) -> None:
    guesser = _guesses.Guesser("10.83.0.1", "10.83.1.2", 443, seed=5)
    seen = set()
    for _ in range(200):
        segment = guesser.segment(int(kind))
        checked = IP(bytes(IP(src="10.83.0.1", dst="10.83.1.2", proto=6) / Raw(segment)))[TCP]
        again = IP(src="10.83.0.1", dst="10.83.1.2") / checked.copy()
        del again[TCP].chksum
        assert IP(bytes(again))[TCP].chksum == checked.chksum
        assert (checked.flags, checked.dport) == ("S", 443)
        ((number, option),) = checked.options
        assert number == 254
        assert option[:2] == int(kind).to_bytes(2, "big")
        assert len(option[2:]) == 12
        seen.add(option[2:])
    assert len(seen) == 200
