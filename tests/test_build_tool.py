# SPDX-License-Identifier: Apache-2.0
"""build.py: what it says, what it calls, and what it does not call a second time."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import pytest

from buildtools import clean, console, environment, fuzzing, host, stamps, vm_hall

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = ("setup", "build", "demo", "test", "bench", "fuzz", "bare", "model", "sim", "vm", "clean")


def run(*arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """build.py as a user starts it, through its first line."""
    variables = {name: value for name, value in os.environ.items() if name != "DEBIAN_FRONTEND"}
    if path is not None:
        variables["PATH"] = str(path)
    command = [str(ROOT / "build.py"), *arguments]
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=False)


def executable(path: Path, text: str) -> None:
    """A small shell script."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


# ---- The command line ---------------------------------------------------------------------------


def test_help_lists_every_command() -> None:
    listed = run("--help").stdout
    assert all(f"    {command} " in listed for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_its_own_help(command: str) -> None:
    done = run(command, "--help")
    assert done.returncode == 0
    assert f"usage: ./build.py {command}" in done.stdout


def test_a_word_that_a_command_does_not_know_is_refused_before_anything_is_done() -> None:
    done = run("setup", "--no-such-option")
    assert done.returncode == 2
    assert "--no-such-option" in done.stderr


def test_a_benchmark_that_is_not_there_is_answered_with_those_that_are() -> None:
    done = run("bench", "no-such-benchmark")
    assert done.returncode == 1
    assert "no benchmark 'no-such-benchmark'" in done.stderr
    assert done.stdout == ""


def test_what_is_built_before_the_demo_is_not_said_on_its_standard_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loader = SourceFileLoader("build_tool", str(ROOT / "build.py"))
    spec = spec_from_loader("build_tool", loader)
    assert spec is not None
    tool = module_from_spec(spec)
    loader.exec_module(tool)
    started: list[Sequence[str]] = []
    monkeypatch.setattr(environment, "build", lambda: console.say("compiling"))
    monkeypatch.setattr(tool, "replace", lambda command: started.append(command))
    monkeypatch.setattr(sys, "argv", ["build.py", "demo", "--json"])
    monkeypatch.chdir(ROOT)
    assert tool.main() == 0
    said = capsys.readouterr()
    assert (said.out, "compiling" in said.err) == ("", True)
    assert started[0][-1] == "--json"


@pytest.mark.parametrize("arguments", [("datapath", "--help"), ("--help", "datapath")])
def test_a_benchmark_says_itself_what_it_takes(arguments: tuple[str, ...]) -> None:
    assert "--only [engine|" in run("bench", *arguments).stdout


def test_a_fuzz_target_that_is_not_there_is_answered_with_those_that_are() -> None:
    done = run("fuzz", "--target", "no-such-target")
    assert done.returncode == 1
    assert all(name in done.stderr for name in ("no-such-target", *(each.name for each in fuzzing.targets())))


# ---- A machine without Python ---------------------------------------------------------------------


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A PATH without python3, whose apt-get brings one and writes down how it was called."""
    for tool in ("ln", "sh", "env"):
        os.symlink(str(shutil.which(tool)), tmp_path / tool)
    python = f"ln -s {sys.executable} {tmp_path}/python3"
    record = f'echo "$DEBIAN_FRONTEND" "$@" >> {tmp_path}/calls'
    executable(tmp_path / "apt-get", f'{record}\ncase "$*" in *install*) {python};; esac')
    executable(tmp_path / "id", "echo 0")
    return tmp_path


def test_python_is_installed_where_it_is_missing_and_the_command_goes_on(bare: Path) -> None:
    done = run("--help", path=bare)
    assert done.returncode == 0, done.stderr
    assert "usage: ./build.py" in done.stdout
    assert "installing it with apt-get" in done.stderr
    calls = (bare / "calls").read_text().splitlines()
    assert calls[0].split() == ["-q", "update"]
    assert calls[1].split()[:3] == ["noninteractive", "-q", "-y"]
    assert calls[1].split()[-3:] == ["install", "--no-install-recommends", "python3"]


def test_a_user_gets_python_through_sudo(bare: Path) -> None:
    executable(bare / "id", "echo 1000")
    executable(bare / "sudo", f'echo sudo "$@" >> {bare}/calls\nexec "$@"')
    assert run("--help", path=bare).returncode == 0
    calls = (bare / "calls").read_text().splitlines()
    assert [call.split()[:2] for call in calls if call.startswith("sudo")] == [["sudo", "apt-get"], ["sudo", "env"]]


def test_a_user_without_sudo_is_told_what_root_has_to_do(bare: Path) -> None:
    executable(bare / "id", "echo 1000")
    done = run("--help", path=bare)
    assert done.returncode == 1
    assert "as root, apt-get install python3" in done.stderr
    assert not (bare / "calls").exists()


def test_where_neither_python_nor_apt_is_there_python_is_asked_for(bare: Path) -> None:
    (bare / "apt-get").unlink()
    done = run("--help", path=bare)
    assert done.returncode == 1
    assert "install Python 3.11" in done.stderr


# ---- Debian packages --------------------------------------------------------------------------------


class Recorder:
    """Stands for ``step``: writes down what would have run, and makes what it would have made."""

    def __init__(self, makes: Callable[[str], None] = lambda _: None) -> None:
        self.calls: list[tuple[str, list[str]]] = []
        self._makes = makes

    def __call__(self, name: str, command: Sequence[str], *_: object, **__: object) -> None:
        self.calls.append((name, list(command)))
        self._makes(name)

    def names(self) -> list[str]:
        """Names of the steps since the last time."""
        names = [name for name, _ in self.calls]
        self.calls.clear()
        return names


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH of our own, with a dpkg that knows the packages of the file ``installed`` and an apt-cache of none."""
    directory = tmp_path / "tools"
    directory.mkdir()
    os.symlink(str(shutil.which("sed")), directory / "sed")
    executable(directory / "dpkg-query", f"sed 's/$/\\tinstall ok installed/' {directory}/installed")
    executable(directory / "apt-get", "exit 99")
    executable(directory / "apt-cache", "exit 100")
    (directory / "installed").write_text("\n".join(host.PACKAGES))
    monkeypatch.setenv("PATH", str(directory))
    monkeypatch.setattr(host, "BUILD", tmp_path / "build")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return directory


def test_where_no_package_is_missing_apt_is_not_called(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    monkeypatch.setattr(host, "step", recorder)
    host.install_packages()
    assert recorder.calls == []


def test_only_the_missing_packages_are_installed_without_questions(
    tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tools / "installed").write_text("\n".join(name for name in host.PACKAGES if name not in ("clang", "tshark")))
    recorder = Recorder()
    monkeypatch.setattr(host, "step", recorder)
    host.install_packages()
    assert recorder.calls[0][1][-1] == "update"
    install = recorder.calls[1][1]
    assert install[install.index("install") :] == ["install", "--no-install-recommends", "clang", "tshark"]
    assert "-y" in install
    assert len(recorder.calls) == 2


def test_a_package_that_was_removed_but_left_its_configuration_counts_as_missing(tools: Path) -> None:
    executable(tools / "dpkg-query", "printf 'clang\\tdeinstall ok config-files\\ngcc\\tinstall ok installed\\n'")
    assert host.missing(["clang", "gcc"]) == ["clang"]


def test_on_another_distribution_the_missing_tools_are_named(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tools / "dpkg-query").unlink()
    monkeypatch.setattr(host.shutil, "which", lambda name, **_: None if name in ("dpkg-query", "clang") else name)
    with pytest.raises(console.BuildFailure, match=r"missing: clang\. This is no Debian"):
        host.install_packages()


# ---- What is up to date -------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Recorder]:
    """A project with one file of each kind, whose steps are recorded and leave what they should."""
    root = tmp_path / "project"
    sources = {
        "pyproject.toml": "p", "setup.py": "s", "constraints.txt": "c", "ctrl/accord/datapath/_build.py": "b",
        "include/accord/wire.h": "w", "dataplane_c/src/core.h": "h", "dataplane_c/src/a.c": "a",
        "ebpf/accord_xdp.bpf.c": "x", "ctrl/accord/api/connect.py": "python",
    }  # fmt: skip
    for name, text in sources.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    for module in (console, stamps, environment, clean):
        monkeypatch.setattr(module, "ROOT", root)
    for module in (stamps, environment, clean):
        monkeypatch.setattr(module, "BUILD", root / "build", raising=False)
    monkeypatch.setattr(vm_hall, "STATE", root / "build/vm/state")
    monkeypatch.setattr(environment, "DATAPATH", root / "ctrl/accord/datapath")
    for module in (environment, clean):
        monkeypatch.setattr(module, "VENV", root / ".venv")
    monkeypatch.setattr(environment, "PYTHON", root / ".venv/bin/python")
    monkeypatch.setattr(environment, "install_packages", lambda: None)

    def make(name: str) -> None:
        made = {
            "venv": [".venv/bin/python"],
            "pip": [".venv/bin/pytest"],
            "install": [".venv/bin/accord"],
        }.get(name, [])
        if name in ("install", "native"):
            made += ["ctrl/accord/datapath/_core.abi3.so", "ctrl/accord/datapath/accord_xdp.bpf.o"]
        for path in made:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            if path == ".venv/bin/python":
                os.symlink(sys.executable, root / path)
            else:
                (root / path).write_text("made")

    recorder = Recorder(make)
    monkeypatch.setattr(environment, "step", recorder)
    return root, recorder


def test_a_second_build_of_unchanged_sources_calls_nothing(tree: tuple[Path, Recorder]) -> None:
    _, recorder = tree
    environment.build()
    assert recorder.names() == ["venv", "pip", "install"]
    environment.build()
    assert recorder.names() == []


@pytest.mark.parametrize(
    ("changed", "steps"),
    [
        ("dataplane_c/src/a.c", ["native"]),
        ("include/accord/wire.h", ["native"]),
        ("ebpf/accord_xdp.bpf.c", ["native"]),
        ("ctrl/accord/datapath/_build.py", ["native"]),
        ("constraints.txt", ["pip"]),
        ("pyproject.toml", ["install"]),
        ("setup.py", ["install"]),
        ("ctrl/accord/api/connect.py", []),
    ],
)
def test_a_changed_file_leads_to_the_steps_that_depend_on_it_and_no_others(
    tree: tuple[Path, Recorder], changed: str, steps: list[str]
) -> None:
    root, recorder = tree
    environment.build()
    recorder.names()
    (root / changed).write_text("changed")
    environment.build()
    assert recorder.names() == steps


@pytest.mark.parametrize(
    ("removed", "steps"),
    [
        ("ctrl/accord/datapath/accord_xdp.bpf.o", ["native"]),
        (".venv/bin/accord", ["install"]),
        (".venv", ["venv", "pip", "install"]),
    ],
)
def test_a_product_that_is_gone_is_made_again(tree: tuple[Path, Recorder], removed: str, steps: list[str]) -> None:
    root, recorder = tree
    environment.build()
    recorder.names()
    path = root / removed
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    environment.build()
    assert recorder.names() == steps


def test_a_file_that_was_only_touched_leads_to_nothing(tree: tuple[Path, Recorder]) -> None:
    root, recorder = tree
    environment.build()
    recorder.names()
    os.utime(root / "dataplane_c/src/a.c", (0, 0))
    environment.build()
    assert recorder.names() == []


def test_a_step_that_failed_is_tried_again(tree: tuple[Path, Recorder], monkeypatch: pytest.MonkeyPatch) -> None:
    root, recorder = tree
    environment.build()
    recorder.names()
    (root / "dataplane_c/src/a.c").write_text("broken")

    def fails(*_: object, **__: object) -> None:
        raise console.StepFailure("native failed")

    monkeypatch.setattr(environment, "step", fails)
    with pytest.raises(console.StepFailure):
        environment.build()
    monkeypatch.setattr(environment, "step", recorder)
    environment.build()
    assert recorder.names() == ["native"]


def test_the_digest_tells_apart_what_was_moved_from_one_file_to_another(tree: tuple[Path, Recorder]) -> None:
    root, _ = tree
    one, two = root / "one", root / "two"
    one.write_bytes(b"ab")
    two.write_bytes(b"c")
    before = stamps.digest([one, two])
    one.write_bytes(b"a")
    two.write_bytes(b"bc")
    assert stamps.digest([one, two]) != before
    assert stamps.digest([one, two], "x", "y") != stamps.digest([one, two], "xy")


def test_clean_removes_all_that_was_made_and_nothing_that_was_written(tree: tuple[Path, Recorder]) -> None:
    root, _ = tree
    written = {path for path in root.rglob("*") if path.is_file()}
    environment.build()
    (root / "ctrl/accord/__pycache__").mkdir()
    (root / "ctrl/accord.egg-info").mkdir()
    clean.run()
    assert {path for path in root.rglob("*") if path.is_file()} == written
    assert not list(root.rglob("__pycache__"))
    assert not (root / "ctrl/accord.egg-info").exists()


# ---- Running commands -----------------------------------------------------------------------------------


def test_root_needs_no_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", "/nonexistent")
    assert console.as_root(["true"], {"A": "1"}) == ["true"]


def test_a_user_goes_through_sudo_and_keeps_the_variables_that_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executable(tmp_path / "sudo", "")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert console.as_root(["true"], {"A": "1"}) == [str(tmp_path / "sudo"), "env", "A=1", "true"]


def test_a_user_without_sudo_is_told_to_become_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(console.BuildFailure, match="become root"):
        console.as_root(["true"])


def test_a_command_that_needs_root_starts_itself_again_with_its_arguments_wherever_it_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(console, "LOGS", tmp_path / "build/log")
    monkeypatch.setattr(console, "replace", lambda command, *_: started.append(command))
    monkeypatch.setattr(console.shutil, "which", lambda _: "/usr/bin/sudo")
    monkeypatch.setattr(sys, "argv", ["../build.py", "vm", "up"])
    console.become_root({"A": "1"})
    wanted = ["/usr/bin/sudo", "env", "A=1", sys.executable, str(ROOT / "build.py"), "vm", "up"]
    assert started == [wanted]
    assert (tmp_path / "build/log").is_dir(), "made by the owner of the tree, not by root"


def test_the_output_of_a_failed_step_is_shown_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "LOGS", tmp_path)
    with pytest.raises(console.StepFailure, match=r"exit code 3.*\nTry this"):
        console.step("sample", ["sh", "-c", "echo to stdout; echo to stderr >&2; exit 3"], mend="Try this")
    shown = capsys.readouterr().out
    assert "to stdout" in shown
    assert "to stderr" in shown
    assert (tmp_path / "sample.log").read_text() in shown


def test_the_output_of_a_step_that_went_well_is_only_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "LOGS", tmp_path)
    console.step("sample", ["echo", "many words"])
    assert "many words" not in capsys.readouterr().out
    assert "many words" in (tmp_path / "sample.log").read_text()


