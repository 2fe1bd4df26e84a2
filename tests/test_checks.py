# SPDX-License-Identifier: Apache-2.0
"""``./build.py test``: what runs beside pytest, and what is shown of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from buildtools import beside, checks
from buildtools.beside import Beside, Job, Shown

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where jobs write to."""
    monkeypatch.setattr(beside, "LOGS", tmp_path / "log")
    return tmp_path / "log"


def shell(name: str, text: str) -> Job:
    """A job of a shell's words."""
    return Job(name, ["sh", "-c", text])


def to_its_end(jobs: Beside) -> Beside:
    """All of them."""
    deadline = time.monotonic() + 60
    while not jobs.over and time.monotonic() < deadline:
        jobs.turn()
        time.sleep(0.01)
    assert jobs.over
    return jobs


def test_a_job_runs_at_the_lowest_priority(logs: Path) -> None:
    to_its_end(Beside([shell("one", "nice")]))
    assert (logs / "one.log").read_text().splitlines()[-1] == "19"


def test_no_more_jobs_run_at_once_than_there_may_and_each_runs_once(tmp_path: Path) -> None:
    count = "mkdir $$ && ls -d [0-9]* | wc -l >> seen && sleep 0.05 && rmdir $$"
    to_its_end(Beside([shell(f"job{number}", f"cd {tmp_path} && {count}") for number in range(6)], at_once=2))
    seen = [int(line) for line in (tmp_path / "seen").read_text().split()]
    assert len(seen) == 6
    assert max(seen) <= 2


def test_what_a_failed_job_said_is_shown_at_the_end_and_those_that_passed_are_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    passed: list[str] = []
    good = Job("good", ["true"], lambda: passed.append("good"))
    bad = Job("bad", ["sh", "-c", "echo what is wrong >&2; exit 3"], lambda: passed.append("bad"))
    jobs = Beside([good, bad])
    to_its_end(jobs)
    assert passed == ["good"]
    assert [job.name for job in jobs.failed] == ["bad"]
    assert "what is wrong" not in capsys.readouterr().out
    jobs.finish()
    assert "what is wrong" in capsys.readouterr().out


def test_jobs_that_are_stopped_get_time_to_clean_up(tmp_path: Path) -> None:
    words = f"trap 'touch {tmp_path}/cleaned; exit 1' INT; touch {tmp_path}/begun; while :; do sleep 0.02; done"
    jobs = Beside([shell("long", words), shell("never", f"touch {tmp_path}/never")], at_once=1)
    jobs.turn()
    while not (tmp_path / "begun").exists():
        time.sleep(0.01)
    jobs.stop()
    assert (tmp_path / "cleaned").exists()
    assert not (tmp_path / "never").exists()
    assert jobs.over


# The program under test writes to its standard output's buffer, so it runs as one.
PROGRAM = """
import sys
from pathlib import Path
from buildtools import beside, checks, console
beside.LOGS = Path(sys.argv[1])
checks.os.geteuid = lambda: 0
checks.pytest = lambda *_: ["sh", "-c", sys.argv[2]]
checks.jobs = lambda quick, seconds: [beside.Job("slow", ["sh", "-c", sys.argv[3]])]
sys.exit(checks.run(False, None, [], 1))
"""


def whole_run(tmp_path: Path, pytests: str, job: str) -> subprocess.CompletedProcess[str]:
    """One run of the tests, of which nothing is real."""
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), pytests, job]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_the_summary_of_pytest_is_the_last_line_though_a_check_ends_later(tmp_path: Path) -> None:
    done = whole_run(tmp_path, "echo ....; echo; echo 4 passed in 1 s", "sleep 1")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "4 passed in 1 s"
    assert any("slow: done" in line for line in lines)


def test_progress_of_a_check_does_not_run_into_the_dots_of_pytest(tmp_path: Path) -> None:
    done = whole_run(tmp_path, "printf ...; sleep 1.5; echo ...; echo 6 passed", "true")
    assert [line for line in done.stdout.splitlines() if "slow" in line and not line.startswith("[accord]")] == []


@pytest.mark.parametrize(("pytests", "job"), [("echo; exit 1", "true"), ("true", "exit 1")])
def test_a_failure_of_either_side_fails_the_whole_and_is_named(tmp_path: Path, pytests: str, job: str) -> None:
    done = whole_run(tmp_path, pytests, job)
    assert done.returncode == 1
    assert ("FAILED: pytest" in done.stdout) == (pytests != "true")
    assert ("FAILED: slow" in done.stdout) == (job != "true")


def test_an_interrupt_ends_both_sides(tmp_path: Path) -> None:
    words = "trap 'touch {0}/{1}; exit 1' INT; touch {0}/{1}-begun; while :; do sleep 0.02; done"
    arguments = [str(tmp_path), words.format(tmp_path, "tests"), words.format(tmp_path, "job")]
    with subprocess.Popen([sys.executable, "-c", PROGRAM, *arguments], cwd=ROOT, start_new_session=True) as running:
        while not all((tmp_path / f"{name}-begun").exists() for name in ("tests", "job")):
            time.sleep(0.02)
        os.killpg(running.pid, signal.SIGINT)
        running.wait(30)
    assert (tmp_path / "tests").exists()
    assert (tmp_path / "job").exists()


def test_every_check_and_all_fuzz_targets_run_beside_the_tests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "BUILD", tmp_path)
    names = [job.name for job in checks.jobs(False, 20)]
    assert names[0] == "fuzz", "the longest first"
    assert set(names) == {
        *("fuzz", "mypy", "c-core", "c-lab", "ruff", "ruff-format", "clang-format", "clang-tidy", "clang-tidy-bpf")
    }
    assert {"fuzz", "clang-tidy", "clang-tidy-bpf"}.isdisjoint(job.name for job in checks.jobs(True, 20))


def test_a_check_that_passed_with_the_same_files_is_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "BUILD", tmp_path)
    (tidy,) = (job for job in checks.jobs(False, 20) if job.name == "clang-tidy")
    tidy.passed()
    assert "clang-tidy" not in [job.name for job in checks.jobs(False, 20)]


def test_a_shown_command_comes_through_whole_and_as_it_was(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    text = "".join(f"line {number}\n" for number in range(20000))
    shown = Shown()
    program = "import sys; sys.stdout.write(''.join(f'line {n}\\n' for n in range(20000)))"
    assert shown.run([sys.executable, "-c", program], None, lambda: None) == 0
    assert shown.last_line == "line 19999"
    assert capfdbinary.readouterr().out.decode() == text
