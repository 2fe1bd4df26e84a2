#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What an answer without memory costs, and that any number of strangers leaves nothing (docs/PROTOCOL.md, section 22).

One controller in this process, at level 1, on loopback. One real proposal, of a real client, under as many transaction
IDs as there are strangers; none of them ever commits. What would be sent to them is dropped at the engine's door.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import json
import os
import socket
import statistics
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import click
from _progress import say
from cryptography.hazmat.primitives.asymmetric import ec

from accord.cli.main import run
from accord.controller.controller import Controller
from accord.controller.settings.config import DaemonConfig, ExposeConfig, LimitsConfig
from accord.controller.strangers.tls import identity_of
from accord.datapath import clock
from accord.datapath.cookies import CookieKey, ring_of
from accord.datapath.path import Path as NetworkPath
from accord.datapath.tls_repeatable import RepeatableTls
from accord.lab.scratch import scratch
from accord.negotiation.interface import Role
from accord.protocols import tls_context
from accord.protocols.authority import Files, issue, make_ca
from accord.protocols.services import Security
from accord.protocols.tls_connection import TlsConnection
from accord.wire.constants import Limit, Reason

NAME = "server.accord.test"
WISHES: dict[str, Any] = {
    "fallback": "never",
    "tcp": "parallel-syn",
    "prefer": ["tls/tcp"],
    "only": True,
    "packets_min": 1,
}
"""Padded to a whole packet, as by who knows how long the answer will be."""
_PAGE = os.sysconf("SC_PAGE_SIZE")
_ROUNDS = 7


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


def descriptors() -> int:
    """Open ones of this process, but for the one that is needed to look."""
    return len(os.listdir("/proc/self/fd")) - 1


async def proposal(security: Security) -> bytes:
    """The packet that a real client sends, its key exchange P-256 alone."""
    tls_context.context(Role.INITIATOR, security).set_tmp_ecdh(ec.SECP256R1())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as heard, socket.socket() as listening:
        heard.bind(("127.0.0.1", 0))
        port = heard.getsockname()[1]
        listening.bind(("127.0.0.1", port))
        listening.listen()
        heard.setblocking(False)
        client = Controller(DaemonConfig(back_end="udp"))
        calling = asyncio.create_task(client.connect("127.0.0.1", port, overrides=WISHES, security=security))
        try:
            async with asyncio.timeout(10):
                return await asyncio.get_running_loop().sock_recv(heard, 2048)
        finally:
            calling.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await calling
            client.close()


def strangers(packet: bytes, first: int = 0) -> Iterator[bytes]:
    """The same proposal under one ID after the other: bytes 0..3 are those of the TSN, and stay."""
    own = packet[8:20]
    number = first
    while True:
        other = own[:4] + number.to_bytes(8, "big")
        changed = packet[:8] + other + packet[20:30] + b"\0\0" + packet[32:].replace(own, other)
        words = changed + b"\0" * (len(changed) % 2)
        total = sum(int.from_bytes(words[at : at + 2], "big") for at in range(0, len(words), 2))
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)
        yield changed[:30] + (~total & 0xFFFF).to_bytes(2, "big") + changed[32:]
        number += 1


@dataclasses.dataclass
class Server:
    """A controller that keeps nothing of strangers."""

    controller: Controller
    path: NetworkPath
    shift: int = 0
    """Microseconds by which the engine's time is ahead."""
    sent: int = 0
    """Bytes of answers."""

    def meet(self, packet: bytes) -> None:
        """One stranger more: its proposal in, its answer out."""
        endpoint = self.controller.endpoint
        taken = endpoint.engine.input(clock.now_us(), self.path, packet)
        assert taken is Reason.OK, taken
        for event in endpoint.engine.events():
            self.controller.strangers.met(event)


