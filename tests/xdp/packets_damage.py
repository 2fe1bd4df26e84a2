# SPDX-License-Identifier: Apache-2.0
"""Rows of the packet table: fragments, lies about lengths, cut frames, and chains of headers without end."""

from __future__ import annotations

from scapy.layers.inet import TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q

from accord.wire.constants import Reason
from tests.xdp.craft import (
    DATAGRAM,
    DIRECT,
    ETHER,
    IP4,
    IP6,
    OURS_4,
    OURS_6,
    PORT,
    UDP_OURS,
    behind,
    case,
    cut,
    extensions,
    header,
    ip4,
    ip6,
    patched,
    rows,
    shorn,
)

FRAGMENTS = [
    case(
        "a first IPv4 fragment",
        ETHER / ip4(flags="MF") / UDP_OURS / header(),
        Reason.FRAGMENT,
    ),
    case(
        "a middle IPv4 fragment",
        ETHER / ip4(flags="MF", frag=9, proto=17) / header(),
        Reason.FRAGMENT,
    ),
    case(
        "a last IPv4 fragment that looks like a packet of ours",
        ETHER / ip4(frag=9) / UDP_OURS / header(),
        Reason.FRAGMENT,
    ),
    case(
        "the smallest offset",
        ETHER / ip4(frag=1, proto=DIRECT) / header(),
        Reason.FRAGMENT,
    ),
    case("a first IPv6 fragment", ETHER / IP6 / IPv6ExtHdrFragment(m=1, id=9) / UDP_OURS / header(), Reason.FRAGMENT),
    case(
        "a last IPv6 fragment",
        ETHER / IP6 / IPv6ExtHdrFragment(offset=1, id=9, nh=17) / UDP_OURS / header(),
        Reason.FRAGMENT,
    ),
    case(
        "an IPv6 fragment behind another extension",
        ETHER / IP6 / IPv6ExtHdrDestOpt() / IPv6ExtHdrFragment(offset=100, m=1) / UDP_OURS / header(),
        Reason.FRAGMENT,
    ),
    *rows(
        Reason.FRAGMENT,
        {
            "an IPv4 fragment with DF set": ETHER / ip4(flags="DF+MF") / UDP_OURS / header(),
            "an IPv4 fragment with the reserved flag": ETHER / ip4(flags="evil+MF") / UDP_OURS / header(),
            "the largest IPv4 offset": ETHER / ip4(frag=0x1FFF, proto=17) / header(),
            "an offset with only its highest bit": ETHER / ip4(frag=0x1000, proto=17) / DATAGRAM,
            "a first IPv4 fragment of IP protocol 253": ETHER / ip4(flags="MF", proto=DIRECT) / header(),
            "a fragment with IPv4 options": ETHER / ip4(flags="MF", options=[IPOption_NOP()] * 4) / UDP_OURS / header(),
            "an IPv4 fragment behind two tags": ETHER
            / Dot1AD(vlan=7)
            / Dot1Q(vlan=8)
            / ip4(flags="MF")
            / UDP_OURS
            / header(),
            "an IPv4 fragment of TCP": ETHER / ip4(flags="MF") / TCP(dport=PORT),
            "an IPv6 fragment of IP protocol 253": ETHER / IP6 / IPv6ExtHdrFragment(m=1, nh=DIRECT) / header(),
            "the largest IPv6 offset": ETHER / IP6 / IPv6ExtHdrFragment(offset=0x1FFF, nh=17) / DATAGRAM,
            "an IPv6 fragment of TCP": ETHER / IP6 / IPv6ExtHdrFragment(offset=1, nh=6) / TCP(),
            "an IPv6 fragment as the sixth header": ETHER
            / ip6(nh=60)
            / (extensions(60, 60, 60, 60, 60, upper=44) + b"\x11\0\0\x01nine" + DATAGRAM),
            "an atomic fragment, then a real one": ETHER
            / ip6(nh=44)
            / (b"\x2c\0\0\0nine" + b"\x11\0\0\x09nine" + DATAGRAM),
        },
    ),
]

