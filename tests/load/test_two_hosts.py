# SPDX-License-Identifier: Apache-2.0
"""A daemon under load, between two hosts on a wire: cookies by the XDP program, by the engine, and over a kill."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from accord.lab.deployment import BARE_PORT, PORT, Deployment, kill
from accord.lab.pair import pair
from accord.scapy_layer import Accord, AccordChunk, AccordNode, first_tsn

pytestmark = pytest.mark.root

ALWAYS = "[limits]\nleast_level = 2\n"


@contextlib.contextmanager
def loaded(directory: Path, server: str, *, client: str = "") -> Iterator[Deployment]:
    """Two daemons; ``server``, ``client``: lines of their configurations, the first of [daemon]."""
    with pair() as (one, other), contextlib.closing(Deployment(one, other, directory)) as both:
        both.daemon(one, more=client)
        both.daemon(other, more=server)
        yield both


def counters(both: Deployment, floor: str) -> dict[str, int]:
    found: dict[str, int] = both.wait_for(both.server)["counters"][floor]
    return found


@pytest.mark.parametrize(
    ("more", "family", "floor"),
    [('attach = "native"', 6, "steering"), ('attach = "generic"', 4, "steering"), ('back_end = "udp"', 4, "engine")],
    ids=["native XDP", "generic XDP", "no XDP"],
)
def test_a_negotiation_under_load_is_asked_for_a_cookie_once_and_comes_up(
    tmp_path: Path, more: str, family: int, floor: str
) -> None:
    with loaded(tmp_path, f"{more}\n{ALWAYS}", client='attach = "native"') as both:
        assert both.wait_for(both.server)["load"]["level"] == 2
        before = counters(both, floor).get("CHALLENGED", 0)
        assert "tls" in asyncio.run(both.negotiate(family=family))
        assert counters(both, floor)["CHALLENGED"] == before + 1
        client = both.status(both.client)
        assert client is not None
        assert client["counters"]["engine"]["CHALLENGED"] == 1


@pytest.mark.parametrize("secure", ["no", "required"])
@pytest.mark.parametrize("tcp", ["no-syn", "parallel-syn"])
def test_a_challenge_does_not_decide_for_the_plain_connection_beside_it(tmp_path: Path, tcp: str, secure: str) -> None:
    """Whose SYN-ACK is there a round trip before the answer."""
    prefer = {"prefer": ["tcp" if secure == "no" else "tls/tcp"], "only": True}

    async def twice(both: Deployment) -> list[bool]:
        found = []
        for _ in range(2):  # the first contact's proposal leaves behind its SYN, with parallel-syn
            port = BARE_PORT if secure == "no" else PORT
            async with both.connect(port=port, fallback="parallel", tcp=tcp, secure=secure, **prefer) as association:
                found.append(bool(association.report["negotiated"]))
            await asyncio.sleep(0.3)
        return found

    with loaded(tmp_path, f'attach = "native"\n{ALWAYS}', client='attach = "native"') as both:
        found = asyncio.run(twice(both))
        assert found[1], found
        assert found[0] or tcp == "parallel-syn"
        assert counters(both, "steering")["CHALLENGED"] >= 2


def proposal(transaction: bytes, cookie: bytes = b"") -> bytes:
    chunk = AccordChunk(node=0, protocol=17, data=bytes(AccordNode()) + bytes(30))
    flags = "I+E+C" if cookie else "I+E"
    tsn = first_tsn(transaction, initiator=True)
    return bytes(Accord(step=0, flags=flags, transaction=transaction, tsn=tsn, cookie=cookie, chunks=[chunk]))


def ask(sock: socket.socket, packet: bytes) -> Accord | None:
    sock.send(packet)
    try:
        return Accord(sock.recv(2048))
    except TimeoutError:
        return None


def stranger(both: Deployment) -> socket.socket:
    """A socket on the client's host whose every packet is the server's to answer."""

    def make() -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.settimeout(2)
        sock.connect((both.server.address4, PORT))
        return sock

    return both.client.call(make)


def test_a_cookie_from_before_a_kill_is_good_after_it(tmp_path: Path) -> None:
    more = f'attach = "native"\n[peers]\nfile = "{tmp_path}/state/peers.jsonl"\n{ALWAYS}'
    with loaded(tmp_path, more, client='attach = "native"') as both, contextlib.closing(stranger(both)) as sock:
        transaction = os.urandom(12)
        challenge = ask(sock, proposal(transaction))
        assert challenge is not None
        assert (challenge.flags, len(bytes(challenge))) == ("C", 48)
        pid = both.wait_for(both.server)["pid"]
        daemon = both.server.processes[-1]
        kill(pid)
        daemon.kill()
        daemon.wait(20)
        both.daemon(both.server, more=more)
        assert (tmp_path / "state" / "cookies.keys").stat().st_mode & 0o777 == 0o600
        answer = ask(sock, proposal(transaction, challenge.cookie))
        assert answer is not None
        assert (answer.step, answer.cookie) == (1, None)
        sock.send(proposal(os.urandom(12), challenge.cookie))  # another transaction: silence
        deadline = time.monotonic() + 10
        while "BAD_COOKIE" not in counters(both, "steering"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert counters(both, "steering")["BAD_COOKIE"] == 1


def test_the_level_rises_when_places_run_out_and_falls_again(tmp_path: Path) -> None:
    more = 'attach = "native"\n[limits]\nunproven = 4\nstrangers_per_second = 0\n'
    with loaded(tmp_path, more, client='attach = "native"') as both, contextlib.closing(stranger(both)) as sock:
        for _ in range(5):
            answer = ask(sock, proposal(os.urandom(12)))
            assert answer is not None
        assert answer.flags == "C"
        load = both.wait_for(both.server)["load"]
        assert load["raised"]["cookie"] <= 1  # the network's share is one place of four: a cookie at level 0, too
        assert "tls" in asyncio.run(both.negotiate())
        deadline = time.monotonic() + 20
        while both.wait_for(both.server)["load"]["level"]:
            assert time.monotonic() < deadline
            time.sleep(0.1)
