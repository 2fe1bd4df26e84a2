# SPDX-License-Identifier: Apache-2.0
"""The option in a saved SYN: headers made by scapy, cut, and made of anything at all."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, IPv6ExtHdrRouting
from scapy.layers.ipsec import AH
from scapy.packet import Raw

from accord.datapath.syn_option import ExId, parse_saved

TRANSACTION = b"0123456789ab"
LINUX = [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (1, 0)), ("NOP", None), ("WScale", 10)]

networks = st.sampled_from(
    [
        IP(src="192.0.2.1", dst="192.0.2.2"),
        IP(src="192.0.2.1", dst="192.0.2.2", options=[b"\x94\x04\x00\x00"]),
        IPv6(src="2001:db8::1", dst="2001:db8::2"),
        IPv6(src="2001:db8::1", dst="2001:db8::2") / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt(),
        IPv6(src="2001:db8::1", dst="2001:db8::2")
        / IPv6ExtHdrRouting(addresses=["2001:db8::3"])
        / IPv6ExtHdrFragment(),
        IPv6(src="2001:db8::1", dst="2001:db8::2") / AH(nh=6, payloadlen=4, spi=1, seq=1, icv=bytes(12)),
    ]
)
"""What the kernel saves in front of the TCP header; it leaves no frame in."""

transactions = st.binary(min_size=12, max_size=12)
kinds = st.sampled_from(ExId)


def headers(network: Any, options: list[tuple[Any, Any]]) -> bytes:
    """A SYN between these."""
    return bytes(network / TCP(sport=1024, dport=443, flags="S", options=options))


def option(kind: int, transaction: bytes) -> tuple[int, bytes]:
    """As scapy wants it: kind and value."""
    return 254, kind.to_bytes(2, "big") + transaction


@given(networks, kinds, transactions, st.booleans())
def test_the_option_is_found_behind_all_that_may_stand_before_it(
    network: Any, kind: ExId, transaction: bytes, first: bool
) -> None:
    ours = [option(kind, transaction)]
    assert parse_saved(headers(network, ours + LINUX if first else LINUX + ours)) == (kind, transaction)


@given(networks)
def test_there_is_none_in_the_syn_of_a_host_without_it(network: Any) -> None:
    assert parse_saved(headers(network, LINUX)) is None
    assert parse_saved(headers(network, [])) is None


@given(networks, kinds)
def test_of_a_syn_that_was_cut_short_there_is_none(network: Any, kind: ExId) -> None:
    whole = headers(network, [*LINUX, option(kind, TRANSACTION)])
    for length in range(len(whole)):
        assert parse_saved(whole[:length]) is None


@pytest.mark.parametrize(
    "other",
    [
        (254, b"\xac\xc2" + TRANSACTION),  # an ExID of somebody else
        (253, b"\xac\xc0" + TRANSACTION),  # the other experimental kind
        (254, b"\xac\xc0" + TRANSACTION[:-1]),
        (254, b"\xac\xc0" + TRANSACTION + b"x"),
        (254, b""),
    ],
)
def test_an_option_of_others_is_passed_over(other: tuple[int, bytes]) -> None:
    network = IP(src="192.0.2.1", dst="192.0.2.2")
    assert parse_saved(headers(network, [other])) is None
    assert parse_saved(headers(network, [other, option(ExId.ADOPT, TRANSACTION)])) == (ExId.ADOPT, TRANSACTION)


@pytest.mark.parametrize("second", [(ExId.FALLBACK, TRANSACTION), (ExId.ADOPT, TRANSACTION), (ExId.ADOPT, bytes(12))])
def test_of_two_none_counts(second: tuple[ExId, bytes]) -> None:
    """PROTOCOL.md, section 10: no sender means the second."""
    assert parse_saved(headers(IP(), [option(ExId.ADOPT, TRANSACTION), option(*second)])) is None


@pytest.mark.parametrize("bad", [b"\x63\x00", b"\x63\x01", b"\x63\x28", b"\x63"])
@pytest.mark.parametrize("before", [True, False])
def test_there_is_none_where_another_option_has_an_impossible_length(bad: bytes, before: bool) -> None:
    ours = b"\xfe\x10\xac\xc1" + TRANSACTION
    options = bad.ljust(4, b"\x01") + ours if before else ours + bad.rjust(4, b"\x01")
    syn = bytes(IP() / TCP(flags="S", dataofs=10) / Raw(options))
    assert parse_saved(syn) is None
    assert parse_saved(syn.replace(options, ours + bytes(4))) == (ExId.ADOPT, TRANSACTION)


@given(st.binary(max_size=200))
def test_no_bytes_upset_it(data: bytes) -> None:
    found = parse_saved(data)
    assert found is None or len(found[1]) == 12


@given(networks, kinds, st.data())
def test_neither_does_a_byte_that_is_another(network: Any, kind: ExId, data: st.DataObject) -> None:
    whole = bytearray(headers(network, [*LINUX, option(kind, TRANSACTION)]))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] = data.draw(st.integers(0, 255))
    found = parse_saved(bytes(whole))
    assert found is None or len(found[1]) == 12


@given(st.lists(st.sampled_from((0, 43, 44, 51, 60, 135, 6, 17)), max_size=20), st.binary(max_size=400))
def test_nor_do_extension_headers_in_any_order(chain: list[int], data: bytes) -> None:
    """Of any lengths, and more of them than are walked."""
    first = chain[0] if chain else 6
    body = b"".join(bytes([each, 0]) + bytes(6) for each in chain[1:]) + data
    found = parse_saved(b"\x60" + bytes(5) + bytes([first]) + bytes(33) + body)
    assert found is None or len(found[1]) == 12
