# SPDX-License-Identifier: Apache-2.0
"""The option on the SYN (docs/PROTOCOL.md, section 10): asked for, socket by socket, and what came of it.

A sockops program on the daemon's cgroup writes it. Asking and looking are loads and stores in memory shared with that
program (``dataplane_c/src/syn_option.c``; its atomic stores have an order that ``mmap`` objects do not promise), so a
process without privileges and without ``bpf(2)`` can do it at run time.
"""

from __future__ import annotations

import enum
import os
import socket
import struct
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from accord.datapath._core import ffi, lib
from accord.datapath.cgroup import own_cgroup
from accord.datapath.port import Port
from accord.wire import tcp_header, tcp_option
from accord.wire.constants import Packet, Reason, TcpOption
from accord.wire.errors import PeerError, error

OBJECT_PATH: Final = Path(__file__).with_name("accord_sockops.bpf.o")
"""The sockops program, compiled when the package was built."""

# <asm-generic/socket.h> and <linux/tcp.h>: what Python's socket module does not name.
_SO_COOKIE: Final = 57
_TCP_SAVE_SYN: Final = 27
_TCP_SAVED_SYN: Final = 28
_SAVED_MOST: Final = 1024

_COOKIE = struct.Struct("=Q")

_SWEEP: Final = 256
"""Requests that are open at once before closed sockets among them are looked for."""

_IPPROTO_TCP: Final = 6
_MAX_EXTENSIONS: Final = 6
"""As far as ``ebpf/parsing.h`` walks."""
_EXTENSIONS: Final = (0, 43, 60, 135)
"""Hop-by-hop, routing, destination, mobility (RFC 8200, section 4): length in 8 bytes, the first not counted."""
_FRAGMENT: Final = 44
_AUTHENTICATION: Final = 51

_MENDS: Final = {
    Reason.NO_PRIVILEGE: "run as root, or give CAP_NET_ADMIN and CAP_BPF",
    Reason.FOREIGN_PROGRAM: "give the daemon a cgroup of its own; see: bpftool cgroup tree",
    Reason.LOAD_FAILED: "accord doctor says what this kernel has; or ./build.py build",
    Reason.NO_KERNEL_SUPPORT: "boot Linux 5.12 or later, with CONFIG_CGROUP_BPF=y",
    Reason.MAP_MISMATCH: "./build.py build",
}


class ExId(enum.IntEnum):
    """What a SYN's option asks for (RFC 6994: experiment identifiers)."""

    FALLBACK = TcpOption.EXID
    """The connection is superfluous if the negotiation succeeds."""
    ADOPT = TcpOption.EXID_ADOPT
    """The connection becomes the negotiated TCP node."""


@dataclass(frozen=True, slots=True)
class SynFate:
    """What came of the request for one socket; all of it false or 0 before ``connect()``."""

    written: bool
    """The first SYN bears the option."""
    no_room: bool
    """The first SYN left without it: its option space was taken, or another program of the cgroup refused it."""
    syns: int
    """Sent until the connection was established, the first one and its retransmissions; 255: or more."""
    marked: bool
    """The SYN-ACK bore ADOPT and the same transaction ID."""


