#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Floods of first packets from random addresses, and honest initiators beside them. docs/BENCHMARKS.md explains it.

Two namespaces on a bare wire. The server has a daemon with native XDP; on the client's side one processor makes live
frames (BPF_PROG_TEST_RUN) at each rate, and a small program ends, and counts, what comes back to the flood's addresses.
Honest initiators negotiate on the same wire, without a plain connection to fall back to. Before, the same flood meets a
bare ``XDP_DROP``: ``ratio`` is what is answered to what could be dropped.

``./build.py bench flood [--seconds 10] [--family 6] [--kind proposals|replayed|validated] [--json]``
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import _native
from _progress import say
from failopen import percentile
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from accord.controller.load.ring import slot_of
from accord.lab.deployment import BARE_PORT, Deployment
from accord.lab.pair import PairHost, pair
from accord.scapy_layer import Accord, AccordChunk, AccordNode, cookie, first_tsn

FLOOD = _native.BUILD / "flood"
OBJECT = _native.BUILD / "flood.bpf.o"
HONEST = Path(__file__).with_name("_honest.py")
ETHERNET, UDP_BYTES = 14, 8
KEY_ID, KEY = 7, bytes(range(1, 17))
PORT = 40000
HONEST_RATE = 10.0
PATIENCE_SECONDS = 20.0
GENERATOR_CPU = 1
TARGETS = {"honest_ok": 0.999, "honest_ok_saturated": 0.99, "amplification": 1.0, "ratio": 0.75}


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is to be."""

    family: int
    kind: str
    bytes: int
    """Of the packets, from their header on."""
    seconds: float
    rates: tuple[float, ...]
    """Packets a second; 0: as many as go."""
    queues: int = 2


def frame(plan: Plan, client: PairHost, server: PairHost) -> bytes:
    """What all packets of the flood have in common; replayed: the packet."""
    flags = "I+E" if plan.kind == "proposals" else "I+E+C"
    replayed = plan.kind == "replayed"
    transaction = b"replayed one" if replayed else bytes(12)
    front = 32 + (16 if "C" in flags else 0)
    node = bytes(AccordNode(handshake=bytes(max(1, plan.bytes - front - 8 - 4))))
    chunks = [AccordChunk(node=0, protocol=17, data=node)]
    tsn = first_tsn(transaction, initiator=True) if replayed else 0
    packet = Accord(flags=flags, transaction=transaction, tsn=tsn, chunks=chunks, checksum=None if replayed else 0)
    ip: Packet
    if plan.family == 6:
        ip = IPv6(src=client.address6 if replayed else "2001:db8::", dst=server.address6)
    elif replayed:
        ip = IP(src=client.address4, dst=server.address4)
    else:
        ip = IP(src="0.0.0.0", dst=server.address4, chksum=0)
    made = (
        Ether(dst=server.mac, src=client.mac)
        / ip
        / UDP(sport=PORT, dport=BARE_PORT, chksum=0 if plan.family == 4 else 1)
    )
    if replayed:
        whole = Ether(bytes(made / packet))
        packet.cookie = cookie(whole, KEY_ID, KEY, slot_of(time.time()))
    return bytes(made / packet)


class Flooding:
    """A flood, which begins at once and lasts so long."""

    def __init__(self, plan: Plan, rate: float, seconds: float, client: PairHost, server: PairHost) -> None:
        self._seconds = seconds
        self._file = tempfile.NamedTemporaryFile()  # noqa: SIM115
        self._file.write(frame(plan, client, server))
        self._file.flush()
        header_at = ETHERNET + (20 if plan.family == 4 else 40) + UDP_BYTES
        command = [str(FLOOD), str(OBJECT), client.interface, plan.kind, self._file.name, str(header_at)]
        command += [str(plan.family), f"{rate:.0f}", f"{seconds}", str(GENERATOR_CPU)]
        if plan.kind == "validated":
            command += [str(KEY_ID), KEY.hex(), str(slot_of(time.time()))]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = client.popen(command, preexec_fn=hurry, **pipes)
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != "attached":
            raise click.ClickException("the flood did not begin; what it said is above")

    def result(self) -> dict[str, Any]:
        """When its time is over, what it came to. Its program stays on the wire."""
        assert self._process.stdout is not None
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found

    def close(self) -> None:
        """End it."""
        self._process.communicate(timeout=self._seconds + 60)
        self._file.close()


def bare_rate(plan: Plan, what: str) -> float:
    """Packets a second of the flood at its full rate that a bare program takes: XDP_DROP, or XDP_TX as they came."""
    with pair(plan.queues) as (client, server):
        command = [str(FLOOD), str(OBJECT), server.interface, what, f"{plan.seconds / 2}"]
        process = server.popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()
        with contextlib.closing(Flooding(plan, 0, plan.seconds / 2 + 2, client, server)):
            return float(json.loads(process.communicate(timeout=plan.seconds + 60)[0])["packets_per_second"])


def hurry() -> None:
    """Or a machine that others use, too, is measured with them. Niceness counts within a session's group: sched(7)."""
    os.setsid()
    os.nice(-15)
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text("-15")


