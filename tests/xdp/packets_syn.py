# SPDX-License-Identifier: Apache-2.0
"""SYNs of the packet table, and what came before them: docs/PROTOCOL.md, section 10.

Segments and options are written by hand, since most of them are what no stack sends.
"""

from __future__ import annotations

import struct

from scapy.layers.inet import TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Packet

from accord.datapath._core import lib
from accord.wire.constants import Reason
from tests.xdp.craft import (
    DIRECT,
    ETHER,
    ID,
    IP4,
    IP6,
    OURS,
    PORT,
    SAME_SLOT,
    THEIRS,
    UDP_OURS,
    Case,
    case,
    extensions,
    header,
    ip4,
    ip6,
)

FALLBACK, ADOPT = 0xACC0, 0xACC1
SYN = 0x02
NOP = b"\1"
MSS, SACK, WSCALE = b"\2\4\x05\xb4", b"\4\2", b"\3\3\7"
TIMES = b"\x08\x0a" + bytes(range(8))
LINUX = MSS + SACK + TIMES + NOP + WSCALE
"""The options of a Linux SYN, in its order."""


def option(exid: int = FALLBACK, transaction: bytes = ID, *, kind: int = 254, length: int = 16) -> bytes:
    """Our option, or one that is nearly it; ``length`` is what it says, not what it has."""
    return struct.pack("!BBH12s", kind, length, exid, transaction)


OURS_OPTION = option()
IN_LINUX = LINUX + OURS_OPTION


def segment(
    options: bytes = IN_LINUX, *, flags: int = SYN, port: int = PORT, words: int | None = None, isn: int = 0x1000
) -> bytes:
    """A TCP header with these options, padded with zeros to a whole word; ``words``: the data offset instead."""
    padded = options + bytes(-len(options) % 4)
    offset = 5 + len(padded) // 4 if words is None else words
    return struct.pack("!HHIIBBHHH", 40000, port, isn, 0, offset << 4, flags, 64240, 0xDEAD, 0) + padded


def syn4(options: bytes = IN_LINUX, data: bytes = b"", **fields: int) -> Packet:
    """That in IPv4."""
    return ETHER / ip4(proto=6) / (segment(options, **fields) + data)


def syn6(options: bytes = IN_LINUX, **fields: int) -> Packet:
    """That in IPv6."""
    return ETHER / ip6(nh=6) / segment(options, **fields)


def proposal(network: Packet = IP4, transaction: bytes = ID, port: int = PORT, **fields: int) -> Packet:
    """A packet of a proposal; ``fields`` as of ``header``."""
    return ETHER / network / UDP(sport=50000, dport=port) / header(**{"length": 120, **fields}, transaction=transaction)


HEARD_4, HEARD_6 = proposal(), proposal(IP6)
HEARD_DIRECT = ETHER / ip4(proto=DIRECT) / header(length=120)
SYN_4, SYN_6 = syn4(), syn6()
DUE: int = lib.ACCORD_SUPPRESS_MS


def after(*before: Packet | bytes | int) -> dict[str, object]:
    """What came before: frames, and milliseconds that passed."""
    return {"before": tuple(each if isinstance(each, int) else bytes(each) for each in before)}


def all_of(reason: Reason, frames: dict[str, Packet | bytes], *before: Packet | int, **around: object) -> list[Case]:
    """Rows of one reason and one past."""
    return [case(name, frame, reason, **after(*before), **around) for name, frame in frames.items()]


