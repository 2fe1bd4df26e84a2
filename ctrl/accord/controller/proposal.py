# SPDX-License-Identifier: Apache-2.0
"""From the stacks that the policy wants to the graph that is proposed: shared nodes once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from accord.controller.settings.policy import EffectivePolicy, TcpOpen
from accord.controller.settings.preferences import describe
from accord.negotiation.initiator import Proposed
from accord.negotiation.interface import Role
from accord.protocols.services import CarrierSession, Plugin, Services
from accord.wire.constants import NodeId, Protocol, Reason
from accord.wire.errors import AccordError, error

Open = Callable[[Plugin, Role, Services], CarrierSession]
"""A session of a plug-in's. Raises ``AccordError`` where there is none to be had: then nothing of it is proposed."""

APPLICATION = "http"
"""The node on top of every stack: it decides the ALPN and may carry the first request."""
HIDDEN = "inner"
"""The node in its place where the policy hides what is above security."""


def propose(
    plugins: Mapping[str, Plugin],
    policy: EffectivePolicy,
    services: Services,
    *,
    context: int = Protocol.UDP,
    open_session: Open = lambda plugin, role, services: plugin.open(role, services),
    bare: bool = False,
) -> list[Proposed]:
    """The nodes of a proposal, context first, preferred stacks first after it.

    A protocol instance is shared by the stacks that have the same protocols below it, and the application
    node by all. ``context``: UDP or DIRECT, what the packets travel in. ``bare``: without an application node.
    Raises ``UserError`` (POLICY) when the policy leaves nothing to propose, or the ``AccordError`` of the plug-in
    without which there is nothing.
    """
    try:
        return _propose(plugins, policy, services, context, open_session, bare)
    except _Unopened as unopened:
        if unopened.name in (APPLICATION, HIDDEN):
            raise unopened.failure from None
        others = {name: plugin for name, plugin in plugins.items() if name != unopened.name}
        try:
            return propose(others, policy, services, context=context, open_session=open_session, bare=bare)
        except AccordError as nothing_left:
            raise unopened.failure from nothing_left


class _Unopened(Exception):
    """A plug-in that gives no session."""

    def __init__(self, name: str, failure: AccordError) -> None:
        super().__init__(name)
        self.name = name
        self.failure = failure


def _propose(
    plugins: Mapping[str, Plugin],
    policy: EffectivePolicy,
    services: Services,
    context: int,
    open_session: Open,
    bare: bool,
) -> list[Proposed]:
    def opened(plugin: Plugin) -> CarrierSession:
        try:
            return open_session(plugin, Role.INITIATOR, services)
        except AccordError as failure:
            raise _Unopened(plugin.name, failure) from failure

    stacks = policy.stacks_wanted(set(plugins) - {APPLICATION, HIDDEN})
    if not stacks:
        said = describe(policy.preferences, policy.protocols)
        raise error(
            Reason.POLICY,
            "no stack is left to propose" + (f", with the preferences {said}" if said else ""),
            "allow more in prefer, only, secure or preferences",
        )
    ids: dict[tuple[str, ...], int] = {}
    children: dict[int, set[int]] = {NodeId.CONTEXT: set()}
    preference: dict[int, int] = {}
    application = 1 + len({stack[: depth + 1] for stack in stacks for depth in range(len(stack))})
    for rank, stack in enumerate(stacks):
        below = int(NodeId.CONTEXT)
        for depth in range(len(stack)):
            node = ids.setdefault(stack[: depth + 1], 1 + len(ids))
            children.setdefault(node, set())
            children[below].add(node)
            below = node
        if not bare:
            children[below].add(application)
        preference[below] = len(stacks) - rank
    nodes = [Proposed(NodeId.CONTEXT, context, None, tuple(sorted(children[NodeId.CONTEXT])))]
    for prefix, node in ids.items():
        plugin = plugins[prefix[-1]]
        session = opened(plugin)
        nodes.append(
            Proposed(
                node,
                plugin.protocol,
                session,
                tuple(sorted(children[node])),
                preference.get(node),
                policy.word_of(plugin.protocol),
            )
        )
    if bare:
        return nodes
    top = plugins[HIDDEN if policy.hides else APPLICATION]
    word = policy.word_of(top.protocol)
    nodes.append(Proposed(application, top.protocol, opened(top), word=word))
    return nodes


def tcp_open(plugins: Collection[str], policy: EffectivePolicy, *, works: bool) -> TcpOpen:
    """How TCP is opened, ``auto`` decided. A proposal without TCP has nothing that a SYN could be adopted by.

    ``works``: TCP without a SYN has worked with this peer lately.
    """
    stacks = policy.stacks_wanted(set(plugins) - {APPLICATION})
    if not any("tcp" in stack for stack in stacks):
        return TcpOpen.NO_SYN
    if policy.tcp is not TcpOpen.AUTO:
        return policy.tcp
    # Of a SYN's options the kernels decide; those of an installed connection are negotiated as the words want it.
    negotiated = not policy.inside.tcp.leaves_kernels
    return TcpOpen.NO_SYN if works or negotiated else TcpOpen.PARALLEL_SYN
