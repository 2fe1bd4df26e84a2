# SPDX-License-Identifier: Apache-2.0
"""Committed connections that the port's own program is given: what is left to do is to learn whether it got them.

The kernel makes the socket, and says nothing. So the daemon looks, soon and then seldom, until there is an end or the
connection's first segment can make no socket any more. An initiator that sends none, because it waits for the program
to speak first, is asked for one each time.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Final

from accord.datapath.births import LIFETIME, Births, Fate
from accord.datapath.tcp_born import BornCarrier
from accord.wire.constants import Reason
from accord.wire.errors import AccordError, error

log = logging.getLogger("accord.given")

_LOOKS: Final = (0.02, 0.1, 0.5, 2.0, LIFETIME)
"""Seconds after the commit. A commit and the segment behind it as a rule come within a millisecond of each other."""
_PAUSE_SECONDS: Final = 60.0
"""No proposal is answered for so long once the kernel has refused a connection: the next would be reset as well."""

_REASONS: Final = {
    Fate.WAITING: Reason.TIMEOUT,
    Fate.DESERTED: Reason.BACKEND_FAILED,
    Fate.REFUSED: Reason.CANNOT_INSTALL,
}


class Given:
    """One port's."""

    def __init__(self, births: Births, port: int) -> None:
        self.births, self.port = births, port
        self.fates: Counter[Fate] = Counter()
        self._refused_until = 0.0

    @property
    def failure(self) -> AccordError | None:
        """Why nobody can be served now."""
        if asyncio.get_running_loop().time() >= self._refused_until:
            return None
        return error(Reason.CANNOT_INSTALL, f"the kernel gives the program on TCP port {self.port} no connections")

    def tell(self) -> None:
        """Say in the log if nobody listens: each proposal is asked for anew, so whoever starts later is found."""
        try:
            self.births.listens(self.port)
        except AccordError as failure:
            log.warning("port %d: %s; peers are refused until then", self.port, failure)

    async def watch(self, carrier: BornCarrier, peer: str) -> None:
        """Until it is known what became of the connection. Raises ``AccordError`` when the program never got it."""
        fate, early, waited = None, 0, 0.0
        try:
            for until in _LOOKS:
                await asyncio.sleep(until - waited)
                waited = until
                fate, early = carrier.end(patient=until < LIFETIME, rouse=True)
                if fate is not Fate.WAITING:
                    break
        finally:
            carrier.end()  # whatever happens: a cancelled look leaves nothing behind
        fate = fate or Fate.WAITING
        self.fates[fate] += 1
        if early:
            log.info("port %d, %s: %d segments came before the first one, and were dropped", self.port, peer, early)
        if fate is Fate.REFUSED:
            self._refused_until = asyncio.get_running_loop().time() + _PAUSE_SECONDS
            log.warning("port %d: the kernel refuses to make sockets; peers are refused for a while", self.port)
        if (reason := _REASONS.get(fate)) is not None:
            raise error(reason, f"the connection of {peer} to TCP port {self.port}: {fate}")
