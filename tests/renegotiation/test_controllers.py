# SPDX-License-Identifier: Apache-2.0
"""Two controllers over loopback change the stack of an association: proposals, wishes, policies, failures."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from accord.controller import metrics
from accord.controller.association import Association
from accord.controller.renegotiation import member as member_module
from accord.controller.renegotiation.identity import Identity
from accord.controller.renegotiation.lasting import LastingCarrier
from accord.controller.renegotiation.member import Member
from accord.controller.renegotiation.table import State
from accord.controller.settings.config import DaemonConfig
from accord.controller.settings.policy import parse_policy
from accord.negotiation.interface import Refuse, Role
from accord.wire.constants import Reason, Step
from accord.wire.errors import AccordError, error
from tests.controller.pairs import QUIC, Pair, pair, run, step_of

LASTING = {**QUIC, "renegotiate": True}


async def both(hosts: Pair, wishes: dict[str, object]) -> tuple[Association, Association]:
    """One association, at both ends."""
    initiator = await hosts.client.connect("127.0.0.1", hosts.relay.port, overrides=wishes, security=hosts.security)
    return initiator, await hosts.accept()


def member(hosts: Pair, association: Association, *, server: bool = False) -> Member:
    """As the controller knows it."""
    return (hosts.server if server else hosts.client).associations.get(association.report.association)


async def talk(one: Association, other: Association) -> None:
    """A word each way."""
    for sender, receiver in ((one, other), (other, one)):
        await sender.carrier.write(b"word")
        assert await receiver.carrier.read() == b"word"


async def readers(*associations: Association) -> list[asyncio.Task[bytes]]:
    """Somebody reads at each end, as a bridge does."""
    return [asyncio.create_task(association.carrier.read()) for association in associations]


def test_both_hosts_call_an_association_the_same_and_it_gets_new_keys_on_request(tmp_path: Path) -> None:
    async def play() -> None:
        async with pair(tmp_path) as hosts:
            one, other = await both(hosts, QUIC)
            assert one.report.association == other.report.association
            assert isinstance(one.carrier, LastingCarrier)
            assert isinstance(other.carrier, LastingCarrier)
            before = one.carrier.identity
            reading = await readers(one, other)
            await member(hosts, one).renegotiate()
            assert one.carrier.generation == 2
            assert one.carrier.identity == other.carrier.identity != before
            await one.carrier.write(b"to")
            await other.carrier.write(b"fro")
            assert [await task for task in reading] == [b"fro", b"to"]
            await talk(one, other)

    run(play())


def test_a_change_that_is_proposed_right_behind_the_commit_finds_the_association(tmp_path: Path) -> None:
    """Both come in one batch, as to a host that was busy for a moment."""

    async def play() -> None:
        async with pair(tmp_path) as hosts:
            committed = False

            def until_the_commit(sender: str, step: int | None) -> bool:
                nonlocal committed
                committed = committed or (sender, step) == ("client", Step.COMMIT)
                return sender == "server" or not committed

            hosts.relay.pass_on = until_the_commit
            one = await hosts.connect()
            change = asyncio.ensure_future(member(hosts, one).renegotiate())
            while Step.PROPOSAL not in map(step_of, hosts.relay.held):
                await asyncio.sleep(0.001)
            hosts.relay.pass_on = lambda sender, step: True
            hosts.relay.release()
            other = await hosts.accept()
            await readers(one, other)
            await change
            assert member(hosts, one).carrier.generation == member(hosts, other, server=True).carrier.generation == 2

    run(play())


def test_a_responder_wishes_and_the_initiator_proposes(tmp_path: Path) -> None:
    async def play() -> None:
        async with pair(tmp_path) as hosts:
            one, other = await both(hosts, LASTING)
            await readers(one, other)
            await member(hosts, other, server=True).renegotiate()
            assert member(hosts, one).carrier.generation == member(hosts, other, server=True).carrier.generation == 2
            await member(hosts, other, server=True).renegotiate()
            assert member(hosts, one).carrier.generation == 3

    run(play())


def test_wishes_of_both_sides_at_once_are_one_change(tmp_path: Path) -> None:
    async def play() -> None:
        async with pair(tmp_path) as hosts:
            one, other = await both(hosts, LASTING)
            await readers(one, other)
            ends = member(hosts, one), member(hosts, other, server=True)
            await asyncio.gather(*(end.renegotiate() for end in ends))
            assert [end.carrier.generation for end in ends] == [2, 2]

    run(play())


def test_the_timer_of_either_side_s_policy_begins_changes(tmp_path: Path) -> None:
    async def play() -> None:
        async with pair(tmp_path) as hosts:
            one, other = await both(hosts, {**QUIC, "renegotiate_s": 1})
            await readers(one, other)
            await member(hosts, other, server=True).carrier.past(1)
            await member(hosts, other, server=True).carrier.past(2)
            assert member(hosts, one).carrier.generation == 3, "and again"

    run(play())


def test_a_wish_finds_nobody_where_the_initiators_context_is_closed_and_the_stack_goes_on(tmp_path: Path) -> None:
    async def play() -> None:
        async with pair(tmp_path) as hosts:
            one, other = await both(hosts, LASTING)
            hosts.relay.pass_on = lambda sender, step: step is None  # what a translator that has forgotten does
            await talk(one, other)
            wish = member(hosts, other, server=True).renegotiate()
            await asyncio.sleep(0.3)
            assert not wish.done()
            await talk(one, other)
            one.carrier.abort()
            other.carrier.abort()
            with pytest.raises(asyncio.CancelledError):
                await wish

    run(play())


@pytest.mark.parametrize("step", [0, 1, 2])
def test_data_goes_on_while_a_message_of_the_change_is_lost_and_the_change_is_made_when_it_arrives(
    tmp_path: Path, step: int
) -> None:
    async def play() -> None:
        async with pair(tmp_path) as hosts:
            one, other = await both(hosts, LASTING)
            hosts.relay.pass_on = lambda sender, packet: packet != step
            change = member(hosts, one).renegotiate()
            async with asyncio.timeout(1.5):
                for _ in range(20):
                    await talk(one, other)
                    await asyncio.sleep(0.02)
            assert not change.done()
            assert member(hosts, one).carrier.generation == 1
            hosts.relay.pass_on = lambda sender, packet: True
            reading = await readers(one, other)
            await change
            assert member(hosts, one).carrier.generation == 2
            for task in reading:
                task.cancel()

    run(play())


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda claim: bytes(16) + claim[16:], Reason.NO_ASSOCIATION),
        (lambda claim: claim[:-1] + bytes([claim[-1] ^ 1]), Reason.NO_ASSOCIATION),
        (lambda claim: claim[:16] + bytes(32), Reason.NO_ASSOCIATION),
    ],
    ids=["another name", "a flipped bit", "no proof"],
)
def test_who_cannot_prove_to_be_an_end_is_told_that_there_is_no_such_association(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[bytes], bytes], reason: Reason
) -> None:
    async def play() -> None:
        async with pair(tmp_path) as hosts:
            one, other = await both(hosts, LASTING)
            claim = Identity.claim
            with monkeypatch.context() as patch:
                lies = [True]

                def spoilt(self: Identity, sender: Role, transaction: bytes, off: Identity | None = None) -> bytes:
                    made = claim(self, sender, transaction, off)
                    return spoil(made) if lies and lies.pop() else made

                patch.setattr(Identity, "claim", spoilt)
                with pytest.raises(AccordError) as caught:
                    await member(hosts, one).renegotiate()
            assert caught.value.reason is reason
            await talk(one, other)
            assert hosts.client.counts.samples()[metrics.RENEGOTIATIONS] == {("initiator", "failed", reason.name): 1}

    run(play())


def test_a_claim_is_good_for_one_transaction_one_sender_and_one_time(tmp_path: Path) -> None:
    async def play() -> None:
        async with pair(tmp_path) as hosts:
            one, other = await both(hosts, LASTING)
            identity = member(hosts, one).carrier.identity
            admit, port = hosts.server.associations.admit, hosts.exposed.port
            good, transaction = identity.claim(Role.INITIATOR, bytes(12)), bytes(12)
            for claim, number, at, notice in (
                (good, b"\1" * 12, port, False),
                (good, transaction, port + 1, False),
                (good, transaction, port, True),
                (identity.claim(Role.RESPONDER, transaction), transaction, port, False),
                (identity.claim(Role.INITIATOR, transaction, identity), transaction, port, True),
            ):
                refused = admit(claim, number, at, notice=notice)
                assert isinstance(refused, Refuse)
                assert refused.reason is Reason.NO_ASSOCIATION
            admitted = admit(good, transaction, port, notice=False)
            assert admitted is member(hosts, other, server=True)
            other_end = member(hosts, other, server=True).carrier
            other_end.failed(error(Reason.TIMEOUT))
            again = admit(good, transaction, port, notice=False)
            assert isinstance(again, Refuse)
            assert again.reason is Reason.NO_ASSOCIATION

    run(play())


def test_only_the_side_that_connected_has_wishes_about_the_policy(tmp_path: Path) -> None:
    async def play() -> None:
        async with pair(tmp_path) as hosts:
            _, other = await both(hosts, LASTING)
            with pytest.raises(AccordError) as caught:
                await member(hosts, other, server=True).renegotiate({"secure": "no"})
            assert caught.value.reason is Reason.BAD_CONFIG

    run(play())


def test_an_association_is_forgotten_with_its_stream_and_the_context_is_closed(tmp_path: Path) -> None:
    async def play() -> None:
        async with pair(tmp_path) as hosts:
            sockets = len(hosts.client.endpoint.sockets)
            one, other = await both(hosts, LASTING)
            reading = await readers(one, other)
            await member(hosts, one).renegotiate()
            for task in reading:
                task.cancel()
            await asyncio.gather(one.carrier.close(), other.carrier.close())
            assert len(hosts.client.associations) == len(hosts.server.associations) == 0
            hosts.client.proposals.clear()
            async with asyncio.timeout(8):
                while len(hosts.client.endpoint.sockets) > sockets:
                    await asyncio.sleep(0.05)

    run(play())


def policy_of(hosts: Pair, text: str) -> DaemonConfig:
    """The client's configuration, with another policy."""
    return dataclasses.replace(hosts.client.config, policy=parse_policy(text))