def first() -> None:
    """And away from the flood's processor, where the kernel's work comes first."""
    hurry()
    os.sched_setaffinity(0, {0})


class Honest:
    """The process of ``_honest.py``."""

    def __init__(self, both: Deployment, family: int) -> None:
        host = both.server.address4 if family == 4 else both.server.address6
        spec = {"host": host, "port": BARE_PORT, "rate": HONEST_RATE, "at_once": 512, "seconds": PATIENCE_SECONDS}
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = both.client.popen([sys.executable, str(HONEST), json.dumps(spec)], preexec_fn=first, **pipes)
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != "ready":
            raise click.ClickException("no honest initiator came through before the flood; what it said is above")

    def end(self) -> dict[str, Any]:
        """Begin no more, and wait for the last."""
        answer, _ = self._process.communicate(timeout=3 * PATIENCE_SECONDS)
        outcomes, ready = Counter(json.loads(answer)["outcomes"]), json.loads(answer)["ready_ms"]
        return {
            "honest": outcomes.total(),
            "honest_ok": round(outcomes["ok"] / max(1, outcomes.total()), 4),
            "p50_ms": round(percentile(ready, 0.5), 1) if ready else None,
            "p99_ms": round(percentile(ready, 0.99), 1) if ready else None,
            **(
                {"honest_failures": dict(outcomes - Counter(ok=outcomes["ok"]))}
                if outcomes["ok"] < outcomes.total()
                else {}
            ),
        }


def held(both: Deployment) -> dict[str, int]:
    """What the server's daemon has of memory and of what may leak."""
    status = both.wait_for(both.server)
    pids = [status["pid"], status["privileges"].get("broker_pid", status["pid"])]
    resident = 0
    for pid in set(pids):
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        resident += 1024 * sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Private_Dirty"))
    return {"bytes": resident, "fds": sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in set(pids))}


def counted(both: Deployment) -> Counter[str]:
    """Reasons, of both floors together."""
    counters = both.wait_for(both.server)["counters"]
    return Counter(counters["steering"]) + Counter(counters["engine"])


def row(plan: Plan, rate: float, both: Deployment, dropped: float) -> dict[str, Any]:
    """One rate."""
    counters = counted(both)
    honest = Honest(both, plan.family)
    with contextlib.closing(Flooding(plan, rate, plan.seconds, both.client, both.server)) as running:
        with both.bystander() as others:
            flood = running.result()
            level = both.wait_for(both.server)["load"]["level"]
        result = honest.end()
    # Of a flood alone: whoever negotiates has a right to memory.
    before = held(both)
    with contextlib.closing(Flooding(plan, rate, max(0.5, plan.seconds / 4), both.client, both.server)) as running:
        running.result()
    after = held(both)
    came = flood["answers"] / flood["seconds"]
    return {
        "rate": round(rate) or "saturated",
        "offered": round(flood["made"] / flood["seconds"]),
        **result,
        "level": level,
        "amplification": round(flood["answer_bytes"] / max(1, flood["made_bytes"]), 4),
        "cookie_rate": round(came),
        "xdp_drop_rate": round(dropped),
        "ratio": round(came / dropped, 3),
        "state_growth_bytes": max(0, after["bytes"] - before["bytes"]),
        "state_growth_fds": after["fds"] - before["fds"],
        "bystander_sent": others["sent"],
        "bystander_lost": others["lost"],
        "reasons": dict(counted(both) - counters),
    }


