# SPDX-License-Identifier: Apache-2.0
"""A SYN that leaves before anything else is asked or made, as that of a host without Accord does.

Which race there is with a peer of whom nothing is known follows from the policy alone. By default it begins with the
SYN of a parallel SYN (``table.Race.start``), so that one need not wait for the route, the memory and the target: all of
that is found out while it travels. With a peer that is known to be silent there is only that SYN, without an option.
"""

from __future__ import annotations

from collections.abc import Collection

from accord.controller.ladder import Ladder, Way
from accord.controller.prepared import new_transaction
from accord.controller.proposal import tcp_open
from accord.controller.race import legacy
from accord.controller.settings.policy import EffectivePolicy, Fallback, Secure, TcpOpen
from accord.datapath.syn_option import ExId, SynOptions


class HeadStart:
    """A SYN that has left for somebody; whoever runs the race takes it over in the same turn of the loop."""

    def __init__(self, address: str, port: int, options: SynOptions | None, ladder: Ladder) -> None:
        self.transaction = new_transaction()
        """Of the proposal that follows."""
        self.asked = None if options is None else ExId.ADOPT
        """What its option says."""
        self._opening: legacy.Opening | None = legacy.Opening(
            (address, port),
            before=None
            if options is None
            else lambda connection: options.write(connection, self.transaction, ExId.ADOPT),
        )
        ladder.note(Way.OUT, said(port, self.asked))

    def take(self, opened: legacy.Opened, failed: legacy.Failed) -> legacy.Opening:
        """The connection on its way, now the caller's, who is told by these what becomes of it."""
        assert self._opening is not None, "nobody takes it twice"
        opening, self._opening = self._opening, None
        opening.tell(opened, failed)
        return opening

    def close(self) -> None:
        """Nobody wants it, unless somebody has taken it."""
        if self._opening is not None:
            self._opening.close()
            self._opening = None


class FirstSyns:
    """Whether a policy's first contacts begin so; remembered, for it takes as long as the rest of it."""

    _MOST = 256

    def __init__(self, plugins: Collection[str]) -> None:
        self._plugins = plugins
        self._known: dict[EffectivePolicy, bool] = {}

    def by(self, policy: EffectivePolicy) -> bool:
        """Whether the SYN of a parallel SYN is first."""
        known = self._known.get(policy)
        if known is None:
            known = (
                policy.plain is Fallback.PARALLEL
                and policy.plain_secure is not Secure.NO
                and policy.via is None
                and tcp_open(self._plugins, policy, works=False) is TcpOpen.PARALLEL_SYN
            )
            if len(self._known) >= self._MOST:
                self._known.clear()
            self._known[policy] = known
        return known


def said(port: int, asked: ExId | None) -> str:
    """For the ladder: a SYN and its option."""
    return f"TCP SYN to port {port}" + (f", option {asked.name}" if asked is not None else "")
