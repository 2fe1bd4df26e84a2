# SPDX-License-Identifier: Apache-2.0
"""Connections that a negotiation only plans: whom they are taken from, and what happens when they never come."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable
from contextlib import closing

import pytest

from accord.controller.plans import opening, tunnels
from accord.datapath import wireguard
from accord.datapath.stream import SocketCarrier
from accord.negotiation.guard import Overrun
from accord.negotiation.interface import Role
from accord.protocols.services import Carrier
from accord.wire.constants import Reason
from accord.wire.errors import AccordError


def listening() -> socket.socket:
    made = socket.create_server(("127.0.0.1", 0))
    made.setblocking(False)
    return made


def test_only_the_planned_port_of_the_planned_address_is_accepted_and_others_are_closed() -> None:
    async def work() -> None:
        listener = listening()
        with socket.socket() as stranger, socket.socket() as peer:
            peer.bind(("127.0.0.1", 0))
            stranger.connect(listener.getsockname())
            peer.connect(listener.getsockname())
            with await opening.accepted(listener, "127.0.0.1", peer.getsockname()[1]) as found:
                assert found.getpeername() == peer.getsockname()
            assert stranger.recv(1) == b"", "it was closed"
        assert listener.fileno() == -1, "one is all there is"

    asyncio.run(asyncio.wait_for(work(), 10))


def test_a_connection_from_another_address_is_not_accepted_whatever_its_port() -> None:
    async def work() -> None:
        listener = listening()
        with socket.create_connection(listener.getsockname()), pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await opening.accepted(listener, "127.0.0.9", None)
        listener.close()

    asyncio.run(asyncio.wait_for(work(), 10))


def test_what_does_not_come_in_time_is_the_paths_fault_and_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "_SECONDS", 0.05)
    given_up: list[bool] = []

    async def never() -> Carrier:
        await asyncio.sleep(60)
        raise AssertionError("it is cancelled before")

    async def work() -> None:
        stream = opening.coming(never(), lambda: given_up.append(True))
        with pytest.raises(AccordError, match="did not come within") as missing:
            await stream.read()
        assert missing.value.reason is Reason.DATA_PATH_FAILED

    asyncio.run(asyncio.wait_for(work(), 10))
    assert given_up == [True]


@pytest.mark.parametrize("failure", [ConnectionRefusedError(111, "Connection refused"), OSError(113, "No route")])
def test_what_the_kernel_says_of_a_planned_connection_is_told_to_its_reader(failure: OSError) -> None:
    async def refused() -> Carrier:
        raise failure

    async def work() -> None:
        stream = opening.coming(refused(), lambda: None)
        with pytest.raises(AccordError, match=str(failure.strerror)):
            await stream.write(b"x")

    asyncio.run(asyncio.wait_for(work(), 10))


def test_a_stream_that_nobody_wants_any_more_gives_up_what_it_was_waiting_for() -> None:
    given_up: list[bool] = []

    async def never() -> Carrier:
        await asyncio.sleep(60)
        raise AssertionError("it is cancelled before")

    async def work() -> None:
        stream = opening.coming(never(), lambda: given_up.append(True))
        await asyncio.sleep(0)
        stream.abort()
        await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(work(), 10))
    assert given_up == [True]


async def tunnel_pair() -> tuple[tunnels.TunnelCarrier, SocketCarrier]:
    one, other = socket.socketpair()
    with listening() as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    one.close()
    other.close()
    return tunnels.TunnelCarrier(near, 77), SocketCarrier(far)


@pytest.mark.parametrize("orderly", [True, False])
def test_a_tunnel_ends_with_its_stream_and_only_once(monkeypatch: pytest.MonkeyPatch, orderly: bool) -> None:
    removed: list[int] = []
    monkeypatch.setattr(tunnels, "_remove", removed.append)

    async def work() -> None:
        near, far = await tunnel_pair()
        await near.write(b"all of it")
        assert near.kernel_socket is None, "a program that closed it would leave the tunnel behind"
        if orderly:
            ends: list[Awaitable[None]] = [near.close(), far.finish()]
            await asyncio.gather(*ends)
            assert await far.read() == b"all of it"
            await near.close()
        else:
            near.abort()
            near.abort()
        await far.close()

    asyncio.run(asyncio.wait_for(work(), 20))
    assert removed == [77]


def test_a_tunnels_keys_are_fresh_and_its_port_is_held_until_it_is_established_or_given_back() -> None:
    one, other = (tunnels.PlannedTunnels(Role.INITIATOR, "192.0.2.1").reserve() for _ in range(2))
    assert one.public_key != other.public_key
    assert len(one.public_key) == 32
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as second:
        with pytest.raises(OSError, match="in use"):
            second.bind(("0.0.0.0", one.port))
        one.release()
        second.bind(("0.0.0.0", one.port))
    other.release()
    with pytest.raises(AccordError, match="given back"):
        other.establish(one.public_key, one.port)


def test_a_tunnel_that_was_stopped_while_it_was_made_is_removed_whether_it_is_there_or_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    removed: list[int] = []

    def stopped(setup: wireguard.Setup) -> None:
        raise Overrun

    monkeypatch.setattr(tunnels, "_create", stopped)
    monkeypatch.setattr(tunnels, "_remove", removed.append)
    tunnel = tunnels.PlannedTunnels(Role.INITIATOR, "192.0.2.1").reserve()
    with pytest.raises(Overrun):
        tunnel.establish(bytes(range(32)), 51820)
    assert removed == [tunnel.port]