@contextlib.contextmanager
def deployed(plan: Plan, directory: Path) -> Iterator[Deployment]:
    """The server's daemon, and the wire."""
    keys = directory / "cookies"
    keys.write_text(f"{KEY_ID} {KEY.hex()}\n")
    with pair(plan.queues) as (client, server), contextlib.closing(Deployment(client, server, directory)) as both:
        # Or the client's end takes nothing that XDP sends back, when the flood's own program is not there.
        client.run("ethtool", "-K", client.interface, "gro", "on")
        both.daemon(server, preexec_fn=first, more=f'attach = "native"\n[limits]\ncookie_keys = "{keys}"\n')
        yield both


def measure(plan: Plan) -> dict[str, Any]:
    """All rates."""
    say("a bare XDP_DROP under the flood")
    dropped = bare_rate(plan, "drop")
    say(f"a bare XDP_DROP takes {dropped / 1e6:.2f} Mpps", last=True)
    rows = []
    with tempfile.TemporaryDirectory() as directory, deployed(plan, Path(directory)) as both:
        say("a short flood to warm up")
        row(replace(plan, seconds=min(2.0, plan.seconds)), 200_000, both, dropped)
        for rate in plan.rates:
            say(f"{rate / 1e6:.1f} Mpps" if rate else "as many as go")
            rows.append(row(plan, rate, both, dropped))
            done = rows[-1]
            say(f"{done['rate']}: honest_ok {done['honest_ok']}, {done['cookie_rate']} cookies/s", last=True)
    return {"family": plan.family, "kind": plan.kind, "packet_bytes": plan.bytes, "rows": rows}


def missed(result: dict[str, Any]) -> list[str]:
    """Which targets are not met."""
    found = []
    for each in result["rows"]:
        saturated = each["rate"] == "saturated"
        wanted = TARGETS["honest_ok_saturated" if saturated else "honest_ok"]
        if each["honest_ok"] < wanted and (saturated or each["rate"] <= 500_000):
            found.append(f"{each['rate']}: honest_ok {each['honest_ok']}, wanted {wanted}")
        if each["amplification"] > TARGETS["amplification"]:
            found.append(f"{each['rate']}: amplification {each['amplification']}")
        if saturated and result["kind"] == "proposals" and each["ratio"] < TARGETS["ratio"]:
            found.append(f"ratio {each['ratio']}, wanted {TARGETS['ratio']}")
    return found


def _rates(_: click.Context, __: click.Parameter, text: str) -> tuple[float, ...]:
    try:
        rates = tuple(float(word) * 1e6 for word in text.split(",") if word)
    except ValueError:
        raise click.BadParameter("numbers in Mpps, separated by commas; 0: as many as go") from None
    if not rates or any(rate < 0 or rate > 1e8 for rate in rates):
        raise click.BadParameter("numbers in Mpps, separated by commas; 0: as many as go")
    return rates


@click.command(help=__doc__)
@click.option("--seconds", type=click.FloatRange(0.2, 3600), default=10.0, show_default=True, help="Of each flood.")
@click.option("--rates", default="0.2,0.5,1.0,0", show_default=True, callback=_rates, help="Mpps; 0: as many as go.")
@click.option("--family", type=click.Choice(["4", "6"]), default="4", show_default=True, help="IPv4 or IPv6.")
@click.option(
    "--kind",
    type=click.Choice(["proposals", "replayed", "validated"]),
    default="proposals",
    show_default=True,
    help="Without a cookie; one with a good cookie, again and again; new ones with good cookies.",
)
@click.option("--bytes", "size", type=click.IntRange(64, 1200), default=600, show_default=True, help="Of each packet.")
@click.option("--queues", type=click.IntRange(1, 8), default=2, show_default=True, help="Of the wire, each way.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(
    seconds: float, rates: tuple[float, ...], family: str, kind: str, size: int, queues: int, as_json: bool
) -> None:
    """The command line."""
    _native.build()
    result = measure(Plan(int(family), kind, size, seconds, rates, queues))
    if as_json:
        click.echo(json.dumps({**result, "missed": missed(result)}, indent=2))
        return
    names = ("rate", "offered", "honest_ok", "p50_ms", "p99_ms", "level", "amplification", "cookie_rate", "ratio",
             "state_growth_bytes", "bystander_lost")  # fmt: skip
    click.echo("  ".join(f"{name:>14}" for name in names))
    for each in result["rows"]:
        click.echo("  ".join(f"{each[name]!s:>14}" for name in names))
    for line in missed(result):
        click.echo(f"missed: {line}")


if __name__ == "__main__":
    main()
