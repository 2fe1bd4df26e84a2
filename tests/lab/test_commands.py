# SPDX-License-Identifier: Apache-2.0
"""accord lab, as it is typed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from accord.cli.lab import _way
from accord.lab import state
from accord.lab.paths import EVERY_PATH
from accord.lab.settings import Direction

pytestmark = pytest.mark.root

# The group alone, with the house's way to report an error: other commands may be under repair.
PROGRAM = [sys.executable, "-c", "from accord.cli.lab import lab\nfrom accord.cli.main import run\nrun(lab)"]


def accord_lab(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PROGRAM, *arguments], capture_output=True, text=True, timeout=60, **options)  # type: ignore[call-overload, no-any-return]


def test_a_lab_by_hand_from_up_to_down(name: str) -> None:
    up = accord_lab("up", "--name", name, "--rtt", "20ms", "--loss", "0%/1%", "--seed", "5", "--rate", "100mbit/1gbit")
    assert up.returncode == 0, up.stderr
    assert "accord-link" in up.stdout
    assert "seed 5" in up.stdout
    assert "10.83.0.1" in up.stdout
    assert "fd83::2" in up.stdout
    assert "measured 20." in up.stdout
    listed = accord_lab("list").stdout
    assert any(line.split()[:2] == [name, "up,"] for line in listed.splitlines())

    inside = accord_lab("exec", "--name", name, "client", "--", "sh", "-c", "ip -br a; echo $ACCORD_CONTROL")
    assert "10.83.0.1/24" in inside.stdout
    assert f"/run/accord/lab-{name}-client.sock" in inside.stdout
    assert accord_lab("exec", "--name", name, "server", "sh", "-c", "exit 7").returncode == 7

    changed = accord_lab("change", "--name", name, "--rtt", "10ms", "--loss", "0")
    assert "measured 10." in changed.stdout
    told = json.loads(accord_lab("status", "--name", name, "--json").stdout)
    assert told["settings"]["up"] == {
        "delay": 0.005,
        "jitter": 0,
        "loss": 0,
        "duplicate": 0,
        "reorder": 0,
        "rate": 10**8,
        "mtu": None,
        "limit": None,
    }
    assert told["settings"]["down"]["rate"] == 10**9
    assert told["seed"] == 5
    assert told["counters"]["up"]["received"] > 0
    assert "received bytes" in accord_lab("status", "--name", name).stdout

    again = accord_lab("up", "--name", name)
    assert again.returncode == 64
    assert "up already" in again.stderr
    assert accord_lab("down", "--name", name).stdout == f"lab {name} is down\n"
    assert accord_lab("down", "--name", name).stdout == f"there was no lab {name}\n"
    assert not state.there_is(name)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_lab_in_the_foreground_ends_with_ctrl_c_and_every_kind_of_kill(name: str, number: signal.Signals) -> None:
    command = [*PROGRAM, "up", "--name", name, "--rtt", "1ms", "--foreground"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        assert any("Ctrl-C" in line for line in lines)
        keeper_group = os.getpgid(process.pid)
        assert keeper_group  # the keeper has a session of its own and outlives a Ctrl-C of this one
        process.send_signal(number)
        assert process.wait(30) == (-number if number == signal.SIGKILL else 0)
    with state.locked(name):  # waits for the keeper if it is at it
        pass
    deadline = 500
    while state.there_is(name) and deadline:
        deadline -= 1
        subprocess.run(["sleep", "0.02"], check=True)
    assert not state.there_is(name)


def test_a_lab_with_a_path_has_a_router_in_between(name: str) -> None:
    up = accord_lab("up", "--name", name, "--rtt", "2ms", "--path", "nat-two")
    assert up.returncode == 0, up.stderr
    assert "two clients behind one masquerading NAT" in up.stdout
    assert "10.83.2.1" in up.stdout
    rules = accord_lab("exec", "--name", name, "router", "iptables-save", "-t", "nat")
    assert "MASQUERADE" in rules.stdout
    way = accord_lab("exec", "--name", name, "client2", "--", "ip", "route", "get", "10.83.1.2")
    assert "via 10.83.2.254" in way.stdout
    assert json.loads(accord_lab("status", "--name", name, "--json").stdout)["path"] == "nat-two"
    assert accord_lab("down", "--name", name).returncode == 0
    assert not state.there_is(name)


def test_all_that_a_link_does_is_shown() -> None:
    shown = _way(Direction(delay=0.002, jitter=0.001, loss=0.5, duplicate=0.1, reorder=0.2, rate=8000, mtu=1400))
    assert shown.startswith("2 ms +- 1 ms, loss 50%, duplicate 10%, reorder 20%, 8 kbit/s, MTU 1400, at most ")


def test_the_kinds_of_path_are_listed() -> None:
    assert [line.split()[0] for line in accord_lab("paths").stdout.splitlines()] == list(EVERY_PATH)


def test_a_lab_in_the_foreground_notices_that_it_was_taken_down_elsewhere(name: str) -> None:
    command = [*PROGRAM, "up", "--name", name, "--rtt", "1ms", "--foreground"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any("Ctrl-C" in line for line in iter(process.stdout.readline, ""))
        assert accord_lab("down", "--name", name).returncode == 0
        assert process.wait(30) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["up", "--rtt", "50"], "as in 50ms"),
        (["up", "--loss", "150%"], "more than always"),
        (["up", "--loss", "1%/2%/3%"], "no probability"),
        (["up", "--rate", "fast"], "as in 100mbit"),
        (["up", "--limit", "many"], "no whole number"),
        (["up", "--rtt", "1ms", "--jitter", "5ms"], "allowed: 0 to the delay"),
        (["up", "--name", "No"], "cannot be called"),
        (["up", "--kind", "wet string"], "netem"),
        (["exec", "client"], "Missing argument"),
        (["exec", "client", "--"], "no command after --"),
        (["exec", "gateway", "true"], "client"),
        (["up", "--path", "garden"], "option-stripped"),
        (["exec", "client", "true"], "accord lab up --name"),
        (["status"], "accord lab up --name"),
        (["change", "--rtt", "1ms"], "accord lab up --name"),
    ],
)
def test_a_mistake_is_named_with_its_mend_and_nothing_is_left(name: str, arguments: list[str], said: str) -> None:
    where = [] if "--name" in arguments else ["--name", name]
    wrong = accord_lab(arguments[0], *where, *arguments[1:])
    assert wrong.returncode in (2, 64)
    assert said in " ".join(wrong.stderr.split())
    assert "Traceback" not in wrong.stderr


def test_a_program_that_is_not_there_is_named(name: str) -> None:
    accord_lab("up", "--name", name, "--rtt", "0")
    missing = accord_lab("exec", "--name", name, "client", "--", "/no/such/program")
    assert missing.returncode == 1
    assert "/no/such/program: No such file or directory" in missing.stderr
    accord_lab("down", "--name", name)


def test_a_left_over_is_listed_with_the_command_that_removes_it(name: str) -> None:
    Path("/run/accord").mkdir(exist_ok=True)
    state.state_path(name).write_text("{}")
    assert f"accord lab down --name {name}" in accord_lab("list").stdout
    assert accord_lab("down", "--name", name).returncode == 0
    assert name not in accord_lab("list").stdout
