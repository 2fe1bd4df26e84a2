# SPDX-License-Identifier: Apache-2.0
"""What sessions of protocols have in common that keep nothing before the commit and run over the stream below them."""

from __future__ import annotations

import asyncio

from accord.negotiation.interface import Outcome, Role, View
from accord.protocols.lifecycle import Call, Lifecycle
from accord.protocols.services import Carrier
from accord.wire.constants import Reason
from accord.wire.errors import error


class StreamLayer:
    """The part of ``Session`` in which such a protocol has nothing of its own to do."""

    def __init__(self, name: str, role: Role) -> None:
        self._name = name
        self._life = Lifecycle(name, role)

    def resume(self, view: View) -> Outcome:
        """Never waits, so never called."""
        raise error(Reason.PLUGIN_FAILED, f"{self._name}: resume without a wait")

    def exporter(self) -> bytes | None:
        """None: no security here."""
        return None

    def prune(self, reason: Reason) -> None:
        """Nothing is kept."""
        self._life.leave()

    def commit(self, view: View) -> None:
        """From now on ``carrier`` may be called."""
        self._life.enter(Call.COMMIT)

    def abort(self, reason: Reason) -> None:
        """Nothing is kept."""
        self._life.leave()

    def _above(self, below: Carrier | None) -> Carrier:
        """The stream to run over. Raises ``OurError`` (PLUGIN_FAILED) before the commit, and without one."""
        self._life.enter(Call.CARRIER)
        if below is None:
            raise error(Reason.PLUGIN_FAILED, f"{self._name}: no stream below to run over")
        return below


class LayerCarrier:
    """The ends of such a protocol's stream: those of the one below, after what is being sent."""

    _below: Carrier
    _sending: asyncio.Lock

    async def finish(self) -> None:
        """Nothing more will be written; reading goes on."""
        async with self._sending:
            await self._below.finish()

    async def close(self) -> None:
        """Orderly end of both directions."""
        await self._below.close()

    def abort(self) -> None:
        """End at once."""
        self._below.abort()
