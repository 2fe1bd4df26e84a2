# SPDX-License-Identifier: Apache-2.0
"""Connections of all kinds at once over a path that loses, repeats and reorders packets: none doubled, lost or stuck.

And, with guesses, a flood of SYNs and proposals with transaction IDs that nobody has, from the address that the
connections come from.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _site import ACCORD_PORT, BARE_PORT, LEGACY_BARE_PORT, LEGACY_PORT, Site

from accord.lab.namespace import Namespace
from accord.wire.constants import Limit

LINK = {"loss": 0.02, "duplicate": 0.01, "jitter": 0.002}
"""Beside the delay: of each packet, either way."""
AT_ONCE = 24
CANCELLED = 0.15
PATIENCE = 90.0
"""Seconds after which a connection counts as stuck: more than any retransmission timer runs with this loss."""
LINGER = 2.0
"""Seconds after the last connection in which everything of them has to be gone."""
_LEFT = ("in_flight_left", "negotiations_left", "map_entries_left", "heard_left")
_LISTEN, _TIME_WAIT = 0x0A, 0x06  # net/tcp_states.h


def kinds(site: Site) -> dict[str, dict[str, Any]]:
    """Every kind of connection, by name."""
    found: dict[str, dict[str, Any]] = {}
    for tcp in ("auto", "no-syn", "parallel-syn"):
        for peer, ports in (("accord", (ACCORD_PORT, BARE_PORT)), ("legacy", (LEGACY_PORT, LEGACY_BARE_PORT))):
            for port, secure in zip(ports, ("required", "no"), strict=True):
                policy: dict[str, Any] = {"tcp": tcp, "secure": secure}
                if secure == "no":
                    policy["prefer"] = ["tcp"]
                found[f"{peer} {tcp} {secure}"] = site.order("accord", port, policy=policy)
    return found


def crowd(
    site: Site,
    count: int,
    seed: int,
    step: Callable[[int], None],
    *,
    at_once: int = AT_ONCE,
    rate: float = 0.0,
    cancelled: float = CANCELLED,
    chosen: dict[str, dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Have them made; what became of them. ``step`` gets how many are done.

    What the daemon has learnt of the peers is forgotten time and again: else the races would soon be over that they
    decide about.
    """
    spec: dict[str, Any] = {"count": count, "seed": seed, "at_once": at_once, "rate": rate, "cancelled": cancelled}
    spec |= {"kinds": chosen or kinds(site), "seconds": PATIENCE}
    worker = site.worker(site.lab.client, "_crowd.py", json.dumps(spec))
    while True:
        found = worker.read()
        outcomes = found["outcomes"]
        step(sum(outcomes.get(name, 0) for name in ("ok", "given up", "refused", "lost", "stuck")))
        if found["over"]:
            return found
        site.flush(site.lab.client)


def sockets_left(host: Namespace) -> list[str]:
    """TCP sockets of a host that neither listen nor wait out their time, as /proc/net/tcp shows them."""
    found = []
    for name in ("tcp", "tcp6"):
        text = host.run(["cat", f"/proc/net/{name}"], capture_output=True, text=True).stdout
        for line in text.splitlines()[1:]:
            fields = line.split()
            if int(fields[3], 16) not in (_LISTEN, _TIME_WAIT):
                found.append(f"{name} {_readable(fields[1])} {_readable(fields[2])} state {int(fields[3], 16)}")
    return found


def _readable(address: str) -> str:
    host, port = address.split(":")
    if len(host) == 8:
        host = ".".join(str(byte) for byte in reversed(bytes.fromhex(host)))
    return f"{host}:{int(port, 16)}"


def _maps(pids: set[int]) -> set[int]:
    """IDs of the BPF maps that these processes have open."""
    found: set[int] = set()
    for pid in pids:
        for entry in Path(f"/proc/{pid}/fdinfo").glob("*"):
            with contextlib.suppress(OSError):
                found |= {int(number) for number in re.findall(r"^map_id:\s*(\d+)", entry.read_text(), re.MULTILINE)}
    return found


def syns_left(pids: set[int]) -> int:
    """Slots of the daemons' maps of SYNs that are not free (include/accord/syns.h: state 0)."""
    maps = left = 0
    for number in _maps(pids):
        shown = json.loads(_bpftool("-j", "map", "show", "id", str(number)))
        if shown.get("name") == "syns":
            maps += 1
            states = re.findall(r'"state": (\d+)', _bpftool("map", "dump", "id", str(number)))
            assert len(states) == shown["max_entries"], "bpftool shows the slots by their fields' names"
            left += sum(state != "0" for state in states)
    if not maps:
        raise RuntimeError("the daemons have no map of SYNs")
    return left


def heard_left(pids: set[int]) -> int:
    """Slots of the daemons' maps ``heard`` that may still have an effect (include/accord/maps.h: the state word is
    when, in nanoseconds of CLOCK_BOOTTIME, and flags). What is older is as good as free: the next ID overwrites it."""
    maps = left = 0
    for number in _maps(pids):
        shown = json.loads(_bpftool("-j", "map", "show", "id", str(number)))
        if shown.get("name") == "heard":
            maps += 1
            states = [int(state) for state in re.findall(r'"state": (\d+)', _bpftool("map", "dump", "id", str(number)))]
            assert len(states) == shown["max_entries"], "bpftool shows the slots by their fields' names"
            now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            left += sum(now - state < Limit.MARK_MS * 1_000_000 for state in states if state)
    if not maps:
        raise RuntimeError("the daemons have no map of what was heard")
    return left


