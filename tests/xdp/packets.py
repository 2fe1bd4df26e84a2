# SPDX-License-Identifier: Apache-2.0
"""The table of packets: an English name, a frame that scapy built, and what the XDP program makes of it.

All frames are for the Ethernet address OURS; UDP port 443 is steered, and "any port" is off. Here are the packets of
ours and what the host around them adds; packets_foreign.py has everybody else's, packets_damage.py broken ones.
"""

from __future__ import annotations

from scapy.layers.inet import IP, UDP, IPOption_NOP, IPOption_Router_Alert
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    IPv6ExtHdrSegmentRouting,
)
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether

from accord.datapath._core import lib
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
)
from tests.xdp.packets_damage import FRAGMENTS, MALFORMED, TOO_MANY
from tests.xdp.packets_foreign import NOT_IP, NOT_OURS
from tests.xdp.packets_syn import SYNS

OURS_MAC = bytes.fromhex(OURS.replace(":", ""))
MAP_LAYOUT: int = lib.ACCORD_MAP_LAYOUT

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
    *rows(
        Reason.STEERED,
        {
            "a version in the middle of the range": ETHER / IP6 / UDP_OURS / header(first=9),
            "a full packet of 1200 bytes over IPv6": ETHER / IP6 / UDP_OURS / header(length=1200),
            "two 802.1ad tags": ETHER / Dot1AD(vlan=7) / Dot1AD(vlan=8) / IP6 / UDP_OURS / header(),
            "a tag with the drop-eligible bit": ETHER / Dot1Q(vlan=4095, dei=1) / IP4 / UDP_OURS / header(),
            "IPv4 with options behind two tags": ETHER
            / Dot1AD(vlan=7)
            / Dot1Q(vlan=8)
            / ip4(options=[IPOption_NOP()] * 40)
            / UDP_OURS
            / header(),
            "IPv4 with the reserved flag, which no fragment has": ETHER / ip4(flags="evil") / UDP_OURS / header(),
            "IPv4 with a time to live of 1": ETHER / ip4(ttl=1) / UDP_OURS / header(),
            "IPv6 with each bit of class and flow label": ETHER / ip6(tc=0xFF, fl=0xFFFFF) / UDP_OURS / header(),
            "an IPv6 payload longer than the UDP length": ETHER
            / IP6
            / UDP(sport=50000, dport=PORT, len=8 + 32)
            / header(length=100),
            "Ethernet padding behind an IPv6 packet": bytes(OURS_6) + bytes(9),
            "IP protocol 253 behind IPv4 options": ETHER / ip4(proto=DIRECT, options=[IPOption_NOP()] * 40) / header(),
            "IP protocol 253 behind one tag": ETHER / Dot1Q(vlan=7) / ip4(proto=DIRECT) / header(),
            "IP protocol 253 with padding": bytes(ETHER / ip4(proto=DIRECT) / header()) + bytes(18),
            "IP protocol 253 with DF set": ETHER / ip4(proto=DIRECT, flags="DF") / header(),
            "IP protocol 253 behind a hop-by-hop header": behind(0, upper=DIRECT),
            "IP protocol 253 behind six extension headers": behind(0, 60, 43, 60, 135, 60, upper=DIRECT),
            "IP protocol 253 in an atomic fragment": behind(44, upper=DIRECT),
            "a mobility header": behind(135),
            "a HIP header": behind(139),
            "a shim6 header": behind(140),
            "one of each extension header, six in all": behind(0, 43, 44, 60, 135, 139),
            "six extension headers behind two tags": ETHER
            / Dot1AD(vlan=7)
            / Dot1Q(vlan=8)
            / ip6(nh=60)
            / (extensions(60, 60, 60, 60, 60, 60) + DATAGRAM),
            "extension headers of 32 bytes": ETHER / ip6(nh=60) / (extensions(60, 60, units=3) + DATAGRAM),
            "an atomic fragment behind five other headers": behind(0, 60, 60, 60, 60, 44),
            "an atomic fragment with its reserved bits set": ETHER / ip6(nh=44) / (b"\x11\xff\0\x06nine" + DATAGRAM),
            "an atomic fragment whose reserved byte would be a length": ETHER
            / ip6(nh=44)
            / (b"\x11\x40\0\0nine" + DATAGRAM),
        },
    ),
    case("port 65535, when any port will do", ETHER / IP6 / UDP(dport=65535) / header(), Reason.STEERED, any_port=True),
    case(
        "the longest extension header, 2048 bytes",
        ETHER / ip6(nh=60) / (extensions(60, units=255) + DATAGRAM),
        Reason.STEERED,
        frame_limit=4096,
    ),
    case(
        "a jumbo packet, where the ring takes it",
        ETHER / IP4 / UDP_OURS / header(length=3400),
        Reason.STEERED,
        frame_limit=4096,
    ),
]

