# SPDX-License-Identifier: Apache-2.0
"""What the two policies wish of a TCP node, and what that comes to.

TCP's own options say what a side is able to do, not what it would like, and name no congestion control. So behind the
header, or the option ADOPT, there may be one more option of the experimental kind (RFC 6994), which never is on a SYN:

    u8 kind = 254, u8 length, u16 ExID = 0xacc2, u8 word on SACK, u8 on timestamps, u8 on window scale, then
    proposal    u8 word, u8 length and name for each algorithm that the initiator has and does not forbid, best first
    answer      the name of the algorithm that both are to use, to the end; empty: each as it likes

An answer has it if the proposal had. The rule for an option (``on``): forbidden by one side, it is off; required by
one, it is on; both at once is a refusal. Else it is off if more sides avoid it than prefer it. For an algorithm
(``choose``): among those that both have and nobody forbids the one that is required, else in this order fewer sides
that avoid it, more that prefer it, the initiator's list. Where nobody says anything, the kernels keep theirs.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from accord.protocols.wishes import TcpWishes
from accord.wire.constants import Reason, TcpOption, Word
from accord.wire.errors import AccordError, error

Words = tuple[Word, Word, Word]
OPTIONS: Final = ("sack", "timestamps", "window_scale")
NEUTRAL: Final[Words] = (Word.NEUTRAL, Word.NEUTRAL, Word.NEUTRAL)
MAX_ALGORITHMS: Final = 8

_HEAD: Final = struct.Struct("!BBH3B")
_NAME: Final = re.compile(rb"[a-z][a-z0-9_-]{0,14}")


@dataclass(frozen=True, slots=True)
class Offer:
    """What an initiator says."""

    words: Words = NEUTRAL
    algorithms: tuple[tuple[str, Word], ...] = ()
    """Best first."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a responder says."""

    words: Words = NEUTRAL
    algorithm: str = ""
    """Empty: none was agreed."""


# ---- on the wire ----


def encode_offer(offer: Offer) -> bytes:
    """The option of a proposal."""
    names = b"".join(bytes((word, len(name))) + name.encode("ascii") for name, word in offer.algorithms)
    return _encode(offer.words, names)


def encode_verdict(verdict: Verdict) -> bytes:
    """The option of an answer."""
    return _encode(verdict.words, verdict.algorithm.encode("ascii"))


def decode_offer(data: bytes) -> Offer:
    """The option that ``data`` is. Raises ``PeerError`` (HANDSHAKE_FAILED)."""
    words, rest = _decode(data)
    algorithms: dict[str, Word] = {}
    at = 0
    while at < len(rest):
        if len(rest) - at < 2 or len(rest) - at - 2 < rest[at + 1]:
            raise _wrong("an algorithm's name is cut short")
        word, name = rest[at], rest[at + 2 : at + 2 + rest[at + 1]]
        if not Word.AVOID <= word <= Word.REQUIRED or len(algorithms) == MAX_ALGORITHMS:
            raise _wrong(f"word {word} on an algorithm, or more than {MAX_ALGORITHMS} of them")
        shown = _name(name)
        if shown in algorithms:
            raise _wrong(f"the algorithm {shown} twice")
        algorithms[shown] = Word(word)
        at += 2 + len(name)
    return Offer(words, tuple(algorithms.items()))


def decode_verdict(data: bytes) -> Verdict:
    """The option that ``data`` is. Raises ``PeerError`` (HANDSHAKE_FAILED)."""
    words, rest = _decode(data)
    return Verdict(words, _name(rest) if rest else "")


# ---- the rules ----


def offer(wishes: TcpWishes, available: Sequence[str]) -> Offer:
    """What an initiator says. ``available``: algorithms that this host allows, its default first.

    Raises ``UserError`` (REQUIRED_MISSING) when one that is required is not among them.
    """
    said = dict(wishes.congestion)
    for name, word in wishes.congestion:
        if word is Word.REQUIRED and name not in available:
            raise error(
                Reason.REQUIRED_MISSING,
                f"TCP: congestion control {name}, which this host's policy requires, is not to be had here",
                "see net.ipv4.tcp_allowed_congestion_control",
            )
    able = [name for name in available if said.get(name) is not Word.FORBIDDEN and _NAME.fullmatch(name.encode())]
    able.sort(key=lambda name: -said.get(name, Word.NEUTRAL))  # stable
    return Offer(wishes.words, tuple((name, said.get(name, Word.NEUTRAL)) for name in able[:MAX_ALGORITHMS]))