def _bpftool(*arguments: str) -> str:
    return subprocess.run(["bpftool", *arguments], capture_output=True, text=True, check=True).stdout


def _pids(site: Site) -> set[int]:
    status = [site.daemon_says(host, op="status") for host in (site.lab.client, site.lab.server)]
    return {each["pid"] for each in status} | {each["privileges"].get("broker_pid", 0) for each in status}


def in_flight(site: Site) -> int:
    """Negotiations of both hosts that somebody still has something to do with."""
    hosts = (site.lab.client, site.lab.server)
    return sum(site.daemon_says(host, op="status")["in_flight"] for host in hosts)


def left_after_a_lifetime(count: Callable[[], int]) -> int:
    """What there is still when all that is over has been given up (PROTOCOL.md, MUST-27), or remembered for as long as
    it has to be (MUST-28): who has called off a negotiation may not get to say so on a path that loses packets."""
    deadline = time.monotonic() + Limit.MAX_LIFETIME_MS / 1000 + LINGER
    while (left := count()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def negotiations(site: Site) -> int:
    """In both engines, those that are remembered included."""
    hosts = (site.lab.client, site.lab.server)
    return sum(site.daemon_says(host, op="status")["negotiations"] for host in hosts)


def mixed(site: Site, count: int, seed: int, step: Callable[[int], None]) -> dict[str, Any]:
    """The campaign; the daemons are up."""
    begin = time.monotonic()
    site.lab.change(**LINK)
    found = crowd(site, count, seed, step)
    seconds = time.monotonic() - begin
    # What is under way may end in peace: what is looked for is what nobody would ever end.
    site.lab.change(loss=0.0, duplicate=0.0, jitter=0.0)
    time.sleep(LINGER)
    pids = _pids(site)
    hosts = (site.lab.client, site.lab.server)
    left = {host.name.rsplit("-", 1)[1]: sockets_left(host) for host in hosts}
    entries, heard = syns_left(pids), heard_left(pids)
    ledger = site.ledger.ask({})
    outcomes = found["outcomes"]
    lost = outcomes.get("lost", 0) + max(0, found["answered"] - ledger["different"])
    result = {
        "connections": count,
        "seed": seed,
        "seconds": round(seconds, 1),
        "ok": outcomes.get("ok", 0),
        "given_up": outcomes.get("given up", 0),
        "refused": outcomes.get("refused", 0),
        "requests": ledger["requests"],
        "answered": found["answered"],
        "doubled": len(ledger["doubled"]),
        "lost": lost,
        "stuck": outcomes.get("stuck", 0),
        "sockets_left": left,
        "in_flight_left": left_after_a_lifetime(lambda: in_flight(site)),
        "negotiations_left": left_after_a_lifetime(lambda: negotiations(site)),
        "map_entries_left": entries,
        "heard_left": heard,
        "slowest_s": round(found["slowest_s"], 3),
        "outcomes": dict(sorted(outcomes.items())),
        "failures": found["failures"],
    }
    bad = [name for name in ("doubled", "lost", "stuck", *_LEFT) if result[name]]
    bad += [f"sockets_left of the {name}" for name, sockets in left.items() if sockets]
    if result["refused"]:
        bad.append("refused")
    return {**result, "met": not bad, "why": ", ".join(bad) or "nothing doubled, lost, stuck or left"}


def _syns_again(host: Namespace) -> int:
    """SYNs that a host has sent once more, since it is up (TCPSynRetrans in /proc/net/netstat)."""
    text = host.run(["cat", "/proc/net/netstat"], capture_output=True, text=True, check=True).stdout
    names, values = (line.split() for line in text.splitlines() if line.startswith("TcpExt:"))
    return int(dict(zip(names, values, strict=True))["TCPSynRetrans"])


def guessed(
    site: Site, count: int, rate: float, connections: int, seed: int, step: Callable[[int], None]
) -> dict[str, Any]:
    """A flood of guesses beside legitimate connections; the daemons are up."""
    host = site.lab.client
    before = site.daemon_says(site.lab.server, op="status")["counters"]["steering"]
    arguments = [host.address4, site.lab.server.address4, str(ACCORD_PORT), str(count), str(rate), str(seed)]
    again = _syns_again(host)
    flood = site.worker(host, "_guesses.py", *arguments)
    flood.read()
    chosen = {name: order for name, order in kinds(site).items() if name.startswith("accord") and "required" in name}
    pace = connections * rate / count
    found = crowd(site, connections, seed, step, at_once=4, rate=pace, cancelled=0.0, chosen=chosen)
    while not (sent := flood.read())["over"]:
        pass
    after = site.daemon_says(site.lab.server, op="status")["counters"]["steering"]
    ledger = site.ledger.ask({})
    outcomes = found["outcomes"]
    negotiated = sum(number for name, number in outcomes.items() if name.startswith("negotiated"))
    result = {
        "guesses": sent["sent"],
        "guesses_a_second": sent["rate"],
        "seed": seed,
        "connections": connections,
        "ok": outcomes.get("ok", 0),
        "negotiated": negotiated,
        "doubled": len(ledger["doubled"]),
        # The link loses nothing: a SYN that had to be sent again was suppressed, and its negotiation came to nothing.
        "syns_again": _syns_again(host) - again,
        "slowest_s": round(found["slowest_s"], 3),
        "steering": {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)},
        "outcomes": dict(sorted(outcomes.items())),
        "failures": found["failures"],
    }
    met = result["ok"] == connections == negotiated and not result["doubled"] + result["syns_again"]
    why = "no connection noticed" if met else "connections failed, were not negotiated, or waited for a SYN once more"
    return {**result, "met": met, "why": why}
