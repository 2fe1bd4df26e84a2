# SPDX-License-Identifier: Apache-2.0
"""Invariant: what plug-ins read of a peer is taken or refused as the peer's mistake, within what was agreed; what has
one valid encoding and was taken is the same bytes when it is encoded again.

The input is a byte of what to read, and its bytes: the header of a SYN, its options, the option that names a
negotiation, wishes, names of ALPN, INNER's payloads and messages, blocks of compression, frames, what a connection
begins with, the payloads of a framing, a compression and an HTTP node, an outline, datagrams of QUIC, a planned port, a
ClientHello, and the headers of a SYN that the kernel has kept.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from accord.controller.adoption.beginnings import Hellos, is_record
from accord.datapath.syn_option import parse_saved
from accord.negotiation.interface import Answer, Outcome, Refuse, Role, View, Wait
from accord.protocols import alpn, port_plan, quic, tcp_wishes, wireguard
from accord.protocols.compressed_carrier import CompressedCarrier
from accord.protocols.compression import CompressionPlugin
from accord.protocols.deflate import Bounds, Packer, Unpacker
from accord.protocols.framed_carrier import FramedCarrier
from accord.protocols.framing import FramingPlugin
from accord.protocols.http import HttpPlugin
from accord.protocols.sealed import messages
from accord.protocols.services import Plugin, Services
from accord.protocols.tls_connection import is_retry
from accord.protocols.tls_hello import read_hello
from accord.wire import outline, tcp_header, tcp_option
from accord.wire.constants import Reason, TcpOption
from accord.wire.errors import PeerError
from fuzz.bytes_in import BytesIn
from fuzz.hosts import services

HELLO = b"\x16\x03\x01\x00\x60\x01" + bytes(range(1, 100))
LIMIT = 4096
LAYERS: tuple[Callable[[], Plugin], ...] = (FramingPlugin, CompressionPlugin, HttpPlugin)


class Arrived:
    """A stream of which all has come, in pieces of so many bytes."""

    kernel_socket = None

    def __init__(self, data: bytes, piece: int) -> None:
        self._source, self._piece = BytesIn(data), max(1, piece)

    async def read(self, limit: int = 65536) -> bytes:
        """The next piece; empty at the end."""
        return self._source.piece(min(limit, self._piece))

    async def write(self, data: bytes) -> None:
        """Nobody listens."""

    async def finish(self) -> None:
        """Nobody listens."""

    async def close(self) -> None:
        """Nobody listens."""

    def abort(self) -> None:
        """Nobody listens."""


def drive(work: Coroutine[Any, Any, Any]) -> Any:
    """To its end; nothing in it waits."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("waits for what is there")


def _header(data: bytes) -> None:
    header = tcp_header.decode(data)
    assert tcp_header.HEADER_BYTES <= len(data) <= tcp_header.MAX_HEADER_BYTES
    assert tcp_header.split(data) == (data, b"")
    again = tcp_header.encode(header, "192.0.2.1", "192.0.2.2")
    assert tcp_header.decode(again) == header, "another header after encoding"
    assert tcp_header.checksum_matches(again, "192.0.2.1", "192.0.2.2")
    tcp_header.checksum_matches(data, "2001:db8::1", "2001:db8::2")


def _options(data: bytes) -> None:
    used = sum(2 + len(value) for _, value in tcp_header.options(data))
    assert used <= len(data)


def _option(data: bytes) -> None:
    found = tcp_option.decode(data)
    assert found is None or tcp_option.encode(*found) == data


def _offer(data: bytes) -> None:
    offer = tcp_wishes.decode_offer(data)
    assert tcp_wishes.encode_offer(offer) == data


def _verdict(data: bytes) -> None:
    verdict = tcp_wishes.decode_verdict(data)
    assert tcp_wishes.encode_verdict(verdict) == data


def _names(data: bytes) -> None:
    names, rest = alpn.decode_names(data)
    assert alpn.encode_names(names) + rest == data


def _sealed(data: bytes) -> None:
    kind = messages.kind_of(data)
    if kind is messages.Kind.SEALED:
        sealed = messages.decode_sealed(data)
        assert messages.encode_sealed(sealed.key_id, sealed.bindings, sealed.sealed) == data
    elif kind is messages.Kind.KEYS:
        reason, keys = messages.decode_keys(data)
        assert bytes((kind, reason)) + keys == data


def _inner(data: bytes) -> None:
    step, nodes = messages.decode_inner(data)
    assert messages.encode_inner(step, nodes) == data


