# SPDX-License-Identifier: Apache-2.0
"""Packets that arrive in the gaps of a hand-over, each gap held open until they are in.

The old daemon's data path is the pair's server, the new one's a third controller. What takes microseconds in a
hand-over takes here as long as it takes a stranger's packets to arrive: held back by a relay of their own, they are
sent from within the step that is looked at.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from accord.controller import handover
from accord.controller.association import Association
from accord.controller.controller import Controller
from accord.controller.endpoint import Endpoint
from accord.controller.handover import Handover
from accord.controller.settings.config import DaemonConfig, ExposeConfig
from accord.controller.udp_sockets import UdpSockets
from accord.datapath import privilege
from accord.datapath.port import Port
from tests.controller.pairs import QUIC, Pair, Relay, pair, run

PEERS = 2
"""With connections before the upgrade: the first one's socket is more than one peer's."""


@dataclass
class Stranger:
    """A client of another address and port than the pair's, some of whose packets wait in its relay."""

    relay: Relay
    connecting: asyncio.Task[Association]

    def arrive(self) -> None:
        """They are in the server's kernel when this returns: loopback delivers at once."""
        assert self.relay.held, "there are some"
        self.relay.pass_on = lambda sender, step: True
        self.relay.release()


@contextlib.asynccontextmanager
async def relays(both: Pair, count: int) -> AsyncIterator[list[Relay]]:
    """Each is another client to the server."""
    made = [Relay(both.relay.server) for _ in range(count)]
    for relay in made:
        await relay.start()
    try:
        yield made
    finally:
        for relay in made:
            relay.close()


async def connect(both: Pair, relay: Relay) -> Association:
    return await both.client.connect("127.0.0.1", relay.port, overrides=QUIC, security=both.security)


async def begin(both: Pair, relay: Relay, held: str) -> Stranger:
    """As far as to the packets that are to be held."""
    step = 2 if held == "the commit" else 0
    relay.pass_on = lambda sender, at: (sender, at) != ("client", step)
    connecting = asyncio.create_task(connect(both, relay))
    while len(relay.held) < (1 if step else 2):
        await asyncio.sleep(0.001)
    if held == "the second packet of a proposal":
        relay.back.sendto(relay.held.pop(0), relay.server)
    return Stranger(relay, connecting)


async def echo(near: Association, far: Association, data: bytes) -> None:
    async with asyncio.timeout(5):
        for one, other in ((near, far), (far, near)):
            await one.carrier.write(data)
            assert await other.carrier.read() == data


@contextlib.contextmanager
def successor(both: Pair, offers: list[handover.Offer]) -> Iterator[asyncio.Queue[Association]]:
    """A new daemon's data path on what is handed over, and what it accepts."""
    accepted: asyncio.Queue[Association] = asyncio.Queue(64)
    new = Controller(DaemonConfig(back_end="udp"))
    try:
        for offer in offers:
            security = both.exposed.security
            config = ExposeConfig(
                offer.exposed.port,
                None,
                certificate=security.certificate,
                private_key=security.private_key,
                plain=False,
            )
            new.expose(config, accepted, [sock.dup() for sock in offer.sockets])
        yield accepted
    finally:
        new.close()


async def either(one: asyncio.Queue[Association], other: asyncio.Queue[Association]) -> Association:
    """What the old or the new daemon accepts first."""
    waiting = [asyncio.create_task(queue.get()) for queue in (one, other)]
    done, left = await asyncio.wait(waiting, timeout=5, return_when=asyncio.FIRST_COMPLETED)
    for task in left:
        task.cancel()
    assert done, "neither daemon accepted"
    return done.pop().result()


def once(act: Callable[[], None], function: Any, *, after: bool, skip: int = 0) -> Any:
    """``function``, with ``act`` before or after its call number ``skip``."""
    calls = iter(range(1_000_000))

    def wrapped(*arguments: Any, **named: Any) -> Any:
        now = next(calls) == skip
        if now and not after:
            act()
        result = function(*arguments, **named)
        if now and after:
            act()
        return result

    return wrapped


# Where the stranger's packets arrive: the function that is called there, and whether before or after that.
GAPS = {
    "before the first look": (handover, "_connected", False, 0),
    "between a peer's bind and its connect": (privilege, "bind", True, 0),
    "between the second peer's bind and its connect": (privilege, "bind", True, 1),
    "between a peer's connect and the socket's first reading": (handover, "_connected", True, 0),
    "when the last peer has its socket": (UdpSockets, "add", True, 1),
    "in the port's socket, chosen before the peers had theirs": (Port, "settle", False, 0),
    "before the look that finds nobody new": (Endpoint, "pump", False, 2),
    "after it, and before the last look": (Endpoint, "pump", True, 2),
    "after the last look": (Endpoint, "pump", True, 3),
    "before the port's socket is taken off": (UdpSockets, "swap", False, 0),
    "when the port's socket is taken off": (UdpSockets, "swap", True, 0),
}


@pytest.mark.parametrize("held", ["a proposal", "the second packet of a proposal", "the commit"])
@pytest.mark.parametrize("gap", GAPS)
def test_what_arrives_in_a_gap_comes_to_a_connection_which_lasts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gap: str, held: str
) -> None:
    where, name, after, skip = GAPS[gap]

    async def main() -> None:
        async with pair(tmp_path) as both, relays(both, PEERS + 1) as made:
            kept = []
            for relay in made[:PEERS]:
                near = await connect(both, relay)
                kept.append((near, await both.accept()))
            stranger = await begin(both, made[PEERS], held)
            hand = Handover(both.server)
            with monkeypatch.context() as patch:
                patch.setattr(where, name, once(stranger.arrive, getattr(where, name), after=after, skip=skip))
                offers = hand.freeze()
            assert not stranger.relay.held, "it arrived in the gap"
            with successor(both, offers) as accepted:
                hand.commit()
                async with asyncio.timeout(5):
                    near = await stranger.connecting
                far = await either(both.accepted, accepted)
                await echo(near, far, b"begun in the gap")
                # The peers of before leave, and with them the sockets that were made for them.
                for pair_ in kept:
                    await echo(*pair_, b"from before")
                    for each in pair_:
                        each.carrier.abort()
                both.server.endpoint.stop()
                hand.prune()
                await echo(near, far, b"still there")

    run(main())
