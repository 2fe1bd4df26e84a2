# SPDX-License-Identifier: Apache-2.0
"""Live upgrade: a new daemon takes over while negotiations are in flight and associations are up."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

import accord
from accord.controller.controller import Controller
from accord.controller.settings.config import DaemonConfig
from accord.datapath import clock
from accord.lab.deployment import BARE_PORT, Deployment
from accord.protocols.services import Security
from accord.wire.constants import Step
from tests.failopen.conftest import deployed

pytestmark = pytest.mark.root

SECONDS = 60
LISTEN = 7001
STACKS = ("tls/tcp", "quic")
AT_ONCE = 16
"""Attempts under way. On a busy machine an upgrade takes its time, and all that are due meanwhile would be more than
two processors can answer within a negotiation's life."""


def daemons(both: Deployment) -> list[subprocess.Popen[bytes]]:
    """The server's, in the order of their start."""
    return [process for process in both.server.processes if "daemon" in list(map(str, process.args))]


async def until_replaced(both: Deployment, pid: int) -> int:
    """The pid of the daemon that answers in its place. Raises ``AssertionError`` with the log when none comes."""
    try:
        async with asyncio.timeout(SECONDS):
            while (status := await asyncio.to_thread(both.status, both.server)) is None or status["pid"] == pid:
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(both.log(both.server)) from None
    found: int = status["pid"]
    return found


async def throughout(replaced: asyncio.Task[int], attempt: Callable[[], Coroutine[None, None, None]]) -> None:
    """Attempts, one begun every few milliseconds, until the daemon is replaced and all have ended."""
    gate = asyncio.Semaphore(AT_ONCE)
    async with asyncio.TaskGroup() as group:
        while not replaced.done():
            await gate.acquire()
            group.create_task(attempt()).add_done_callback(lambda _: gate.release())
            await asyncio.sleep(0.02)
    replaced.result()


async def echo(association: accord.Association, text: bytes) -> None:
    """There and back over an association that is up."""
    async with asyncio.timeout(SECONDS):
        await association.write(text)
        back = b""
        while len(back) < len(text) and (piece := await association.read()):
            back += piece
        assert back == text


def test_no_negotiation_is_lost_no_association_ends_and_others_notice_nothing(tmp_path: Path) -> None:
    """Two in a row, the second before the first is over; the last one alone is left, and attached."""
    outcomes: Counter[str] = Counter()

    async def negotiate(both: Deployment) -> None:
        try:
            async with asyncio.timeout(SECONDS):
                await both.negotiate()
        except Exception as failure:
            outcomes[repr(failure)] += 1
        else:
            outcomes["ok"] += 1

    async def upgrade(both: Deployment, *options: str) -> None:
        before = both.wait_for(both.server)["pid"]
        both.launch(both.server, "--takeover", *options)
        await throughout(asyncio.create_task(until_replaced(both, before)), lambda: negotiate(both))

    async def upgrades(both: Deployment) -> None:
        kept = [await both.connect(prefer=[stack]) for stack in STACKS]
        await upgrade(both)
        for association in kept:
            await echo(association, b"by way of the first one" * 1000)
        short = await both.connect(prefer=["quic"])
        await echo(short, b"by way of the second one")
        await upgrade(both, "--drain-limit", "0.1")
        await echo(short, b"still")
        first, second, last = daemons(both)
        await asyncio.to_thread(both.wait_for, both.server, SECONDS, back_end="af_xdp")
        assert await asyncio.to_thread(second.wait, SECONDS) == 0, "it kept its association no longer than it might"
        with contextlib.suppress(ConnectionError):
            assert not await short.read()
        assert (first.poll(), last.poll()) == (None, None)
        for association in kept:
            await echo(association, b"and after all that")
            await association.close()
        assert await asyncio.to_thread(first.wait, SECONDS) == 0, "it ended with its last association"
        assert last.poll() is None

    with deployed(tmp_path) as both:
        with both.bystander() as others:
            asyncio.run(upgrades(both))
        assert set(outcomes) == {"ok"}, both.log(both.server)
        assert others["lost"] == 0
        assert others["tcp_stalls"] <= 0
        assert both.control(both.server).exists()
        assert asyncio.run(both.negotiate())


