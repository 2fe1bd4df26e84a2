# SPDX-License-Identifier: Apache-2.0
"""The table of packets: an English name, a frame that scapy built, and what the XDP program makes of it.

All frames are for the Ethernet address OURS; UDP port 443 is steered, and "any port" is off.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP, IPOption_Router_Alert
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    IPv6ExtHdrSegmentRouting,
)
from scapy.layers.ipsec import AH, ESP
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw

from accord.wire.constants import Reason

OURS = "02:00:00:00:00:02"
THEIRS = "02:00:00:00:00:01"
PORT = 443
DIRECT = 253


def header(first: int = 4, magic: bytes = b"ACRD", length: int = 32) -> bytes:
    """The start of a negotiation packet, written down by hand and cut to ``length`` bytes."""
    packet = struct.pack("!BBH4s12sIIHH", first, 0, 1, magic, b"transaction.", 0x7472616E, 0, 0, 0)
    return (packet + bytes(max(0, length - 32)))[:length]


def ip4(**fields: object) -> IP:
    """IPv4 between the two hosts of the table."""
    return IP(src="192.0.2.1", dst="192.0.2.2", **fields)


def ip6(**fields: object) -> IPv6:
    """IPv6 between the two hosts of the table."""
    return IPv6(src="2001:db8::1", dst="2001:db8::2", **fields)


ETHER = Ether(dst=OURS, src=THEIRS)
IP4 = ip4()
IP6 = ip6()
UDP_OURS = UDP(sport=50000, dport=PORT)
OURS_4 = ETHER / IP4 / UDP_OURS / header()
OURS_6 = ETHER / IP6 / UDP_OURS / header()


@dataclass(frozen=True)
class Case:
    """One row; ``settings`` go to ``Program.configure``, ``joined``, ``age_ms`` to the state around it."""

    name: str
    frame: bytes
    reason: Reason
    settings: dict[str, object] = field(default_factory=dict)
    joined: bool = True
    age_ms: int = 0


def case(name: str, frame: Packet | bytes, reason: Reason, **around: object) -> Case:
    """A row; keywords that are no field of it are settings."""
    fields = {key: around.pop(key) for key in ("joined", "age_ms") if key in around}
    return Case(name, bytes(frame), reason, around, **fields)  # type: ignore[arg-type]


def patched(frame: Packet, offset: int, value: bytes) -> bytes:
    """The frame with some bytes overwritten: for what scapy would not build."""
    raw = bytearray(bytes(frame))
    raw[offset : offset + len(value)] = value
    return bytes(raw)


def cut(frame: Packet | bytes, length: int) -> bytes:
    """The first ``length`` bytes of the frame."""
    return bytes(frame)[:length]


STEERED = [
    case("a packet over IPv4", OURS_4, Reason.STEERED),
    case("a packet over IPv6", OURS_6, Reason.STEERED),
    case("the last version of the range", ETHER / IP4 / UDP_OURS / header(first=15), Reason.STEERED),
    case("a full packet of 1200 bytes", ETHER / IP4 / UDP_OURS / header(length=1200), Reason.STEERED),
    case("one VLAN tag", ETHER / Dot1Q(vlan=7) / IP4 / UDP_OURS / header(), Reason.STEERED),
    case("a priority tag, VLAN 0", ETHER / Dot1Q(vlan=0, prio=6) / IP4 / UDP_OURS / header(), Reason.STEERED),
    case("an 802.1ad tag", ETHER / Dot1AD(vlan=7) / IP6 / UDP_OURS / header(), Reason.STEERED),
    case("802.1ad around 802.1Q", ETHER / Dot1AD(vlan=7) / Dot1Q(vlan=8) / IP4 / UDP_OURS / header(), Reason.STEERED),
    case("two 802.1Q tags", ETHER / Dot1Q(vlan=7) / Dot1Q(vlan=8) / IP6 / UDP_OURS / header(), Reason.STEERED),
    case(
        "IPv4 with one option",
        ETHER / ip4(options=[IPOption_Router_Alert()]) / UDP_OURS / header(),
        Reason.STEERED,
    ),
    case(
        "IPv4 with all 40 bytes of options",
        ETHER / ip4(options=[IPOption_NOP()] * 40) / UDP_OURS / header(),
        Reason.STEERED,
    ),
    case(
        "IPv4 with DF set",
        ETHER / ip4(flags="DF") / UDP_OURS / header(),
        Reason.STEERED,
    ),
    case(
        "IPv4 with ECN marks",
        ETHER / ip4(tos=3) / UDP_OURS / header(),
        Reason.STEERED,
    ),
    case(
        "IP protocol 253 over IPv4",
        ETHER / ip4(proto=DIRECT) / header(),
        Reason.STEERED,
    ),
    case(
        "IP protocol 253 over IPv6",
        ETHER / ip6(nh=DIRECT) / header(),
        Reason.STEERED,
    ),
    case("a wrong UDP checksum", patched(OURS_4, 14 + 20 + 6, b"\xde\xad"), Reason.STEERED),
    case("no UDP checksum", ETHER / IP4 / UDP(sport=50000, dport=PORT, chksum=0) / header(), Reason.STEERED),
    case("Ethernet padding behind the packet", bytes(OURS_4) + bytes(18), Reason.STEERED),
    case(
        "a UDP length shorter than IP's payload",
        ETHER / IP4 / UDP(sport=50000, dport=PORT, len=8 + 32) / header(length=100),
        Reason.STEERED,
    ),
    case("a hop-by-hop header", ETHER / IP6 / IPv6ExtHdrHopByHop() / UDP_OURS / header(), Reason.STEERED),
    case("a destination options header", ETHER / IP6 / IPv6ExtHdrDestOpt() / UDP_OURS / header(), Reason.STEERED),
    case(
        "a routing header that is used up",
        ETHER / IP6 / IPv6ExtHdrRouting(segleft=0, addresses=["2001:db8::9"]) / UDP_OURS / header(),
        Reason.STEERED,
    ),
    case("an atomic fragment", ETHER / IP6 / IPv6ExtHdrFragment(id=9) / UDP_OURS / header(), Reason.STEERED),
    case(
        "six extension headers",
        ETHER
        / IP6
        / IPv6ExtHdrHopByHop()
        / (IPv6ExtHdrDestOpt() / IPv6ExtHdrDestOpt() / IPv6ExtHdrDestOpt())
        / (IPv6ExtHdrDestOpt() / IPv6ExtHdrDestOpt())
        / UDP_OURS
        / header(),
        Reason.STEERED,
    ),
    case(
        "an unregistered port, when any port will do",
        ETHER / IP4 / UDP(dport=9) / header(),
        Reason.STEERED,
        any_port=True,
    ),
]

NOT_IP = [
    case("an ARP request", ETHER / ARP(pdst="192.0.2.2"), Reason.NOT_IP),
    case("LLDP", ETHER / Raw(bytes(60)), Reason.NOT_IP),
    case("MPLS", Ether(dst=OURS, src=THEIRS, type=0x8847) / Raw(bytes(OURS_4)[14:]), Reason.NOT_IP),
    case("PPPoE", Ether(dst=OURS, src=THEIRS, type=0x8864) / Raw(bytes(60)), Reason.NOT_IP),
    case("an 802.3 frame with a length", Ether(dst=OURS, src=THEIRS, type=0x0030) / Raw(bytes(60)), Reason.NOT_IP),
    case(
        "an old 0x9100 tag",
        Ether(dst=OURS, src=THEIRS, type=0x9100) / Raw(b"\0\7\x08\0" + bytes(OURS_4)[14:]),
        Reason.NOT_IP,
    ),
    case("a bare Ethernet header of type 0", bytes.fromhex("020000000002020000000001") + b"\0\0", Reason.NOT_IP),
]

NOT_OURS = [
    case("a TCP SYN to our port", ETHER / IP4 / TCP(dport=PORT, flags="S"), Reason.NOT_OURS_PROTOCOL),
    case("TCP with our header as its payload", ETHER / IP6 / TCP(dport=PORT) / header(), Reason.NOT_OURS_PROTOCOL),
    case("an ICMP echo with our header in it", ETHER / IP4 / ICMP() / header(), Reason.NOT_OURS_PROTOCOL),
    case(
        "our packet quoted in an ICMP error",
        ETHER / IP4 / ICMP(type=3, code=3) / bytes(OURS_4)[14:],
        Reason.NOT_OURS_PROTOCOL,
    ),
    case("our packet inside IP-in-IP", ETHER / IP4 / bytes(OURS_4)[14:], Reason.NOT_OURS_PROTOCOL),
    case("GRE", ETHER / ip4(proto=47) / bytes(40), Reason.NOT_OURS_PROTOCOL),
    case("IP protocol 254", ETHER / ip4(proto=254) / header(), Reason.NOT_OURS_PROTOCOL),
    case("ESP", ETHER / IP6 / ESP(spi=1, seq=1, data=header(length=64)), Reason.NOT_OURS_PROTOCOL),
    case(
        "AH around UDP, which IPsec has to verify first",
        ETHER / IP6 / AH(spi=1, seq=1, icv=bytes(12)) / UDP_OURS / header(),
        Reason.NOT_OURS_PROTOCOL,
    ),
    case(
        "IPv6 without a next header",
        ETHER / ip6(nh=59) / bytes(40),
        Reason.NOT_OURS_PROTOCOL,
    ),
    case("a port that nobody registered", ETHER / IP4 / UDP(dport=444) / header(), Reason.NOT_OURS_PORT),
    case("our port as the source port only", ETHER / IP4 / UDP(sport=PORT, dport=444) / header(), Reason.NOT_OURS_PORT),
    case("our port with its bytes exchanged", ETHER / IP6 / UDP(dport=0xBB01) / header(), Reason.NOT_OURS_PORT),
    case("an empty datagram", ETHER / IP4 / UDP_OURS, Reason.NOT_OURS_MAGIC),
    case("one byte short of a header", ETHER / IP4 / UDP_OURS / header(length=31), Reason.NOT_OURS_MAGIC),
    case(
        "a header cut by the UDP length, complete in the frame",
        ETHER / IP4 / UDP(sport=50000, dport=PORT, len=8 + 31) / header(),
        Reason.NOT_OURS_MAGIC,
    ),
    case("first byte 3, one below the range", ETHER / IP4 / UDP_OURS / header(first=3), Reason.NOT_OURS_MAGIC),
    case("first byte 16, one above the range", ETHER / IP4 / UDP_OURS / header(first=16), Reason.NOT_OURS_MAGIC),
    case("a cookie with one wrong bit", ETHER / IP4 / UDP_OURS / header(magic=b"ACRE"), Reason.NOT_OURS_MAGIC),
    case("a cookie in little-endian order", ETHER / IP6 / UDP_OURS / header(magic=b"DRCA"), Reason.NOT_OURS_MAGIC),
    case(
        "a STUN binding request",
        ETHER / IP4 / UDP_OURS / (bytes.fromhex("000100002112a442") + bytes(24)),
        Reason.NOT_OURS_MAGIC,
    ),
    case(
        "a DTLS record", ETHER / IP4 / UDP_OURS / (bytes.fromhex("16fefd0000000000") + bytes(40)), Reason.NOT_OURS_MAGIC
    ),
    case("a TURN channel message", ETHER / IP4 / UDP_OURS / (b"\x40\x00\x00\x20" + bytes(32)), Reason.NOT_OURS_MAGIC),
    case("an RTP packet", ETHER / IP4 / UDP_OURS / (b"\x80\x60" + bytes(46)), Reason.NOT_OURS_MAGIC),
    case("a QUIC Initial", ETHER / IP6 / UDP_OURS / (b"\xc0\x00\x00\x00\x01" + bytes(1195)), Reason.NOT_OURS_MAGIC),
    case(
        "IP protocol 253 with another experiment in it",
        ETHER / ip4(proto=DIRECT) / bytes(64),
        Reason.NOT_OURS_MAGIC,
    ),
]

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
]

NOT_LOCAL = [
    case(
        "a frame for a guest behind a bridge",
        Ether(dst="02:00:00:00:00:03", src=THEIRS) / IP4 / UDP_OURS / header(),
        Reason.NOT_LOCAL,
    ),
    case("a broadcast frame", Ether(dst="ff:ff:ff:ff:ff:ff", src=THEIRS) / IP4 / UDP_OURS / header(), Reason.NOT_LOCAL),
    case(
        "a multicast frame",
        Ether(dst="33:33:00:00:00:01", src=THEIRS) / IPv6(src="2001:db8::1", dst="ff02::1") / UDP_OURS / header(),
        Reason.NOT_LOCAL,
    ),
    case("the interface's address is another now", OURS_4, Reason.NOT_LOCAL, address="02:00:00:00:00:09"),
    case(
        "a routing header with a segment left",
        ETHER / IP6 / IPv6ExtHdrRouting(segleft=1, addresses=["2001:db8::9"]) / UDP_OURS / header(),
        Reason.NOT_LOCAL,
    ),
    case(
        "segment routing with a segment left",
        ETHER
        / IP6
        / IPv6ExtHdrSegmentRouting(addresses=["2001:db8::9", "2001:db8::8"], segleft=1)
        / UDP_OURS
        / header(),
        Reason.NOT_LOCAL,
    ),
]

HOST = [
    case("no AF_XDP socket on the queue", OURS_4, Reason.NO_SOCKET, joined=False),
    case("a daemon silent for 600 ms", OURS_4, Reason.STALE_HEARTBEAT, age_ms=600),
    case("a daemon that never gave a sign of life", OURS_6, Reason.STALE_HEARTBEAT, age_ms=10**9),
    case("a heartbeat written a moment after the clock was read", OURS_4, Reason.STEERED, age_ms=-1),
    case("settings of an older layout", OURS_4, Reason.MAP_MISMATCH, layout=1),
    case("settings that nobody wrote", OURS_6, Reason.MAP_MISMATCH, layout=0),
    case("a frame longer than the ring takes", ETHER / IP4 / UDP_OURS / header(length=1792), Reason.LONG_PACKET),
    case(
        "a foreign packet while the daemon is silent",
        ETHER / IP4 / UDP_OURS / bytes(64),
        Reason.NOT_OURS_MAGIC,
        age_ms=600,
    ),
]

TABLE = [*STEERED, *NOT_IP, *NOT_OURS, *FRAGMENTS, *MALFORMED, *TOO_MANY, *NOT_LOCAL, *HOST]
