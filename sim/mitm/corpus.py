# SPDX-License-Identifier: Apache-2.0
"""All that can be done to one recorded conversation, in an order that begins with something of each kind."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator
from typing import Final

from accord.wire.constants import Reason
from sim.chance import mix
from sim.mitm import hello
from sim.mitm.edits import NAIVE, Edit, Kind, Record
from sim.mitm.wire import COOKIE_BYTES, PRUNED, Nodes, RawNode

_COOKIE, _PREFERENCE, _WORD = 0x0001, 0x0003, 0x000B
_TLS = 0x0304
_EXCUSES: Final = (NAIVE, Reason.UNSUPPORTED, Reason.NOT_PREFERRED, Reason.POLICY)
_SKILL: Final = (NAIVE, Reason.NOT_PREFERRED)
_PROTOCOLS: Final = (0x6, 0x304, 0x500, 0x800, 0x810, 0x820, 0x900, 0xB00, 0xA0A0A0A, 0x7E000042)
_KNOWN_TLVS: Final = (
    *(0x0001, 0x0002, 0x0003, 0x000B, 0x8001, 0x8002, 0x8003, 0x8004),
    *(0x8005, 0x8006, 0x8007, 0x8008, 0x8009, 0x800A),
)
_SAMPLES: Final = (b"", b"\x01", b"\x01\x81", b"\x01\xbb", bytes(16), bytes(32), bytes(48))
_FREE_ID: Final = 60
_ORDERS: Final = 24
_STREAM_BYTES: Final = 200
_ACKS: Final = (1, 2, 3, 7, 255)
_DELAYS: Final = (1, 15, 25, 200, 3000)


def corpus(record: Record, seed: int, *, streams: bool) -> list[Edit]:
    """Every edit once. ``seed``: which bits of a byte are flipped. ``streams``: also of TCP's data, which have to be
    protected by more than the stand-in's records."""
    by_kind: dict[Kind, list[Edit]] = {}
    for edit in itertools.chain(_of_messages(record, seed), _of_packets(record, seed, streams=streams)):
        by_kind.setdefault(edit.kind, []).append(edit)
    for edits in by_kind.values():
        edits.sort(key=lambda edit: zlib.crc32(repr(edit).encode(), seed))
    turns = itertools.zip_longest(*(by_kind[kind] for kind in Kind if kind in by_kind))
    return [edit for turn in turns for edit in turn if edit is not None]


def _mask(*numbers: int) -> int:
    return 1 + mix(*numbers) % 255


def _of_messages(record: Record, seed: int) -> Iterator[Edit]:
    for (session, step), nodes in record.messages.items():
        way = step % 2
        yield from (
            edit
            for edit in itertools.chain(
                _of_graph(way, step, nodes, session),
                _of_tlvs(way, step, nodes, session),
                _of_payloads(way, step, nodes, session, seed),
                _of_whole(way, step, nodes, session),
            )
        )


def _of_graph(way: int, step: int, nodes: Nodes, session: int) -> Iterator[Edit]:
    ids = [node.id for node in nodes if node.id]
    for node in ids:
        for excuse in _EXCUSES:
            yield Edit(Kind.STRIP, way, step, node, excuse=excuse, session=session)
            yield Edit(Kind.PRUNE, way, step, node, excuse=excuse, session=session)
        for excuse in _SKILL:
            yield Edit(Kind.CUT, way, step, node, excuse=excuse, session=session)
            yield Edit(Kind.COPY, way, step, node, (_FREE_ID,), excuse=excuse, session=session)
            for protocol in _PROTOCOLS:
                yield Edit(Kind.PROTOCOL, way, step, node, (protocol,), excuse=excuse, session=session)
    for one, other in itertools.combinations(ids, 2):
        for excuse in _EXCUSES:
            yield Edit(Kind.PAIR, way, step, one, (other,), excuse=excuse, session=session)
        for excuse in _SKILL:
            yield Edit(Kind.SWAP, way, step, one, (other,), excuse=excuse, session=session)
    for one, other in itertools.permutations([node.id for node in nodes], 2):
        for excuse in _SKILL:
            yield Edit(Kind.EDGE, way, step, one, (other,), excuse=excuse, session=session)
    for order in itertools.islice(itertools.permutations(range(len(nodes))), 1, _ORDERS):
        yield Edit(Kind.ORDER, way, step, args=order, session=session)