# Each spelling of a SYN with our option is met twice: behind its proposal, and before it.
SPELLINGS: dict[str, Packet | bytes] = {
    "a Linux SYN": SYN_4,
    "a Linux SYN without timestamps": syn4(MSS + NOP * 2 + SACK + NOP + WSCALE + OURS_OPTION),
    "a Linux SYN with data": syn4(data=b"GET / HTTP/1.0\r\n"),
    "a SYN whose only option is ours": syn4(OURS_OPTION),
    "our option in front of Linux's": syn4(OURS_OPTION + LINUX),
    "our option between two others": syn4(MSS + OURS_OPTION + TIMES + NOP * 2),
    "our option behind 24 NOPs": syn4(NOP * 24 + OURS_OPTION),
    "our option behind 15 NOPs": syn4(NOP * 15 + OURS_OPTION),
    "our option behind 23 NOPs, and the end of the list": syn4(NOP * 23 + OURS_OPTION + b"\0"),
    "our option in front of 24 NOPs": syn4(OURS_OPTION + NOP * 24),
    "our option, the end, and what would not parse": syn4(OURS_OPTION + b"\0\xff\xff\xff"),
    "our option behind empty ones": syn4(b"\x1e\2" * 6 + OURS_OPTION),
    "our option behind one of kind 253": syn4(option(kind=253) + OURS_OPTION),
    "our option behind one of another ExID": syn4(option(0xF989) + OURS_OPTION),
    "our option behind one that has our ExID and another length": syn4(b"\xfe\4\xac\xc0" + OURS_OPTION),
    "our option behind the longest that leaves room": syn4(b"\x1e\x18" + bytes(22) + OURS_OPTION),
    "ECE and CWR on the SYN": syn4(flags=SYN | 0xC0),
    "PSH and URG on the SYN": syn4(flags=SYN | 0x28),
    "a SYN with the reserved bits set": bytes(SYN_4)[:46] + b"\xef" + bytes(SYN_4)[47:],
    "a SYN with one VLAN tag": ETHER / Dot1Q(vlan=7) / ip4(proto=6) / segment(),
    "a SYN with two VLAN tags": ETHER / Dot1AD(vlan=7) / Dot1Q(vlan=8) / ip4(proto=6) / segment(),
    "a SYN behind IPv4 options": ETHER / ip4(proto=6, options=[IPOption_NOP()] * 40) / segment(),
    "a SYN with Ethernet padding": bytes(SYN_4) + bytes(9),
    "a SYN that scapy built": ETHER / IP4 / TCP(dport=PORT, flags="S", options=[(254, b"\xac\xc0" + ID)]),
    "a Linux SYN that scapy built": ETHER
    / IP4
    / TCP(
        dport=PORT,
        flags="S",
        options=[
            ("MSS", 1460),
            ("SAckOK", b""),
            ("Timestamp", (1, 0)),
            ("NOP", None),
            ("WScale", 7),
            (254, b"\xac\xc0" + ID),
        ],
    ),
}
SPELLINGS_6: dict[str, Packet | bytes] = {
    "a Linux SYN over IPv6": SYN_6,
    "a SYN over IPv6 whose only option is ours": syn6(OURS_OPTION),
    "a SYN over IPv6 behind NOPs": syn6(NOP * 24 + OURS_OPTION),
    "a SYN behind six extension headers": ETHER / ip6(nh=0) / (extensions(0, 60, 43, 60, 135, 60, upper=6) + segment()),
    "a SYN in an atomic fragment": ETHER / ip6(nh=44) / (extensions(44, upper=6) + segment()),
    "a SYN behind an extension header and two tags": ETHER
    / Dot1AD(vlan=7)
    / Dot1Q(vlan=8)
    / ip6(nh=60)
    / (extensions(60, upper=6) + segment()),
}


def renamed(suffix: str, frames: dict[str, Packet | bytes]) -> dict[str, Packet | bytes]:
    """The same frames under names of their own."""
    return {name + suffix: frame for name, frame in frames.items()}