@contextlib.asynccontextmanager
async def server(files: Files, slots: int) -> AsyncIterator[Server]:
    """With a budget that never ends."""
    limits = LimitsConfig(strangers_per_second=1_000_000, strangers_percent=100, slots=slots, least_level=1)
    controller = Controller(DaemonConfig(back_end="udp", limits=limits))
    controller.endpoint.engine.cookies(ring_of([CookieKey(1, bytes(range(16)))], 0))
    accepted: asyncio.Queue[Any] = asyncio.Queue()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = ExposeConfig(port, None, certificate=files.certificate, private_key=files.private_key)
    controller.expose(config, accepted)
    made = Server(controller, NetworkPath.udp(("127.0.0.1", port), ("127.0.0.9", 4000)))

    def drop(path: NetworkPath, packet: bytes) -> None:
        made.sent += len(packet)

    controller.endpoint.engine.send_once = drop  # type: ignore[method-assign]
    controller.strangers._budget.spend(-1e9)
    try:
        yield made
    finally:
        controller.close()


def microseconds(work: Callable[[], object], count: int) -> float:
    """Processor time of one call, of this thread."""
    begin = time.thread_time()
    for _ in range(count):
        work()
    return (time.thread_time() - begin) / count * 1e6


async def measure(count: int, warm_up: int, files: Files, security: Security) -> dict[str, Any]:
    """All figures."""
    packet = await proposal(security)
    hello = packet[packet.index(b"\x16\x03\x01") :]
    hello = hello[: 5 + int.from_bytes(hello[3:5], "big")]
    own = Security(certificate=files.certificate, private_key=files.private_key)
    identity = identity_of(own)

    def repeatable() -> None:
        RepeatableTls(identity, (), "P-256").answer(os.urandom(32), hello)

    def kept() -> None:
        connection = TlsConnection(Role.RESPONDER, own, ())
        connection.feed(hello)
        connection.handshake()
        connection.output()

    async with server(files, 1024) as host:
        ids = strangers(packet)
        rows = []
        for _ in range(_ROUNDS):  # one after the other, so that what disturbs the machine disturbs all
            answer = microseconds(lambda: host.meet(next(ids)), 20)
            rows.append((microseconds(repeatable, 100), microseconds(kept, 100), answer))
    flight, reference, answer = (statistics.median(column) for column in zip(*rows, strict=True))
    async with server(files, 10_000) as host:
        ids = strangers(packet, 1 << 32)
        for done in range(warm_up):
            host.meet(next(ids))
            say(f"{done} strangers, warming up")
            if done % 500 == 0:
                await asyncio.sleep(0)  # Ctrl-C is heard
        await asyncio.sleep(1)  # what the first server's timers still hold goes with them
        gc.collect()
        before, open_before = resident(), descriptors()
        for done in range(count):
            host.meet(next(ids))
            if done % 500 == 0:
                say(f"{done} of {count} strangers, {resident() >> 10} KiB")
                await asyncio.sleep(0)
        usage = host.controller.endpoint.engine.usage()
        deferred = host.controller.strangers.deferred
        gc.collect()  # as before: what is in cycles waits for Python's collector, and is no growth
        say(f"{count} strangers", last=True)
        return {
            "flight_us": round(flight, 1),
            "pyopenssl_flight_us": round(reference, 1),
            "ratio": round(reference / flight, 2),
            "answer_us": round(answer, 1),
            "answers_in_15_percent": round(0.15e6 / answer),
            "proposal_bytes": len(packet),
            "answer_bytes": round(host.sent / max(1, host.controller.strangers.answers)),
            "strangers": count + warm_up,
            "answered": host.controller.strangers.answers,
            "deferred": deferred,
            "slots": usage.slots,
            "transactions": usage.transactions,
            "in_flight": host.controller.endpoint.in_flight,
            "rss_growth_kib": (resident() - before) >> 10,
            "descriptors_growth": descriptors() - open_before,
        }


@click.command()
@click.option("--strangers", "count", type=click.IntRange(1), default=20_000, show_default=True)
@click.option("--warm-up", type=click.IntRange(0), default=2_000, show_default=True, help="Do not count for growth.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(count: int, warm_up: int, as_json: bool) -> None:
    """What an answer without memory costs, and whether strangers leave anything behind."""
    with scratch("strangers") as directory:
        ca, files = make_ca(directory), issue(directory, [NAME])
        security = Security(server_name=NAME, ca_file=ca.certificate)
        result = asyncio.run(measure(count, warm_up, files, security))
    if as_json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:>24}  {value}")
    print(f"slots live {Limit.MAX_LIFETIME_MS // 1000} s; ratio: pyOpenSSL's processor time for a flight to this one's")


if __name__ == "__main__":
    run(main)
