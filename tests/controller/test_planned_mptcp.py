# SPDX-License-Identifier: Apache-2.0
"""MPTCP connections that a negotiation plans, by this host's kernel: who is taken, who is turned away, how long."""

from __future__ import annotations

import asyncio
import hashlib
import random
import socket
from collections.abc import Coroutine

import pytest

from accord.controller.plans import opening
from accord.controller.plans.ports import PlannedMptcp, PlannedMptcpPort
from accord.datapath import probe
from accord.negotiation.interface import Role
from accord.protocols.services import Carrier
from accord.wire.constants import Reason
from accord.wire.errors import AccordError

FINDING = probe.mptcp()
pytestmark = pytest.mark.skipif(not FINDING.ok, reason=f"no MPTCP: {FINDING.reason}; {FINDING.mend}")
LOOPBACK = ("127.0.0.1", "::1")


def pair(local: str) -> tuple[PlannedMptcpPort, PlannedMptcpPort]:
    """The initiator's, and the responder's, which listens."""
    one = PlannedMptcp(Role.INITIATOR, local, local).reserve()
    other = PlannedMptcp(Role.RESPONDER, local, local).reserve()
    other.listen()
    return one, other


def run(work: Coroutine[None, None, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 30))


def knock(port: int, source: str, target: str) -> socket.socket:
    """A stranger's plain connection."""
    made = socket.create_connection((target, port), timeout=10, source_address=(source, 0))
    made.setblocking(False)
    return made


async def turned_away(stranger: socket.socket) -> bool:
    try:
        return await asyncio.get_running_loop().sock_recv(stranger, 1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("local", LOOPBACK)
def test_the_stream_carries_every_byte_and_both_ends_know_it_for_mptcp(local: str) -> None:
    data = random.Random(8684).randbytes(10_000_000)

    async def sent(stream: Carrier) -> None:
        await stream.write(data)
        await stream.finish()

    async def work() -> None:
        near, far = pair(local)
        assert near.multipath is None, "there is no connection yet"
        one, other = near.stream(far.port), far.stream(near.port)
        sending = asyncio.create_task(sent(one))
        digest = hashlib.sha256()
        while piece := await other.read():
            digest.update(piece)
        await sending
        assert digest.digest() == hashlib.sha256(data).digest()
        assert (near.multipath, far.multipath) == (True, True)
        await other.close()
        await one.close()

    run(work())


@pytest.mark.parametrize("local", LOOPBACK)
def test_strangers_who_come_first_are_turned_away_and_the_peer_is_taken(local: str) -> None:
    async def work() -> None:
        near, far = pair(local)
        # More of them than are let wait, from another port, and over IPv4 from another address.
        sources = ["127.0.0.9", "127.0.0.1"] if local == "127.0.0.1" else [local]
        strangers = [knock(far.port, sources[each % len(sources)], local) for each in range(6)]
        other = far.stream(near.port)
        one = near.stream(far.port)
        await one.write(b"the peer's")
        assert await other.read() == b"the peer's"
        for stranger in strangers:
            with stranger:
                assert await turned_away(stranger)
        await one.close()
        await other.close()

    run(work())


def test_nobody_else_is_taken_for_as_long_as_the_stream_lasts_and_the_port_ends_with_it() -> None:
    async def work() -> None:
        near, far = pair("127.0.0.1")
        port = far.port
        other, one = far.stream(near.port), near.stream(port)
        await one.write(b"x")
        assert await other.read() == b"x"
        with knock(port, "127.0.0.1", "127.0.0.1") as stranger:
            assert await turned_away(stranger)
        await one.write(b"y")
        assert await other.read() == b"y"
        await other.close()
        with pytest.raises(ConnectionRefusedError):
            knock(port, "127.0.0.1", "127.0.0.1")
        await one.close()

    run(work())


def test_alone_the_connecting_end_is_a_socket_for_a_program_and_the_accepting_one_is_not() -> None:
    """Over its listener come the further paths, so that has to last as long, and end with it."""

    async def work() -> None:
        near, far = pair("127.0.0.1")
        other, one = far.stream(near.port), near.stream(far.port)
        there, here = await far.there(), await near.there()
        assert here.kernel_socket is not None
        assert here.kernel_socket.getsockopt(socket.SOL_SOCKET, socket.SO_PROTOCOL) == 262
        assert there.kernel_socket is None
        one.abort()
        other.abort()

    run(work())


def test_a_port_on_which_nobody_listens_is_told_to_who_waits_and_to_who_reads() -> None:
    async def work() -> None:
        near = PlannedMptcp(Role.INITIATOR, "127.0.0.1", "127.0.0.1").reserve()
        gone = PlannedMptcp(Role.RESPONDER, "127.0.0.1", "127.0.0.1").reserve()
        stream = near.stream(gone.port)
        with pytest.raises(AccordError, match="Connection refused") as refused:
            await near.there()
        assert refused.value.reason is Reason.DATA_PATH_FAILED
        with pytest.raises(AccordError, match="Connection refused"):
            await stream.read()
        assert near.multipath is None
        gone.release()

    run(work())


def test_who_waits_for_a_stream_that_is_given_up_is_told_and_not_cancelled() -> None:
    async def work() -> None:
        far = PlannedMptcp(Role.RESPONDER, "127.0.0.1", "127.0.0.1").reserve()
        far.listen()
        port, stream = far.port, far.stream(1)
        waiting = asyncio.create_task(far.there())
        await asyncio.sleep(0.01)
        stream.abort()
        with pytest.raises(AccordError, match="given up") as closed:
            await waiting
        assert closed.value.reason is Reason.CLOSED
        await asyncio.sleep(0.01)
        with pytest.raises(ConnectionRefusedError):
            knock(port, "127.0.0.1", "127.0.0.1")

    run(work())


def test_a_peer_that_does_not_come_in_time_leaves_no_listener(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "_SECONDS", 0.05)

    async def work() -> None:
        far = PlannedMptcp(Role.RESPONDER, "127.0.0.1", "127.0.0.1").reserve()
        far.listen()
        far.stream(1)
        with pytest.raises(AccordError, match="did not come within"):
            await far.there()
        await asyncio.sleep(0.01)
        with pytest.raises(ConnectionRefusedError):
            knock(far.port, "127.0.0.1", "127.0.0.1")

    run(work())


@pytest.mark.parametrize("used", [False, True])
def test_a_port_that_was_given_back_or_used_is_not_used_again(used: bool) -> None:
    async def work() -> None:
        own = PlannedMptcp(Role.RESPONDER, "127.0.0.1", "127.0.0.1").reserve()
        stream = own.stream(1) if used else None
        own.release()
        own.release()
        with pytest.raises(AccordError, match="given back"):
            own.listen()
        if stream is not None:
            stream.abort()

    run(work())