SUPPRESSED = [
    *all_of(Reason.SYN_SUPPRESSED, renamed(", behind its proposal", SPELLINGS), HEARD_4),
    *all_of(Reason.SYN_SUPPRESSED, renamed(", behind its proposal", SPELLINGS_6), HEARD_6),
    case("a SYN behind a proposal in context IP 253", SYN_4, Reason.SYN_SUPPRESSED, **after(HEARD_DIRECT)),
    case(
        "a SYN behind a proposal in context IP 253 over IPv6",
        SYN_6,
        Reason.SYN_SUPPRESSED,
        **after(ETHER / ip6(nh=DIRECT) / header(length=120)),
    ),
    case("a SYN behind a proposal of four packets", SYN_4, Reason.SYN_SUPPRESSED, **after(*[HEARD_4] * 4)),
    case("a SYN a moment before it would be late", SYN_4, Reason.SYN_SUPPRESSED, **after(HEARD_4, DUE - 100)),
    case(
        "a SYN whose proposal came with tags",
        SYN_4,
        Reason.SYN_SUPPRESSED,
        **after(ETHER / Dot1Q(vlan=7) / IP4 / UDP_OURS / header(length=120)),
    ),
    case(
        "a SYN behind its proposal, when any port will do",
        SYN_4,
        Reason.SYN_SUPPRESSED,
        any_port=True,
        **after(HEARD_4),
    ),
    case("a SYN behind the least proposal", SYN_4, Reason.SYN_SUPPRESSED, **after(proposal(length=33))),
    case(
        "a SYN of one of two hosts behind a translator",
        syn4(LINUX + option(transaction=b"another one.")),
        Reason.SYN_SUPPRESSED,
        **after(HEARD_4, proposal(transaction=b"another one."), SYN_4),
    ),
    case(
        "a SYN that adopts does not use its proposal up",
        SYN_4,
        Reason.SYN_SUPPRESSED,
        **after(HEARD_4, syn4(LINUX + option(ADOPT))),
    ),
]


def near(word: int) -> bytes:
    """A transaction ID with the slot of ``ID``, which differs from it in one 32-bit word."""
    slot = lib.accord_heard_slot(ID)
    for number in range(1 << 20):
        other = ID[: 4 * word] + number.to_bytes(4, "big") + ID[4 * word + 4 :]
        if lib.accord_heard_slot(other) == slot and other != ID:
            return other
    raise AssertionError("one in 16384 has it")


FIRST = [
    *(
        case(f"a SYN whose ID differs from the one heard in word {word}", SYN_4, Reason.SYN_FIRST, **after(heard))
        for word, heard in ((word, proposal(transaction=near(word))) for word in range(3))
    ),
    *all_of(Reason.SYN_FIRST, SPELLINGS),
    *all_of(Reason.SYN_FIRST, SPELLINGS_6),
    case(
        "a SYN behind another transaction's proposal",
        SYN_4,
        Reason.SYN_FIRST,
        **after(proposal(transaction=b"another one.")),
    ),
    case(
        "a SYN whose slot another proposal took",
        SYN_4,
        Reason.SYN_FIRST,
        **after(HEARD_4, proposal(transaction=SAME_SLOT)),
    ),
    case(
        "a SYN whose slot another SYN took",
        SYN_4,
        Reason.SYN_FIRST,
        **after(HEARD_4, syn4(LINUX + option(transaction=SAME_SLOT))),
    ),
    *(
        case(f"a SYN behind {name}", SYN_4, Reason.SYN_FIRST, **after(before))
        for name, before in {
            "a packet of a version that we do not speak": proposal(first=5),
            "a commit": proposal(step=2),
            "an answer": proposal(step=1, flags=0),
            "a proposal that does not say who sent it": proposal(flags=0),
            "a packet without chunks": proposal(length=32),
            "a proposal to a port that nobody registered": proposal(port=444),
            "a proposal that is too long for the ring": proposal(length=1792),
            "a proposal for another host": Ether(dst=THEIRS, src=THEIRS) / IP4 / UDP_OURS / header(length=120),
            "a fragment of a proposal": ETHER / ip4(flags="MF") / UDP_OURS / header(length=120),
        }.items()
    ),
]