def test_a_policy_that_forbids_the_stack_closes_the_association_after_the_grace_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(member_module, "GRACE_SECONDS", 0.3)

    async def play() -> None:
        async with pair(tmp_path) as hosts:
            one, other = await both(hosts, {"renegotiate": True, "fallback": "never", "prefer": ["quic"]})
            await talk(one, other)
            handle = one.report.association
            reading = await readers(one)
            # No TCP is exposed over there, so nothing is left.
            hosts.client.reload(policy_of(hosts, '[default]\nprefer = ["tls/tcp"]\nonly = true\ntcp = "parallel-syn"'))
            with pytest.raises(AccordError):
                await reading[0]
            with pytest.raises(AccordError, match=handle):
                hosts.client.associations.get(handle)
            failed = hosts.client.counts.samples()[metrics.RENEGOTIATIONS]
            assert failed["initiator", "failed", "POLICY"] == 1

    run(play())


def test_a_policy_that_says_the_same_of_an_association_leaves_it_alone(tmp_path: Path) -> None:
    async def play() -> None:
        async with pair(tmp_path) as hosts:
            one, other = await both(hosts, LASTING)
            hosts.client.reload(policy_of(hosts, "[default]\npackets_min = 2"))
            hosts.server.reload(dataclasses.replace(hosts.server.config))
            await talk(one, other)
            await asyncio.sleep(0.1)
            assert not hosts.client.counts.samples()[metrics.RENEGOTIATIONS]
            assert member(hosts, one).carrier.generation == 1

    run(play())


