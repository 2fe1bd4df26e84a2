# SPDX-License-Identifier: Apache-2.0
"""What one network may have of this host at a time, once its addresses are proven.

The engine bounds what unproven peers take, by place and by prefix. A peer that receives at its address can prove it as
often as it likes; what it may have then is bounded here: stacks a second, and associations that pass through the
daemon. A network is a /24, or a /56 of IPv6, of which anybody has as many addresses as he likes. The bound is asked
before any session is opened, so that who is over it costs a look into a table; only what is committed, and so proven,
is charged, so nobody can use up the share of a network that he is not in. Limits cap, they do not ban: a bucket fills
again within two seconds, and who is over it still has the plain connection (threat model, rows 7 and 16).
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from accord.negotiation.interface import Refuse
from accord.wire.constants import Reason

MOST: Final = 4096
"""Networks that are kept in mind. Who has nothing open is forgotten first, and of these who committed longest ago."""
BURST_SECONDS: Final = 2.0


@dataclass(slots=True)
class _Share:
    tokens: float
    at: float
    """Seconds, when ``tokens`` was right."""
    open: int = 0


def prefix_of(address: str) -> str | int:
    """The network of a textual address, a zone aside: of IPv4 its first three numbers, of IPv6 its first 56 bits."""
    if ":" not in address:
        return address.rpartition(".")[0]
    six = ipaddress.IPv6Address(address.partition("%")[0])
    mapped = six.ipv4_mapped
    return int(six) >> 72 if mapped is None else str(mapped).rpartition(".")[0]


class Prefixes:
    """Of one controller."""

    def __init__(self, now: Callable[[], float], *, associations: int, commits: int) -> None:
        """``associations`` at once and ``commits`` a second of one network; 0: any number."""
        self._now = now
        self._associations = associations
        self._commits = commits
        self._shares: OrderedDict[str | int, _Share] = OrderedDict()
        self.refused = 0

    def __len__(self) -> int:
        """Networks that are kept in mind."""
        return len(self._shares)

    def refusal(self, address: str) -> Refuse | None:
        """Why a peer there gets no stack now. Nothing is charged."""
        share = self._shares.get(prefix_of(address))
        if share is None:
            return None
        if self._associations and share.open >= self._associations:
            why = f"{share.open} associations of its network are open"
        elif self._commits and self._filled(share) < 1:
            why = f"its network has {self._commits} stacks a second"
        else:
            return None
        self.refused += 1
        return Refuse(Reason.OVER_BUDGET, why)

    def committed(self, address: str) -> Callable[[], None]:
        """A stack is up. Returns what says that the association has ended; it may be called once."""
        prefix = prefix_of(address)
        share = self._shares.get(prefix)
        if share is None:
            self._make_room()
            share = self._shares[prefix] = _Share(self._commits * BURST_SECONDS, self._now())
        self._shares.move_to_end(prefix)
        share.tokens, share.at = max(0.0, self._filled(share) - 1), self._now()
        share.open += 1

        def ended() -> None:
            share.open -= 1

        return ended

    def _filled(self, share: _Share) -> float:
        return min(self._commits * BURST_SECONDS, share.tokens + (self._now() - share.at) * self._commits)

    def _make_room(self) -> None:
        if len(self._shares) < MOST:
            return
        idle = next((prefix for prefix, share in self._shares.items() if not share.open), None)
        if idle is None:
            self._shares.popitem(last=False)
        else:
            del self._shares[idle]
