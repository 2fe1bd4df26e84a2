# SPDX-License-Identifier: Apache-2.0
"""Frames that the C core builds and parses, against scapy."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw

from accord.datapath.path import Path
from accord.wire.constants import Reason
from tests.datapath.frames import build, parse
from tests.xdp.craft import ETHER, IP4, IP6, OURS, OURS_4, OURS_6, THEIRS, UDP_OURS, header
from tests.xdp.packets import STEERED
from tests.xdp.packets_damage import FRAGMENTS, MALFORMED, TOO_MANY
from tests.xdp.packets_foreign import NOT_IP

LINKS = {
    "untagged": Ether(src=OURS, dst=THEIRS),
    "802.1Q": Ether(src=OURS, dst=THEIRS) / Dot1Q(vlan=7, prio=5),
    "802.1ad and 802.1Q": Ether(src=OURS, dst=THEIRS) / Dot1AD(vlan=7) / Dot1Q(vlan=8),
}
PORTS = st.integers(1, 65535)
SOURCES_4 = st.ip_addresses(v=4).filter(lambda a: not (a.packed[0] in (0, 127) or a.packed[0] >= 224)).map(str)
SOURCES_6 = st.ip_addresses(v=6).filter(lambda a: int(a) > 1 and not a.is_multicast).map(str)


def link_bytes(name: str, family: int) -> bytes:
    """The link header up to and with the type of IP."""
    return bytes(LINKS[name] / (IP() if family == 4 else IPv6()))[: len(LINKS[name])]


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("context", [17, 253])
@given(data=st.data(), packet=st.binary(max_size=1500), ports=st.tuples(PORTS, PORTS))
def test_scapy_computes_the_same_lengths_and_checksums_as_a_built_frame_has(
    link: str, context: int, data: st.DataObject, packet: bytes, ports: tuple[int, int]
) -> None:
    family = data.draw(st.sampled_from([4, 6]))
    local, remote = (data.draw(SOURCES_4 if family == 4 else SOURCES_6) for _ in range(2))
    path = Path(family, context, local, ports[0], remote, ports[1])
    frame = build(path, link_bytes(link, family), packet)
    assert isinstance(frame, bytes)
    if family == 4:
        network: Packet = IP(src=local, dst=remote, flags="DF", id=0, ttl=64, proto=context)
    else:
        network = IPv6(src=local, dst=remote, hlim=64, nh=context)
    transport = UDP(sport=ports[0], dport=ports[1]) / Raw(packet) if context == 17 else Raw(packet)
    assert frame == bytes(LINKS[link] / network / transport)


@pytest.mark.parametrize("link", LINKS)
@given(data=st.data(), packet=st.binary(max_size=1500), ports=st.tuples(PORTS, PORTS), padding=st.integers(0, 46))
def test_a_built_frame_parses_to_the_packet_and_the_path_turned_round(
    link: str, data: st.DataObject, packet: bytes, ports: tuple[int, int], padding: int
) -> None:
    family, context = data.draw(st.sampled_from([(4, 17), (6, 17), (4, 253), (6, 253)]))
    local, remote = (data.draw(SOURCES_4 if family == 4 else SOURCES_6) for _ in range(2))
    if context == 253:
        ports = (0, 0)
    header_bytes = link_bytes(link, family)
    frame = build(Path(family, context, local, ports[0], remote, ports[1]), header_bytes, packet)
    assert isinstance(frame, bytes)
    parsed = parse(frame + bytes(padding))
    assert parsed.packet == packet
    assert parsed.path == Path(family, context, remote, ports[1], local, ports[0])
    assert parsed.link == header_bytes[6:12] + header_bytes[:6] + header_bytes[12:]


@given(st.binary(max_size=200), st.tuples(st.sampled_from([0, 0x8100, 0x88A8]), st.integers(0, 65535)))
def test_random_frames_parse_to_a_packet_inside_them_or_to_a_reason(frame: bytes, tag: tuple[int, int]) -> None:
    parsed = parse(frame, tag)
    assert (parsed.path is None) == (parsed.reason is not Reason.OK)


@given(st.sampled_from([row.frame for row in STEERED]), st.data())
def test_a_steered_frame_cut_anywhere_is_refused(frame: bytes, data: st.DataObject) -> None:
    whole = parse(frame)
    end = frame.index(whole.packet) + len(whole.packet)
    length = data.draw(st.integers(0, end - 1))
    if frame[12:14] == b"\x08\x00" or length < 14:
        assert parse(frame[:length]).reason is Reason.MALFORMED_FRAME
    else:
        assert parse(frame[:length]).reason in {Reason.MALFORMED_FRAME, Reason.NOT_IP}


@pytest.mark.parametrize("row", STEERED, ids=lambda row: row.name)
def test_what_the_xdp_program_steers_parses(row: object) -> None:
    parsed = parse(row.frame)  # type: ignore[attr-defined]
    assert parsed.reason is Reason.OK
    assert parsed.packet[1:32] == header()[1:32]


@pytest.mark.parametrize("row", [*NOT_IP, *FRAGMENTS, *MALFORMED, *TOO_MANY], ids=lambda row: row.name)
def test_what_does_not_parse_in_xdp_does_not_here_for_the_same_reason(row: object) -> None:
    assert parse(row.frame).reason is row.reason  # type: ignore[attr-defined]


def test_a_tag_that_the_kernel_took_out_is_put_back_into_the_link_header() -> None:
    tagged = bytes(ETHER / Dot1AD(vlan=7, prio=3) / Dot1Q(vlan=8) / IP4 / UDP_OURS / header())
    stripped = tagged[:12] + tagged[16:]
    assert parse(stripped, (0x88A8, 3 << 13 | 7)) == parse(tagged)


def test_a_tag_that_the_kernel_took_out_counts_among_the_two() -> None:
    tagged = bytes(ETHER / Dot1Q(vlan=7) / Dot1Q(vlan=8) / IP4 / UDP_OURS / header())
    assert parse(tagged, (0x8100, 1)).reason is Reason.TOO_MANY_EXTENSIONS


@pytest.mark.parametrize("at", range(20))
def test_an_ipv4_header_with_a_wrong_checksum_is_malformed(at: int) -> None:
    frame = bytearray(bytes(OURS_4))
    frame[14 + at] ^= 0x40
    assert parse(bytes(frame)).reason in {Reason.MALFORMED_FRAME, Reason.FRAGMENT}


@pytest.mark.parametrize(
    "source", ["0.0.0.0", "127.0.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "::", "::1", "ff02::1"]
)
def test_a_source_that_must_not_be_answered_is_malformed(source: str) -> None:
    network = (
        IPv6(src=source, dst=IP6.dst) if ipaddress.ip_address(source).version == 6 else IP(src=source, dst=IP4.dst)
    )
    assert parse(bytes(ETHER / network / UDP_OURS / header())).reason is Reason.MALFORMED_FRAME


@pytest.mark.parametrize("frame", [OURS_4, OURS_6], ids=["IPv4", "IPv6"])
def test_a_source_port_of_zero_is_malformed(frame: Ether) -> None:
    zero = frame.copy()
    zero[UDP].sport = 0
    assert parse(bytes(zero)).reason is Reason.MALFORMED_FRAME


def test_a_frame_that_does_not_fit_is_not_built() -> None:
    path = Path.udp(("192.0.2.2", 443), ("192.0.2.1", 50000))
    link = link_bytes("untagged", 4)
    assert len(build(path, link, bytes(100), room=142)) == 142  # type: ignore[arg-type]
    assert build(path, link, bytes(100), room=141) is Reason.LONG_PACKET


def test_a_udp_checksum_that_sums_to_zero_is_sent_as_all_ones() -> None:
    path = Path.udp(("192.0.2.2", 443), ("192.0.2.1", 50000))
    link = link_bytes("untagged", 4)
    probe = build(path, link, b"\0\0")
    assert isinstance(probe, bytes)
    balanced = build(path, link, probe[40:42])  # adding what is missing to all ones makes the sum zero
    assert isinstance(balanced, bytes)
    assert balanced[40:42] == b"\xff\xff"
