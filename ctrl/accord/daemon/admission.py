# SPDX-License-Identifier: Apache-2.0
"""How many connections of local programs there may be at the control socket (threat model, row 32).

Each is a task and a descriptor of the daemon's, and who connects may be slow, or silent: nobody waits for it, but it
takes its place. So a user has only so many places, and the operator's are never all taken by others.
"""

from __future__ import annotations

import contextlib
import json
import socket
from collections import Counter
from typing import Final

from accord.controller.control import failure_message
from accord.wire.constants import Reason
from accord.wire.errors import AccordError, error

MOST: Final = 1024
OF_A_USER: Final = 256
FOR_OPERATORS: Final = 64
"""Of all, kept for root and the daemon's own user."""


class Admission:
    """Of one control socket."""

    def __init__(self, operators: frozenset[int], most: int = MOST, of_a_user: int = OF_A_USER) -> None:
        """``operators``: user IDs that have all places but no more than ``most``."""
        self._operators = operators
        self._most = most
        self._of_a_user = of_a_user
        self._open: Counter[int] = Counter()
        self.refused = 0

    def enter(self, user: int) -> AccordError | None:
        """A place for another connection of this user's, until ``leave``; or why there is none."""
        total = self._open.total()
        if user in self._operators:
            full = total >= self._most
        else:
            full = total >= self._most - FOR_OPERATORS or self._open[user] >= self._of_a_user
        if full:
            self.refused += 1
            why = f"{self._open[user]} connections of user {user}, {total} of all, at the control socket"
            return error(Reason.OVER_BUDGET, why, "close those that are not needed")
        self._open[user] += 1
        return None

    def leave(self, user: int) -> None:
        """A connection that had a place is over."""
        self._open[user] -= 1
        if not self._open[user]:
            del self._open[user]


def turn_away(client: socket.socket, why: AccordError) -> None:
    """Say it, if that can be said at once, and close."""
    with contextlib.suppress(OSError):
        client.send(json.dumps(failure_message(why)).encode(), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    client.close()
