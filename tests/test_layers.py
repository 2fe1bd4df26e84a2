# SPDX-License-Identifier: Apache-2.0
"""The floors of the house (docs/ARCHITECTURE.md): the contracts of pyproject.toml, run."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "ctrl/accord"
# Those that may use what the root package re-exports for applications.
OUTSIDE = ("api", "cli", "daemon", "lab")


def lint(root: Path) -> subprocess.CompletedProcess[str]:
    """The linter over a tree that holds ctrl/ and pyproject.toml."""
    program = "import sys; from importlinter.cli import lint_imports_command; lint_imports_command()"
    return subprocess.run(
        [sys.executable, "-c", program, "--no-cache"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": f"{root / 'ctrl'}:{root}"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package's sources, to be broken."""
    shutil.copytree(PACKAGE, tmp_path / "ctrl/accord", ignore=shutil.ignore_patterns("__pycache__", "*.so", "*.o"))
    shutil.copytree(ROOT / "sim", tmp_path / "sim", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def imports(path: Path) -> Iterator[str]:
    """Dotted names that a module imports, wherever in it; ``from a import b`` gives ``a.b``."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_every_module_imports_only_from_the_floors_below_it() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("negotiation/interface.py", "import socket", "The negotiation is sans-IO"),
        ("wire/errors.py", "import accord.negotiation.interface", "Each floor knows only"),
        ("datapath/_build.py", "import accord.negotiation.interface", "The datapath knows the wire format"),
        ("protocols/services.py", "import accord.datapath.probe_finding", "Plug-ins reach the host only through"),
        ("controller/__init__.py", "import accord.lab", "The lab serves the command line"),
        ("protocols/services.py", "import cffi", "Only the datapath touches the C core"),
        ("controller/__init__.py", "import sim.world", "The simulator simulates what is installed"),
        ("../../sim/world.py", "import time", "Within a simulation there is no clock"),
    ],
)
def test_an_import_that_breaks_the_layering_is_named(copy: Path, module: str, line: str, contract: str) -> None:
    with (copy / "ctrl/accord" / module).open("a", encoding="utf-8") as source:
        source.write(f"\n{line}\n")
    done = lint(copy)
    broken = [text for text in done.stdout.splitlines() if "BROKEN" in text or text.startswith(contract)]
    assert done.returncode == 1, done.stdout
    assert any(text.startswith(contract) for text in broken), done.stdout


def test_only_the_datapath_imports_the_compiled_core() -> None:
    users = {
        path.relative_to(PACKAGE).parts[0]
        for path in PACKAGE.rglob("*.py")
        if any(name.startswith("accord.datapath._core") for name in imports(path))
    }
    assert users == {"datapath"}


def test_nothing_below_the_api_imports_what_the_root_package_offers_to_applications() -> None:
    submodules = {path.stem for path in PACKAGE.iterdir()}
    for path in PACKAGE.rglob("*.py"):
        floor = path.relative_to(PACKAGE).parts[0]
        if floor in OUTSIDE or path.parent == PACKAGE:
            continue
        for name in imports(path):
            root, _, rest = name.partition(".")
            assert root != "accord" or rest.split(".")[0] in submodules, f"{path} imports {name}"
