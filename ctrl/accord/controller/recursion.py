# SPDX-License-Identifier: Apache-2.0
"""Inner negotiations on this host: what is proposed and accepted inside, to which keys, and the bound on replays."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from accord.controller import files
from accord.controller.host import HostApplication
from accord.controller.settings import preferences
from accord.controller.settings.config import DaemonConfig
from accord.controller.settings.policy import EffectivePolicy
from accord.controller.settings.stacks import APPLICATIONS, LAYERS
from accord.datapath import clock
from accord.negotiation.choice import CandidateStack
from accord.negotiation.initiator import Proposed
from accord.negotiation.interface import Refuse, Role
from accord.negotiation.responder import Accepted
from accord.protocols.sealed.configuration import KeyConfiguration
from accord.protocols.sealed.host_keys import HostKeys
from accord.protocols.sealed.hosting import Offering, Proposing
from accord.protocols.sealed.replay import ReplayFilter
from accord.protocols.services import Plugin, Services
from accord.wire.constants import NodeId, Protocol, Reason, Word
from accord.wire.errors import AccordError

if TYPE_CHECKING:
    from accord.controller.controller import Controller

log = logging.getLogger("accord.inner")

APPLICATION = "http"


class Wall:
    """Unix time in seconds as it was at the start plus what has gone by: it never steps."""

    def __init__(self) -> None:
        self._shift = time.time() - clock.now()

    def __call__(self) -> float:
        return clock.now() + self._shift


class Recursion:
    """Of one controller: this host's keys, and which sealed requests were served."""

    def __init__(self, window: float) -> None:
        """``window``: seconds in which a sealed request is served early."""
        self.wall = Wall()
        self.keys = HostKeys((), self.wall)
        self.replay = ReplayFilter(self.wall, window=window)

    def read_keys(self, config: DaemonConfig) -> None:
        """Those of the host's files, from now on. What cannot be read stays as it was."""
        try:
            self.keys.replace(files.host_keys(config))
        except AccordError as wrong:
            log.warning("keys not read: %s", wrong)


class Remarks:
    """Lines for a ladder that may not be there yet: a proposal that is made ahead has none."""

    def __init__(self) -> None:
        self._kept: list[str] = []
        self._say: Callable[[str], None] = self._kept.append

    def __call__(self, text: str) -> None:
        self._say(text)

    def to(self, say: Callable[[str], None]) -> None:
        """From now on said by ``say``, first what was kept."""
        kept, self._kept = self._kept, []
        self._say = say
        for text in kept:
            say(text)


@dataclasses.dataclass(frozen=True, slots=True)
class InnerChooser:
    """The policy's words on what is inside; what is below was chosen outside."""

    policy: EffectivePolicy

    def order(self, stacks: Sequence[CandidateStack]) -> Sequence[CandidateStack]:
        """Fewer protocols to avoid, more that are preferred, the peer's preference, fewer nodes, lower numbers."""
        return sorted((stack for stack in stacks if self._objection(stack) is None), key=self._rank)

    def refusal(self, stacks: Sequence[CandidateStack]) -> Reason:
        """Why none of ``stacks`` is allowed."""
        objections = [found for found in map(self._objection, stacks) if found is not None]
        return objections[0] if objections else Reason.NO_COMMON_STACK

    def _objection(self, stack: CandidateStack) -> Reason | None:
        words = dict(self.policy.preferences)
        if any(words.get(number) is Word.FORBIDDEN for number in stack.protocols):
            return Reason.POLICY
        inside = (*APPLICATIONS - {Protocol.INNER}, *LAYERS)
        if any(words.get(number) is Word.REQUIRED and number not in stack.protocols for number in inside):
            return Reason.REQUIRED_MISSING
        if Protocol.COMPRESSION in stack.protocols and not self.policy.compress_encrypted:
            return Reason.POLICY
        return None

    def _rank(self, stack: CandidateStack) -> tuple[tuple[int, int], int, int, tuple[int, ...], tuple[int, ...]]:
        weight = preferences.weigh(self.policy.preferences, stack)
        return weight, -stack.preference, len(stack.ids), stack.protocols, stack.ids


def proposing(
    controller: Controller,
    transaction: bytes,
    policy: EffectivePolicy,
    services: Services,
    key: KeyConfiguration | None,
    application: HostApplication,
    note: Callable[[str], None],
) -> Proposing:
    """For an initiator's INNER node. ``application``: has a request that is to be sealed in the proposal, or none."""
    inside = dataclasses.replace(services, application=application, inner=None)
    above = policy.nested_wanted(set(controller.plugins) - {APPLICATION})
    return Proposing(
        transaction,
        lambda: inner_graph(controller.plugins, above, inside),
        InnerChooser(policy),
        key,
        controller.recursion.wall,
        note,
    )


def inner_graph(plugins: Mapping[str, Plugin], layers: Sequence[tuple[str, ...]], services: Services) -> list[Proposed]:
    """The application on each row of layers, bottom to top, the empty one too; shared nodes once."""
    ids: dict[tuple[str, ...], int] = {}
    children: dict[int, set[int]] = {NodeId.CONTEXT: set()}
    preference: dict[int, int] = {}
    application = 1 + len({row[: depth + 1] for row in layers for depth in range(len(row))})
    for rank, row in enumerate(layers):
        below = int(NodeId.CONTEXT)
        for depth in range(len(row)):
            node = ids.setdefault(row[: depth + 1], 1 + len(ids))
            children.setdefault(node, set())
            children[below].add(node)
            below = node
        children[below].add(application)
        if row:
            preference[below] = len(layers) - rank
    nodes = [Proposed(NodeId.CONTEXT, Protocol.INNER, None, tuple(sorted(children[NodeId.CONTEXT])))]
    for prefix, node in ids.items():
        plugin = plugins[prefix[-1]]
        session = plugin.open(Role.INITIATOR, services)
        nodes.append(Proposed(node, plugin.protocol, session, tuple(sorted(children[node])), preference.get(node)))
    top = plugins[APPLICATION]
    nodes.append(Proposed(application, top.protocol, top.open(Role.INITIATOR, services)))
    return nodes


def offering(
    controller: Controller,
    transaction: bytes,
    policy: EffectivePolicy,
    services: Services,
    without_early: HostApplication,
    note: Callable[[str], None],
) -> Offering:
    """For a responder's INNER node. ``without_early``: the service, for whom a request may come a second time."""
    by_protocol = {
        plugin.protocol: plugin for plugin in controller.plugins.values() if plugin.protocol != Protocol.INNER
    }

    def accept(early: bool) -> Accepted | Refuse:
        application = services.application if early else without_early
        inside = dataclasses.replace(services, application=application, inner=None)
        return Accepted(
            InnerChooser(policy), lambda node_id, protocol: by_protocol[protocol].open(Role.RESPONDER, inside)
        )

    recursion = controller.recursion
    return Offering(transaction, recursion.keys, by_protocol.keys(), accept, recursion.replay.admit, note)
