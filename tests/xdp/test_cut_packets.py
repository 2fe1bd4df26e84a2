# SPDX-License-Identifier: Apache-2.0
"""Frames that end at every one of their bytes: by damage, and with lengths that tell the truth about it."""

from __future__ import annotations

import pytest
from scapy.layers.inet import UDP, IPOption_NOP
from scapy.layers.l2 import Dot1AD, Dot1Q

from accord.datapath.xdp_test import Program
from accord.wire.constants import Reason
from tests.xdp.craft import (
    ALIVE_MS,
    DIRECT,
    ETHER,
    IP4,
    IP6,
    OURS_4,
    OURS_6,
    PORT,
    UDP_OURS,
    behind,
    extensions,
    header,
    ip4,
    ip6,
    shorn,
)

pytestmark = pytest.mark.root

WHOLE = {
    "IPv4": OURS_4,
    "IPv6": OURS_6,
    "IPv4 with all options behind two tags": ETHER
    / Dot1AD(vlan=7)
    / Dot1Q(vlan=8)
    / ip4(options=[IPOption_NOP()] * 40)
    / UDP_OURS
    / header(),
    "six extension headers": behind(0, 43, 44, 60, 135, 139),
    "long extension headers": ETHER / ip6(nh=60) / (extensions(60, 60, units=4) + bytes(UDP_OURS / header())),
    "IP protocol 253 over IPv4": ETHER / ip4(proto=DIRECT) / header(),
    "IP protocol 253 behind six extension headers": behind(0, 60, 60, 60, 60, 44, upper=DIRECT),
}


def verdicts(program: Program, frames: list[bytes]) -> list[Reason | None]:
    """The reason for each frame; none may be changed."""
    found = []
    for frame in frames:
        program.heartbeat(ALIVE_MS)
        result = program.run(frame)
        assert result.output == frame
        found.append(result.reason)
    return found


@pytest.mark.parametrize("name", WHOLE)
def test_a_frame_cut_at_any_byte_passes_as_malformed(program: Program, name: str) -> None:
    whole = bytes(WHOLE[name])
    assert verdicts(program, [whole]) == [Reason.STEERED]
    assert set(verdicts(program, [whole[:length] for length in range(14, len(whole))])) == {Reason.MALFORMED_FRAME}


@pytest.mark.parametrize(("whole", "family", "ip"), [(OURS_4, 4, 20), (OURS_6, 6, 40)], ids=["IPv4", "IPv6"])
def test_a_frame_that_says_where_it_ends_is_ours_from_the_last_byte_of_the_header_on(
    program: Program, whole: bytes, family: int, ip: int
) -> None:
    udp = 14 + ip
    long = bytes(whole) + bytes(4)
    expected = [
        *[Reason.MALFORMED_FRAME] * 8,  # of the UDP header, 0 to 7 bytes
        *[Reason.NOT_OURS_MAGIC] * 32,  # of ours, 0 to 31
        *[Reason.STEERED] * 5,
    ]
    ends = range(udp, len(long) + 1)
    assert verdicts(program, [shorn(long, end, family) for end in ends]) == expected
    # The same with padding up to the frame that Ethernet sends at least.
    assert verdicts(program, [shorn(long, end, family).ljust(120, b"A") for end in ends]) == expected


@pytest.mark.parametrize("network", [IP4, IP6], ids=["IPv4", "IPv6"])
def test_every_udp_length_but_those_from_the_header_to_the_payload_is_malformed(
    program: Program, network: object
) -> None:
    lengths = [*range(0, 60), *(1 << bit for bit in range(6, 16)), 0xFFFF]
    frames = [bytes(ETHER / network / UDP(sport=50000, dport=PORT, len=length) / header()) for length in lengths]
    expected = [
        Reason.MALFORMED_FRAME if not 8 <= length <= 40 else Reason.STEERED if length == 40 else Reason.NOT_OURS_MAGIC
        for length in lengths
    ]
    assert verdicts(program, frames) == expected


@pytest.mark.parametrize("kinds", range(9))
def test_a_packet_is_steered_behind_up_to_six_extension_headers_and_passes_behind_more(
    program: Program, kinds: int
) -> None:
    frame = bytes(behind(*[60] * kinds)) if kinds else bytes(OURS_6)
    assert verdicts(program, [frame]) == [Reason.STEERED if kinds <= 6 else Reason.TOO_MANY_EXTENSIONS]


def test_of_the_256_first_bytes_twelve_are_ours(program: Program) -> None:
    found = verdicts(program, [bytes(ETHER / IP4 / UDP_OURS / header(first=first)) for first in range(256)])
    assert [first for first, reason in enumerate(found) if reason is Reason.STEERED] == list(range(4, 16))


def test_of_the_256_ip_protocols_udp_and_253_are_looked_into(program: Program) -> None:
    datagram = bytes(UDP_OURS / header())
    found = verdicts(program, [bytes(ETHER / ip4(proto=number) / datagram) for number in range(256)])
    assert [number for number, reason in enumerate(found) if reason is Reason.STEERED] == [17]
    found = verdicts(program, [bytes(ETHER / ip4(proto=number) / header()) for number in range(256)])
    assert [number for number, reason in enumerate(found) if reason is Reason.STEERED] == [DIRECT]
    assert {reason for number, reason in enumerate(found) if number not in (17, DIRECT)} == {Reason.NOT_OURS_PROTOCOL}


def test_of_the_256_next_headers_seven_are_walked_through(program: Program) -> None:
    datagram = bytes(UDP_OURS / header())
    found = verdicts(
        program, [bytes(ETHER / ip6(nh=number) / (extensions(60, upper=17) + datagram)) for number in range(256)]
    )
    walked = {number for number, reason in enumerate(found) if reason is Reason.STEERED}
    assert walked == {0, 43, 44, 60, 135, 139, 140}
