# SPDX-License-Identifier: Apache-2.0
"""What a policy's ``defer`` and ``choose`` make of a proposal, and what a responder puts into placeholders.

The graph that ``proposal`` draws is a tree below the application node, so a run of protocols that are not to be
proposed now has one node below it: one placeholder stands for all runs that begin on that node.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from accord.controller.settings.policy import EffectivePolicy
from accord.negotiation.initiator import Proposed
from accord.negotiation.interface import Elaboration, elaboration_of
from accord.protocols.services import Plugin
from accord.wire.constants import Limit, Protocol, Reason, protocol_name
from accord.wire.errors import error


def hold_back(nodes: Sequence[Proposed], policy: EffectivePolicy) -> list[Proposed]:
    """The proposal with placeholders. Raises ``UserError`` (BAD_CONFIG) where a protocol's rule does not allow one."""
    if not policy.defer and not policy.choose:
        return list(nodes)
    for node in nodes:
        if node.protocol in (*policy.defer, *policy.choose) and elaboration_of(node.session) is Elaboration.EXPLICIT:
            raise error(
                Reason.BAD_CONFIG,
                f"{protocol_name(node.protocol)} has to be in the proposal, by its protocol's rule",
                "take it out of defer and choose",
            )
    return _left_open(_deferred(list(nodes), policy.defer), policy.choose)


def _runs(nodes: Sequence[Proposed], protocols: Collection[int]) -> dict[int, list[int]]:
    """Nodes of these protocols, by the node that their run stands on."""
    chosen = {node.id for node in nodes if node.protocol in protocols}
    parent = {child: node.id for node in nodes for child in node.children}
    runs: dict[int, list[int]] = {}
    for node_id in sorted(chosen):
        below = parent[node_id]
        while below in chosen:
            below = parent[below]
        runs.setdefault(below, []).append(node_id)
    return runs


def _fresh(nodes: Sequence[Proposed], count: int) -> list[int]:
    free = sorted(set(range(1, Limit.MAX_NODES)) - {node.id for node in nodes})
    if len(free) < count:
        raise error(Reason.BAD_CONFIG, "more nodes than a proposal can have", "list fewer stacks in prefer")
    return free[:count]


def _deferred(nodes: list[Proposed], protocols: Collection[int]) -> list[Proposed]:
    runs = _runs(nodes, protocols)
    for placeholder, run in zip(_fresh(nodes, len(runs)), runs.values(), strict=True):
        nodes = [replace(node, within=placeholder) if node.id in run else node for node in nodes]
        nodes.append(Proposed(placeholder, Protocol.SUBGRAPH, None))
    return nodes


def _left_open(nodes: list[Proposed], protocols: Collection[int]) -> list[Proposed]:
    runs = _runs(nodes, protocols)
    for placeholder, (below, run) in zip(_fresh(nodes, len(runs)), runs.items(), strict=True):
        out = [node for node in nodes if node.id in run]
        above = {child for node in out for child in node.children} - set(run)
        kept = []
        for node in nodes:
            if node.id == below:
                node = replace(node, children=tuple(sorted({*node.children, placeholder} - set(run))))
            if node.id not in run:
                kept.append(node)
        choices = tuple(sorted({node.protocol for node in out}))
        nodes = [*kept, Proposed(placeholder, Protocol.SUBGRAPH, None, tuple(sorted(above)), choices=choices)]
    return nodes


def known(plugins: Mapping[str, Plugin]) -> frozenset[int]:
    """Protocols that a peer may put into its own placeholder, and this host into the peer's."""
    return frozenset(
        plugin.protocol for plugin in plugins.values() if elaboration_of(plugin) is not Elaboration.EXPLICIT
    )


def offers(
    plugins: Mapping[str, Plugin], policy: EffectivePolicy, application: Collection[str]
) -> Callable[[frozenset[int]], Sequence[tuple[int, ...]]]:
    """What this host would put into a placeholder: the parts of the stacks that its policy wants, then whatever else it
    has, one at a time, as it takes unlisted stacks from proposals too. What its policy forbids is pruned again."""

    def elaborate(allowed: frozenset[int]) -> Sequence[tuple[int, ...]]:
        usable = allowed & known(plugins)
        found: dict[tuple[int, ...], None] = {}
        for stack in policy.stacks_wanted(set(plugins) - set(application)):
            protocols = [plugins[name].protocol for name in stack]
            for fits, run in groupby(protocols, usable.__contains__):
                if fits:
                    found[tuple(run)] = None
        if not policy.only:
            found.update(dict.fromkeys((protocol,) for protocol in sorted(usable)))
        return list(found)

    return elaborate
