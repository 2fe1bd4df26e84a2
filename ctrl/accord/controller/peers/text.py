# SPDX-License-Identifier: Apache-2.0
"""The memory of peers as text: a line of JSON for the whole, then one for each peer, least recently used first.

    {"accord_peers": 1, "peers": 1, "written": "2026-03-02T11:20:41Z"}
    {"address": "192.0.2.1", "port": 443, "source": "192.0.2.9", "protocols": [772, 6],
     "speaks_until": "2026-03-03T11:20:00Z", "ways": {"answers": {"worked_until": "2026-03-03T11:20:00Z"}}}

(the second in one line). Times are UTC, since the memory's own clock begins anew with the machine. A clock that was
set in between makes beliefs end early or late; none lasts longer than one that begins now would.
"""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from accord.controller.peers.memory import (
    DAY,
    MAX_EXPIRY,
    MAX_TIMES,
    MISSES_LATELY,
    NEVER,
    Belief,
    Entry,
    PeerKey,
    Way,
    peer_key,
)

VERSION: Final = 1
_MAX_LINE: Final = 4096
_MAX_PROTOCOLS: Final = 64
_MAX_ZONE: Final = 15
_MAX_NAME: Final = 255
_LONG_AGO: Final = 20 * 365 * DAY
_FIELDS: Final = frozenset(
    {"address", "port", "source", "protocols", "speaks_until", "marked", "ways", "key", "key_name"}
)
_MOMENT: Final = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z", re.ASCII)
_BELIEF_FIELDS: Final = frozenset({"worked_until", "doubted", "misses", "missed_at", "times", "broken_until"})


def head(count: int, wall: float) -> str:
    """The first line, for ``count`` peers; ``wall`` is Unix time, seconds."""
    return json.dumps({"accord_peers": VERSION, "peers": count, "written": _time(wall)}) + "\n"


def line(key: PeerKey, entry: Entry, shift: float) -> str:
    """One peer's line. ``shift`` is what has to be added to the memory's time to have Unix time, seconds."""
    found: dict[str, Any] = {"address": key[0], "port": key[1]}
    if entry.source:
        found["source"] = entry.source
    if entry.protocols:
        found["protocols"] = list(entry.protocols)
    if entry.speaks_until != NEVER:
        found["speaks_until"] = _time(entry.speaks_until + shift)
    if entry.marked is not None:
        found["marked"] = entry.marked
    if entry.key:
        found |= {"key": base64.b64encode(entry.key).decode(), "key_name": entry.key_name}
    found["ways"] = {way.value: _belief(belief, shift) for way, belief in entry.ways.items()}
    return json.dumps(found) + "\n"


def _belief(belief: Belief, shift: float) -> dict[str, Any]:
    times = {name: getattr(belief, name) for name in ("worked_until", "missed_at", "broken_until")}
    plain: dict[str, Any] = {"doubted": belief.doubted, "misses": belief.misses, "times": belief.times}
    return {name: _time(value + shift) for name, value in times.items() if value != NEVER} | {
        name: value for name, value in plain.items() if value
    }


def parse(text: bytes, now: float, wall: float) -> list[tuple[PeerKey, Entry]]:
    """All peers of a whole text, in its order; ``now`` and ``wall`` are this moment by both clocks.

    Raises ``ValueError``, which says which line is wrong: then none of it is to be used.
    """
    if not text.endswith(b"\n"):
        raise ValueError("it breaks off")
    lines = text.split(b"\n")[:-1]
    number = 1
    try:
        first = _object(lines[0])
        if first.get("accord_peers") != VERSION:
            raise ValueError(f"not of version {VERSION}")
        if first.get("peers") != len(lines) - 1:
            raise ValueError("another number of peers than the first line says")
        found: dict[PeerKey, Entry] = {}
        for each in lines[1:]:
            number += 1
            key, entry = _peer(_object(each), now, wall - now)
            if key in found:
                raise ValueError("the same peer again")
            found[key] = entry
    except (ValueError, RecursionError, OverflowError) as wrong:
        raise ValueError(f"line {number}: {wrong}") from wrong
    return list(found.items())


