# SPDX-License-Identifier: Apache-2.0
"""The TCP header that rides in a TCP node, held against scapy."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6

from accord.wire.constants import Reason
from accord.wire.errors import PeerError
from accord.wire.tcp_header import (
    MAX_HEADER_BYTES,
    MIN_MSS,
    TcpHeader,
    TcpParameters,
    checksum_matches,
    decode,
    encode,
)

LINUX_SYN = TcpHeader(443, None, 0, TcpParameters(40000, 0x01020304, 1460, 64240, 7, True, 0x0A0B0C0D))
"""Linux's default SYN on Ethernet."""

u16, u32 = st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF)
ports = st.integers(1, 0xFFFF)


@st.composite
def headers(draw: st.DrawFn) -> TcpHeader:
    timestamp = draw(st.none() | u32)
    sender = TcpParameters(
        port=draw(ports),
        isn=draw(u32),
        mss=draw(st.integers(MIN_MSS, 0xFFFF)),
        window=draw(u16),
        window_scale=draw(st.none() | st.integers(0, 14)),
        sack=draw(st.booleans()),
        timestamp=timestamp,
    )
    return TcpHeader(draw(ports), draw(st.none() | u32), 0 if timestamp is None else draw(u32), sender)


def scapy_of(header: TcpHeader) -> TCP:
    """The same header, made from scapy's fields; options in Linux's order."""
    own = header.sender
    options: list[tuple[str, object]] = [("MSS", own.mss)]
    if own.timestamp is not None:
        options += [("SAckOK", b"")] if own.sack else [("NOP", None), ("NOP", None)]
        options += [("Timestamp", (own.timestamp, header.echo))]
    elif own.sack:
        options += [("NOP", None), ("NOP", None), ("SAckOK", b"")]
    if own.window_scale is not None:
        options += [("NOP", None), ("WScale", own.window_scale)]
    return TCP(
        sport=own.port,
        dport=header.destination_port,
        seq=own.isn,
        ack=header.acknowledgement or 0,
        flags="S" if header.acknowledgement is None else "SA",
        window=own.window,
        options=options,
    )


@given(headers(), st.ip_addresses(v=4), st.ip_addresses(v=4))
def test_scapy_builds_the_same_bytes_over_ipv4(
    header: TcpHeader, source: ipaddress.IPv4Address, destination: ipaddress.IPv4Address
) -> None:
    packet = IP(src=str(source), dst=str(destination)) / scapy_of(header)
    assert encode(header, str(source), str(destination)) == bytes(packet)[20:]


@given(headers(), st.ip_addresses(v=6), st.ip_addresses(v=6))
def test_scapy_builds_the_same_bytes_over_ipv6(
    header: TcpHeader, source: ipaddress.IPv6Address, destination: ipaddress.IPv6Address
) -> None:
    packet = IPv6(src=str(source), dst=str(destination)) / scapy_of(header)
    assert encode(header, str(source), str(destination)) == bytes(packet)[40:]


@given(headers())
def test_what_was_encoded_decodes_to_the_same_and_fits_a_tcp_header(header: TcpHeader) -> None:
    data = encode(header, "192.0.2.1", "192.0.2.2")
    assert decode(data) == header
    assert checksum_matches(data, "192.0.2.1", "192.0.2.2")
    assert len(data) <= MAX_HEADER_BYTES


@given(headers(), st.data())
def test_every_truncation_is_refused(header: TcpHeader, data: st.DataObject) -> None:
    whole = encode(header, "192.0.2.1", "192.0.2.2")
    for cut in (whole[: data.draw(st.integers(0, len(whole) - 1))], whole + b"\0"):
        with pytest.raises(PeerError) as caught:
            decode(cut)
        assert caught.value.reason is Reason.HANDSHAKE_FAILED


@given(headers(), st.integers(0, 59), st.integers(1, 255))
def test_a_changed_byte_shows_in_the_checksum(header: TcpHeader, at: int, change: int) -> None:
    data = bytearray(encode(header, "fd00::1", "fd00::2"))
    data[at % len(data)] ^= change
    assert not checksum_matches(bytes(data), "fd00::1", "fd00::2")


