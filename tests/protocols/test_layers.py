# SPDX-License-Identifier: Apache-2.0
"""Stacks with compression and framing: two policies and both machines agree node by node, and data passes a bridge."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accord.controller.bridge import bridge
from accord.controller.proposal import propose
from accord.controller.settings.policy import EffectivePolicy, parse_policy
from accord.controller.stack import build_carrier, inside_of
from accord.negotiation.events import Action, Note
from accord.negotiation.initiator import Initiator, Proposed
from accord.negotiation.interface import Role
from accord.negotiation.responder import Accepted, Responder
from accord.protocols.compression import CompressionPlugin
from accord.protocols.framing import FramingPlugin
from accord.protocols.http import HttpPlugin
from accord.protocols.services import CarrierSession, Plugin, Services
from accord.wire.constants import Protocol, Reason, Word
from tests.protocols.support import MemoryCarrier, memory_pair, services
from tests.protocols.test_negotiated import Exchange, Pipe

LAYERS: Mapping[int, Plugin] = {
    Protocol.HTTP: HttpPlugin(), Protocol.COMPRESSION: CompressionPlugin(), Protocol.FRAMING: FramingPlugin()
}  # fmt: skip


class PipePlugin:
    """TCP's place in these stacks: one end of a stream in memory."""

    name = "tcp"
    protocol = int(Protocol.TCP)

    def __init__(self, end: MemoryCarrier) -> None:
        self._end = end

    def open(self, role: Role, host: Services) -> CarrierSession:
        return Pipe(self._end, protocol=self.protocol)


@dataclass
class Telling(Exchange):
    """Keeps what the initiator notes, too."""

    proposed: Sequence[Proposed] = ()
    notes: list[str] = field(default_factory=list)

    def carry(self, role: Role, actions: Sequence[Action]) -> None:
        if role is Role.INITIATOR:
            self.notes += [action.text for action in actions if isinstance(action, Note)]
        super().carry(role, actions)


def policy(text: str) -> EffectivePolicy:
    return parse_policy(f"[default]\nsecure = 'no'\n{text}").for_destination("a.example", 1)


def negotiate(near: MemoryCarrier, far: MemoryCarrier, ours: EffectivePolicy, theirs: EffectivePolicy) -> Telling:
    """Both sides as the controller has them."""
    plugins = {each.name: each for each in (PipePlugin(near), *LAYERS.values())}
    here = replace(services(Role.INITIATOR), wishes=ours.inside)
    there = replace(services(Role.RESPONDER), wishes=theirs.inside)
    opening = {Protocol.TCP: PipePlugin(far), **LAYERS}
    accepted = Accepted(theirs, lambda node, protocol: opening[Protocol(protocol)].open(Role.RESPONDER, there))
    proposed = propose(plugins, ours, here)
    both = Telling(
        Initiator(b"t" * 12, proposed, ours),
        Responder(b"t" * 12, lambda service: accepted, b"c" * 16),
        proposed=proposed,
    )
    both.carry(Role.INITIATOR, both.initiator.start())
    return both


def run(work: Coroutine[object, object, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 30))


def chosen(ours: str, theirs: str) -> list[str] | Reason:
    near, far = MemoryCarrier(), MemoryCarrier()
    both = negotiate(near, far, policy(ours), policy(theirs))
    if both.aborted:
        return both.aborted[Role.INITIATOR].reason
    assert both.committed[Role.INITIATOR].name == both.committed[Role.RESPONDER].name
    return both.committed[Role.INITIATOR].name.split("/")[1:-1]


@pytest.mark.parametrize(
    ("ours", "theirs", "layers"),
    [
        ("", "", []),
        ("preferences = {compression = 'preferred'}", "", ["compression"]),
        ("preferences = {compression = 'preferred'}", "preferences = {compression = 'avoid'}", []),
        ("preferences = {compression = 'required'}", "preferences = {compression = 'avoid'}", ["compression"]),
        ("preferences = {compression = 'preferred'}", "preferences = {compression = 'forbidden'}", []),
        ("preferences = {framing = 'required', compression = 'preferred'}", "", ["framing", "compression"]),
        ("prefer = ['framing/tcp', 'tcp']", "preferences = {framing = 'avoid'}", []),
        ("", "preferences = {framing = 'required'}", Reason.REQUIRED_MISSING),
        ("preferences = {framing = 'required'}", "preferences = {framing = 'forbidden'}", Reason.POLICY),
    ],
)
def test_the_words_of_both_policies_decide_which_layers_there_are(
    ours: str, theirs: str, layers: list[str] | Reason
) -> None:
    assert chosen(ours, theirs) == layers


