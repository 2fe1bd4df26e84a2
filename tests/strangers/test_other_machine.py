# SPDX-License-Identifier: Apache-2.0
"""A commit that came to another machine than the answer: what has not been used is agreed anew, once, by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from accord.datapath import clock, unkept
from accord.datapath._core import lib
from accord.datapath.engine import Engine
from accord.datapath.path import Path as NetworkPath
from accord.wire.errors import AccordError
from tests.strangers.hosts import Hosts, hosts, run, without_post_quantum
from tests.strangers.test_strangers import Watched, known, until


class Scattered:
    """The server, where the next so many commits find themselves at a machine that has not answered."""

    def __init__(self, both: Hosts, patch: pytest.MonkeyPatch, commits: int) -> None:
        self.left, self._engine, self._send = (
            commits,
            both.server.endpoint.engine,
            both.server.endpoint.engine.send_once,
        )
        patch.setattr(self._engine, "send_once", self._answer)

    def _answer(self, path: NetworkPath, packet: bytes) -> None:
        self._send(path, packet)
        if self.left:
            self.left -= 1
            unkept.clear(self._engine)
            lib.accord_engine_set_machine(self._engine.pointer, self.left + 1)


@pytest.fixture(autouse=True)
def classical(monkeypatch: pytest.MonkeyPatch) -> None:
    without_post_quantum(monkeypatch)


def test_what_nothing_was_said_over_is_agreed_anew_with_the_machine_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with hosts(tmp_path) as both:
            await known(both)
            Scattered(both, monkeypatch, 1)
            ours = await both.connect()
            theirs = await both.accept()  # of the second proposal: the first one's stack is nobody's
            assert both.counters["OTHER_MACHINE"] >= 1
            await ours.carrier.write(b"after the answer that was lost")
            assert await theirs.carrier.read() == b"after the answer that was lost"
            await theirs.carrier.write(b"heard")
            assert await ours.carrier.read() == b"heard"
            assert both.server.strangers.commits == 1
            assert [member.carrier.generation for member in both.client.associations.all()] == [1]
            await ours.carrier.close()
            assert not both.client.associations.all()

    run(work())


def test_it_is_asked_for_once_and_then_the_stack_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        async with hosts(tmp_path) as both:
            await known(both)
            Scattered(both, monkeypatch, 2)
            ours = await both.connect()
            with pytest.raises((AccordError, OSError)):
                await ours.carrier.read()
            ours.carrier.abort()
            assert both.server.strangers.commits == 0
            assert both.accepted.empty()

    run(work())


def test_what_was_said_is_not_said_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        async with hosts(tmp_path) as both:
            await known(both)
            Scattered(both, monkeypatch, 1)
            ours = await both.connect()
            await ours.carrier.write(b"pay")
            with pytest.raises((AccordError, OSError)):
                await ours.carrier.read()
            ours.carrier.abort()
            await until(lambda: both.counters.get("OTHER_MACHINE", 0) >= 1)
            assert both.server.strangers.answers == 1, "nothing was proposed again"
            assert both.accepted.empty()

    run(work())


def test_who_goes_on_with_the_slots_of_another_engine_is_that_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As at a live upgrade: of a commit that is repeated, and has been taken, OTHER_MACHINE would end the stack."""

    async def work() -> None:
        async with hosts(tmp_path) as both:
            await known(both)
            watched, handed = Watched(both, monkeypatch), []

            def hand_over(event: object) -> None:
                if not handed:
                    handed.append(unkept.image(watched.engine, clock.now_us()))

            watched.before = hand_over
            await both.connect()
            await both.accept()
            other = Engine(transactions=4, slots=4, machine=12345)
            assert unkept.restore(other, clock.now_us(), b"x" + handed[0][1:]) == 0
            assert lib.accord_engine_machine(other.pointer) == 12345, "another version's"
            unkept.restore(other, clock.now_us(), handed[0])
            assert lib.accord_engine_machine(other.pointer) == lib.accord_engine_machine(watched.engine.pointer)

    run(work())