class SynOptions:
    """Requests of this process. One that nobody forgets goes with its socket."""

    def __init__(self, port: Port | None = None) -> None:
        """Attach the program, or have it attached. ``port``: marked is what its XDP program hears; nothing without one.

        Raises ``AccordError``: what is missing, and its mend.
        """
        pointer = ffi.new("struct accord_syns **")
        failure = ffi.new("struct accord_failure *")
        cgroup = own_cgroup()
        of_port = ffi.NULL if port is None else port.pointer
        result = lib.accord_syns_open(os.fsencode(OBJECT_PATH), os.fsencode(cgroup), of_port, pointer, failure)
        _check(result, failure)
        self.cgroup = cgroup
        self._pointer: Any = pointer[0]
        self._asked: dict[int, weakref.ref[socket.socket]] = {}
        self._ended = dict.fromkeys(("written", "marked", "no_room", "unused", "displaced"), 0)

    def __str__(self) -> str:
        return f"written by a program on {self.cgroup}, {self.in_use} of {lib.ACCORD_SYNS_SLOTS} slots in use"

    def write(self, sock: socket.socket, transaction: bytes, kind: ExId) -> None:
        """The first SYN of ``sock`` shall bear the option: to be called before its ``connect()``.

        Where it is not possible the SYN leaves without, and ``fate`` says so. Raises ``ValueError`` for an ID that is
        not 12 bytes long.
        """
        if len(transaction) != Packet.TRANSACTION_BYTES:
            raise ValueError(f"a transaction ID of {len(transaction)} bytes")
        cookie = _cookie(sock)
        result = lib.accord_syns_request(self._open, cookie, transaction, kind == ExId.ADOPT)
        if result < 0:
            raise error(Reason(-result), f"socket cookie {cookie}", "restart the host: it has counted too many sockets")
        self._asked[cookie] = weakref.ref(sock, lambda _: self._end(cookie))
        if len(self._asked) % _SWEEP == 0:
            self._sweep()

    def fate(self, sock: socket.socket) -> SynFate:
        """What came of ``write`` so far. Raises ``OSError`` when ``sock`` is closed."""
        return _fate(lib.accord_syns_state(self._open, _cookie(sock)))

    def forget(self, sock: socket.socket) -> None:
        """Before ``sock`` is closed or handed over. Does nothing when nothing was asked for it."""
        self._end(_cookie(sock))

    def conclude(self, sock: socket.socket) -> SynFate:
        """``fate``, and ``forget``."""
        cookie = _cookie(sock)
        fate = self._end(cookie)
        return _fate(lib.accord_syns_state(self._open, cookie)) if fate is None else fate

    def answer(self, listener: socket.socket) -> None:
        """SYN-ACKs of ``listener`` may be marked: to be called before its ``listen()``.

        Its connections then remember their SYN (``saved_syn``), without which no mark may be sent. One that listens
        already keeps on marking, if it was told so when it began, and does not otherwise. Raises ``HostError``.
        """
        listener.setsockopt(socket.IPPROTO_TCP, _TCP_SAVE_SYN, 1)
        failure = ffi.new("struct accord_failure *")
        _check(lib.accord_syns_answer(self._open, listener.fileno(), failure), failure)

    def hear(self, port: Port) -> None:
        """Mark what the XDP program of ``port`` hears now that it was opened anew. Raises ``HostError``."""
        if port.report.program_id:
            failure = ffi.new("struct accord_failure *")
            _check(lib.accord_syns_hear(self._open, port.pointer, failure), failure)

    @property
    def in_use(self) -> int:
        """Requests of sockets that are open and that nobody has forgotten yet."""
        self._sweep()
        return int(lib.accord_syns_in_use(self._open))

    def counts(self) -> Mapping[str, int]:
        """Requests that are forgotten, by what came of them: ``written``; ``marked`` (that, and the SYN-ACK marked);
        ``no_room``; ``unused`` (no SYN left); ``displaced`` (a later one took the slot)."""
        self._sweep()
        return self._ended

    def close(self) -> None:
        """Detach the program, unless it is another process's. Twice does no harm."""
        pointer, self._pointer = self._pointer, None
        self._asked.clear()
        if pointer is not None:
            lib.accord_syns_close(pointer)

    @property
    def _open(self) -> Any:
        if self._pointer is None:
            raise ValueError("the options are closed")
        return self._pointer

    def _sweep(self) -> None:
        """A closed socket may be kept for long, by a traceback in a cycle for example."""
        closed = [cookie for cookie, asked in self._asked.items() if (sock := asked()) is None or sock.fileno() < 0]
        for cookie in closed:
            self._end(cookie)

    def _end(self, cookie: int) -> SynFate | None:
        """What came of it; None: nothing was asked for."""
        if self._pointer is None or self._asked.pop(cookie, None) is None:
            return None
        state = lib.accord_syns_state(self._pointer, cookie)
        lib.accord_syns_forget(self._pointer, cookie)
        fate = _fate(state)
        self._ended[_outcome(fate, displaced=not state)] += 1
        return fate