def on(name: str, own: Word, peers: Word, *, able: bool) -> bool:
    """Whether an option is used. ``able``: both kernels have it. Raises ``AccordError`` (REQUIRED_MISSING)."""
    words = (own, peers)
    if Word.REQUIRED in words:
        side = "this host's" if own is Word.REQUIRED else "the peer's"
        if Word.FORBIDDEN in words:
            other = "this host's" if own is Word.FORBIDDEN else "the peer's"
            raise error(Reason.REQUIRED_MISSING, f"TCP: {name} is required by {side} policy, forbidden by {other}")
        if not able:
            raise error(Reason.REQUIRED_MISSING, f"TCP: {name}, which {side} policy requires, is not to be had")
        return True
    if Word.FORBIDDEN in words:
        return False
    return able and words.count(Word.AVOID) <= words.count(Word.PREFERRED)


def choose(wishes: TcpWishes, available: Sequence[str], offered: Offer) -> str:
    """The algorithm that both use; empty: each as it likes. Raises ``AccordError`` (REQUIRED_MISSING)."""
    own, peers = dict(wishes.congestion), dict(offered.algorithms)
    both = [name for name in peers if name in available and own.get(name) is not Word.FORBIDDEN]
    required = {name for said in (own, peers) for name, word in said.items() if word is Word.REQUIRED}
    for name in required:
        side = "this host's" if own.get(name) is Word.REQUIRED else "the peer's"
        if name not in both or len(required) > 1:
            raise error(
                Reason.REQUIRED_MISSING,
                f"TCP: congestion control {name}, which {side} policy requires, is not what both sides have and allow",
            )
        return name
    ranked = sorted(both, key=lambda name: _rank(own.get(name, Word.NEUTRAL), peers[name]))  # stable: as offered
    silent = all(own.get(name, Word.NEUTRAL) is peers[name] is Word.NEUTRAL for name in both)
    return ranked[0] if ranked and not silent else ""


def alone(wishes: TcpWishes, available: Sequence[str]) -> str:
    """What this side takes for its own sending when nothing was agreed; empty: the kernel's default."""
    own = dict(wishes.congestion)
    able = [name for name in available if own.get(name) is not Word.FORBIDDEN]
    ranked = sorted(able, key=lambda name: _rank(own.get(name, Word.NEUTRAL)))
    return ranked[0] if ranked and ranked[0] != available[0] else ""


def _rank(*words: Word) -> tuple[int, int]:
    return words.count(Word.AVOID), -words.count(Word.PREFERRED)


def _encode(words: Words, rest: bytes) -> bytes:
    return _HEAD.pack(TcpOption.KIND, _HEAD.size + len(rest), TcpOption.EXID_WISHES, *words) + rest


def _decode(data: bytes) -> tuple[Words, bytes]:
    if len(data) < _HEAD.size:
        raise _wrong(f"{len(data)} bytes behind the header are no option WISHES")
    kind, length, exid, *words = _HEAD.unpack_from(data)
    if (kind, length, exid) != (TcpOption.KIND, len(data), TcpOption.EXID_WISHES):
        raise _wrong(f"what is behind the header is no option WISHES: {data[:8].hex()}")
    if max(words) > Word.REQUIRED:
        raise _wrong(f"words {words} in the option WISHES")
    sack, timestamps, scale = (Word(word) for word in words)
    return (sack, timestamps, scale), data[_HEAD.size :]


def _name(name: bytes) -> str:
    if not _NAME.fullmatch(name):
        raise _wrong(f"{name[:16]!r} is no algorithm's name")
    return name.decode("ascii")


def _wrong(detail: str) -> AccordError:
    return error(Reason.HANDSHAKE_FAILED, f"TCP: {detail}")
