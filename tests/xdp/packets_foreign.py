# SPDX-License-Identifier: Apache-2.0
"""Rows of the packet table: everybody else's packets, most of them with something of ours in them."""

from __future__ import annotations

from scapy.layers.dns import DNS, DNSQR
from scapy.layers.inet import ICMP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6ND_NS, IPv6
from scapy.layers.ipsec import AH, ESP
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.layers.ntp import NTP
from scapy.layers.sctp import SCTP
from scapy.layers.vxlan import VXLAN
from scapy.packet import Raw

from accord.wire.constants import Reason
from tests.xdp.craft import (
    DATAGRAM,
    DIRECT,
    ETHER,
    IP4,
    IP6,
    OURS,
    OURS_4,
    OURS_6,
    PORT,
    THEIRS,
    UDP_OURS,
    behind,
    case,
    extensions,
    header,
    ip4,
    ip6,
    patched,
    rows,
    shorn,
)

IP_PACKET = bytes(OURS_4)[14:]
"""Our packet over IPv4, without its Ethernet header."""
EXTENDED = extensions(60) + DATAGRAM
"""Our datagram behind an extension header."""

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
    *rows(
        Reason.NOT_IP,
        {
            "RARP": Ether(dst=OURS, src=THEIRS, type=0x8035) / Raw(bytes(46)),
            "EAPOL": Ether(dst=OURS, src=THEIRS, type=0x888E) / Raw(bytes(46)),
            "PTP, precision time over Ethernet": Ether(dst=OURS, src=THEIRS, type=0x88F7) / Raw(bytes(46)),
            "MACsec, its content not to be trusted yet": Ether(dst=OURS, src=THEIRS, type=0x88E5) / Raw(IP_PACKET),
            "the type of IPv4 with its bytes exchanged": Ether(dst=OURS, src=THEIRS, type=0x0008) / Raw(IP_PACKET),
            "the type of IPv6 with its bytes exchanged": Ether(dst=OURS, src=THEIRS, type=0xDD86)
            / Raw(bytes(OURS_6)[14:]),
            "IPv4 behind LLC and SNAP": Ether(dst=OURS, src=THEIRS, type=len(IP_PACKET) + 8)
            / Raw(bytes.fromhex("aaaa030000000800") + IP_PACKET),
            "an ARP reply behind one tag": ETHER / Dot1Q(vlan=7) / ARP(op=2),
            "an ARP request behind two tags": ETHER / Dot1AD(vlan=7) / Dot1Q(vlan=8) / ARP(),
            "a broadcast ARP request": Ether(dst="ff:ff:ff:ff:ff:ff", src=THEIRS) / ARP(pdst="192.0.2.2"),
        },
    ),
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
    *rows(
        Reason.NOT_OURS_PROTOCOL,
        {
            "a TCP SYN behind two tags": ETHER / Dot1AD(vlan=7) / Dot1Q(vlan=8) / IP6 / TCP(dport=PORT, flags="S"),
            "TCP behind six extension headers": behind(0, 60, 60, 60, 60, 60, upper=6, rest=bytes(TCP(dport=PORT))),
            "an ICMPv6 echo with our header in it": ETHER / IP6 / ICMPv6EchoRequest(data=header()),
            "a neighbour solicitation": ETHER / IP6 / ICMPv6ND_NS(tgt="2001:db8::2"),
            "IGMP": ETHER / ip4(proto=2) / bytes.fromhex("1100eeff00000000"),
            "SCTP": ETHER / IP4 / SCTP(dport=PORT) / header(),
            "DCCP": ETHER / ip4(proto=33) / DATAGRAM,
            "UDP-Lite, with our datagram": ETHER / ip4(proto=136) / DATAGRAM,
            "OSPF": ETHER / ip4(proto=89) / bytes(44),
            "VRRP": ETHER / ip4(proto=112) / bytes(20),
            "L2TP over IP": ETHER / ip4(proto=115) / header(),
            "our IPv6 packet inside IPv4": ETHER / ip4(proto=41) / bytes(OURS_6)[14:],
            "our IPv4 packet inside IPv6": ETHER / ip6(nh=4) / IP_PACKET,
            # IPv4 has no extension headers: these numbers are protocols nobody speaks there.
            "the number of hop-by-hop options as IPv4's protocol": ETHER / ip4(proto=0) / EXTENDED,
            "the number of a fragment header as IPv4's protocol": ETHER / ip4(proto=44) / EXTENDED,
            "the number of destination options as IPv4's protocol": ETHER / ip4(proto=60) / EXTENDED,
            "IP protocol 252": ETHER / ip4(proto=252) / header(),
            "IP protocol 254 over IPv6": ETHER / ip6(nh=254) / header(),
            "IP protocol 255": ETHER / ip4(proto=255) / header(),
            "ESP over IPv4": ETHER / IP4 / ESP(spi=1, seq=1, data=header(length=64)),
            "ESP behind a hop-by-hop header": behind(0, upper=50, rest=bytes(40)),
            "AH around IP protocol 253": ETHER / ip4(proto=51) / AH(nh=DIRECT, spi=1, seq=1, icv=bytes(12)) / header(),
            "no next header behind six extension headers": behind(0, 60, 60, 60, 60, 60, upper=59, rest=DATAGRAM),
            "IPv4 with no payload at all, and no protocol of ours": ETHER / ip4(proto=1),
        },
    ),
    *rows(
        Reason.NOT_OURS_PORT,
        {
            "the port one below ours": ETHER / IP4 / UDP(dport=PORT - 1) / header(),
            "port 0": ETHER / IP6 / UDP(dport=0) / header(),
            "port 65535": ETHER / IP4 / UDP(dport=65535) / header(),
            "a port that nobody registered, behind two tags and six headers": ETHER
            / Dot1AD(vlan=7)
            / Dot1Q(vlan=8)
            / behind(0, 60, 60, 60, 60, 60, rest=bytes(UDP(dport=444) / header()))[IPv6],
        },
    ),
    *rows(
        Reason.NOT_OURS_MAGIC,
        {
            "a DNS query": ETHER / IP4 / UDP(dport=53) / DNS(qd=DNSQR(qname="host.example")),
            "an NTP request": ETHER / IP4 / UDP(dport=123) / NTP(),
            "a multicast DNS query": Ether(dst="01:00:5e:00:00:fb", src=THEIRS) / IP4 / UDP(dport=5353) / DNS(),
            "a DHCP discover": Ether(dst="ff:ff:ff:ff:ff:ff", src=THEIRS) / IP4 / UDP(sport=68, dport=67) / bytes(240),
            "WireGuard's first message": ETHER / IP4 / UDP_OURS / (b"\x01\0\0\0" + bytes(144)),
            "a QUIC short header": ETHER / IP6 / UDP_OURS / (b"\x40" + bytes(60)),
            "an RTCP report": ETHER / IP4 / UDP_OURS / (b"\x81\xc8\0\x06" + bytes(24)),
            "our frame inside VXLAN": ETHER / IP4 / UDP(dport=4789) / VXLAN(vni=7) / bytes(OURS_4),
            "first byte 0": ETHER / IP4 / UDP_OURS / header(first=0),
            "first byte 255": ETHER / IP6 / UDP_OURS / header(first=255),
            "first byte 0x84, the range with its top bit set": ETHER / IP6 / UDP_OURS / header(first=0x84),
            "a header one byte too late": ETHER / IP4 / UDP_OURS / (b"\x04" + header(length=40)),
            "a header one byte too early": ETHER / IP4 / UDP_OURS / (header()[1:] + b"\0\0"),
            "the cookie at offset 0": ETHER / IP6 / UDP_OURS / (b"ACRD" + bytes(40)),
            "the cookie at offset 8": ETHER / IP4 / UDP_OURS / (b"\x04\0\0\1\0\0\0\0ACRD" + bytes(32)),
            "nothing but the cookie": ETHER / IP4 / UDP_OURS / header(length=8),
            "one byte short of a header over IPv6": ETHER / IP6 / UDP_OURS / header(length=31),
            "one byte short, and padding that would complete it": shorn(OURS_4, 14 + 20 + 8 + 31) + bytes(9),
            "one byte short over IPv6, and padding": shorn(OURS_6, 14 + 40 + 8 + 31, 6) + b"\0",
            "IP protocol 253, one byte short of a header": ETHER / ip4(proto=DIRECT) / header(length=31),
            "IP protocol 253 over IPv6, one byte short, and padding": patched(
                ETHER / ip6(nh=DIRECT) / header(), 18, b"\0\x1f"
            ),
            "IP protocol 253 with nothing in it": ETHER / ip4(proto=DIRECT),
            "IP protocol 253 with UDP's header in front of ours": ETHER / ip4(proto=DIRECT) / DATAGRAM,
            "IP protocol 253 with a first byte below the range": ETHER / ip6(nh=DIRECT) / header(first=3),
            "IP protocol 253 with a first byte above the range": ETHER / ip4(proto=DIRECT) / header(first=16),
            "a UDP length of 8 in front of our header": ETHER / IP6 / UDP(sport=50000, dport=PORT, len=8) / header(),
            **{
                f"byte {byte} of the cookie is wrong": patched(OURS_4, 14 + 20 + 8 + 4 + byte, b"\xff")
                for byte in range(4)
            },
        },
    ),
]