REPEATED = [
    case("the second SYN behind a proposal", SYN_4, Reason.SYN_REPEATED, **after(HEARD_4, SYN_4)),
    case("the second SYN, with another ISN", syn4(isn=7), Reason.SYN_REPEATED, **after(HEARD_4, SYN_4)),
    case("the third SYN", SYN_4, Reason.SYN_REPEATED, **after(HEARD_4, SYN_4, SYN_4)),
    case(
        "a second SYN, the proposal repeated between the two",
        SYN_4,
        Reason.SYN_REPEATED,
        **after(HEARD_4, SYN_4, HEARD_4),
    ),
    case(
        "a second SYN, late, the proposal repeated",
        SYN_4,
        Reason.SYN_REPEATED,
        **after(HEARD_4, SYN_4, DUE * 3, HEARD_4),
    ),
    case("a SYN that came first, again behind the proposal", SYN_4, Reason.SYN_REPEATED, **after(SYN_4, HEARD_4)),
    case("a SYN that came first, again with another ISN", syn4(isn=7), Reason.SYN_REPEATED, **after(SYN_4, HEARD_4)),
    case("a SYN that came first, twice", SYN_4, Reason.SYN_REPEATED, **after(SYN_4)),
    case(
        "a SYN from elsewhere behind the suppressed one",
        ETHER / ip4(src="192.0.2.9", proto=6) / segment(),
        Reason.SYN_REPEATED,
        **after(HEARD_4, SYN_4),
    ),
    case(
        "a SYN behind one that adopts, and the proposal",
        SYN_4,
        Reason.SYN_REPEATED,
        **after(syn4(LINUX + option(ADOPT)), HEARD_4),
    ),
]

ADOPTED = [
    case("a SYN that adopts", syn4(LINUX + option(ADOPT)), Reason.SYN_ADOPT),
    case("a SYN over IPv6 that adopts", syn6(LINUX + option(ADOPT)), Reason.SYN_ADOPT),
    case("a SYN that adopts, its option alone", syn4(option(ADOPT)), Reason.SYN_ADOPT),
    case("a SYN that adopts, behind its proposal", syn4(LINUX + option(ADOPT)), Reason.SYN_ADOPT, **after(HEARD_4)),
    case("a SYN that adopts, again", syn4(option(ADOPT)), Reason.SYN_ADOPT, **after(HEARD_4, syn4(option(ADOPT)))),
    case("a SYN that adopts, from elsewhere", syn6(option(ADOPT)), Reason.SYN_ADOPT, **after(HEARD_4)),
]

LATE = [
    case("a SYN that comes too late", SYN_4, Reason.SYN_LATE, **after(HEARD_4, DUE)),
    case("a SYN that comes a day late", SYN_6, Reason.SYN_LATE, **after(HEARD_6, 86_400_000)),
    case(
        "a repeated proposal does not make the first younger",
        SYN_4,
        Reason.SYN_LATE,
        **after(HEARD_4, DUE - 100, HEARD_4, 100),
    ),
    case("a late SYN, again", SYN_4, Reason.SYN_LATE, **after(HEARD_4, DUE, SYN_4)),
]


def _moved(word: int, of: str) -> Packet:
    """A SYN whose source or destination address differs from the proposal's in one 32-bit word."""
    parts = {"src": ["2001:db8", "0:0", "0:0", "0:1"], "dst": ["2001:db8", "0:0", "0:0", "0:2"]}[of]
    parts[word] = "2001:db9" if word == 0 else "0:9"
    return ETHER / IPv6(**{"src": "2001:db8::1", "dst": "2001:db8::2", of: ":".join(parts), "nh": 6}) / segment()


ELSEWHERE = [
    *all_of(
        Reason.SYN_ELSEWHERE,
        {
            "a SYN from another address": ETHER / ip4(src="192.0.2.9", proto=6) / segment(),
            "a SYN to another address": ETHER / ip4(dst="192.0.2.9", proto=6) / segment(),
            "a SYN of the other family": SYN_6,
        },
        HEARD_4,
    ),
    *(
        case(f"a SYN whose {of} differs in word {word}", _moved(word, of), Reason.SYN_ELSEWHERE, **after(HEARD_6))
        for of in ("src", "dst")
        for word in range(4)
    ),
    case(
        "a SYN to another port than the proposal",
        SYN_4,
        Reason.SYN_ELSEWHERE,
        any_port=True,
        **after(proposal(port=444)),
    ),
    case(
        "an address of IPv6 that begins like the proposal's IPv4",
        ETHER / IPv6(src="c000:201::", dst="c000:202::", nh=6) / segment(),
        Reason.SYN_ELSEWHERE,
        **after(HEARD_4),
    ),
]

