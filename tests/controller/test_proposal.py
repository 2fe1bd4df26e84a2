# SPDX-License-Identifier: Apache-2.0
"""From the stacks that a policy wants to the graph that is proposed."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.controller.proposal import propose
from accord.controller.settings.policy import EffectivePolicy, Secure
from accord.controller.settings.stacks import parse_stack
from accord.negotiation.graph import Graph
from accord.negotiation.initiator import Proposed
from accord.negotiation.interface import Role
from accord.protocols.registry import load_plugins
from accord.protocols.services import Services
from accord.wire import tlv
from accord.wire.constants import Protocol, Reason
from accord.wire.errors import UserError
from accord.wire.node import Node

PLUGINS, _ = load_plugins(installed=())
STACKS = ("tls/tcp", "quic", "tcp")


def services() -> Services:
    """A host that offers nothing: sessions are opened, not asked."""
    address = ("192.0.2.1", 443)
    return Services(Role.INITIATOR, address, address, lambda: 0.0, os.urandom, lambda delay, function: lambda: None)


def graph_of(proposed: list[Proposed]) -> Graph:
    """As it goes on the wire."""
    return Graph(
        Node(
            node.id,
            node.protocol,
            node.children,
            () if node.preference is None else (tlv.preference(node.preference),),
        )
        for node in proposed
    )


@given(st.permutations(STACKS), st.integers(1, 3))
def test_the_responder_can_read_any_order_of_stacks_out_of_the_proposal(order: list[str], count: int) -> None:
    policy = EffectivePolicy(secure=Secure.NO, prefer=tuple(parse_stack(name) for name in order[:count]), only=True)
    graph = graph_of(propose(PLUGINS, policy, services()))

    def preference(stack: tuple[int, ...]) -> int:
        """PROTOCOL.md: of the topmost node that bears one."""
        return next((graph.nodes[node].preference for node in reversed(stack) if graph.nodes[node].preference), 0)

    best_first = sorted(graph.stacks(), key=preference, reverse=True)
    assert [graph.protocols(stack)[:-1] for stack in best_first] == [parse_stack(name) for name in order[:count]]
    assert len({preference(stack) for stack in best_first}) == count


def test_stacks_share_the_nodes_that_they_have_in_common() -> None:
    policy = EffectivePolicy(secure=Secure.NO)
    proposed = propose(PLUGINS, policy, services())
    protocols = sorted(node.protocol for node in proposed)
    assert protocols == sorted([Protocol.UDP, Protocol.TCP, Protocol.TLS13, Protocol.QUIC, Protocol.HTTP])
    assert proposed[0].protocol == Protocol.UDP


def test_a_policy_that_leaves_nothing_says_so() -> None:
    policy = replace(EffectivePolicy(secure=Secure.REQUIRED), prefer=(parse_stack("tcp"),), only=True)
    with pytest.raises(UserError) as caught:
        propose(PLUGINS, policy, services())
    assert caught.value.reason is Reason.POLICY
