# SPDX-License-Identifier: Apache-2.0
"""Two real daemons, one with plug-ins that raise, loop and want a gigabyte: their node is lost, nothing else is."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from accord.controller.plugin_guard import IN_A_ROW
from accord.lab.deployment import BARE_PORT, Deployment
from accord.lab.pair import pair
from accord.wire.constants import Protocol

pytestmark = pytest.mark.root

PLUGINS = Path(__file__).with_name("plugins")
NUMBERS = {
    name: Protocol.PRIVATE_FIRST + 0xFA01 + at for at, name in enumerate(("raises", "rubbish", "loops", "greedy"))
}
"""As the tests write the protocols, since only the daemons know their names."""
LIMITS = "\n[limits]\nplugin_ms = 60"


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Both daemons know the protocols."""
    path = os.pathsep.join(filter(None, [str(PLUGINS), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path}
    with (
        pair() as (client, server),
        contextlib.closing(Deployment(client, server, tmp_path_factory.mktemp("faulty"))) as both,
    ):
        both.daemon(server, more=LIMITS, env=environment)
        both.daemon(client, more=LIMITS, env=environment)
        yield both


def connect(both: Deployment, name: str) -> tuple[list[str], bytes]:
    """The stack, and an echo over it, where the faulty one is liked best and bare TCP comes next."""

    async def work() -> tuple[list[str], bytes]:
        wishes: dict[str, Any] = {"secure": "no", "prefer": [f"{NUMBERS[name]:#x}/tcp", "tcp"], "only": True}
        async with asyncio.timeout(20), both.connect(port=BARE_PORT, **wishes) as association:
            await association.write(b"ping")
            return list(association.stack), await association.read()

    return asyncio.run(work())


def troubles(both: Deployment) -> dict[str, Any]:
    status = both.status(both.server)
    assert status is not None, both.log(both.server)
    return {failure: row for row in status["plugin_troubles"] for failure in row["failures"]}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("raises", "PLUGIN_FAILED"),
        ("rubbish", "PLUGIN_FAILED"),
        ("loops", "PLUGIN_TIMEOUT"),
        ("greedy", "PLUGIN_MEMORY"),
    ],
)
def test_the_next_stack_is_agreed_in_the_same_negotiation_and_the_worker_lives(
    both: Deployment, name: str, reason: str
) -> None:
    before = both.status(both.server)
    stack, echo = connect(both, name)
    after = both.status(both.server)
    assert (stack, echo) == (["http", "tcp"], b"ping")
    assert before is not None
    assert after is not None
    assert after["pid"] == before["pid"], both.log(both.server)
    assert f"respond {reason}" in troubles(both)
    assert reason in both.log(both.server)


def test_one_that_never_comes_back_is_switched_off_and_no_longer_waited_for(both: Deployment) -> None:
    for _ in range(IN_A_ROW):
        assert connect(both, "loops") == (["http", "tcp"], b"ping")
    row = troubles(both)["respond PLUGIN_TIMEOUT"]
    assert row["off_for_s"] > 0
    assert "switched off" in both.log(both.server)
    count = row["failures"]["respond PLUGIN_TIMEOUT"]
    assert connect(both, "loops") == (["http", "tcp"], b"ping")
    assert troubles(both)["respond PLUGIN_TIMEOUT"]["failures"]["respond PLUGIN_TIMEOUT"] == count, "not asked again"
