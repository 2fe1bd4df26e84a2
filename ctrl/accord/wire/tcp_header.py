# SPDX-License-Identifier: Apache-2.0
"""The TCP header of a SYN or a SYN-ACK, as it rides in a TCP node (RFC 9293, section 3.1).

::

     0                   1                   2                   3
    |         source port           |       destination port        |
    |                        sequence number                        |
    |                     acknowledgement number                    |
    | offset|  zero | C E U A P R S F |            window           |
    |           checksum            |      urgent pointer: zero     |
    |                    options, 0 to 40 bytes                     |

What may come after the options is no part of it. The checksum covers the pseudo-header of the two addresses as the
sender sees them, so it tells the receiver whether both see the same. A prefix translator that keeps checksums
(RFC 6296) goes unnoticed, and may: it keeps the TCP segments' checksums as well, and maps addresses one
to one, so the connection works through it.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from accord.wire.constants import Reason
from accord.wire.errors import PeerError

HEADER_BYTES: Final = 20
MAX_HEADER_BYTES: Final = 60
"""Fifteen 32-bit words: what the data offset can say."""
MAX_WINDOW: Final = 65535
MAX_WINDOW_SCALE: Final = 14
"""RFC 7323, section 2.3: a larger shift count is taken as this one."""
DEFAULT_MSS_IPV4: Final = 536
"""RFC 9293, section 3.7.1: what a SYN without the option means."""
DEFAULT_MSS_IPV6: Final = 1220

MIN_MSS: Final = 88
"""As Linux's ``TCP_MIN_MSS``: 48 bytes of data beside a full 40 bytes of options. Less only burdens a host."""

FLAG_SYN: Final = 0x02
FLAG_ACK: Final = 0x10
_FLAGS_ECN: Final = 0xC0
"""ECE and CWR: a SYN may ask for ECN (RFC 3168, section 6.1.1); we neither ask nor agree."""

_KIND_END: Final = 0
_KIND_NOP: Final = 1
_KIND_MSS: Final = 2
_KIND_WINDOW_SCALE: Final = 3
_KIND_SACK_PERMITTED: Final = 4
_KIND_TIMESTAMPS: Final = 8
_OPTION_BYTES: Final = {_KIND_MSS: 4, _KIND_WINDOW_SCALE: 3, _KIND_SACK_PERMITTED: 2, _KIND_TIMESTAMPS: 10}
_SIGNATURES: Final = {19: "an MD5 signature (RFC 2385)", 29: "TCP-AO (RFC 5925)"}
"""With these every segment must be signed, so ignoring them cannot work."""

_FIXED = struct.Struct("!HHIIBBHHH")


@dataclass(frozen=True, slots=True)
class TcpParameters:
    """What one side's SYN or SYN-ACK says of that side (RFC 9293, 7323, 2018)."""

    port: int
    isn: int
    mss: int
    window: int
    """Bytes, never scaled in a SYN (RFC 7323, section 2.2)."""
    window_scale: int | None = None
    sack: bool = False
    timestamp: int | None = None
    """TSval that the header bears; None: no timestamps."""


@dataclass(frozen=True, slots=True)
class TcpHeader:
    """A decoded SYN or SYN-ACK."""

    destination_port: int
    acknowledgement: int | None
    """None in a SYN."""
    echo: int
    """TSecr; 0 without timestamps."""
    sender: TcpParameters


def encode(header: TcpHeader, source: str, destination: str) -> bytes:
    """The header's bytes, options in Linux's order and padding, checksum for these two addresses.

    Addresses are textual; an IPv6 zone (``%eth0``) is not part of the checksum. Raises ``ValueError`` for a
    number that does not fit its field: a mistake of the caller's.
    """
    own = header.sender
    options = _encode_options(own, header.echo)
    flags = FLAG_SYN if header.acknowledgement is None else FLAG_SYN | FLAG_ACK
    try:
        data = (
            _FIXED.pack(
                own.port,
                header.destination_port,
                own.isn,
                header.acknowledgement or 0,
                (HEADER_BYTES + len(options)) // 4 << 4,
                flags,
                own.window,
                0,
                0,
            )
            + options
        )
    except struct.error as wrong:
        raise ValueError(f"TCP header field out of range: {wrong}") from wrong
    return with_checksum(data, source, destination)


def with_checksum(data: bytes, source: str, destination: str) -> bytes:
    """A TCP segment with the checksum for these two addresses, whatever it had before."""
    blank = data[:16] + bytes(2) + data[18:]
    return data[:16] + (~_sum(blank, source, destination) & 0xFFFF).to_bytes(2, "big") + data[18:]


def split(data: bytes) -> tuple[bytes, bytes]:
    """The header that ``data`` begins with, as long as its data offset says, and what follows it."""
    length = (data[12] >> 4) * 4 if len(data) >= HEADER_BYTES else len(data)
    return data[:length], data[length:]


