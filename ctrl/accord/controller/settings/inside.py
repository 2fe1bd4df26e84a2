# SPDX-License-Identifier: Apache-2.0
"""What a policy wishes of the insides of protocols: the tables and keys that become a ``Wishes`` (docs/POLICY.md)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from accord.controller.settings.preferences import WORDS
from accord.controller.settings.toml import Table
from accord.protocols.wishes import (
    MAX_LEVEL,
    MAX_MESSAGE_LIMIT,
    MAX_WINDOW,
    MIN_MESSAGE_LIMIT,
    MIN_WINDOW,
    CompressionWishes,
    TcpWishes,
    Wishes,
)
from accord.wire.constants import Word
from accord.wire.tcp_header import MIN_MSS

KEYS: Final = ("tcp_options", "compression", "alpn", "tls_versions", "message_limit", "quic_idle_s", "kernel_tls")
_TLS_VERSIONS: Final[Mapping[str, str]] = {"1.3": "1.3"}
_MAX_MSS: Final = 0xFFFF
_ALGORITHM: Final = re.compile(r"[a-z][a-z0-9_-]{0,14}")
"""Linux's TCP_CA_NAME_MAX is 16, with the final zero."""
_MAX_ALGORITHMS: Final = 8
_MAX_ALPN: Final = 8
_MIN_IDLE_S: Final = 3
"""Three probes a second apart: less would take a busy host for a dead one."""
_MAX_IDLE_S: Final = 600


def read_wishes(table: Table, base: Wishes) -> Wishes:
    """``base`` with the keys that the table has."""
    tcp, compression = table.table("tcp_options"), table.table("compression")
    versions = table.strings("tls_versions", _version, ("1.3",))
    if not versions:
        table.note("tls_versions", "is empty: no TLS would be left", 'write ["1.3"], or forbid tls in preferences')
    alpn = table.strings("alpn", _alpn, base.alpn)
    if len(set(alpn)) != len(alpn) or len(alpn) > _MAX_ALPN:
        table.note("alpn", f"names a protocol twice, or more than {_MAX_ALPN}", "list each once, best first")
    return Wishes(
        tcp=base.tcp if tcp is None else _tcp(tcp, base.tcp),
        alpn=alpn,
        compression=base.compression if compression is None else _compression(compression, base.compression),
        message_limit=table.integer("message_limit", MIN_MESSAGE_LIMIT, MAX_MESSAGE_LIMIT, base.message_limit),
        quic_idle_s=table.integer("quic_idle_s", _MIN_IDLE_S, _MAX_IDLE_S, base.quic_idle_s),
        kernel_tls=table.boolean("kernel_tls", base.kernel_tls),
    )


def weaker(fixed: TcpWishes, wished: TcpWishes) -> str | None:
    """What of the file's required and forbidden options an application's wish takes back; None: nothing."""
    for name in ("sack", "timestamps", "window_scale"):
        if getattr(fixed, name) in (Word.REQUIRED, Word.FORBIDDEN) and getattr(wished, name) is not getattr(
            fixed, name
        ):
            return f"tcp_options.{name} = {getattr(wished, name).name.lower()!r}"
    words = dict(wished.congestion)
    for name, word in fixed.congestion:
        if word in (Word.REQUIRED, Word.FORBIDDEN) and words.get(name) is not word:
            return f"tcp_options.congestion.{name} = {words.get(name, Word.NEUTRAL).name.lower()!r}"
    return None


def _tcp(table: Table, base: TcpWishes) -> TcpWishes:
    congestion = dict(base.congestion)
    inner = table.table("congestion")
    if inner is not None:
        for name in inner.names():
            if not _ALGORITHM.fullmatch(name):
                inner.note(
                    name, "is no name of an algorithm", "see /proc/sys/net/ipv4/tcp_available_congestion_control"
                )
            congestion[name] = inner.choice(name, WORDS, Word.NEUTRAL)
        inner.finish()
        if len(congestion) > _MAX_ALGORITHMS:
            table.note("congestion", f"names more than {_MAX_ALGORITHMS} algorithms")
        if list(congestion.values()).count(Word.REQUIRED) > 1:
            table.note("congestion", "requires two algorithms at once", "a connection has one: prefer several instead")
    mss = table.integer("mss", MIN_MSS, _MAX_MSS, base.mss or 0)
    made = replace(
        base,
        sack=table.choice("sack", WORDS, base.sack),
        timestamps=table.choice("timestamps", WORDS, base.timestamps),
        window_scale=table.choice("window_scale", WORDS, base.window_scale),
        mss=mss or None,
        congestion=tuple(sorted(congestion.items())),
    )
    table.finish()
    return made


def _compression(table: Table, base: CompressionWishes) -> CompressionWishes:
    made = CompressionWishes(
        level=table.integer("level", 1, MAX_LEVEL, base.level),
        window=table.integer("window", MIN_WINDOW, MAX_WINDOW, base.window),
    )
    table.finish()
    return made


def _version(text: str) -> str:
    if text in _TLS_VERSIONS:
        return text
    if text in ("1.0", "1.1", "1.2"):
        raise ValueError(f"TLS {text} needs a round trip more, and is not negotiated; allowed: 1.3")
    raise ValueError(f"{text!r} is no version of TLS; allowed: 1.3")


def _alpn(text: str) -> str:
    if not text.isascii() or not text.isprintable() or not 1 <= len(text) <= 255:
        raise ValueError(f"{text!r} is no ALPN name; allowed: 1 to 255 printable ASCII letters, as http/1.1")
    return text