def test_a_command_that_is_not_there_is_a_failure_with_its_name() -> None:
    with pytest.raises(console.BuildFailure, match="cannot run /nonexistent/tool"):
        console.live(["/nonexistent/tool"])


def test_an_interrupt_waits_for_the_command_to_clean_up(tmp_path: Path) -> None:
    child = f"trap 'echo cleaned > {tmp_path}/cleaned; exit 0' INT; echo started; while :; do sleep 0.05; done"
    program = f"""
import sys
from buildtools import console
try:
    console.live(["sh", "-c", {child!r}])
except KeyboardInterrupt:
    sys.exit(130)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=30) == 130
    process.stdout.close()
    assert (tmp_path / "cleaned").read_text() == "cleaned\n"


def test_two_builds_in_one_tree_take_turns(tmp_path: Path) -> None:
    program = f"""
import sys
from pathlib import Path
from buildtools import stamps
stamps.BUILD = Path({str(tmp_path)!r})
with stamps.build_lock():
    print("in", flush=True)
    sys.stdin.read()
"""

    def start() -> subprocess.Popen[str]:
        command, pipe = [sys.executable, "-c", program], subprocess.PIPE
        return subprocess.Popen(command, cwd=ROOT, text=True, stdin=pipe, stdout=pipe)

    def line(process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        return process.stdout.readline()

    with start() as first:
        assert line(first) == "in\n"
        with start() as second:
            assert "waiting for another build" in line(second)
            first.communicate()
            assert line(second) == "in\n"
            second.communicate()
    assert (first.returncode, second.returncode) == (0, 0)


# ---- Pins and the package's own statement -----------------------------------------------------------------


def test_every_package_that_the_project_names_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in lines if "==" in line}
    names = {re.split(r"[<>=!~\[; ]", requirement)[0].lower().replace("_", "-") for requirement in wanted}
    assert names <= pinned