MALFORMED = [
    case("IPv4 cut in its header", cut(OURS_4, 14 + 19), Reason.MALFORMED_FRAME),
    case("nothing behind the type IPv4", cut(OURS_4, 14), Reason.MALFORMED_FRAME),
    case("IPv6 cut in its header", cut(OURS_6, 14 + 39), Reason.MALFORMED_FRAME),
    case("a VLAN tag cut short", cut(ETHER / Dot1Q(vlan=7) / IP4, 16), Reason.MALFORMED_FRAME),
    case("a second VLAN tag cut short", cut(ETHER / Dot1AD(vlan=7) / Dot1Q(vlan=8), 21), Reason.MALFORMED_FRAME),
    case("ihl 4", patched(OURS_4, 14, b"\x44"), Reason.MALFORMED_FRAME),
    case("ihl 0", patched(OURS_4, 14, b"\x40"), Reason.MALFORMED_FRAME),
    case("ihl beyond the frame", cut(patched(OURS_4, 14, b"\x4f"), 14 + 40), Reason.MALFORMED_FRAME),
    case("IP version 5 as IPv4", patched(OURS_4, 14, b"\x55"), Reason.MALFORMED_FRAME),
    case("IP version 4 as IPv6", patched(OURS_6, 14, b"\x45"), Reason.MALFORMED_FRAME),
    case("a total length below the header's", patched(OURS_4, 16, b"\x00\x13"), Reason.MALFORMED_FRAME),
    case("a total length beyond the frame", patched(OURS_4, 16, b"\xff\xff"), Reason.MALFORMED_FRAME),
    case("a payload length beyond the frame", patched(OURS_6, 18, b"\x00\x29"), Reason.MALFORMED_FRAME),
    case("an IPv6 payload length of zero, as a jumbogram's", patched(OURS_6, 18, b"\x00\x00"), Reason.MALFORMED_FRAME),
    case(
        "UDP cut in its header",
        ETHER / ip4(proto=17) / bytes(7),
        Reason.MALFORMED_FRAME,
    ),
    case("a UDP length below its header's", ETHER / IP4 / UDP(dport=PORT, len=7) / header(), Reason.MALFORMED_FRAME),
    case("a UDP length of zero", ETHER / IP6 / UDP(dport=PORT, len=0) / header(), Reason.MALFORMED_FRAME),
    case(
        "a UDP length beyond IP's payload", ETHER / IP4 / UDP(dport=PORT, len=8 + 33) / header(), Reason.MALFORMED_FRAME
    ),
    case(
        "a UDP length beyond IP's payload, within the padding",
        bytes(ETHER / IP4 / UDP(dport=PORT, len=8 + 33) / header()) + bytes(9),
        Reason.MALFORMED_FRAME,
    ),
    case(
        "an extension header cut short",
        ETHER / ip6(nh=60) / bytes(7),
        Reason.MALFORMED_FRAME,
    ),
    case(
        "an extension header longer than the packet",
        ETHER / ip6(nh=60) / (b"\x11\xff" + bytes(60)),
        Reason.MALFORMED_FRAME,
    ),
    case(
        "a fragment header cut short",
        ETHER / ip6(nh=44) / bytes(6),
        Reason.MALFORMED_FRAME,
    ),
    *rows(
        Reason.MALFORMED_FRAME,
        {
            **{f"ihl {ihl}": patched(OURS_4, 14, bytes([0x40 | ihl])) for ihl in (1, 2, 3)},
            **{f"IP version {number} as IPv4": patched(OURS_4, 14, bytes([number << 4 | 5])) for number in (0, 6, 15)},
            **{f"IP version {version} as IPv6": patched(OURS_6, 14, bytes([version << 4])) for version in (0, 7, 15)},
            "ihl 4, and our datagram where such a header would end": bytes(OURS_4)[:14]
            + patched(ip4(proto=17), 0, b"\x44\0\0\x38")[:16]
            + DATAGRAM,
            "ihl 15 with a total length of 59": patched(
                ETHER / ip4(options=[IPOption_NOP()] * 40) / UDP_OURS / header(), 16, b"\0\x3b"
            ),
            "ihl 15 one byte before the frame's end": cut(patched(OURS_4, 14, b"\x4f\0\0\x3b"), 14 + 59),
            "a total length of zero, as segmentation offload leaves it": patched(OURS_4, 16, b"\0\0"),
            "a total length one byte beyond the frame": patched(OURS_4, 16, b"\0\x3d"),
            "a total length beyond the frame, behind a tag": patched(
                ETHER / Dot1Q(vlan=7) / IP4 / UDP_OURS / header(), 20, b"\0\x3d"
            ),
            "a total length that ends in UDP's header": patched(OURS_4, 16, b"\0\x1b"),
            "a total length that ends in UDP's header, for TCP's eyes": patched(OURS_4, 16, b"\0\x14"),
            "a payload length that ends in UDP's header": patched(OURS_6, 18, b"\0\x07"),
            "an IPv4 packet typed as IPv6": patched(OURS_4, 12, b"\x86\xdd"),
            "an IPv6 packet typed as IPv4": patched(OURS_6, 12, b"\x08\x00"),
            "the type IPv6 and nothing behind it": cut(OURS_6, 14),
            "a tag cut after one byte": cut(ETHER / Dot1Q(vlan=7) / IP4, 15),
            "a tag cut before its type": cut(ETHER / Dot1Q(vlan=7) / IP4, 17),
            "a second tag that is not there": cut(ETHER / Dot1AD(vlan=7) / Dot1Q(vlan=8), 18),
            "the type IPv4 behind a tag and nothing more": cut(ETHER / Dot1Q(vlan=7) / IP4, 18),
            "IPv4 cut one byte before its options end": cut(
                ETHER / ip4(options=[IPOption_NOP()] * 40) / UDP_OURS, 14 + 59
            ),
            "UDP cut in its header over IPv6": shorn(OURS_6, 14 + 40 + 7, 6),
            "UDP's header in the padding": shorn(OURS_4, 14 + 20 + 4) + DATAGRAM[4:],
            "a UDP length of 1": ETHER / IP6 / UDP(dport=PORT, len=1) / header(),
            "the largest UDP length": ETHER / IP4 / UDP(dport=PORT, len=0xFFFF) / header(),
            "a UDP length one byte beyond IPv6's payload": ETHER / IP6 / UDP(dport=PORT, len=8 + 33) / header(),
            "a UDP length one byte too long for TCP's port": ETHER / IP4 / UDP(dport=80, len=8 + 33) / header(),
            "an extension header that the payload length cuts": patched(behind(60), 18, b"\0\x07"),
            "an extension header of 16 bytes, 15 of them there": patched(
                ETHER / ip6(nh=60) / (extensions(60, units=1) + DATAGRAM), 18, b"\0\x0f"
            ),
            "a fragment's offset in the padding": patched(
                ETHER / ip6(nh=44) / (b"\x11\0\0\x09" + bytes(60)), 18, b"\0\2"
            ),
            "segments left in the padding": patched(ETHER / ip6(nh=43) / (b"\x11\0\0\x09" + bytes(60)), 18, b"\0\3"),
            "a hop-by-hop header that is not there": cut(ETHER / ip6(nh=0, plen=0), 14 + 40),
            "a seventh header's place with nothing in it": ETHER / ip6(nh=60) / extensions(60, 60, 60, 60, 60, 60),
            "six extension headers and seven bytes of UDP": behind(60, 60, 60, 60, 60, 60, rest=DATAGRAM[:7]),
            "a UDP length beyond what an extension header leaves, within the padding": bytes(
                ETHER / ip6(nh=60) / (extensions(60) + bytes(UDP(sport=50000, dport=PORT, len=8 + 36) / header()))
            )
            + bytes(9),
            "a second extension header beyond the packet": ETHER
            / ip6(nh=60)
            / (extensions(60, upper=60) + b"\x11\x20" + bytes(6) + DATAGRAM),
            "the longest extension header in a short packet": ETHER / ip6(nh=135) / (b"\x11\xff" + bytes(6) + DATAGRAM),
        },
    ),
]

