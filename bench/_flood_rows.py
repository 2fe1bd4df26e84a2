# SPDX-License-Identifier: Apache-2.0
"""What one flood does to a host: to honest initiators, to the daemon's memory, to the traffic of others."""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _native
import click
from _flooding import PROGRAM, Flooding, Plan, first, hurry
from failopen import percentile
from soak import slope

from accord.lab.deployment import BARE_PORT, Deployment
from accord.lab.pair import pair

SHED = _native.BUILD / "shed.bpf.o"
_HONEST = Path(__file__).with_name("_honest.py")
_PATIENCE_SECONDS = 20.0
_LOOK_SECONDS = 0.2
_FILLS_SECONDS = 0.5
_WARM_UP_RATE = 200_000
_WARM_UPS = 3


class Honest:
    """The process of ``_honest.py``; ``with`` it, negotiations begin at the rate."""

    def __init__(self, both: Deployment, rate: float) -> None:
        self._at_once = 512
        spec = {"host": both.server.address4, "port": BARE_PORT, "rate": rate, "at_once": self._at_once}
        command = [sys.executable, str(_HONEST), json.dumps({**spec, "seconds": _PATIENCE_SECONDS})]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = both.client.popen(command, preexec_fn=first, **pipes)
        if self._read() != "ready":
            raise click.ClickException("no honest initiator came through before the flood; what it said is above")

    def begin(self) -> None:
        """From now on."""
        self._say("begin")

    def end(self) -> dict[str, Any]:
        """Begin no more, and wait for the last."""
        self._say("end")
        answer = json.loads(self._read() or "{}")
        if not answer:
            raise click.ClickException("the honest initiators broke off; what they said is above")
        outcomes, ready = Counter(answer["outcomes"]), answer["ready_ms"]
        failed = dict(outcomes - Counter(ok=outcomes["ok"]))
        return {
            "honest": outcomes.total(),
            "honest_ok": round(outcomes["ok"] / max(1, outcomes.total()), 4),
            "p50_ms": round(percentile(ready, 0.5), 1) if ready else None,
            "p99_ms": round(percentile(ready, 0.99), 1) if ready else None,
            **({"honest_failures": failed} if failed else {}),
        }

    def _read(self) -> str:
        assert self._process.stdout is not None
        return str(self._process.stdout.readline()).strip()

    def _say(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()


@dataclass(frozen=True, slots=True)
class Held:
    """What the two processes of the server's daemon have."""

    memory: int
    """Bytes of anonymous memory, resident: neither code that is read from its file for the first time, nor that one
    of the two writes to a page that both had, since the one was forked off the other, is growth."""
    maps: int
    """Bytes that the kernel has for their BPF maps: what is no array grows by each entry."""
    descriptors: int


class Watched:
    """The server's daemon, from outside."""

    def __init__(self, both: Deployment) -> None:
        self._both = both
        status = both.wait_for(both.server)
        pids = {status["pid"], status["privileges"].get("broker_pid", status["pid"])}
        self._processes = [Path("/proc") / str(pid) for pid in sorted(pids)]

    def look(self) -> Held:
        """Now. Nobody in the daemon is asked."""
        memory = descriptors = 0
        maps: dict[str, int] = {}
        for process in self._processes:
            lines = (process / "smaps_rollup").read_text().splitlines()
            memory += 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))
            names = os.listdir(process / "fd")
            descriptors += len(names)
            for name in names:
                told = dict(line.split(":\t", 1) for line in _lines(process / "fdinfo" / name) if ":\t" in line)
                if "map_id" in told:
                    maps[told["map_id"]] = int(told["memlock"])
        return Held(memory, sum(maps.values()), descriptors)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:  # closed since
        return []


def growth(watched: Watched, seconds: float) -> dict[str, Any]:
    """What a daemon has more after so many seconds, and the line through all looks at it."""
    began, looks = time.monotonic(), [watched.look()]
    points = [(0.0, float(looks[0].memory))]
    while (now := time.monotonic() - began) < seconds:
        time.sleep(_LOOK_SECONDS)
        looks.append(watched.look())
        points.append((now, float(looks[-1].memory)))
    line = slope(points)
    return {
        "state_growth_bytes": max(0, looks[-1].memory - looks[0].memory),
        "state_growth_bytes_per_second": round(line.by, 1),
        "state_growth_error": round(line.error, 1) if math.isfinite(line.error) else None,
        "state_growth_maps": looks[-1].maps - looks[0].maps,
        "state_growth_fds": looks[-1].descriptors - looks[0].descriptors,
    }


def counted(both: Deployment) -> Counter[str]:
    """Reasons, of both floors together."""
    counters = both.wait_for(both.server)["counters"]
    return Counter(counters["steering"]) + Counter(counters["engine"])


def row(plan: Plan, rate: float, seconds: float, both: Deployment, honest: Honest, watched: Watched) -> dict[str, Any]:
    """One flood at one rate."""
    counters = counted(both)
    with contextlib.ExitStack() as beside:
        others = beside.enter_context(both.bystander(start_new_session=False, preexec_fn=hurry))
        honest.begin()
        with contextlib.closing(Flooding(plan, rate, seconds, both.client, both.server)) as running:
            flood = running.result()
            level = both.wait_for(both.server)["load"]["level"]
            beside.close()
            result = honest.end()
    reasons = dict(counted(both) - counters)
    # Of a flood alone, whoever negotiates has a right to memory; and when it has what places there are for it.
    alone = max(0.5, seconds / 2)
    with contextlib.closing(Flooding(plan, rate, _FILLS_SECONDS + alone, both.client, both.server)) as running:
        time.sleep(_FILLS_SECONDS)
        grown = growth(watched, alone)
        running.result()
    return {
        "kind": plan.name,
        "rate": round(rate) or "saturated",
        "offered": round(flood["made"] / flood["seconds"]),
        **result,
        "level": level,
        "amplification": round(flood["answer_bytes"] / max(1, flood["made_bytes"]), 4),
        "cookie_rate": round(flood["answers"] / flood["seconds"]),
        **grown,
        "bystander_sent": others["sent"],
        "bystander_lost": others["lost"],
        "reasons": reasons,
    }


def warm_up(plan: Plan, seconds: float, both: Deployment, watched: Watched) -> None:
    """What a flood of this kind makes the daemon touch for the first time, it touches before the rows: the places of a
    level, and Python's memory for as many negotiations as there are places."""
    for _ in range(_WARM_UPS):
        before = watched.look().memory
        with contextlib.closing(Flooding(plan, _WARM_UP_RATE, seconds, both.client, both.server)) as running:
            running.result()
        if watched.look().memory - before <= before // 1000:
            return


def control(plan: Plan, rate: float, seconds: float, queues: int, directory: Path) -> dict[str, int]:
    """What the bystander loses to the same flood where all of it is dropped by a program that does nothing else."""
    with pair(queues) as (client, server), contextlib.closing(Deployment(client, server, directory)) as both:
        command = [str(PROGRAM), str(SHED), server.interface, "drop", f"{seconds + 60}"]
        shedding = server.popen(command, stdout=subprocess.PIPE, text=True)
        assert shedding.stdout is not None
        shedding.stdout.readline()
        with (
            both.bystander(start_new_session=False, preexec_fn=hurry) as others,
            contextlib.closing(Flooding(plan, rate, seconds, client, server)) as running,
        ):
            running.result()
        shedding.kill()
        return {"control_sent": others["sent"], "control_lost": others["lost"]}
