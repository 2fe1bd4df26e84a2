# SPDX-License-Identifier: Apache-2.0
"""What may be asked of the memory of peers over the control socket: ``peers``, and by operators ``flush_peers``."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
from typing import Any

from accord.controller.control import Channel
from accord.controller.peers.keeper import PeersKeeper
from accord.controller.peers.memory import Belief, Entry, PeerKey, Peers
from accord.wire.constants import Reason, protocol_name
from accord.wire.errors import error

_AT_ONCE = 32
"""Peers between two turns of the event loop."""
_MAX_ADDRESSES = 256


def row(peers: Peers, key: PeerKey, entry: Entry) -> dict[str, Any]:
    """One peer as ``accord peers --json`` shows it; times are seconds that are left."""
    now, known = peers.clock(), peers.about(entry)
    return {
        "address": key[0],
        "port": key[1],
        "source": entry.source,
        "accord": known.accord,
        "protocols": [protocol_name(protocol) for protocol in known.protocols],
        "protocols_s": _left(entry.speaks_until, now),
        "propose": known.propose,
        "answers_late": known.answers_late,
        "no_syn": known.no_syn,
        "option": known.option,
        "marked": entry.marked,
        "ways": {way.value: _belief(belief, now) for way, belief in entry.ways.items()},
    }


def _belief(belief: Belief, now: float) -> dict[str, Any]:
    return {
        "works": belief.holds(now),
        "for_s": _left(max(belief.broken_until, 0.0 if belief.doubted else belief.worked_until), now),
        "misses": belief.misses,
        "confirmed": belief.times,
    }


def _left(until: float, now: float) -> float:
    return round(max(0.0, until - now), 1)


class PeersOperations:
    """Handlers. ``keeper`` writes a flush down at once; None: nothing is kept."""

    def __init__(self, peers: Peers, keeper: PeersKeeper | None) -> None:
        self._peers = peers
        self._keeper = keeper

    async def list(self, message: dict[str, Any], channel: Channel) -> None:
        """Answers with a file, since there may be more than a message holds: a JSON array of ``row``."""
        addresses = None if message.get("addresses") is None else set(_addresses(message))
        rows = []
        for number, (key, entry) in enumerate(reversed(self._peers.entries())):
            if (addresses is None or key[0] in addresses) and not entry.over(self._peers.clock()):
                rows.append(row(self._peers, key, entry))
            if number % _AT_ONCE == _AT_ONCE - 1:
                await asyncio.sleep(0)
        with os.fdopen(os.memfd_create("peers"), "wb") as file:
            file.write(json.dumps(rows).encode())
            file.flush()
            await channel.send({"ok": True, "peers": len(rows)}, [file.fileno()])

    async def flush(self, message: dict[str, Any], channel: Channel) -> None:
        """Answers how many peers were forgotten, when the file has forgotten them too."""
        port = message.get("port")
        if port is not None and (not isinstance(port, int) or isinstance(port, bool) or not 0 < port < 65536):
            raise error(Reason.BAD_CONFIG, f"port {port}", "ports are 1..65535")
        if message.get("addresses") is None:
            flushed = self._peers.flush(None, port)
        else:
            flushed = sum(self._peers.flush(address, port) for address in _addresses(message))
        if self._keeper is not None:
            await self._keeper.write()
        await channel.send({"ok": True, "flushed": flushed})


def _addresses(message: dict[str, Any]) -> set[str]:
    """Raises ``UserError`` (``BAD_CONFIG``)."""
    found = message.get("addresses")
    if not isinstance(found, list) or len(found) > _MAX_ADDRESSES or not all(isinstance(each, str) for each in found):
        raise error(Reason.BAD_CONFIG, "control message: 'addresses' is no list of addresses")
    try:
        return {_plain(each) for each in found}
    except ValueError as wrong:
        raise error(Reason.BAD_CONFIG, f"control message: {wrong}") from wrong


def _plain(text: str) -> str:
    """As the memory spells it."""
    found = ipaddress.ip_address(text)
    return str(getattr(found, "ipv4_mapped", None) or found)