def _of_tlvs(way: int, step: int, nodes: Nodes, session: int) -> Iterator[Edit]:
    for node in nodes:
        for number, value in node.tlvs:
            kind = {_COOKIE: Kind.COOKIE, PRUNED: Kind.PRUNED}.get(number, Kind.TLV)
            for excuse in _SKILL:
                yield Edit(Kind.UNTLV, way, step, node.id, (number,), excuse=excuse, session=session)
                for at in range(len(value)):
                    for mask in (0x01, 0x80):
                        changed = value[:at] + bytes((value[at] ^ mask,)) + value[at + 1 :]
                        yield Edit(kind, way, step, node.id, (number,), changed, excuse, session)
                for changed in (value[:-1], value + b"\x00", value + value):
                    yield Edit(kind, way, step, node.id, (number,), changed, excuse, session)
        if node.id == 0:
            yield from _of_pruned(way, step, node, nodes, session)
        for number in (*_KNOWN_TLVS, 0x0A0A, 0x7FFF, 0xFFFF):
            for value in _SAMPLES:
                yield Edit(Kind.TLV, way, step, node.id, (number,), value, session=session)
                if number in (_PREFERENCE, _WORD):
                    break
        if node.id and step == 0:
            for excuse in _SKILL:
                for liked in range(0, 256, 51):
                    yield Edit(Kind.PREFERENCE, way, step, node.id, (_PREFERENCE,), bytes((liked,)), excuse, session)
                for word in range(6):
                    yield Edit(Kind.PREFERENCE, way, step, node.id, (_WORD,), bytes((word,)), excuse, session)


def _of_pruned(way: int, step: int, context: RawNode, nodes: Nodes, session: int) -> Iterator[Edit]:
    pruned = context.pruned
    changes = [{**pruned, node: reason} for node in pruned for reason in (0, 1, 105, 128, 129, 130, 133, 255)]
    changes += [{other: why for other, why in pruned.items() if other != node} for node in pruned]
    changes += [{**pruned, node.id: 129} for node in nodes if node.id]
    for changed in changes:
        value = context.with_pruned(changed).tlv(PRUNED) or b""
        for excuse in _SKILL:
            yield Edit(Kind.PRUNED, way, step, 0, (PRUNED,), value, excuse, session)


def _of_payloads(way: int, step: int, nodes: Nodes, session: int, seed: int) -> Iterator[Edit]:
    for node in nodes:
        for at in range(len(node.payload)):
            mask = _mask(seed, step, node.id, at)
            excuse = _SKILL[mask % 2]
            yield Edit(Kind.PAYLOAD, way, step, node.id, (at, mask), excuse=excuse, session=session)
        for changed in (b"", node.payload[:-1], node.payload + b"\0", node.payload * 2, bytes(len(node.payload))):
            if changed != node.payload and len(changed) < 8000:
                for excuse in _SKILL:
                    yield Edit(Kind.PAYLOAD, way, step, node.id, (-1, 0), changed, excuse, session)
        found = hello.Hello.read(node.payload) if node.protocol == _TLS else None
        if found is None:
            continue
        arguments = {
            hello.ONE_SUITE: hello.SUITES,
            hello.WITHOUT: range(len(found.extensions)),
            hello.EMPTY: range(len(found.extensions)),
            hello.VERSION: (0x0300, 0x0301, 0x0302, 0x0303, 0x0305),
            hello.NAME: range(4),
            hello.SERVER_NAME: (0,),
            hello.LEGACY_VERSION: (0x0300, 0x0301, 0x0302),
        }
        for what, choices in arguments.items():
            for argument in choices:
                for excuse in _SKILL:
                    yield Edit(Kind.TLS, way, step, node.id, (what, argument), excuse=excuse, session=session)


def _of_whole(way: int, step: int, nodes: Nodes, session: int) -> Iterator[Edit]:
    for excuse in _SKILL:
        yield Edit(Kind.SPLICE, way, step, excuse=excuse, session=session)
        for node in nodes:
            yield Edit(Kind.SPLICE, way, step, node.id, excuse=excuse, session=session)
    for reason in Reason:
        if reason:
            for back in (0, 1):
                yield Edit(Kind.ABORT, way, step, args=(int(reason), back), session=session)
    for times in (0, 1, 2, 4):
        yield Edit(Kind.DROP, way, step, args=(times,), session=session)


def _of_packets(record: Record, seed: int, *, streams: bool) -> Iterator[Edit]:
    for way in (0, 1):
        yield Edit(Kind.DROP, way, -1, args=(0,))
        for number, length in enumerate(record.packets[way]):
            for at in range(length):
                yield Edit(Kind.FLIP, way, number, args=(at, _mask(seed, way, number, at)))
            for count in _ACKS:
                for swallow in (0, 1):
                    yield Edit(Kind.ACK, way, number, args=(count, swallow))
            for cookie in (bytes(COOKIE_BYTES), b"\xff" * COOKIE_BYTES, bytes(range(COOKIE_BYTES))) * (way == 0):
                for swallow in (0, 1):
                    yield Edit(Kind.CHALLENGE, way, number, args=(swallow,), data=cookie)
        for number, length in enumerate(record.segments[way][: 4 * streams]):
            for at in range(min(length, _STREAM_BYTES)):
                yield Edit(Kind.STREAM, way, number, args=(at, _mask(seed, way, number, at, 1)))
        if record.options or way:
            for what in (0, 1, 2, 3):
                yield Edit(Kind.OPTION, way, 0, args=(what,))
    for delay in _DELAYS:
        for times in (1, 100):
            yield Edit(Kind.REPLAY, 0, 0, args=(delay, times))
