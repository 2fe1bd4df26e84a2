# SPDX-License-Identifier: Apache-2.0
"""Counting what was on the wire, from a capture file: an account that does not rest on ours."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

_MAGIC = b"ACRD"
_LINK_ETHERNET = 1
_SNAP_SLL2 = 276
_IP, _IP6, _TCP, _UDP, _DIRECT = 0x0800, 0x86DD, 6, 17, 253


@dataclass(slots=True)
class Tally:
    """Packets and bytes of IP seen in both directions."""

    packets: int = 0
    bytes: int = 0
    syn_packets: int = 0
    """TCP segments with SYN and without ACK."""
    reset_packets: int = 0
    negotiation_packets: int = 0
    """UDP datagrams, or packets of IP protocol 253, with the magic cookie at offset 4."""


def tally(path: Path) -> Tally:
    """Count a pcap file (Ethernet or Linux cooked v2). Raises ``ValueError`` for other files."""
    data = path.read_bytes()
    if len(data) < 24 or data[:4] not in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1"):
        raise ValueError(f"{path} is no little-endian pcap file")
    link = struct.unpack_from("<I", data, 20)[0]
    if link not in (_LINK_ETHERNET, _SNAP_SLL2):
        raise ValueError(f"{path}: link type {link} is not known here")
    result = Tally()
    offset = 24
    while offset + 16 <= len(data):
        length = struct.unpack_from("<I", data, offset + 8)[0]
        frame = data[offset + 16 : offset + 16 + length]
        offset += 16 + length
        ethertype, network = (frame[12:14], frame[14:]) if link == _LINK_ETHERNET else (frame[0:2], frame[20:])
        _count(result, int.from_bytes(ethertype), network)
    return result


def _count(result: Tally, ethertype: int, packet: bytes) -> None:
    if ethertype == _IP and len(packet) >= 20:
        protocol, size, transport = packet[9], int.from_bytes(packet[2:4]), packet[(packet[0] & 15) * 4 :]
    elif ethertype == _IP6 and len(packet) >= 40:
        protocol, size, transport = packet[6], 40 + int.from_bytes(packet[4:6]), packet[40:]
    else:
        return
    if protocol not in (_TCP, _UDP, _DIRECT):
        return
    result.packets += 1
    result.bytes += size
    if protocol == _TCP and len(transport) >= 20:
        result.syn_packets += transport[13] & 0x12 == 0x02
        result.reset_packets += bool(transport[13] & 0x04)
    elif (protocol == _UDP and transport[12:16] == _MAGIC) or (protocol == _DIRECT and transport[4:8] == _MAGIC):
        result.negotiation_packets += 1
