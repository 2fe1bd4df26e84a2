# SPDX-License-Identifier: Apache-2.0
"""A lab goes when whoever made it goes, however that is, and takes everything with it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from accord.lab import Lab, LinkSettings, namespace, netem, state
from accord.lab.topology import handle_name
from accord.wire.errors import HostError, UserError

pytestmark = pytest.mark.root

# A program that makes a lab, starts a process in it that will not hear SIGTERM, and waits.
MAKER = """
import sys, time
from accord.lab import Lab
lab = Lab(sys.argv[1], rtt=0, kind="forwarder")
inside = lab.client.popen(["sh", "-c", "trap '' TERM; exec sleep 1000"])
print(inside.pid, flush=True)
time.sleep(1000)
"""


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> bool:
    """Whether it becomes true; the time is a bound against hanging, not a promise."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def gone(name: str) -> bool:
    return not state.there_is(name) and not state.control_path(name).exists()


@pytest.fixture
def maker(name: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process that has made the lab, and the process ID of what it started inside."""
    process = subprocess.Popen([sys.executable, "-c", MAKER, name], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    inside = int(process.stdout.readline())
    yield process, inside
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_lab_whose_maker_is_killed_is_taken_down_with_all_that_runs_in_it(
    maker: tuple[subprocess.Popen[str], int], name: str, number: signal.Signals
) -> None:
    process, inside = maker
    found = state.read(name)
    assert found is not None
    assert found.link is not None
    assert found.alive
    process.send_signal(number)
    process.wait(30)
    assert wait_until(lambda: gone(name))
    assert wait_until(lambda: state.started(inside) is None)
    assert wait_until(lambda: found.link is not None and not found.link.alive)


def test_processes_end_with_the_lab_and_what_ignores_sigterm_is_killed(name: str) -> None:
    with Lab(name, rtt=0) as lab:
        polite = lab.client.popen(["sleep", "1000"])
        stubborn = lab.server.popen(
            ["sh", "-c", "trap '' TERM; echo; while :; do sleep 0.1; done"], stdout=subprocess.PIPE
        )
        stubborn.stdout.readline()
        daemon = lab.link.popen(["setsid", "sh", "-c", "sleep 1000 & echo $!"], stdout=subprocess.PIPE)
        grandchild = int(daemon.stdout.readline())
    assert polite.wait(5) == -signal.SIGTERM
    assert stubborn.wait(5) == -signal.SIGKILL
    assert wait_until(lambda: state.started(grandchild) is None)
    stubborn.stdout.close()
    daemon.stdout.close()
    daemon.wait()
    assert gone(name)


def test_closing_twice_is_no_error_and_does_not_touch_a_later_lab_of_that_name(name: str) -> None:
    first = Lab(name, rtt=0)
    first.close()
    first.close()
    with Lab(name, rtt=0) as second:
        first.close()
        assert second.up
        second.measure_rtt(count=1)
    assert gone(name)


def test_a_name_in_use_is_refused_and_its_lab_undisturbed(name: str) -> None:
    with Lab(name, rtt=0) as lab:
        with pytest.raises(UserError, match=r"up already.*choose another name"):
            Lab(name, rtt=0)
        lab.measure_rtt(count=1)


def test_what_a_dead_lab_left_is_removed_by_the_next_of_that_name(name: str, handles: list[str]) -> None:
    # As if the machine had lost power: no keeper, half of the namespaces, a state file of a process that is gone.
    dead = subprocess.Popen(["true"])
    owner = state.Process.of(dead.pid)
    dead.wait()
    state.State(name, "forwarder", LinkSettings(), 0, owner).write()
    for handle in handles[:2]:
        namespace.create(handle)
    with pytest.raises(UserError, match="what is left of one"):
        Lab.attach(name)
    with Lab(name, rtt=0) as lab:
        lab.measure_rtt(count=1)
    assert gone(name)


@pytest.mark.parametrize("damage", ["", "{", "[]", "null", '{"name": 1}'])
def test_a_damaged_state_file_counts_as_left_over(name: str, damage: str) -> None:
    state.DIRECTORY.mkdir(exist_ok=True)
    state.state_path(name).write_text(damage)
    assert name in state.names()
    with Lab(name, rtt=0) as lab:
        assert lab.up
    assert gone(name)


def test_a_lab_whose_link_cannot_start_leaves_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "accord-link"
    broken.write_text("#!/bin/sh\necho out of order >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("ACCORD_LINK", str(broken))
    with pytest.raises(HostError, match="out of order"):
        Lab(name, rtt=0, kind="forwarder")
    assert gone(name)
    monkeypatch.setenv("ACCORD_LINK", str(tmp_path / "missing"))
    with pytest.raises(HostError, match="make -C dataplane_c/lab"):
        Lab(name, rtt=0, kind="forwarder")
    assert gone(name)


def test_a_link_that_is_killed_is_told_apart_from_one_that_runs(name: str) -> None:
    with Lab(name, rtt=0, kind="forwarder") as lab:
        found = state.read(name)
        assert found is not None
        assert found.link is not None
        os.kill(found.link.pid, signal.SIGKILL)
        assert wait_until(lambda: not lab.up)
        with pytest.raises(HostError, match="does not answer"):
            lab.counters()


@pytest.mark.parametrize("bad", ["", "A", "a/b", "..", "a b", "-a", "a-", "x" * 33, "a\n"])
def test_a_lab_cannot_have_a_name_that_is_no_file_name(bad: str) -> None:
    with pytest.raises(UserError, match="cannot be called"):
        Lab(bad, rtt=0)


def test_two_labs_live_side_by_side(name: str) -> None:
    other = f"{name}-b"
    with Lab(name, rtt=0.01) as first, Lab(other, rtt=0.03) as second:
        assert 0.01 <= first.measure_rtt(count=3).median < 0.02
        assert 0.03 <= second.measure_rtt(count=3).median < 0.04
        assert {name, other} <= set(state.names())
    assert gone(other)
    assert not namespace.exists(handle_name(other, "client"))


def test_without_netem_asking_for_it_says_so_and_auto_takes_our_own(name: str) -> None:
    with Lab(name, rtt=0) as lab:
        kind = lab.kind
    if kind == "netem":
        pytest.skip("this kernel has netem")
    with pytest.raises(HostError, match="no netem"):
        Lab(name, rtt=0, kind="netem")
    assert gone(name)


def test_the_bridge_under_netem_connects_the_hosts_from_the_first_moment(name: str) -> None:
    """The half of a netem lab that every kernel has: no port of the bridge may wait to learn or to listen."""
    with Lab(name, rtt=0, kind="forwarder") as lab:
        found = state.read(name)
        assert found is not None
        assert found.link is not None
        os.kill(found.link.pid, signal.SIGKILL)
        assert wait_until(lambda: not lab.up)
        lab.link.call(netem._bridge_of_this_namespace)
        assert lab.measure_rtt(count=3).min < 0.01
        counters = netem.counters(lab.link)
        assert counters.up.received >= 4
        assert counters.down.received >= 4
    assert gone(name)


def test_a_lab_can_be_made_inside_a_running_event_loop(name: str) -> None:
    async def use() -> float:
        with Lab(name, rtt=0.01) as lab:
            return lab.measure_rtt(count=1).min

    assert asyncio.run(use()) >= 0.01
    assert gone(name)


def test_with_netem_it_makes_the_link(name: str) -> None:
    try:
        lab = Lab(name, rtt=0.05, loss=0.0, rate=10**9, kind="netem")
    except HostError as error:
        pytest.skip(str(error))
    with lab:
        assert 0.049 <= lab.measure_rtt(count=10).median <= 0.06
        lab.change(rtt=0.02)
        assert 0.019 <= lab.measure_rtt(count=10).median <= 0.03
        assert lab.counters().up.received > 0