BAD = all_of(
    Reason.BAD_TCP_OPTION,
    {
        "an option of length 0": syn4(b"\x1e\0" + NOP * 2 + OURS_OPTION),
        "an option of length 1": syn4(b"\x1e\1" + NOP * 2 + OURS_OPTION),
        "an option of length 0 behind ours": syn4(OURS_OPTION + b"\x1e\0" + NOP * 2),
        "an option of length 1 behind ours": syn4(OURS_OPTION + b"\x1e\1" + NOP * 2),
        "an option that ends behind the header": syn4(NOP * 14 + b"\x1e\3"),
        "an option that ends one byte behind the header": syn4(OURS_OPTION + NOP + b"\x1e\4\0"),
        "an option of length 255": syn4(b"\x1e\xff" + NOP * 2 + OURS_OPTION),
        "an option that has no room for a length": syn4(OURS_OPTION + NOP * 3 + b"\x1e"),
        "an option at byte 40 that has no room for a length": syn4(OURS_OPTION + NOP * 23 + b"\x1e"),
        "our option, the header ending before it does": syn4(NOP * 4 + OURS_OPTION, words=9),
        "our option, the header ending one word before it does": syn4(NOP * 24 + OURS_OPTION, words=14),
        "a Linux SYN with our option, and what does not parse behind it": syn4(IN_LINUX + b"\x1e\0"),
        "a Linux SYN whose header ends within our option": syn4(words=13),
        "two of our options": syn4(OURS_OPTION * 2),
        "two of our options, one that adopts": syn4(OURS_OPTION + option(ADOPT)),
        "two of our options, of different transactions": syn6(
            OURS_OPTION + NOP * 4 + option(transaction=b"another one.")
        ),
    },
    HEARD_4,
)

# Words of a Linux SYN's options with one bit changed, in its length: what stands there may be in another option's data.
HIDDEN: dict[str, Packet | bytes] = {
    "our option within another's data": syn4(b"\x1e\x12" + OURS_OPTION + NOP * 2),
    "our option within the data of one that begins like MSS": syn4(b"\2\x24" + IN_LINUX[2:]),
    "our option within what begins like SACK permitted": syn4(MSS + b"\4\x20" + IN_LINUX[6:]),
    "our option within the timestamps": syn4(MSS + SACK + b"\x08\x1e" + IN_LINUX[8:]),
    "our option within the window scale": syn4(LINUX[:17] + b"\3\x13" + IN_LINUX[19:]),
    "our option behind the end of the list": syn4(NOP * 3 + b"\0" + OURS_OPTION),
    "our option behind the end in a Linux SYN": syn4(LINUX[:16] + b"\0" + IN_LINUX[17:]),
}

