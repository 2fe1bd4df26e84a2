# SPDX-License-Identifier: Apache-2.0
"""Invariant: the memory of peers, a host's key, key configurations, an HTTPS record and a ring of cookie keys are read
whole or refused by the one error that is said to be; what was read and is written again reads the same.

The input is a byte of what to read, and its contents.
"""

from __future__ import annotations

import contextlib

import dns.exception
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype

from accord.controller.load import ring
from accord.controller.peers import dns_lookup, text
from accord.datapath.cookies import MAX_KEYS
from accord.protocols.sealed import configuration, host_keys
from accord.wire.constants import Reason
from accord.wire.errors import UserError

NOW, WALL = 1_000.0, 1_790_000_000.0


def one(data: bytes) -> None:
    """See above."""
    (_peers, _host_key, _configurations, _https, _ring)[data[0] % 5 if data else 0](data[1:])


def _peers(data: bytes) -> None:
    try:
        peers = text.parse(data, NOW, WALL)
    except ValueError as wrong:
        assert str(wrong)
        return
    written = "".join(text.encode(peers, NOW, WALL)).encode()
    again = text.parse(written, NOW, WALL)
    assert [key for key, _ in again] == [key for key, _ in peers]
    assert "".join(text.encode(again, NOW, WALL)).encode() == written, "another memory after writing and reading"


def _host_key(data: bytes) -> None:
    try:
        key = host_keys.parse(data.decode("utf-8", errors="replace"))
    except UserError as refusal:
        assert refusal.reason is Reason.BAD_CONFIG
        return
    assert host_keys.parse(key.text()).configuration == key.configuration


def _configurations(data: bytes) -> None:
    try:
        found = configuration.decode_list(data)
    except ValueError:
        return
    assert configuration.decode_list(configuration.encode_list(found)) == found
    chosen = configuration.best(found, WALL)
    assert chosen is None or (chosen.usable and chosen.public is not None)
    assert all(each.name and len(each.id) == configuration.ID_BYTES for each in found)


def _https(data: bytes) -> None:
    with contextlib.suppress(dns.exception.DNSException, ValueError):
        record = dns.rdata.from_wire(dns.rdataclass.IN, dns.rdatatype.HTTPS, data, 0, len(data))
        here = {dns.name.root, dns.name.from_text("server.example")}
        hint = dns_lookup.read([record], here, 443)
        assert len(hint.keys) <= configuration.MAX_CONFIGURATIONS


def _ring(data: bytes) -> None:
    try:
        kept = ring.parse(data.decode("utf-8", errors="replace"))
    except ValueError as wrong:
        assert str(wrong)
        return
    written = ring.format_keys(kept)
    assert ring.format_keys(ring.parse(written)) == written, "other keys after writing and reading"
    turned = ring.KeyRing(3600, 7200, bytes)
    turned.restore(kept)
    turned.turn(WALL)
    assert turned.keys
    assert len(turned.keys) <= MAX_KEYS
