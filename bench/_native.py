# SPDX-License-Identifier: Apache-2.0
"""The C programs of dataplane_c/bench: built by their Makefile, run, their lines read."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
from pyroute2 import IPRoute

from accord.datapath.port import OBJECT_PATH
from tests.datapath.netns import Host

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build/bench"

# Passes over the load in one round, which is some milliseconds, and rounds in one repeat; under callgrind a pass is as
# good as a hundred.
_ENGINE_PASSES = 10
_ENGINE_ROUNDS = 40
_CALLGRIND_PASSES = 2
# Of BPF_PROG_TEST_RUN: 3 ms for a frame.
_XDP_RUNS = 100_000
_COLLECTED = re.compile(r"Collected\s*:\s*(\d+)")

# Of receipt: as many as receive.c has kinds.
_WAYS = 8
_ADDRESS = "02:00:00:00:00:07"

Round = dict[str, float]
ReceiveRound = dict[str, Any]
"""What receive.c prints of a round."""


def build() -> None:
    """Compile them. Raises ``click.ClickException`` with the compiler's words."""
    _run(["make", "-s", "-C", str(ROOT / "dataplane_c/bench"), f"BUILD={BUILD}"])


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """This thread, and what it starts, has the first processor for itself and the others are kept idle.

    For less than a second: so long dataplane_c/bench/hush.c holds.
    """
    policy, parameter, processors = os.sched_getscheduler(0), os.sched_getparam(0), os.sched_getaffinity(0)
    with subprocess.Popen([str(BUILD / "hush")], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as hush:
        assert hush.stdin is not None
        assert hush.stdout is not None
        hush.stdout.readline()
        os.sched_setaffinity(0, {0})
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        try:
            yield
        finally:
            hush.stdin.close()
            os.sched_setscheduler(0, policy, parameter)
            os.sched_setaffinity(0, processors)


def engine(repeats: int) -> list[Round]:
    """Nanoseconds for each packet (``proposal``: each message, ``reference``: the loop) in memory.

    Many short rounds a repeat, each of which saw the machine in one state, or nearly.
    """
    return [taken for _ in range(repeats) for taken in _engine_once()]


def _engine_once() -> list[Round]:
    with quiet():
        output = _run([str(BUILD / "engine"), str(1 + _ENGINE_ROUNDS), str(_ENGINE_PASSES)])
    return _rounds(output)[2:]  # the first line says how many packets there are, the first round warms up


def instructions() -> Round:
    """Instructions for each packet, or message, by callgrind; empty without valgrind."""
    if shutil.which("valgrind") is None:
        click.echo("no instruction counts: valgrind is missing (apt-get install valgrind)", err=True)
        return {}
    found: Round = {}
    for name in ("parse", "parse_small", "input", "deliver", "proposal"):
        with tempfile.NamedTemporaryFile() as out:
            options = [f"--toggle-collect=run_{name}", f"--callgrind-out-file={out.name}"]
            command = ["valgrind", "--tool=callgrind", *options, str(BUILD / "engine"), "1", str(_CALLGRIND_PASSES)]
            done = subprocess.run(command, capture_output=True, text=True)
        collected = _COLLECTED.search(done.stderr)
        if done.returncode or collected is None:
            raise click.ClickException(f"callgrind failed:\n{done.stderr[-2000:]}")
        counts = json.loads(done.stdout.splitlines()[0])
        found[name] = int(collected[1]) / (counts[name] * _CALLGRIND_PASSES)
    return found


def xdp(host: Host, repeats: int) -> list[Round]:
    """Nanoseconds of the XDP program for a frame of each kind, and of an empty one."""
    objects = [str(OBJECT_PATH), str(BUILD / "empty.bpf.o")]

    def once() -> list[Round]:
        with quiet():
            return _rounds(_run([str(BUILD / "xdp"), *objects, "1", str(_XDP_RUNS)]))

    return [taken for _ in range(repeats) for taken in host.run(once)]


def receive(near: Host, far: Host, mode: str, load: str, seconds: float, blocks: int) -> ReceiveRound:
    """By way of receipt, as dataplane_c/bench/receive.c says: one round of so many blocks. ``load``: long, proposal."""
    objects = [str(OBJECT_PATH), str(BUILD / "redirect.bpf.o"), str(BUILD / "generate.bpf.o")]
    ends = _wires(near, far)
    command = [
        str(BUILD / "receive"),
        *objects,
        f"/proc/self/fd/{near.fd}",
        mode,
        load,
        str(seconds),
        str(blocks),
        "1",
        *ends,
    ]
    result: ReceiveRound = json.loads(far.run(lambda: _run(command, near.fd)))
    return result


def _wires(near: Host, far: Host) -> list[str]:
    """One for each way of receipt, beside the one that is there; they are made once.

    ``INDEX:INTERFACE``: near's index, far's name. All of far's have one Ethernet address, so that the generator's
    frames go to any of them.
    """

    def make() -> None:
        with IPRoute() as route:
            for number in range(_WAYS):
                end = {"ifname": f"far{number + 1}", "net_ns_fd": far.fd}
                route.link("add", ifname=f"near{number + 1}", kind="veth", peer=end)
                route.link("set", ifname=f"near{number + 1}", state="up")

    def prepare(name: str) -> None:
        far.command("ip", "link", "set", name, "address", _ADDRESS, "up")
        far.command("ethtool", "-K", name, "gro", "on")  # or the wire takes no frames from XDP
        far.set(f"ipv4/conf/{name}/rp_filter", "0")

    names = [f"far{number + 1}" for number in range(_WAYS)]
    if not near.run(lambda: any(name == "near1" for _, name in socket.if_nameindex())):
        near.run(make)
        far.set("ipv4/conf/all/rp_filter", "0")  # the addresses are the first wire's
        for name in names:
            prepare(name)
    indices = near.run(lambda: {name: index for index, name in socket.if_nameindex()})
    return [f"{indices[f'near{number + 1}']}:{name}" for number, name in enumerate(names)]


def _rounds(output: str) -> list[Round]:
    return [json.loads(line) for line in output.splitlines()]


def _run(command: Sequence[str], *fds: int) -> str:
    done = subprocess.run(command, capture_output=True, text=True, pass_fds=fds)
    if done.returncode:
        raise click.ClickException(f"{command[0]}: {done.stderr[-2000:] or f'exit code {done.returncode}'}")
    return done.stdout
