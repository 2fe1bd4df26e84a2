# SPDX-License-Identifier: Apache-2.0
"""Directories of one run: gone with it, or with the next one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from accord.lab import scratch as module
from accord.lab.scratch import scratch, sweep
from tests import signals

HOLD = "import sys\nfrom accord.lab.scratch import scratch\nwith scratch('held') as it: print(it, flush=True); input()"


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A temporary directory of the test's own, in which none is too new to be looked at."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(module, "_NEW_SECONDS", 0.0)


def hold() -> tuple[subprocess.Popen[str], Path]:
    """Another process that has one."""
    process = subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_a_directory_goes_with_its_run_and_is_nobody_else_s_business_before() -> None:
    with scratch("mine") as place:
        (place / "file").touch()
        sweep()
        assert (place / "file").exists()
    assert not place.exists()


def test_what_a_killed_process_left_goes_with_the_next_run_and_not_while_it_lives(tmp_path: Path) -> None:
    process, place = hold()
    sweep()
    assert place.is_dir()
    process.send_signal(signal.SIGKILL)
    process.wait()
    with scratch("next") as mine:
        assert list(tmp_path.iterdir()) == [mine]


def test_what_is_not_of_this_user_or_no_directory_or_new_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_NEW_SECONDS", 3600.0)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "accord-scratch-new-1").mkdir()
    (tmp_path / "accord-scratch-file-1").touch()
    (tmp_path / "accord-scratch-link-1").symlink_to(elsewhere)
    before = sorted(tmp_path.iterdir())
    sweep()
    monkeypatch.setattr(module, "_NEW_SECONDS", 0.0)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    sweep()
    assert sorted(tmp_path.iterdir()) == before


def test_a_command_that_is_told_to_end_removes_its_own(tmp_path: Path) -> None:
    body = (
        "import click, time\nfrom accord.cli.main import run\nfrom accord.lab.scratch import scratch\n"
        "@click.command()\ndef it():\n  with scratch('it'): print('up', flush=True); time.sleep(60)\nrun(it)"
    )
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        process = subprocess.Popen(
            [sys.executable, "-c", body],
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=signals.heed,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        began = time.monotonic()
        process.send_signal(number)
        assert process.wait() == 128 + number, began
        assert not list(tmp_path.iterdir())
