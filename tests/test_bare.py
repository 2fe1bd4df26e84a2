# SPDX-License-Identifier: Apache-2.0
"""The parts of `./build.py bare` that need no download: what it takes from the host, what it makes vanish."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from buildtools import bare, minimal
from buildtools.console import BuildFailure
from tests import signals

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.root
def test_what_is_mounted_for_a_command_is_gone_with_it_and_was_never_seen_outside(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    program = f"mount -t tmpfs none {place}; touch {place}/inside; ls {place}; echo first process $$"
    command = minimal.own_mounts(["sh", "-ec", program])
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.splitlines()[0] == "inside"
    assert list(place.iterdir()) == []
    assert str(place) not in Path("/proc/mounts").read_text()


@pytest.mark.root
def test_a_process_that_a_command_leaves_behind_ends_with_the_command(tmp_path: Path) -> None:
    note = tmp_path / "note"
    # It would write its line after five seconds, if it lived; its end closes the pipe that we read from.
    left = f"(trap '' HUP INT TERM; sleep 5; echo alive > {note}) & exit 3"
    done = subprocess.run(minimal.own_mounts(["sh", "-c", left]), capture_output=True, timeout=30, check=False)
    assert done.returncode == 3
    assert not note.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_room_is_removed_when_the_run_is_interrupted(tmp_path: Path, number: signal.Signals) -> None:
    program = f"""
import time
from pathlib import Path
from buildtools import minimal
with minimal.room(Path({str(tmp_path)!r}), keep=False) as place:
    (place / "file").touch()
    print("in", flush=True)
    time.sleep(60)
"""
    command = [sys.executable, "-c", program]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True, preexec_fn=signals.heed) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "in\n"
        assert len(list(tmp_path.iterdir())) == 1
        os.kill(process.pid, number)
        assert "KeyboardInterrupt" in process.communicate(timeout=30)[1]
    assert list(tmp_path.iterdir()) == []


def test_a_local_index_of_pip_is_shown_with_the_files_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("index/simple", "index/files", "wheels"):
        (tmp_path / name).mkdir(parents=True)
    home = tmp_path / "home"
    (home / ".config/pip").mkdir(parents=True)
    text = f"[global]\nextra-index-url = file://{tmp_path}/index/simple\n    https://mirror.test{tmp_path}/wheels\n"
    (home / ".config/pip/pip.conf").write_text(text)
    monkeypatch.setenv("HOME", str(home))
    shown = minimal.package_directories()
    assert str(tmp_path / "index") in shown
    assert str(tmp_path / "wheels") not in shown, "part of a web address is no directory of ours"
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    assert str(tmp_path / "wheels") in minimal.package_directories()


def test_of_the_apt_sources_only_those_of_the_suite_are_taken(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    sources = {
        "sources.list": "# deb http://mirror.test/debian bookworm main\n",
        "sources.list.d/debian.sources": "Types: deb\nURIs: http://mirror.test\nSuites: bookworm bookworm-updates\n",
        "sources.list.d/security.list": "deb http://mirror.test/security bookworm-security main\n",
        "sources.list.d/other.list": "deb http://vendor.test/apt vendor-bookworm main\n",
        "sources.list.d/newer.list": "deb http://mirror.test/debian bookworm-backports main\n",
    }
    for name, text in sources.items():
        (tmp_path / name).write_text(text)
    assert [Path(path).name for path in minimal.apt_sources(tmp_path)] == ["debian.sources", "security.list"]


def test_a_demo_that_came_to_another_stack_is_a_broken_promise(tmp_path: Path) -> None:
    cases = [
        {"name": name, "stack": stack, "ready_rtts": 1, "first_response_rtts": 2} for name, stack in bare.STACKS.items()
    ]
    log = tmp_path / "log"

    def write() -> None:
        log.write_text("words\n" + json.dumps({"backend": "af_xdp", "attach_mode": "native", "cases": cases}) + "\n")

    write()
    bare.check_demo(log)
    cases[1]["stack"] = ["http", "tcp"]
    write()
    with pytest.raises(BuildFailure, match="other stacks"):
        bare.check_demo(log)
    del cases[1]
    write()
    with pytest.raises(BuildFailure, match="other stacks"):
        bare.check_demo(log)
