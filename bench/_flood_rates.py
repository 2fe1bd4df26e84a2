# SPDX-License-Identifier: Apache-2.0
"""How many packets of a flood a bare program takes in the place of the daemon's."""

from __future__ import annotations

import contextlib
import json
import subprocess
from typing import Any

from _flooding import OBJECT, PROGRAM, Flooding, Plan

from accord.lab.pair import pair


def bare_rate(plan: Plan, what: str, seconds: float, queues: int) -> float:
    """Packets a second of the flood at its full rate that it takes: "drop" (XDP_DROP), "bounce" (XDP_TX)."""
    with pair(queues) as (client, server):
        process = server.popen(
            [str(PROGRAM), str(OBJECT), server.interface, what, f"{seconds}"], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        process.stdout.readline()
        with contextlib.closing(Flooding(plan, 0, seconds + 2, client, server)):
            return float(json.loads(process.communicate(timeout=seconds + 60)[0])["packets_per_second"])


def rates(plan: Plan, seconds: float, queues: int) -> dict[str, Any]:
    """Figures of a host that does nothing else."""
    return {"xdp_drop_rate": round(bare_rate(plan, "drop", seconds, queues))}
