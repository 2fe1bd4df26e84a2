# SPDX-License-Identifier: Apache-2.0
"""The demo's cases between the two machines, at several round trips and in several weathers, judged."""

from __future__ import annotations

import hashlib
import json
import shlex
import statistics
import time
from pathlib import Path
from typing import Any, Final

from accord.cli.capture import Tally, tally
from accord.cli.demo import CASES, Case
from accord.lab.hosts import SERVER_NAME
from buildtools.bare import STACKS
from vagrant.machines import CLIENT_HOST, PAGE, PATIENCE, PYTHON, TREE, WORK, Failed, Link, captured
from vagrant.round_trips import MEASURES

REQUEST: Final = f"GET /index.html HTTP/1.0\r\nHost: {SERVER_NAME}\r\n\r\n"
COUNTED: Final = 2
WEATHER: Final = {
    "jitter": "10ms distribution normal",
    "loss": "loss 3%",
    "duplication": "duplicate 10%",
    "reordering": "reorder 25% 50%",
    "corruption": "corrupt 1%",
    "rate": "rate 2mbit",
}
"""In the words of tc-netem(8), behind the delay, on each of the two ways."""
IN_WEATHER: Final = ("accord-tls-tcp", "accord-quic")


def connections(case: Case, server: str, rtt: float, repeats: int, pause: float = 0.2) -> list[dict[str, Any]]:
    """What each connection took, as the demo's own client tells it. ``pause``: seconds between them, at the least."""
    spec = {
        "kind": "today" if case.policy is None else "accord",
        "host": server,
        "port": case.port,
        "policy": case.policy,
        "server_name": SERVER_NAME,
        "ca_file": f"{WORK}/ca.pem",
        "control": None,
        "request": REQUEST,
        "repeats": repeats,
        "pause": 2 * rtt / 1000 + pause,
        "ladder": False,
    }
    command = f"cd {TREE} && {PYTHON} -m accord.cli.measure {shlex.quote(json.dumps(spec))}"
    timeout = 60 + repeats * (20 * rtt / 1000 + 10 + pause)
    runs: list[dict[str, Any]] = json.loads(CLIENT_HOST.run(command, timeout=timeout))
    return runs


def judge(case: Case, runs: list[dict[str, Any]], seen: Tally, lossy: bool = False) -> list[str]:
    """What is wrong with a case; nothing is a pass. Round trips are judged by their slope (``round_trips``).

    On a lossy link a SYN may have to be sent again, but none comes where none belongs.
    """
    wrong = []
    if any(run["sha256"] != hashlib.sha256(PAGE).hexdigest() for run in runs):
        wrong.append("the page arrived with other bytes")
    stacks = sorted({"/".join(run["stack"]) for run in runs})
    if stacks != ["/".join(STACKS[case.name])]:
        wrong.append(f"stack {', '.join(stacks)} instead of {'/'.join(STACKS[case.name])}")
    parallel = case.policy is not None and case.policy.get("tcp") == "parallel-syn"
    wanted = COUNTED if case.policy is None or not case.daemon_at_server or parallel else 0
    if not seen.packets:
        wrong.append("no packet passed the router")
    if seen.syn_packets != wanted and not (lossy and seen.syn_packets > wanted > 0):
        wrong.append(f"{seen.syn_packets} SYNs in {COUNTED} connections instead of {wanted}")
    return wrong


def row(case: Case, name: str, link: Link, rtt: float, repeats: int, results: Path) -> dict[str, Any]:
    """Run one case and judge it; the columns of its row. Raises ``Failed``."""
    try:
        runs = connections(case, link.server, rtt, repeats)
        capture = results / f"{name.replace('/', '-').replace(' ', '-')}.pcap"
        with captured(capture, link.server):
            counted = connections(case, link.server, rtt, COUNTED)
            time.sleep(2 * rtt / 1000 + 0.2 * PATIENCE)
        seen = tally(capture)
    except (json.JSONDecodeError, ValueError) as failure:
        raise Failed(str(failure)) from failure
    wrong = judge(case, [*runs, *counted], seen, bool(link.more))
    if wrong:
        raise Failed("; ".join(wrong))
    return {
        "stack": runs[-1]["stack"],
        "measured_rtt_ms": round(rtt, 2),
        **_times(runs, rtt),
        "syn_packets": seen.syn_packets / COUNTED,
        "negotiation_packets": seen.negotiation_packets / COUNTED,
        "packets": seen.packets / COUNTED,
        "bytes": seen.bytes / COUNTED,
    }


def _times(runs: list[dict[str, Any]], rtt: float) -> dict[str, float]:
    """Medians in round trips, and the quickest in milliseconds."""
    times: dict[str, float] = {}
    for measure in MEASURES:
        taken = [run[measure] * 1000 for run in runs]
        times[f"{measure}_rtts"] = round(statistics.median(taken) / rtt, 3)
        times[f"{measure}_least_ms"] = round(min(taken), 2)
    return times


BY_NAME: Final = {case.name: case for case in CASES}
