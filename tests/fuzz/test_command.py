# SPDX-License-Identifier: Apache-2.0
"""``./build.py fuzz``: who gets how much time, what is reported, and how a finding is shown again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from buildtools import fuzzing
from buildtools.fuzzing import Run, Target

ROOT = Path(__file__).resolve().parents[2]


def target(name: str) -> Target:
    """One that is nowhere."""
    return Target(name, Path("nowhere.py"))


@pytest.mark.parametrize("at_once", [1, 2, 4, 16])
@pytest.mark.parametrize("seconds", [10, 60, 600])
def test_all_targets_end_when_the_time_is_over_and_none_is_left_out(seconds: int, at_once: int) -> None:
    targets = fuzzing.targets()
    given = fuzzing.shared(targets, seconds, at_once)
    assert given.keys() == {each.name for each in targets}
    assert min(given.values()) >= 1
    assert max(given.values()) <= seconds
    # At least a second each, whatever is left.
    assert sum(given.values()) <= seconds * min(at_once, len(targets)) + len(targets)


def test_a_parser_alone_gets_its_larger_share() -> None:
    given = fuzzing.shared([target("frame"), target("control"), target("files")], 70, 1)
    assert given["frame"] == 12 * given["control"] == 12 * given["files"] == 60


def test_one_target_gets_all_of_the_time_and_no_more() -> None:
    assert fuzzing.shared([target("header")], 60, 2) == {"header": 60}


def ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str) -> Run:
    """A run whose fuzzer is a shell's words."""
    for name in ("LOGS", "FINDINGS", "CORPUS"):
        monkeypatch.setattr(fuzzing, name, tmp_path / name.lower())
    monkeypatch.setattr(Target, "needs_root", False)
    monkeypatch.setattr(Target, "fuzzer", lambda self, *options: ["sh", "-c", words])
    monkeypatch.setattr(Target, "invariant", "it holds.")
    run = Run(target("sample"), 1)
    fuzzing.run([run], 1)
    return run


def test_what_a_fuzzer_says_of_itself_is_what_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = ended(tmp_path, monkeypatch, "echo 'stat::number_of_executed_units: 4711'")
    assert run.executions == 4711
    report = fuzzing.report([run], 1.0, None)
    assert (report["executions"], report["findings"]) == (4711, 0)
    assert json.loads(json.dumps(report)) == report


def test_a_finding_is_named_with_the_command_that_shows_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written = ROOT / "build/findings/sample-crash-1"
    words = f"echo AssertionError: it does not; echo 'Test unit written to {written}'; exit 77"
    (finding,) = ended(tmp_path, monkeypatch, words).findings
    assert finding.what == "AssertionError: it does not"
    assert finding.again == "./build.py fuzz sample --replay build/findings/sample-crash-1"
    assert finding.again in capsys.readouterr().out


def test_a_fuzzer_that_ends_badly_without_an_input_is_a_finding_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (finding,) = ended(tmp_path, monkeypatch, "exit 3").findings
    assert finding.what == "exit code 3"


def test_a_seed_goes_to_the_fuzzer_and_without_one_it_chooses_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LOGS", "FINDINGS", "CORPUS"):
        monkeypatch.setattr(fuzzing, name, tmp_path / name.lower())
    monkeypatch.setattr(Target, "fuzzer", lambda self, *options: ["echo", *options])
    header = next(each for each in fuzzing.targets() if each.name == "header")
    for seed in (7, None):
        run = Run(header, 1, seed)
        fuzzing.run([run], 1)
        assert ("-seed=7" in run.log.read_text()) == (seed == 7)


def test_the_command_fuzzes_and_prints_one_object() -> None:
    command = [sys.executable, str(ROOT / "build.py"), "fuzz", "descriptor", "--seconds", "1", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    (found,) = report["targets"]
    assert found["name"] == "descriptor"
    assert report["executions"] == found["executions"] > 1000
    assert report["findings"] == 0


def test_the_list_names_each_target_beside_its_invariant() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "build.py"), "fuzz", "--list"], capture_output=True, text=True, check=True
    )
    listed = dict(line.split(None, 1) for line in done.stdout.splitlines())
    assert listed == {each.name: each.invariant for each in fuzzing.targets()}


@pytest.mark.parametrize(
    ("arguments", "mend"),
    [
        (("--replay", "x"), "goes with one target"),
        (("header", "--packets", "3"), "goes with the target xdp"),
        (("xdp", "--replay", "x"), "named by its seed"),
    ],
)
def test_options_that_do_not_go_together_are_answered_with_what_does(arguments: tuple[str, ...], mend: str) -> None:
    command = [sys.executable, str(ROOT / "build.py"), "fuzz", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert mend in done.stderr