def _contents(data: bytes) -> None:
    keys, message = messages.decode_later(data)
    assert messages.encode_later(keys, message) == data
    secret, sent, message = messages.decode_first(data)
    assert messages.encode_first(secret, sent, message)[: len(secret)] == secret


def _blocks(data: bytes) -> None:
    source = BytesIn(data)
    window, block, factor = 9 + source.number() % 7, 256 + source.number() * 16, 16 + source.number() % 4
    bounds, piece = Bounds(window, block, factor), 1 + source.number()
    carrier = CompressedCarrier(Arrived(source.rest(), piece), Packer(bounds, 1, window), Unpacker(bounds, window))
    packed = len(data)
    read = 0
    while got := drive(carrier.read(777)):
        read += len(got)
        assert len(got) <= 777
        assert read <= packed * factor, "more than the factor that was agreed"


def _frames(data: bytes) -> None:
    source = BytesIn(data)
    piece, whole = 1 + source.number(), source.number() % 2
    carrier = FramedCarrier(Arrived(source.rest(), piece), LIMIT, LIMIT)
    got: bytes | None = b""
    while got is not None:
        got = drive(carrier.receive()) if whole else drive(carrier.read(100)) or None
        assert got is None or len(got) <= LIMIT


def _beginnings(data: bytes) -> None:
    hellos = Hellos(lambda: 1.0)
    hellos.expect(b"t" * 12, HELLO)
    for count in range(len(data) + 1):
        ahead = data[:count]
        wanted = hellos.wanted(ahead)
        assert 0 <= wanted <= max(len(HELLO), hellos.look)
        found = hellos.find(ahead)
        assert (found is not None) == (ahead[: len(HELLO)] == HELLO)
        is_record(ahead)
        is_retry(ahead)
    hellos.served(data)
    hellos.forget(b"t" * 12)


class Below:
    """The session below: a stream, or one that chose a name of ALPN."""

    protocol, secure = 6, False
    alpn: tuple[str, ...] = ()
    alpn_selected: str | None = None


def _node(data: bytes) -> None:
    """Both roles of a layer, whatever the peer says in which order."""
    source = BytesIn(data)
    plugin, role = source.one_of(LAYERS)(), source.one_of((Role.INITIATOR, Role.RESPONDER))
    below: Any = (Below(),)
    host: Services = services(role)
    session = plugin.open(role, host)
    view = View(role=role, step=0, node_id=2, below=below, above=(), budget=source.number(2))
    outcomes: list[Outcome] = []
    if role is Role.INITIATOR:
        outcomes.append(session.propose(view))
        outcomes.append(session.advance(view, source.rest()))
    else:
        first = source.counted()
        outcomes.append(session.respond(view, first))
        if isinstance(outcomes[0], Answer):
            outcomes.append(session.advance(view, source.rest()))
    assert all(isinstance(each, Answer | Refuse | Wait) for each in outcomes)
    if isinstance(outcomes[-1], Answer):
        session.commit(view)
    else:
        session.abort(outcomes[-1].reason if isinstance(outcomes[-1], Refuse) else Reason.CLOSED)


def _outline(data: bytes) -> None:
    entries = outline.decode(data)
    assert outline.encode(entry.hollow for entry in entries.values()).value == data
    assert len(data) <= outline.room([entry.hollow for entry in entries.values()])


def _datagrams(data: bytes) -> None:
    assert quic.encode_datagrams(quic.decode_datagrams(data)) == data


def _planned_port(data: bytes) -> None:
    assert port_plan.encode(port_plan.decode(data, "a plan")) == data


def _wireguard_peer(data: bytes) -> None:
    assert wireguard.encode(*wireguard.decode(data)) == data


def _client_hello(data: bytes) -> None:
    hello = read_hello(data)
    assert hello is None or all(0 <= number < 1 << 16 for number in (*hello.groups, *hello.shares))


def _saved_syn(data: bytes) -> None:
    found = parse_saved(data)
    assert found is None or data.find(tcp_option.encode(TcpOption(found[0]), found[1])) > 0


READERS: tuple[Callable[[bytes], None], ...] = (
    _header, _options, _option, _offer, _verdict, _names, _sealed, _inner, _contents, _blocks, _frames, _beginnings,
    _node, _outline, _datagrams, _planned_port, _client_hello, _saved_syn, _wireguard_peer,
)  # fmt: skip


def one(data: bytes) -> None:
    """See above."""
    if not data:
        return
    try:
        READERS[data[0] % len(READERS)](data[1:])
    except PeerError as refusal:
        assert refusal.reason is not Reason.OK
        assert str(refusal)