def encode(peers: Sequence[tuple[PeerKey, Entry]], now: float, wall: float) -> Iterator[str]:
    """All lines, by and by."""
    yield head(len(peers), wall)
    for key, entry in peers:
        yield line(key, entry, wall - now)


# ---- reading what anybody may have written ----


def _object(text: bytes) -> dict[str, Any]:
    if len(text) > _MAX_LINE:
        raise ValueError("too long")
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError("no object")
    return found


def _peer(found: dict[str, Any], now: float, shift: float) -> tuple[PeerKey, Entry]:
    _only(found, _FIELDS)
    key = peer_key(_address(found.get("address")), _integer(found, "port", 1, 65535))
    protocols = found.get("protocols", [])
    if not isinstance(protocols, list) or len(protocols) > _MAX_PROTOCOLS:
        raise ValueError("protocols")
    ways = found.get("ways")
    if not isinstance(ways, dict):
        raise ValueError("ways")
    marked = found.get("marked")
    if marked is not None and not isinstance(marked, bool):
        raise ValueError("marked")
    sealed_to, name = found.get("key", ""), found.get("key_name", "")
    if not isinstance(sealed_to, str) or not isinstance(name, str) or len(name) > _MAX_NAME:
        raise ValueError("key")
    return key, Entry(
        key=base64.b64decode(sealed_to, validate=True),
        key_name=name,
        protocols=tuple(_integer({"protocols": each}, "protocols", 0, 0xFFFFFFFF) for each in protocols),
        speaks_until=_moment(found, "speaks_until", now + MAX_EXPIRY, shift),
        source=_address(found["source"]) if "source" in found else "",
        marked=marked,
        ways={Way(name): _read_belief(belief, now, shift) for name, belief in ways.items()},
    )


def _read_belief(found: Any, now: float, shift: float) -> Belief:
    if not isinstance(found, dict):
        raise ValueError("a belief is an object")
    _only(found, _BELIEF_FIELDS)
    doubted = found.get("doubted", False)
    if not isinstance(doubted, bool):
        raise ValueError("doubted")
    return Belief(
        worked_until=_moment(found, "worked_until", now + MAX_EXPIRY, shift),
        doubted=doubted,
        misses=_integer({"misses": 0, **found}, "misses", 0, MISSES_LATELY),
        missed_at=_moment(found, "missed_at", now, shift),
        times=_integer({"times": 0, **found}, "times", 0, MAX_TIMES),
        broken_until=_moment(found, "broken_until", now + DAY, shift),
    )


def _only(found: dict[str, Any], allowed: frozenset[str]) -> None:
    if not found.keys() <= allowed:
        raise ValueError("unknown field")


def _address(text: Any) -> str:
    if not isinstance(text, str):
        raise ValueError("no address")
    bare, _, zone = text.partition("%")
    ipaddress.ip_address(bare)
    if len(zone) > _MAX_ZONE or not zone.isprintable():
        raise ValueError("zone")
    return text


def _integer(found: dict[str, Any], name: str, low: int, high: int) -> int:
    value = found.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(name)
    return value


def _moment(found: dict[str, Any], name: str, latest: float, shift: float) -> float:
    """By the memory's clock, no later than ``latest``; nor so early that it could not be written again."""
    text = found.get(name)
    if text is None:
        return NEVER
    if not isinstance(text, str) or not _MOMENT.fullmatch(text):
        raise ValueError(name)
    return max(min(datetime.datetime.fromisoformat(text).timestamp() - shift, latest), latest - _LONG_AGO)


def _time(wall: float) -> str:
    """Whole seconds, up: what is written and read at once is not over by that."""
    return datetime.datetime.fromtimestamp(math.ceil(wall), datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