@pytest.fixture
def both(tmp_path: Path) -> Iterator[Deployment]:
    """A pair for a test of its own."""
    with deployed(tmp_path) as deployment:
        yield deployment


def test_a_program_that_listens_goes_on_listening(both: Deployment) -> None:
    """Its connection to the daemon is handed over, and with its end the port is the new daemon's to take back."""
    files = (str(both.identity.certificate), str(both.identity.private_key))

    async def use() -> None:
        control = both.control(both.server)
        async with accord.listen(LISTEN, certificate=files[0], private_key=files[1], control=control) as listener:
            pid = both.wait_for(both.server)["pid"]
            both.launch(both.server, "--takeover")
            await until_replaced(both, pid)
            async with both.connect(port=LISTEN) as near, asyncio.timeout(SECONDS):
                far = await listener.accept()
                await near.write(b"to the program")
                assert await far.read() == b"to the program"
                await far.close()
        async with asyncio.timeout(SECONDS):
            while any(each["port"] == LISTEN for each in both.wait_for(both.server)["listeners"]):
                await asyncio.sleep(0.02)

    asyncio.run(use())


def test_a_program_that_the_old_daemon_accepted_is_answered_although_it_takes_its_time(both: Deployment) -> None:
    before = both.wait_for(both.server)["pid"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.settimeout(SECONDS)
        sock.connect(os.fspath(both.control(both.server)))
        assert both.wait_for(both.server)["pid"] == before, "who came later was accepted, so this one was"
        both.launch(both.server, "--takeover")
        asyncio.run(until_replaced(both, before))
        sock.send(b'{"op":"status"}')
        assert json.loads(sock.recv(65536))["pid"] == before
    assert daemons(both)[0].wait(SECONDS) == 0


def test_connections_that_are_adopted_while_the_daemon_is_replaced_come_up_all_of_them(both: Deployment) -> None:
    """Parallel SYN: the negotiation stays with the one daemon, the listener goes to the other."""
    outcomes: Counter[str] = Counter()

    async def adopt() -> None:
        try:
            async with both.connect(tcp="parallel-syn", fallback="delayed", prefer=["tls/tcp"]) as association:
                await echo(association, b"whoever it is")
                outcomes["/".join(association.stack)] += 1
        except Exception as failure:
            outcomes[repr(failure)] += 1

    async def upgrade() -> None:
        before = both.wait_for(both.server)["pid"]
        both.launch(both.server, "--takeover")
        await throughout(asyncio.create_task(until_replaced(both, before)), adopt)
        await adopt()

    asyncio.run(upgrade())
    # Who comes just when the listener goes is offered another stack, or the plain connection.
    assert set(outcomes) <= {"http/tls/tcp", "http/quic", "tls/tcp"}, f"{outcomes}\n{both.log(both.server)}"
    assert outcomes["http/tls/tcp"] > 0, outcomes


def replace(both: Deployment) -> None:
    """The server's daemon by another one, waiting for that in a thread without a loop."""
    before = both.wait_for(both.server)["pid"]
    both.launch(both.server, "--takeover")
    deadline = time.monotonic() + SECONDS
    while (status := both.status(both.server)) is None or status["pid"] == before:
        assert time.monotonic() < deadline, both.log(both.server)
        time.sleep(0.01)


def test_an_answer_of_which_nothing_is_kept_is_committed_to_with_the_next_daemon(tmp_path: Path) -> None:
    """The old daemon has answered at level 1, the new one gets the commit: it makes the answer again from the slot."""
    wishes = {"fallback": "never", "tcp": "parallel-syn", "prefer": ["tcp"], "only": True, "secure": "no"}

    async def across(both: Deployment) -> list[str]:
        client = Controller(DaemonConfig(back_end="udp"))
        send = client.endpoint.engine.send

        def deaf(now: int, handle: int, step: int, *rest: Any) -> None:
            """Until the daemon that answers the proposal has been replaced."""
            send(now, handle, step, *rest)
            if step == Step.PROPOSAL:
                client.endpoint.port.poll(client.endpoint.engine, clock.now_us())
                while both.wait_for(both.server)["strangers"]["answers"] == 0:
                    time.sleep(0.01)
                replace(both)

        client.endpoint.engine.send = deaf  # type: ignore[assignment, method-assign]
        try:
            address, security = both.server.address4, Security()
            association = await client.connect(
                address, BARE_PORT, overrides={**wishes, "packets_min": 1}, security=security
            )
            await association.carrier.write(b"hello")
            assert await association.carrier.read() == b"hello"
            await association.carrier.close()
            return list(association.report.stack)
        finally:
            client.close()

    with deployed(tmp_path, more="[limits]\nleast_level = 1\n") as both:
        stack = both.client.call(lambda: asyncio.run(across(both)))
        assert "tcp" in stack
        strangers = both.wait_for(both.server)["strangers"]
        assert (strangers["answers"], strangers["commits"]) == (0, 1)


@pytest.mark.parametrize("how", ["killed", "mute", "wrong"])
def test_when_the_new_daemon_fails_half_way_the_old_one_goes_on(both: Deployment, how: str) -> None:
    before = both.wait_for(both.server)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.settimeout(SECONDS)
        sock.connect(os.fspath(both.control(both.server)))
        sock.send(b'{"op":"takeover"}')
        data, fds, _, _ = socket.recv_fds(sock, 65536, 8)  # and never says that it has taken over
        assert b'"ok":true' in data
        for fd in fds:
            os.close(fd)
        if how == "wrong":
            sock.send(b'{"op":"something else"}')
        elif how == "mute":
            assert asyncio.run(both.negotiate()) is not None  # waits until the old daemon has lost its patience
    after = both.wait_for(both.server, SECONDS, back_end=before["back_end"])
    assert after["pid"] == before["pid"]
    assert after["listeners"] == before["listeners"]
    assert asyncio.run(both.negotiate())
    both.launch(both.server, "--takeover")
    asyncio.run(until_replaced(both, after["pid"]))
    assert asyncio.run(both.negotiate())


def test_a_take_over_needs_the_daemons_own_user(tmp_path: Path) -> None:
    with deployed(tmp_path, more="\n[control]\nusers = ['nobody']") as both:
        os.chmod(tmp_path, 0o755)
        for parent in tmp_path.parents:
            if str(parent).startswith("/tmp/pytest"):
                os.chmod(parent, 0o755)
        ask = (
            "import os, socket, sys; os.setgid(65534); os.setuid(65534);"
            "s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.connect(sys.argv[1]);"
            's.send(b\'{"op":"takeover"}\'); print(s.recv(65536).decode())'
        )
        answer = both.server.run(sys.executable, "-I", "-S", "-c", ask, str(both.control(both.server)))
        assert "NOT_PERMITTED" in answer
        assert asyncio.run(both.negotiate())


@pytest.mark.parametrize("supervised", [False, True])
def test_sigusr2_has_the_installed_version_take_over(tmp_path: Path, supervised: bool) -> None:
    """A supervised one ends with its supervisor, which starts no other; the new one is supervised as well."""
    with deployed(tmp_path, *(["--supervise"] if supervised else [])) as both:
        old = daemons(both)[0]
        pid = both.wait_for(both.server)["pid"]
        old.send_signal(signal.SIGUSR2)
        new = asyncio.run(until_replaced(both, pid))
        try:
            assert old.wait(SECONDS) == 0
            if supervised:
                os.kill(new, signal.SIGKILL)
                new = asyncio.run(until_replaced(both, new))
            assert asyncio.run(both.negotiate())
        finally:
            os.kill(int(Path(f"/proc/{new}/stat").read_text().split()[3]) if supervised else new, signal.SIGTERM)
        with contextlib.suppress(FileNotFoundError):
            for _ in range(1000):
                both.control(both.server).stat()
                time.sleep(0.01)
        assert not both.control(both.server).exists()


def test_without_a_daemon_that_runs_a_take_over_is_a_start(both: Deployment) -> None:
    old = daemons(both)[0]
    os.kill(old.pid, signal.SIGKILL)
    old.wait()
    both.daemon(both.server, "--takeover")
    both.wait_for(both.server, SECONDS, back_end="af_xdp")
    assert asyncio.run(both.negotiate())