def test_a_next_stack_that_greets_wrongly_is_called_off_and_the_responder_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play() -> None:
        async with pair(tmp_path) as hosts:
            one, other = await both(hosts, LASTING)
            reading = await readers(one, other)
            hello = Identity.hello
            with monkeypatch.context() as patch:
                wrong = [True]

                def said(self: Identity, sender: Role, following: Identity) -> bytes:
                    right = hello(self, sender, following)
                    return bytes(32) if sender is Role.RESPONDER and wrong and wrong.pop() else right

                patch.setattr(Identity, "hello", said)
                with pytest.raises(AccordError) as caught:
                    await member(hosts, one).renegotiate()
            assert caught.value.reason is Reason.BAD_MAC
            there = member(hosts, other, server=True).carrier
            async with asyncio.timeout(5):
                while there.state is not State.STEADY:  # doubtful until it hears
                    await asyncio.sleep(0.01)
            assert (one.carrier.generation, there.generation) == (1, 1)  # type: ignore[attr-defined]
            await one.carrier.write(b"to")
            await other.carrier.write(b"fro")
            assert [await task for task in reading] == [b"fro", b"to"]
            reading = await readers(one, other)
            await member(hosts, one).renegotiate()
            assert there.generation == 2
            for task in reading:
                task.cancel()

    run(play())


def test_a_responder_that_withdraws_the_port_in_the_middle_breaks_the_stream(tmp_path: Path) -> None:
    async def play() -> None:
        async with pair(tmp_path) as hosts:
            one, other = await both(hosts, LASTING)
            hosts.relay.pass_on = lambda sender, step: step != 2
            change = member(hosts, one).renegotiate()
            while one.carrier.state is not State.GREETING:  # type: ignore[attr-defined]
                await asyncio.sleep(0.005)
            other.carrier.abort()
            hosts.relay.pass_on = lambda sender, step: True
            with pytest.raises(AccordError):
                await one.carrier.read()
            one.carrier.abort()
            await asyncio.wait({change})
            assert len(hosts.client.associations) == len(hosts.server.associations) == 0

    run(play())
