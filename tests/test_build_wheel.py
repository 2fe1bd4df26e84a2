# SPDX-License-Identifier: Apache-2.0
"""The package that ``pip install .`` makes: what is in it, that it works away from the source tree."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# What a clean checkout holds of what the package is made from.
DIRECTORIES = ("LICENSES", "ctrl", "dataplane_c", "ebpf", "include")
FILES = ("MANIFEST.in", "README.md", "pyproject.toml", "setup.py")
BUILT = ("__pycache__", "*.so", "*.o", "accord-link", "*.egg-info", "*.c.d")


def checkout(target: Path) -> Path:
    """A copy of the sources without anything that was built in place."""
    target.mkdir()
    for name in DIRECTORIES:
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns(*BUILT))
    for name in FILES:
        shutil.copy(ROOT / name, target)
    return target


def pip(*arguments: str) -> subprocess.CompletedProcess[str]:
    """pip without any index: nothing is fetched."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a clean checkout, once."""
    directory = tmp_path_factory.mktemp("wheel")
    source = checkout(directory / "source")
    done = pip("wheel", "--no-deps", "--no-index", "--no-build-isolation", "-w", str(directory), str(source))
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = directory.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    """The wheel alone in a directory: the dependencies are those of the environment that runs the tests."""
    target = wheel.parent / "installed"
    done = pip("install", "--no-deps", "--no-index", "--target", str(target), str(wheel))
    assert done.returncode == 0, done.stdout + done.stderr
    return target


def run_installed(installed: Path, command: Sequence[str]) -> str:
    """Away from the source tree, with the installed package before the one in it."""
    environment = {**os.environ, "PYTHONPATH": str(installed), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=installed, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_holds_the_compiled_core_the_bpf_object_and_the_types(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {"_core.abi3.so", "_core.pyi", "accord_xdp.bpf.o", "accord_sockops.bpf.o", "accord_capture.bpf.o"}
    assert {f"accord/datapath/{name}" for name in wanted} <= names
    assert {"accord/py.typed", "accord/lab/accord-link", "accord/cli/trace/stages.bcc.c"} <= names


def test_the_wheel_holds_every_module_of_the_source_tree_and_nothing_else_at_its_top(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    modules = {name for name in names if name.endswith(".py")}
    assert modules == {str(path.relative_to(ROOT / "ctrl")) for path in (ROOT / "ctrl/accord").rglob("*.py")}
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"accord"}


def test_the_wheel_names_its_plug_ins_its_command_and_its_licences(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (entry_points,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
        text = archive.read(entry_points).decode()
        licences = {Path(name).name for name in archive.namelist() if "LICENSES/" in name or name.endswith(".txt")}
    assert "accord = accord.cli.main:main" in text
    for line in ("tcp = accord.protocols.tcp:TcpPlugin", "tls = accord.protocols.tls:TlsPlugin"):
        assert line in text
    assert {"Apache-2.0.txt", "GPL-2.0-only.txt", "BSD-2-Clause.txt"} <= licences


def test_the_installed_core_loads_and_knows_the_wire_format(installed: Path) -> None:
    program = "from accord.datapath import _core; print(_core.__file__, hex(_core.lib.ACCORD_MAGIC))"
    path, magic = run_installed(installed, [sys.executable, "-c", program]).split()
    assert Path(path).parent == installed / "accord/datapath"
    assert magic == "0x41435244"


def test_the_installed_command_runs(installed: Path) -> None:
    shown = run_installed(installed, [str(installed / "bin/accord"), "--help"])
    assert "doctor" in shown


def test_the_installed_link_forwarder_is_executable(installed: Path) -> None:
    assert os.access(installed / "accord/lab/accord-link", os.X_OK)


@pytest.mark.root
def test_the_installed_bpf_object_is_accepted_by_the_kernel(installed: Path) -> None:
    program = installed / "accord/datapath/accord_xdp.bpf.o"
    attach = f"ip link add probe0 type veth && ip link set probe0 xdpgeneric obj {program} sec xdp"
    subprocess.run(["unshare", "--net", "sh", "-c", attach], check=True, capture_output=True)


def native(source: Path, path: Path | str) -> subprocess.CompletedProcess[str]:
    """The native build with this PATH."""
    return subprocess.run(
        [sys.executable, "setup.py", "-q", "build_native", "--inplace"],
        cwd=source,
        env={**os.environ, "PATH": str(path)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_clang_the_package_to_install_is_named(tmp_path: Path) -> None:
    source = checkout(tmp_path / "source")
    tools = tmp_path / "tools"
    tools.mkdir()
    os.symlink(str(shutil.which("gcc")), tools / "gcc")
    done = native(source, tools)
    assert done.returncode == 1
    assert "apt-get install clang" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_c_compiler_the_package_to_install_is_named(tmp_path: Path) -> None:
    source = checkout(tmp_path / "source")
    tools = tmp_path / "tools"
    tools.mkdir()
    done = native(source, tools)
    assert done.returncode == 1
    assert "apt-get install gcc" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bpf_program_that_does_not_compile_fails_with_clangs_words(tmp_path: Path) -> None:
    source = checkout(tmp_path / "source")
    (source / "ebpf/accord_xdp.bpf.c").write_text("#error broken on purpose\n")
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_native", "--inplace"],
        cwd=source, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "broken on purpose" in done.stderr
    assert "clang failed" in done.stderr
    assert "Traceback" not in done.stderr