TOO_MANY = [
    case(
        "three VLAN tags",
        ETHER / Dot1AD(vlan=1) / Dot1Q(vlan=2) / Dot1Q(vlan=3) / IP4 / UDP_OURS / header(),
        Reason.TOO_MANY_EXTENSIONS,
    ),
    case(
        "seven extension headers",
        ETHER
        / ip6(nh=60)
        / (b"\x3c\0" + bytes(6))
        / ((b"\x3c\0" + bytes(6)) * 5)
        / (b"\x11\0" + bytes(6))
        / UDP_OURS
        / header(),
        Reason.TOO_MANY_EXTENSIONS,
    ),
    case(
        "an endless chain of extension headers",
        ETHER / ip6(nh=0) / bytes(800),
        Reason.TOO_MANY_EXTENSIONS,
    ),
    *rows(
        Reason.TOO_MANY_EXTENSIONS,
        {
            "three 802.1ad tags": ETHER / Dot1AD(vlan=1) / Dot1AD(vlan=2) / Dot1AD(vlan=3) / IP6 / UDP_OURS / header(),
            "three tags around ARP": ETHER / Dot1Q(vlan=1) / Dot1Q(vlan=2) / Dot1Q(vlan=3) / ARP(),
            "a third tag cut short": cut(ETHER / Dot1AD(vlan=1) / Dot1Q(vlan=2) / Dot1Q(vlan=3), 22),
            "seven different extension headers": behind(0, 43, 44, 60, 135, 139, 140),
            "seven extension headers before IP protocol 253": behind(0, 60, 60, 60, 60, 60, 60, upper=DIRECT),
            "seven extension headers before TCP": behind(60, 60, 60, 60, 60, 60, 60, upper=6, rest=bytes(20)),
            "a fragment header as the seventh": behind(60, 60, 60, 60, 60, 60, 44),
            "a mobility header as the seventh": behind(60, 60, 60, 60, 60, 60, 135),
            "a chain of fragment headers, each atomic": behind(44, 44, 44, 44, 44, 44, 44),
        },
    ),
]