def decode(data: bytes, default_mss: int = DEFAULT_MSS_IPV4) -> TcpHeader:
    """The header in ``data``, which holds it and nothing else. The checksum is not looked at here.

    ``default_mss``: what a missing MSS option means. Options that are not known are passed over, as RFC 9293,
    section 3.1, demands. Raises ``PeerError`` (HANDSHAKE_FAILED).
    """
    if len(data) < HEADER_BYTES:
        raise _wrong(f"{len(data)} bytes are no TCP header")
    source, destination, sequence, acknowledgement, offset, flags, window, _, urgent = _FIXED.unpack_from(data)
    length = (offset >> 4) * 4
    if length < HEADER_BYTES or length != len(data):
        raise _wrong(f"data offset says {length} bytes, there are {len(data)}")
    if offset & 0x0F or urgent:
        raise _wrong("reserved bits or urgent pointer are not zero")
    if flags & ~_FLAGS_ECN not in (FLAG_SYN, FLAG_SYN | FLAG_ACK):
        raise _wrong(f"flags 0x{flags:02x} are neither a SYN's nor a SYN-ACK's")
    if source == 0 or destination == 0:
        raise _wrong("port 0")
    is_answer = bool(flags & FLAG_ACK)
    if not is_answer and acknowledgement:
        raise _wrong("a SYN with an acknowledgement number")
    found = _decode_options(data[HEADER_BYTES:])
    timestamps = found.get(_KIND_TIMESTAMPS)
    scale = found.get(_KIND_WINDOW_SCALE)
    mss = found.get(_KIND_MSS)
    sender = TcpParameters(
        port=source,
        isn=sequence,
        mss=_mss(mss, default_mss),
        window=window,
        window_scale=None if scale is None else min(scale[0], MAX_WINDOW_SCALE),
        sack=_KIND_SACK_PERMITTED in found,
        timestamp=None if timestamps is None else int.from_bytes(timestamps[:4], "big"),
    )
    return TcpHeader(
        destination_port=destination,
        acknowledgement=acknowledgement if is_answer else None,
        echo=0 if timestamps is None else int.from_bytes(timestamps[4:], "big"),
        sender=sender,
    )


def checksum_matches(data: bytes, source: str, destination: str) -> bool:
    """Whether the header's checksum is the one for these two addresses (RFC 9293, section 3.1)."""
    return _sum(data, source, destination) == 0xFFFF


def _encode_options(own: TcpParameters, echo: int) -> bytes:
    """MSS, SACK permitted and timestamps, window scale: as ``tcp_options_write`` of Linux lays them out."""
    if own.window_scale is not None and not 0 <= own.window_scale <= MAX_WINDOW_SCALE:
        raise ValueError(f"window scale {own.window_scale} is not in 0..{MAX_WINDOW_SCALE}")
    try:
        options = struct.pack("!BBH", _KIND_MSS, 4, own.mss)
        if own.timestamp is not None:
            options += bytes((_KIND_SACK_PERMITTED, 2) if own.sack else (_KIND_NOP, _KIND_NOP))
            options += struct.pack("!BBII", _KIND_TIMESTAMPS, 10, own.timestamp, echo)
        elif own.sack:
            options += bytes((_KIND_NOP, _KIND_NOP, _KIND_SACK_PERMITTED, 2))
    except struct.error as wrong:
        raise ValueError(f"TCP option value out of range: {wrong}") from wrong
    if own.window_scale is not None:
        options += bytes((_KIND_NOP, _KIND_WINDOW_SCALE, 3, own.window_scale))
    return options


def options(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind and value of each option, in order, without padding (RFC 9293, section 3.1). Every turn of the loop takes
    a byte or more. Raises ``PeerError`` (HANDSHAKE_FAILED) at one whose length cannot be."""
    at = 0
    while at < len(data):
        kind = data[at]
        if kind == _KIND_END:
            break
        if kind == _KIND_NOP:
            at += 1
            continue
        length = data[at + 1] if at + 1 < len(data) else 0
        if length < 2 or at + length > len(data):
            raise _wrong(f"TCP option {kind} with length {length} at byte {HEADER_BYTES + at}")
        yield kind, data[at + 2 : at + length]
        at += length


def _decode_options(data: bytes) -> dict[int, bytes]:
    """Option values by kind, without those that are not known."""
    found: dict[int, bytes] = {}
    for kind, value in options(data):
        if kind in _SIGNATURES:
            raise _wrong(f"{_SIGNATURES[kind]} is asked for, which cannot be negotiated here")
        expected = _OPTION_BYTES.get(kind)
        if expected is not None:
            if len(value) + 2 != expected:
                raise _wrong(f"TCP option {kind} has length {len(value) + 2} instead of {expected}")
            if kind in found:
                raise _wrong(f"TCP option {kind} twice")
            found[kind] = value
    return found


def _mss(option: bytes | None, default: int) -> int:
    mss = default if option is None else int.from_bytes(option, "big")
    if mss < MIN_MSS:
        raise _wrong(f"a maximum segment size of {mss} bytes, which leaves no room for data")
    return mss


def _sum(data: bytes, source: str, destination: str) -> int:
    """One's complement sum over pseudo-header and data (RFC 1071; RFC 8200, section 8.1)."""
    first, second = _packed(source), _packed(destination)
    if len(first) != len(second):
        raise ValueError(f"{source} and {destination} are not of one family")
    words = first + second + struct.pack("!II", len(data), 6) + data + b"\0" * (len(data) % 2)
    # The sum of 16-bit words, with carries added at the low end, is the number modulo 65535;
    # 0 stands for 0xffff there, since the words are never all zero.
    return int.from_bytes(words, "big") % 0xFFFF or 0xFFFF


@lru_cache(maxsize=1024)
def _packed(address: str) -> bytes:
    return ipaddress.ip_address(address.partition("%")[0]).packed


def _wrong(detail: str) -> PeerError:
    return PeerError(Reason.HANDSHAKE_FAILED, detail, "the peer's TCP node has to hold a valid SYN or SYN-ACK header")