def _outcome(fate: SynFate, *, displaced: bool) -> str:
    if fate.written:
        return "marked" if fate.marked else "written"
    return "no_room" if fate.no_room else "displaced" if displaced else "unused"


def saved_syn(sock: socket.socket) -> tuple[ExId, bytes] | None:
    """The option on the SYN that opened an accepted connection: what it asks for, and the transaction ID.

    None without one, or when the listener saves no SYNs (``SynOptions.answer``). The kernel tells it only once
    (tcp(7), TCP_SAVED_SYN).
    """
    try:
        return parse_saved(sock.getsockopt(socket.IPPROTO_TCP, _TCP_SAVED_SYN, _SAVED_MOST))
    except OSError:
        return None


def parse_saved(headers: bytes) -> tuple[ExId, bytes] | None:
    """The option of ours on a SYN, given as IP header, extension headers and TCP header, all of it whole.

    As in the XDP program (``ebpf/parsing_tcp.h``) there is none where the options do not parse to their end, or hold
    two of ours.
    """
    tcp = _tcp_header(headers)
    if len(tcp) < tcp_header.HEADER_BYTES:
        return None
    length = (tcp[12] >> 4) * 4
    if not tcp_header.HEADER_BYTES <= length <= len(tcp):
        return None
    try:
        listed = list(tcp_header.options(tcp[tcp_header.HEADER_BYTES : length]))
    except PeerError:
        return None
    decoded = (tcp_option.decode(bytes((kind, 2 + len(value))) + value) for kind, value in listed)
    found = [(ExId(option[0]), option[1]) for option in decoded if option is not None]
    return found[0] if len(found) == 1 else None


def _tcp_header(headers: bytes) -> bytes:
    """What follows the IP headers if it is TCP, else nothing."""
    version = headers[0] >> 4 if headers else 0
    if version == 4 and len(headers) >= 20:
        return headers[(headers[0] & 0x0F) * 4 :] if headers[9] == _IPPROTO_TCP and headers[0] & 0x0F >= 5 else b""
    if version != 6 or len(headers) < 40:
        return b""
    protocol, at = headers[6], 40
    for _ in range(_MAX_EXTENSIONS):
        if protocol == _IPPROTO_TCP or at + 8 > len(headers):
            break
        if protocol in _EXTENSIONS:
            length = (headers[at + 1] + 1) * 8
        elif protocol == _FRAGMENT:
            length = 8
        elif protocol == _AUTHENTICATION:
            length = (headers[at + 1] + 2) * 4  # RFC 4302, section 2.2
        else:
            return b""
        protocol, at = headers[at], at + length
    return headers[at:] if protocol == _IPPROTO_TCP else b""


def _fate(state: int) -> SynFate:
    left = bool(state & lib.ACCORD_SYN_CONNECTING)
    written = bool(state & lib.ACCORD_SYN_WRITTEN)
    return SynFate(
        written=written,
        no_room=left and not written,
        syns=state >> lib.ACCORD_SYN_SENT_SHIFT & lib.ACCORD_SYN_SENT_MOST,
        marked=bool(state & lib.ACCORD_SYN_MARKED),
    )


def _cookie(sock: socket.socket) -> int:
    return int(_COOKIE.unpack(sock.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, _COOKIE.size))[0])


def _check(result: int, failure: Any) -> None:
    if result < 0:
        reason = Reason(-result)
        detail = ffi.string(failure.detail).decode("utf-8", "replace")
        raise error(reason, detail, _MENDS.get(reason, "accord doctor says what this host has"))