@given(st.binary(max_size=64), st.booleans())
def test_any_bytes_decode_or_are_a_peer_error(data: bytes, dressed: bool) -> None:
    if dressed and len(data) >= 20:
        data = data[: len(data) // 4 * 4]
        data = data[:12] + bytes((len(data) // 4 << 4 & 0xFF, 2)) + data[14:18] + b"\0\0" + data[20:]
    try:
        header = decode(data)
    except PeerError:
        return
    assert decode(encode(header, "192.0.2.1", "192.0.2.2")) == header


def syn_with(options: bytes) -> bytes:
    """A valid SYN with these raw options, padded with zeros as TCP's end of options."""
    options += b"\0" * (-len(options) % 4)
    fixed = bytearray(encode(LINUX_SYN, "192.0.2.1", "192.0.2.2")[:20])
    fixed[12] = (20 + len(options)) // 4 << 4
    return bytes(fixed) + options


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (b"\x02\x00\x05\xb4", "option 2 with length 0"),
        (b"\x02\x01\x05\xb4", "option 2 with length 1"),
        (b"\xfe\x00\x00\x00", "option 254 with length 0"),
        (b"\xfe\x01\x00\x00", "option 254 with length 1"),
        (b"\x02\x05\x05\xb4\x00", "length 5 instead of 4"),
        (b"\x03\x04\x07\x00", "length 4 instead of 3"),
        (b"\x01\x01\x01\x08", "option 8 with length 0"),
        (b"\x08\x0a\x00\x00", "option 8 with length 10"),
        (b"\x01\x01\x04\x03", "option 4 with length 3"),
        (b"\x02\x04\x05\xb4\x02\x04\x05\xb4", "option 2 twice"),
        (b"\x13\x12" + b"x" * 16, "MD5"),
        (b"\x1d\x04\x00\x00", "TCP-AO"),
        (b"\x02\x04\x00\x00", "maximum segment size of 0"),
        (b"\x02\x04\x00\x57", "maximum segment size of 87"),
    ],
)
def test_hostile_options_are_refused(options: bytes, why: str) -> None:
    with pytest.raises(PeerError, match=why):
        decode(syn_with(options))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({12: 0x40}, "data offset says 16"),
        ({12: 0xF0}, "data offset says 60"),
        ({12: 0xA1}, "reserved bits"),
        ({13: 0x00}, "neither a SYN's"),
        ({13: 0x03}, "neither a SYN's"),
        ({13: 0x06}, "neither a SYN's"),
        ({13: 0x0A}, "neither a SYN's"),
        ({13: 0x22}, "neither a SYN's"),
        ({19: 1}, "urgent pointer"),
        ({11: 1}, "with an acknowledgement"),
        ({0: 0, 1: 0}, "port 0"),
        ({2: 0, 3: 0}, "port 0"),
    ],
)
def test_a_header_that_is_no_syn_is_refused(change: dict[int, int], why: str) -> None:
    data = bytearray(encode(LINUX_SYN, "192.0.2.1", "192.0.2.2"))
    for at, value in change.items():
        data[at] = value
    with pytest.raises(PeerError, match=why):
        decode(bytes(data))


def test_options_in_another_order_or_unknown_ones_do_not_matter() -> None:
    options = (
        b"\xfe\x06\xac\xc0\x00\x00\x03\x03\x07\x01\x08\x0a\x0a\x0b\x0c\x0d\x00\x00\x00\x00\x04\x02\x02\x04\x05\xb4"
    )
    assert decode(syn_with(options)) == LINUX_SYN


def test_what_comes_after_the_end_of_options_is_not_read() -> None:
    assert decode(syn_with(b"\x02\x04\x05\xb4\x00\x03\x00\xff")).sender.window_scale is None


def test_a_window_scale_above_fourteen_is_taken_as_fourteen() -> None:
    assert decode(syn_with(b"\x03\x03\x0f\x00")).sender.window_scale == 14


def test_a_syn_without_an_mss_means_the_default_of_its_family() -> None:
    assert decode(syn_with(b"")).sender.mss == 536
    assert decode(syn_with(b""), default_mss=1220).sender.mss == 1220


def test_a_syn_that_asks_for_ecn_is_a_syn() -> None:
    data = bytearray(encode(LINUX_SYN, "192.0.2.1", "192.0.2.2"))
    data[13] |= 0xC0
    assert decode(bytes(data)) == LINUX_SYN


def test_a_translated_address_shows_in_the_checksum() -> None:
    data = encode(LINUX_SYN, "10.0.0.1", "192.0.2.2")
    assert not checksum_matches(data, "203.0.113.7", "192.0.2.2")


def test_a_zone_is_no_part_of_the_checksum() -> None:
    data = encode(LINUX_SYN, "fe80::1%eth0", "fe80::2%eth0")
    assert checksum_matches(data, "fe80::1%eth7", "fe80::2")


def test_a_number_that_does_not_fit_is_the_callers_mistake() -> None:
    for wrong in (replace(LINUX_SYN.sender, mss=70000), replace(LINUX_SYN.sender, window_scale=15)):
        with pytest.raises(ValueError, match=r"range|window scale 15"):
            encode(replace(LINUX_SYN, sender=wrong), "192.0.2.1", "192.0.2.2")
    with pytest.raises(ValueError, match="range"):
        encode(replace(LINUX_SYN, destination_port=65536), "192.0.2.1", "192.0.2.2")
    with pytest.raises(ValueError, match="one family"):
        encode(LINUX_SYN, "192.0.2.1", "fd00::1")
