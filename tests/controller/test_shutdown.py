# SPDX-License-Identifier: Apache-2.0
"""A host that stops, or takes a port back, leaves nobody to find out by a time-out."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from accord.controller.association import Association, Report
from accord.controller.control import Channel
from accord.controller.controller import Controller
from accord.controller.counts import Counts
from accord.daemon.operations import Operations
from accord.datapath.stream import SocketCarrier
from accord.negotiation.interface import Role
from accord.protocols.prefix_carrier import PrefixCarrier
from accord.wire.constants import Reason
from accord.wire.errors import AccordError
from tests.controller.pairs import pair, run


async def broken(association: Association) -> AccordError:
    """How a read of the association ends; that it ends is the point."""
    with pytest.raises(AccordError) as caught:
        async with asyncio.timeout(3):
            await association.carrier.read()
    return caught.value


async def read_all(association: Association) -> None:
    while await association.carrier.read():
        pass


async def drained(association: Association) -> None:
    """What arrived before the end is read, and then there is an end."""
    with pytest.raises(AccordError):
        async with asyncio.timeout(3):
            await read_all(association)


def in_flight(controller: Controller) -> int:
    """Negotiations that are neither committed nor aborted."""
    owners = controller.endpoint._owners.values()
    return sum(not owner.committed.done() for owner in owners)  # type: ignore[attr-defined]


async def until(condition: Callable[[], object]) -> None:
    """Let the others work until something holds."""
    async with asyncio.timeout(3):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("how", ["stop", "withdraw", "close"])
def test_an_initiator_whose_commit_is_on_its_way_hears_that_the_responder_stops(tmp_path: Path, how: str) -> None:
    async def main() -> None:
        async with pair(tmp_path) as both:
            both.relay.pass_on = lambda sender, step: (sender, step) != ("client", 2)
            association = await both.connect()
            await until(lambda: both.relay.held)
            if how == "withdraw":
                both.server.withdraw(both.exposed)
            else:
                getattr(both.server, how)()
            failure = await broken(association)
            assert failure.reason is Reason.CLOSED
            assert both.server.counts.by_reason() == {"SHUTDOWN": 1}

    run(main())


@pytest.mark.parametrize("how", ["stop", "close"])
def test_a_responder_hears_that_the_initiator_stops_and_so_does_whoever_asked_for_the_connection(
    tmp_path: Path, how: str
) -> None:
    async def main() -> None:
        async with pair(tmp_path) as both:
            both.relay.pass_on = lambda sender, step: (sender, step) != ("server", 1)
            asking = asyncio.create_task(both.connect())
            await until(lambda: both.server.endpoint.engine.transactions)
            getattr(both.client, how)()
            with pytest.raises(AccordError) as caught:
                await asking
            assert caught.value.reason is Reason.SHUTDOWN
            await until(lambda: both.server.counts.by_reason())
            assert both.server.counts.by_reason() == {"SHUTDOWN": 1}

    run(main())


@pytest.mark.parametrize("how", ["withdraw", "close"])
def test_quic_says_good_bye_while_its_socket_is_there(tmp_path: Path, how: str) -> None:
    async def main() -> None:
        async with pair(tmp_path) as both:
            association = await both.connect()
            accepted = await both.accept()
            await association.carrier.write(b"before the end")
            assert await accepted.carrier.read() == b"before the end"
            if how == "withdraw":
                both.server.withdraw(both.exposed)
            else:
                both.server.close()
            failure = await broken(association)
            assert failure.reason is Reason.STREAM_BROKEN
            assert "QUIC" in failure.detail

    run(main())


def test_the_initiator_s_quic_says_good_bye_too(tmp_path: Path) -> None:
    async def main() -> None:
        async with pair(tmp_path) as both:
            association = await both.connect()
            accepted = await both.accept()
            both.client.close()
            assert (await broken(accepted)).reason is Reason.STREAM_BROKEN
            assert (await broken(association)).reason is Reason.CLOSED

    run(main())


def test_what_comes_up_just_before_the_withdrawal_is_broken_off_and_not_delivered(tmp_path: Path) -> None:
    async def main() -> None:
        async with pair(tmp_path) as both:
            endpoint, dispatch = both.server.endpoint, both.server.endpoint._dispatch

            def withdraw_behind_the_commit(event: object) -> None:
                """The commit is worked off, and its association not yet handed out."""
                dispatch(event)  # type: ignore[arg-type]
                if any(owner.committed.done() for owner in endpoint._owners.values()):  # type: ignore[attr-defined]
                    both.server.withdraw(both.exposed)

            endpoint._dispatch = withdraw_behind_the_commit  # type: ignore[method-assign]
            association = await both.connect()
            await broken(association)
            await asyncio.sleep(0)
            assert both.accepted.empty()
            assert both.server.counts.by_reason() == {"OK": 1}

    run(main())


def test_what_is_taken_back_before_its_delivery_began_is_broken_off(tmp_path: Path) -> None:
    async def main() -> None:
        async with pair(tmp_path) as both:
            near, far = socket.socketpair()
            both.exposed.hand_out(Association(SocketCarrier(near), Report("a peer")), None)
            both.server.withdraw(both.exposed)
            far.setblocking(False)
            async with asyncio.timeout(3):
                assert await asyncio.get_running_loop().sock_recv(far, 1) == b""
            far.close()

    run(main())


def test_a_bridge_that_has_not_begun_when_the_daemon_ends_is_broken_off() -> None:
    async def main() -> None:
        near, far = socket.socketpair()
        daemon, program = (Channel(sock) for sock in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        operations = Operations(SimpleNamespace(counts=Counts()))  # type: ignore[arg-type]
        association = Association(PrefixCarrier(SocketCarrier(near), b"read ahead"), Report("a peer"))
        await operations._hand_over(Role.INITIATOR, association, daemon, {})
        await operations.close()
        far.setblocking(False)
        async with asyncio.timeout(3):
            assert await asyncio.get_running_loop().sock_recv(far, 1) == b""
            received = await program.receive()
            assert received is not None
            with socket.socket(fileno=received[1][0]) as handed, pytest.raises(ConnectionResetError):
                handed.recv(1)
        for end in (daemon, program, far):
            end.close()

    run(main())


def test_a_port_that_was_taken_back_can_be_exposed_again_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with pair(tmp_path) as both:
            await both.connect()
            await both.accept()
            config = both.exposed
            both.server.withdraw(config)
            assert both.server.endpoint.engine.transactions == 0
            config.open(both.server.endpoint, plain=False)

    run(main())


def test_two_transactions_on_one_5_tuple_do_not_cut_each_other_off(tmp_path: Path) -> None:
    async def main() -> None:
        async with pair(tmp_path) as both:
            one, other = await both.connect(), await both.connect()
            theirs = [await both.accept(), await both.accept()]
            assert theirs[0].report.peer == theirs[1].report.peer, "to the server both have one address and port"

            async def echo(near: Association, far: Association, data: bytes) -> None:
                await near.carrier.write(data)
                assert await far.carrier.read() == data

            for near, far in zip((one, other), theirs, strict=True):
                await echo(near, far, b"there")
                await echo(far, near, b"and back")
            theirs[0].carrier.abort()
            await broken(one)
            # The first transaction's lingering in the engine ends as well, before the second is used again.
            both.server.endpoint.stop()
            await echo(other, theirs[1], b"still there")
            await echo(theirs[1], other, b"and back")

    run(main())


@pytest.mark.parametrize("count", range(1, 9))
@pytest.mark.parametrize(("who", "how"), [("server", "withdraw"), ("server", "close"), ("client", "close")])
def test_a_host_may_stop_at_any_packet_and_both_sides_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, who: str, how: str, count: int
) -> None:
    async def main() -> None:
        async with pair(tmp_path) as both:
            stopped = asyncio.Event()
            seen = 0

            def stop() -> None:
                if how == "withdraw":
                    both.server.withdraw(both.exposed)
                else:
                    getattr(both, who).close()
                stopped.set()

            def counting(sender: str, step: int | None) -> bool:
                nonlocal seen
                seen += sender == who
                if sender == who and seen == count:
                    asyncio.get_running_loop().call_soon(stop)
                return True

            both.relay.pass_on = counting
            association: Association | None = None
            refusals: list[Reason] = []
            try:
                association = await both.connect()
            except AccordError as failure:
                refusals.append(failure.reason)
            assert refusals in ([], [Reason.SHUTDOWN])
            if association is not None:
                while not stopped.is_set():  # each write is answered by an acknowledgement at least
                    await association.carrier.write(b"x")
                    await asyncio.sleep(0.01)
                await broken(association)
                if not both.accepted.empty():
                    await drained(both.accepted.get_nowait())
            stopping = getattr(both, who)
            assert stopping.endpoint.engine.transactions == 0
            await until(lambda: not any(in_flight(each) for each in (both.client, both.server)))

    run(main())
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
