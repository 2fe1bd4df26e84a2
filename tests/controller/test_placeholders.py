# SPDX-License-Identifier: Apache-2.0
"""What a policy leaves out of a proposal, to be named later or by the peer, between two hosts and over real sockets."""

from __future__ import annotations

from pathlib import Path

import pytest

from accord.controller.known import check_wishes, known_protocols
from accord.controller.placeholders import hold_back, known, offers
from accord.controller.proposal import propose
from accord.controller.settings.policy import EffectivePolicy, parse_policy
from accord.negotiation.initiator import Proposed
from accord.negotiation.interface import Role
from accord.protocols.registry import load_plugins
from accord.wire.constants import Protocol, Reason
from accord.wire.errors import UserError
from tests.controller.pairs import QUIC, pair, run
from tests.protocols.support import services

PLUGINS, _ = load_plugins(())
SUBGRAPH, TLS, TCP, HTTP, QUIC_ID = Protocol.SUBGRAPH, Protocol.TLS13, Protocol.TCP, Protocol.HTTP, Protocol.QUIC


def policy(text: str) -> EffectivePolicy:
    return parse_policy(f"[default]\n{text}").default


def proposal(text: str) -> dict[int, Proposed]:
    wanted = policy(text)
    made = hold_back(propose(PLUGINS, wanted, services(Role.INITIATOR)), wanted)
    return {node.id: node for node in made}


def test_a_policy_without_such_words_leaves_a_proposal_as_it_is() -> None:
    assert not any(node.protocol == SUBGRAPH or node.within for node in proposal("").values())


def test_what_is_deferred_is_within_one_placeholder_for_each_node_that_it_stands_on() -> None:
    nodes = proposal('secure = "no"\nprefer = ["tls/tcp", "quic", "tcp"]\ndefer = ["tls", "quic"]')
    within = {node.protocol: node.within for node in nodes.values() if node.within}
    assert within.keys() == {TLS, QUIC_ID}
    assert len(set(within.values())) == 2
    assert all(nodes[place].protocol == SUBGRAPH and not nodes[place].children for place in within.values() if place)


def test_what_the_peer_is_to_offer_is_a_placeholder_that_lists_it() -> None:
    nodes = proposal('prefer = ["tls/tcp"]\nonly = true\nchoose = ["tls"]')
    (held,) = (node for node in nodes.values() if node.protocol == SUBGRAPH)
    (tcp,) = (node for node in nodes.values() if node.protocol == TCP)
    (http,) = (node for node in nodes.values() if node.protocol == HTTP)
    assert (held.choices, held.children, tcp.children) == ((TLS,), (http.id,), (held.id,))
    assert not any(node.protocol == TLS for node in nodes.values())


def test_a_protocol_that_has_to_be_explicit_is_the_user_s_mistake() -> None:
    with pytest.raises(UserError, match="tcp has to be in the proposal") as refused:
        proposal('defer = ["tcp"]')
    assert refused.value.reason is Reason.BAD_CONFIG


def test_a_protocol_that_is_named_for_both_is_the_user_s_mistake() -> None:
    with pytest.raises(UserError, match="tls is in defer too"):
        policy('defer = ["tls"]\nchoose = ["tls"]')


def test_an_application_cannot_reveal_what_the_policy_file_defers() -> None:
    with pytest.raises(UserError) as refused:
        policy('defer = ["tls"]').override({"defer": []})
    assert refused.value.reason is Reason.POLICY


def test_a_responder_offers_what_its_policy_has_in_its_stacks() -> None:
    wanted = policy('prefer = ["tls/tcp"]\nonly = true')
    elaborate = offers(PLUGINS, wanted, ("http", "inner"))
    assert list(elaborate(frozenset({TLS, QUIC_ID}))) == [(TLS,)]
    assert list(elaborate(frozenset({TCP}))) == []
    assert {TLS, QUIC_ID} <= known(PLUGINS)


@pytest.mark.parametrize("word", ["defer", "choose"])
def test_two_hosts_agree_on_what_the_proposal_did_not_show(tmp_path: Path, word: str) -> None:
    async def work() -> None:
        async with pair(tmp_path) as both:
            association = await both.client.connect(
                "127.0.0.1", both.relay.port, overrides={**QUIC, word: ["quic"]}, security=both.security
            )
            other = await both.accept()
            assert association.report.stack == other.report.stack == ["http", "quic"]
            texts = [str(line["text"]) for line in association.report.ladder]
            steps = [text for text in texts if text.startswith("step")]
            assert [text.partition(":")[0] for text in steps] == [
                "step 0 proposal",
                "step 1 answer",
                "step 2 further",
                "step 3 answer",
                "step 4 commit",
            ]
            assert "quic" not in steps[0]
            await association.carrier.write(b"question")
            assert await other.carrier.read() == b"question"
            await association.carrier.close()
            await other.carrier.close()

    run(work())


def test_a_program_s_policy_may_name_what_is_installed_and_nothing_else() -> None:
    check_wishes({"prefer": ["tls/tcp"], "defer": ["tls"]})
    with pytest.raises(UserError, match="no protocol; allowed: tcp"):
        check_wishes({"prefer": ["nonsense/tcp"]})
    assert {"tcp", "framing"} <= known_protocols().keys()
