# SPDX-License-Identifier: Apache-2.0
"""Daemons that take over one from the other while the peer's host negotiates with them at a rate.

Two loads at once, and each attempt has to bring its echo back. Programs ask the client's daemon, which negotiates TLS
or QUIC as on any host: ``PROGRAMS`` of the rate, since two processors with both ends on them carry 60 to 100 of those a
second. The rest comes from one lean process (``_load.py``), a whole negotiation of TCP alone each. The daemon that is
upgraded is the same to both: two processes, XDP, rings, and every port exposed at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import click
from _progress import say
from _steady import steady

import accord
from accord.lab.deployment import BARE_PORT, Deployment
from accord.lab.pair import pair

PROGRAMS = 0.1
"""Of the rate."""
AT_ONCE = 64
"""Attempts of each load under way: what is due in the third of a second in which nobody may answer."""
PATIENCE_SECONDS = 20.0
UPGRADE_SECONDS = 120.0
SETTLE_SECONDS = 0.6
LEAN = Path(__file__).with_name("_load.py")


class Programs:
    """Programs that ask the client's daemon for whatever stack is best, as the policy has it by default."""

    def __init__(self, both: Deployment) -> None:
        self._both = both
        self.outcomes: Counter[str] = Counter()

    async def attempt(self) -> None:
        """One connection and an echo."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._both.negotiate()
        except (accord.AccordError, OSError, RuntimeError) as failure:  # TimeoutError is an OSError
            self.outcomes[f"{type(failure).__name__}: {failure}"] += 1
        else:
            self.outcomes["ok"] += 1


class Lean:
    """The process of ``_load.py``, and what it has said last."""

    def __init__(self, both: Deployment, rate: float) -> None:
        spec = {"host": both.server.address4, "port": BARE_PORT, "rate": rate, "at_once": AT_ONCE}
        command = [sys.executable, str(LEAN), json.dumps({**spec, "seconds": PATIENCE_SECONDS})]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = both.client.popen(command, **pipes)
        self.outcomes: Counter[str] = Counter()
        self._whole = False
        self._listening = threading.Thread(target=self._listen, daemon=True)
        self._listening.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            report = json.loads(line)
            self.outcomes, self._whole = Counter(report["outcomes"]), report["over"]

    async def begun(self) -> None:
        """Until the first of its connections has come and gone. Raises ``ClickException`` when none does."""
        end = time.monotonic() + PATIENCE_SECONDS
        while not self.outcomes:
            if time.monotonic() > end or self._process.poll() is not None:
                raise click.ClickException("the lean load did not begin; what it said is above")
            await asyncio.sleep(0.05)

    def end(self) -> None:
        """Begin no more, and wait for the last. Raises ``ClickException`` when it does not say what became of all."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._listening.join(2 * PATIENCE_SECONDS)
        if not self._whole:
            raise click.ClickException("the lean load broke off; what it said is above")


async def upgrade(both: Deployment, attach: str) -> None:
    """Have a new daemon take over, and wait until it is attached and the old one has ended."""
    status = await asyncio.to_thread(both.status, both.server)
    assert status is not None
    old = both.server.processes[-1]
    new = both.launch(both.server, "--takeover", "--attach", attach)
    end = time.monotonic() + UPGRADE_SECONDS
    pid = status["pid"]
    while status is None or status["pid"] == pid or status["back_end"] != "af_xdp" or old.poll() is None:
        if time.monotonic() > end or new.poll() is not None:
            raise click.ClickException(f"no daemon took over:\n{both.log(both.server)[-2000:]}")
        await asyncio.sleep(0.05)
        status = await asyncio.to_thread(both.status, both.server)
    await asyncio.sleep(SETTLE_SECONDS)


async def upgraded(both: Deployment, upgrades: int, rate: float, attach: str) -> dict[str, Any]:
    """So many upgrades under load."""
    programs, lean, over = Programs(both), Lean(both, rate * (1 - PROGRAMS)), asyncio.Event()
    await lean.begun()
    running = asyncio.create_task(steady(programs.attempt, rate * PROGRAMS, AT_ONCE, over))

    def counted() -> Counter[str]:
        return programs.outcomes + lean.outcomes

    start, before = time.monotonic(), counted().total()
    for number in range(upgrades):
        say(f"upgrade {number + 1} of {upgrades}, {summary(counted())}")
        await upgrade(both, attach)
    reached = (counted().total() - before) / (time.monotonic() - start)
    over.set()
    await asyncio.to_thread(lean.end)
    await running
    outcomes = counted()
    say(f"{upgrades} upgrades, {summary(outcomes)}", last=True)
    return {
        "upgrades": upgrades,
        "upgrade_negotiations": outcomes.total(),
        "upgrade_by_programs": programs.outcomes.total(),
        "upgrade_rate": round(reached, 1),
        "upgrade_failed": failures(outcomes),
        **({"upgrade_failures": dict(outcomes)} if failures(outcomes) else {}),
    }


def summary(outcomes: Counter[str]) -> str:
    """For the progress line."""
    return f"{outcomes.total()} negotiations, {failures(outcomes)} failed"


def failures(outcomes: Counter[str]) -> int:
    """All that was not ok."""
    return outcomes.total() - outcomes["ok"]


def live_upgrades(directory: Path, upgrades: int, rate: float, attach: str) -> dict[str, Any]:
    """Upgrades, with the bystander beside them."""
    with pair() as (client, server), contextlib.closing(Deployment(client, server, directory)) as both:
        both.daemon(client, "--attach", attach)
        with both.bystander() as others:
            both.daemon(server, "--attach", attach)
            result = asyncio.run(upgraded(both, upgrades, rate, attach))
        if result["upgrade_failed"]:
            result["upgrade_log"] = [line for host in (client, server) for line in both.complaints(host)]
    lost = {"upgrade_host_sent": others["sent"], "upgrade_host_lost": others["lost"]}
    return {**result, **lost, "upgrade_tcp_stalls": others["tcp_stalls"]}