# What the program leaves to the core, which verifies it: the core's parser calls these malformed.
UNVERIFIED = rows(
    Reason.STEERED,
    {
        "a wrong IPv4 header checksum": patched(OURS_4, 24, b"\xde\xad"),
        "UDP source port 0": ETHER / IP4 / UDP(sport=0, dport=PORT) / header(),
        "a loopback source": ETHER / IP(src="127.0.0.1", dst="192.0.2.2") / UDP_OURS / header(),
        "a multicast source": ETHER / IPv6(src="ff02::1", dst="2001:db8::2") / UDP_OURS / header(),
    },
)

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
    *rows(
        Reason.NOT_LOCAL,
        {
            # One bit of each byte: a comparison that leaves a byte out lets one of these by.
            f"byte {byte} of the Ethernet address differs": patched(OURS_6, byte, bytes([OURS_MAC[byte] ^ bit]))
            for byte, bit in enumerate((0x40, 0x01, 0x80, 0x08, 0x10, 0x01))
        },
    ),
    *rows(
        Reason.NOT_LOCAL,
        {
            "an IPv4 multicast frame": Ether(dst="01:00:5e:00:00:01", src=THEIRS)
            / IP(src="192.0.2.1", dst="224.0.0.1")
            / UDP_OURS
            / header(),
            "a frame for its own sender": Ether(dst=THEIRS, src=THEIRS) / IP4 / UDP_OURS / header(),
            "IP protocol 253 for a guest behind a bridge": Ether(dst="02:00:00:00:00:03", src=THEIRS)
            / ip4(proto=DIRECT)
            / header(),
            "somebody else's packet with a segment left": ETHER / ip6(nh=43) / (b"\x06\0\0\x01" + bytes(60)),
            "a segment left behind a hop-by-hop header": ETHER
            / ip6(nh=0)
            / (b"\x2b\0" + bytes(6) + b"\x11\0\0\xff" + bytes(4) + DATAGRAM),
        },
    ),
]

HOST = [
    case("no AF_XDP socket on the queue", OURS_4, Reason.NO_SOCKET, joined=False),
    case("a daemon silent for 600 ms", OURS_4, Reason.STALE_HEARTBEAT, age_ms=600),
    case("a daemon that never gave a sign of life", OURS_6, Reason.STALE_HEARTBEAT, age_ms=10**9),
    case("a heartbeat written a moment after the clock was read", OURS_4, Reason.STEERED, age_ms=-1),
    case("settings of an older layout", OURS_4, Reason.MAP_MISMATCH, layout=MAP_LAYOUT - 1),
    case("settings that nobody wrote", OURS_6, Reason.MAP_MISMATCH, layout=0),
    case("a frame longer than the ring takes", ETHER / IP4 / UDP_OURS / header(length=1792), Reason.LONG_PACKET),
    case(
        "a foreign packet while the daemon is silent",
        ETHER / IP4 / UDP_OURS / bytes(64),
        Reason.NOT_OURS_MAGIC,
        age_ms=600,
    ),
    case("settings of a newer layout", OURS_4, Reason.MAP_MISMATCH, layout=MAP_LAYOUT + 1),
    case("a foreign packet under settings of an older layout", ETHER / IP4 / UDP_OURS, Reason.NOT_OURS_MAGIC, layout=1),
    case("a daemon silent for 510 ms", OURS_6, Reason.STALE_HEARTBEAT, age_ms=510),
    case("a daemon silent for 400 ms", OURS_6, Reason.STEERED, age_ms=400),
    case(
        "a silent daemon and IP protocol 253", ETHER / ip4(proto=DIRECT) / header(), Reason.STALE_HEARTBEAT, age_ms=600
    ),
    case("no AF_XDP socket for IP protocol 253", ETHER / ip6(nh=DIRECT) / header(), Reason.NO_SOCKET, joined=False),
    case("a frame as long as the ring takes", ETHER / IP4 / UDP_OURS / header(length=1792 - 42), Reason.STEERED),
    case("a frame one byte longer", ETHER / IP4 / UDP_OURS / header(length=1793 - 42), Reason.LONG_PACKET),
    case("a packet that fits, padded to one byte more", bytes(OURS_6).ljust(1793, b"\0"), Reason.LONG_PACKET),
    case(
        "a jumbo packet, where the ring does not take it",
        ETHER / IP6 / UDP_OURS / header(length=3400),
        Reason.LONG_PACKET,
    ),
    case("a jumbo packet of others", ETHER / IP6 / UDP_OURS / bytes(3400), Reason.NOT_OURS_MAGIC),
    case(
        "a foreign port that is not registered, when any will do",
        ETHER / IP4 / UDP(dport=53) / bytes(64),
        Reason.NOT_OURS_MAGIC,
        any_port=True,
    ),
]

TABLE = [*STEERED, *UNVERIFIED, *NOT_IP, *NOT_OURS, *FRAGMENTS, *MALFORMED, *TOO_MANY, *NOT_LOCAL, *HOST, *SYNS]
