# SPDX-License-Identifier: Apache-2.0
"""What sessions of protocols have in common that keep nothing before the commit and run over the stream below them."""

from __future__ import annotations

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