def test_who_is_refused_is_told_which_nodes_the_peers_words_forbid() -> None:
    both = negotiate(
        MemoryCarrier(), MemoryCarrier(),
        policy("preferences = {framing = 'required'}"), policy("preferences = {framing = 'forbidden'}"),
    )  # fmt: skip
    refused = both.aborted[Role.RESPONDER]
    assert refused.reason is Reason.POLICY
    assert "framing is forbidden by this host's policy (the peer's says: required)" in refused.detail
    assert both.aborted[Role.INITIATOR].by_peer
    framing = 1 + [node.protocol for node in both.proposed[1:]].index(Protocol.FRAMING)
    assert any(f"the peer pruned {framing} (POLICY)" in note for note in both.notes)


words = st.dictionaries(
    st.sampled_from(["compression", "framing"]), st.sampled_from([word.name.lower() for word in Word])
)


@given(words, words)
@settings(max_examples=60, deadline=None)
def test_no_pair_of_policies_ends_in_what_one_of_them_forbids_or_without_what_one_requires(ours, theirs) -> None:  # type: ignore[no-untyped-def]
    def text(said: dict[str, str]) -> str:
        return "preferences = {" + ", ".join(f"{name} = '{word}'" for name, word in said.items()) + "}"

    found = chosen(text(ours), text(theirs))
    for name in ("compression", "framing"):
        said = {ours.get(name), theirs.get(name)}
        if isinstance(found, list):
            assert not ("forbidden" in said and name in found)
            assert not ("required" in said and name not in found)
            if ours.get(name) in ("preferred", "required") and said <= {"preferred", "required", "neutral", None}:
                assert name in found
    if isinstance(found, Reason):
        assert any(
            ours.get(name) == "required" or theirs.get(name) == "required" for name in ("compression", "framing")
        ), "only what is required can be in vain"


@given(
    st.lists(st.binary(max_size=3000) | st.builds(lambda n: b"same " * n, st.integers(0, 3000)), max_size=6),
    st.lists(st.binary(max_size=3000), max_size=6),
    st.integers(1, 4000),
)
@settings(max_examples=30, deadline=None)
def test_data_passes_the_bridges_of_both_hosts_intact(asked, answered, split) -> None:  # type: ignore[no-untyped-def]
    """program - bridge - framing/compression - one stream - compression/framing - bridge - service."""

    async def talk() -> None:
        near, far = memory_pair(8192, split)
        ours = policy("preferences = {framing = 'required', compression = 'required'}")
        both = negotiate(near, far, ours, policy("compression = {window = 9}"))
        mine, yours = both.committed[Role.INITIATOR], both.committed[Role.RESPONDER]
        assert inside_of(mine)["compression"]["window"] == inside_of(yours)["compression"]["window"] == 512
        program, here = memory_pair()
        there, service = memory_pair()
        bridges = [
            asyncio.create_task(bridge(here, build_carrier(mine.sessions))),
            asyncio.create_task(bridge(build_carrier(yours.sessions), there)),
        ]

        async def say(end: MemoryCarrier, pieces: list[bytes]) -> None:
            for piece in pieces:
                await end.write(piece)
            await end.finish()

        async def hear(end: MemoryCarrier) -> bytes:
            got = b""
            while piece := await end.read():
                got += piece
            return got

        _, _, question, answer = await asyncio.gather(
            say(program, asked), say(service, answered), hear(service), hear(program)
        )
        assert question == b"".join(asked)
        assert answer == b"".join(answered)
        assert await asyncio.gather(*bridges) == [None, None]

    run(talk())


@given(st.binary(min_size=1, max_size=300))
@settings(max_examples=40, deadline=None)
def test_a_hostile_stream_ends_the_bridge_and_leaves_nothing_hanging(data) -> None:  # type: ignore[no-untyped-def]
    async def talk() -> None:
        near, far = memory_pair()
        ours = policy("preferences = {framing = 'required', compression = 'required'}")
        both = negotiate(near, far, ours, policy(""))
        there, service = memory_pair()
        bridged = asyncio.create_task(bridge(build_carrier(both.committed[Role.RESPONDER].sessions), there))
        await near.write(data)
        await near.finish()
        await service.finish()
        failure = await bridged
        assert failure is not None or not service.arrived

    run(talk())
