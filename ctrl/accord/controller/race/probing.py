# SPDX-License-Identifier: Apache-2.0
"""Out-of-band: does the connection's path lead to the host that was negotiated with? (HotNets 2009, section 3.1)

What is learnt on the negotiation's path may not hold on another one, so a stack is committed to only when its
connection has been seen to work. The SYN leaves when the answer is here, with the option ADOPT. That its SYN-ACK is
marked says two things: the path carries TCP both ways, and the host at its other end has heard the proposal.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from accord.controller.ladder import Ladder, Way
from accord.controller.negotiating import Negotiation
from accord.controller.prepared import Target
from accord.controller.race import legacy
from accord.datapath.syn_option import ExId, SynOptions
from accord.wire.constants import Reason
from accord.wire.errors import AccordError, error

if TYPE_CHECKING:
    from accord.controller.controller import Controller


class Probe:
    """A connection for a negotiation whose answer lacks only that; ends in ``Negotiation.adopt`` or ``refuse``."""

    def __init__(self, controller: Controller, target: Target, negotiation: Negotiation, ladder: Ladder) -> None:
        assert controller.syn_options is not None, "without it nothing is proposed out-of-band"
        self._options: SynOptions = controller.syn_options
        self._negotiation = negotiation
        self._ladder = ladder
        ladder.note(Way.OUT, f"TCP SYN to {target.address} port {target.port}, to see where the data path leads")
        where = (target.address, target.port)
        self._opening: legacy.Opening | None = legacy.Opening(where, self._opened, self._failed, self._write)

    def close(self) -> None:
        """Nobody wants to know any more."""
        if self._opening is not None:
            self._opening.close()
            self._opening = None

    def _write(self, connection: socket.socket) -> None:
        self._options.write(connection, self._negotiation.transaction, ExId.ADOPT)

    def _opened(self, connection: socket.socket, took: float) -> None:
        self._opening = None
        if self._options.conclude(connection).marked:
            self._ladder.note(Way.IN, "TCP SYN-ACK: the data path leads to the peer")
            self._negotiation.adopt(connection, marked=True)
            return
        connection.close()
        self._ladder.note(Way.IN, "TCP SYN-ACK, of somebody who has not heard the proposal")
        why = "its SYN-ACK does not say that the proposal has been heard there"
        mend = "does the peer's daemon take negotiations by AF_XDP, and does the path pass the option?"
        self._negotiation.refuse(error(Reason.DATA_PATH_FAILED, why, mend))

    def _failed(self, failure: AccordError) -> None:
        self._opening = None
        self._ladder.note(Way.IN, f"the data path: {failure}")
        self._negotiation.refuse(error(Reason.DATA_PATH_FAILED, str(failure)))
