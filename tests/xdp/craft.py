# SPDX-License-Identifier: Apache-2.0
"""What the rows of the packet table are made of: frames by scapy, and bytes by hand where it would not build them."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from accord.wire.constants import Reason

OURS = "02:00:00:00:00:02"
THEIRS = "02:00:00:00:00:01"
PORT = 443
DIRECT = 253
ALIVE_MS = -3_600_000
"""Age of a heartbeat an hour ahead: however long a machine under load does not run a test, its daemon lives."""

ID = b"transaction."
SAME_SLOT = b"sacttranion."
"""Another transaction ID, which has the same slot in the map "heard": its words are those of the first."""


def header(
    first: int = 4,
    magic: bytes = b"ACRD",
    length: int = 32,
    *,
    step: int = 0,
    flags: int = 1,
    transaction: bytes = ID,
    after_first: int = 0,
) -> bytes:
    """The start of a negotiation packet, written down by hand and cut to ``length`` bytes; its direction's first, or so
    many behind that."""
    tsn = (int.from_bytes(transaction[:4]) + after_first) & 0xFFFFFFFF
    packet = struct.pack("!BBH4s12sIIHH", first, step, flags, magic, transaction, tsn, 0, 0, 0)
    return (packet + bytes(max(0, length - 32)))[:length]


def ip4(**fields: object) -> IP:
    """IPv4 between the two hosts of the table."""
    return IP(**{"src": "192.0.2.1", "dst": "192.0.2.2", **fields})


def ip6(**fields: object) -> IPv6:
    """IPv6 between the two hosts of the table."""
    return IPv6(**{"src": "2001:db8::1", "dst": "2001:db8::2", **fields})


ETHER = Ether(dst=OURS, src=THEIRS)
IP4 = ip4()
IP6 = ip6()
UDP_OURS = UDP(sport=50000, dport=PORT)
OURS_4 = ETHER / IP4 / UDP_OURS / header()
OURS_6 = ETHER / IP6 / UDP_OURS / header()
DATAGRAM = bytes(UDP_OURS / header())
"""A UDP header with a packet of ours."""


@dataclass(frozen=True)
class Case:
    """One row; ``settings`` go to ``Program.configure``, ``joined``, ``age_ms`` to the state around it.

    A heartbeat that is given may grow too old while the row is prepared: then it is run again.
    ``before``: frames that came before it, and milliseconds that passed since.
    """

    name: str
    frame: bytes
    reason: Reason
    settings: dict[str, object] = field(default_factory=dict)
    joined: bool = True
    age_ms: int = ALIVE_MS
    before: tuple[bytes | int, ...] = ()


def case(name: str, frame: Packet | bytes, reason: Reason, **around: object) -> Case:
    """A row; keywords that are no field of it are settings."""
    fields = {key: around.pop(key) for key in ("joined", "age_ms", "before") if key in around}
    return Case(name, bytes(frame), reason, around, **fields)  # type: ignore[arg-type]


def patched(frame: Packet, offset: int, value: bytes) -> bytes:
    """The frame with some bytes overwritten: for what scapy would not build."""
    raw = bytearray(bytes(frame))
    raw[offset : offset + len(value)] = value
    return bytes(raw)


def cut(frame: Packet | bytes, length: int) -> bytes:
    """The first ``length`` bytes of the frame."""
    return bytes(frame)[:length]


def rows(reason: Reason, frames: Mapping[str, Packet | bytes], **around: object) -> list[Case]:
    """Rows of one reason, by name."""
    return [case(name, frame, reason, **around) for name, frame in frames.items()]


def shorn(frame: Packet | bytes, length: int, family: int = 4) -> bytes:
    """The first ``length`` bytes of an untagged UDP frame, and the lengths of IP and UDP say so: damaged by no one."""
    raw = bytearray(cut(frame, length))
    ip = 20 if family == 4 else 40
    at, value = (16, length - 14) if family == 4 else (18, length - 14 - ip)
    raw[at : at + 2] = value.to_bytes(2, "big")
    if length >= 14 + ip + 8:
        raw[14 + ip + 4 : 14 + ip + 6] = (length - 14 - ip).to_bytes(2, "big")
    return bytes(raw)


def extensions(*kinds: int, upper: int = 17, units: int = 0) -> bytes:
    """IPv6 extension headers in a row, each of ``8 * (units + 1)`` bytes, all but the last naming the one behind it."""
    follows = [*kinds[1:], upper]
    return b"".join(bytes((following, units)) + bytes(6 + 8 * units) for following in follows)


def behind(*kinds: int, upper: int = 17, rest: bytes | None = None) -> Packet:
    """An IPv6 frame with such headers in front of ``rest``, which is a packet of ours unless it is given."""
    packet = (DATAGRAM if upper == 17 else header()) if rest is None else rest
    return ETHER / ip6(nh=kinds[0]) / (extensions(*kinds, upper=upper) + packet)