NOT_OURS = [
    *all_of(
        Reason.NOT_OURS_PROTOCOL,
        {
            **HIDDEN,
            "40 NOPs": syn4(NOP * 40),
            "40 zeros": syn4(bytes(40)),
            "a Linux SYN without our option": syn4(LINUX),
            "a Linux SYN with an option of kind 253": syn4(LINUX + option(kind=253)),
            "a Linux SYN with another ExID": syn4(LINUX + option(0xF989)),
            "the ExID after ours": syn4(LINUX + option(0xACC2)),
            "the ExID before ours": syn4(LINUX + option(0xACBF)),
            "an ExID that shares our second byte": syn4(LINUX + option(0xADC0)),
            "our ExID in the other byte order": syn4(LINUX + option(0xC0AC)),
            "our option with a length of 15": syn4(LINUX + option(transaction=ID[:11] + NOP, length=15)),
            "our option with a length of 17": syn4(NOP * 3 + option(length=17) + NOP),
            "another ExID, walked": syn4(option(0xACC2)),
            "kind 253, walked": syn4(option(kind=253)),
            "a data offset of 5": syn4(words=5),
            "a data offset of 8": syn4(words=8),
            "a data offset of 0": syn4(words=0),
            "a data offset beyond the packet": syn4(OURS_OPTION, words=10),
            "a data offset of 15 in a packet that ends before": syn4(words=15),
            "a data offset beyond the packet, in its padding": bytes(syn4(OURS_OPTION, words=10)) + bytes(8),
            "SYN and ACK": syn4(flags=0x12),
            "SYN and FIN": syn4(flags=0x03),
            "SYN and RST": syn4(flags=0x06),
            "all flags": syn4(flags=0xFF),
            "no flags": syn4(flags=0),
            "an ACK with our option": syn4(flags=0x10),
            "a FIN with our option": syn4(flags=0x01),
            "a TCP header that is cut short": ETHER / ip4(proto=6) / segment()[:19],
            "a SYN of 13 bytes": ETHER / ip4(proto=6) / segment()[:13],
            "TCP without a byte": ETHER / ip4(proto=6),
            "a SYN behind a total length that ends within its options": ETHER / ip4(proto=6, len=20 + 55) / segment(),
            "a SYN without its data": ETHER / ip4(proto=6, len=20 + 20) / segment(),
            "a SYN in IPv6 without its options": ETHER / ip6(nh=6, plen=20) / segment(),
            "a SYN in UDP's place": ETHER / ip4(proto=136) / segment(),
        },
        HEARD_4,
    ),
    case("a SYN while nothing is to be suppressed", SYN_4, Reason.NOT_OURS_PROTOCOL, suppress=False, **after(HEARD_4)),
    case("a SYN under settings of an older layout", SYN_4, Reason.NOT_OURS_PROTOCOL, layout=lib.ACCORD_MAP_LAYOUT - 1),
    case("a SYN under settings of a newer layout", SYN_4, Reason.NOT_OURS_PROTOCOL, layout=lib.ACCORD_MAP_LAYOUT + 1),
    case("a SYN under settings that nobody wrote", SYN_6, Reason.NOT_OURS_PROTOCOL, layout=0),
    case("a fragment of a SYN", ETHER / ip4(proto=6, flags="MF") / segment(), Reason.FRAGMENT, **after(HEARD_4)),
    case("a SYN in a fragment over IPv6", ETHER / ip6(nh=44) / (b"\x06\0\0\1nine" + segment()), Reason.FRAGMENT),
    case(
        "a SYN behind seven extension headers",
        ETHER / ip6(nh=60) / (extensions(*[60] * 7, upper=6) + segment()),
        Reason.TOO_MANY_EXTENSIONS,
    ),
    case(
        "a SYN behind three tags",
        ETHER / Dot1Q() / Dot1Q() / Dot1Q() / ip4(proto=6) / segment(),
        Reason.TOO_MANY_EXTENSIONS,
    ),
    case("a SYN to a port that nobody registered", syn4(port=444), Reason.NOT_OURS_PORT),
    case(
        "a SYN to such a port, when any port will do",
        syn4(port=444),
        Reason.NOT_OURS_PORT,
        any_port=True,
        **after(proposal(port=444)),
    ),
    case(
        "a SYN for a guest behind a bridge",
        Ether(dst=THEIRS, src=THEIRS) / ip4(proto=6) / segment(),
        Reason.NOT_LOCAL,
        **after(HEARD_4),
    ),
    case("a SYN to every host", Ether(dst="ff:ff:ff:ff:ff:ff", src=OURS) / ip4(proto=6) / segment(), Reason.NOT_LOCAL),
    case(
        "a SYN behind its proposal while the daemon is silent",
        SYN_4,
        Reason.STALE_HEARTBEAT,
        age_ms=600,
        **after(HEARD_4),
    ),
    case("a SYN that adopts while the daemon is silent", syn4(option(ADOPT)), Reason.STALE_HEARTBEAT, age_ms=600),
]

SYNS = [*SUPPRESSED, *FIRST, *REPEATED, *ADOPTED, *LATE, *ELSEWHERE, *BAD, *NOT_OURS]
