# SPDX-License-Identifier: Apache-2.0
"""Remove what building, testing and running left in the tree, and nothing else."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from buildtools.console import BUILD, ROOT, BuildFailure, as_root, relative, say
from buildtools.environment import VENV, products
from buildtools.vm_hall import running

CACHES = (".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis", ".import_linter_cache", "dist")
SOURCES = ("buildtools", "ctrl", "tests", "bench", "vagrant", "dataplane_c", "ebpf")


def targets() -> list[Path]:
    """All that there is to remove."""
    found = [VENV, BUILD, *(ROOT / name for name in CACHES), *products()]
    found += (ROOT / "ctrl").glob("*.egg-info")
    found += (ROOT / "ctrl").rglob("accord.datapath._core.c")
    for directory in SOURCES:
        found += (ROOT / directory).rglob("__pycache__")
    return [path for path in found if path.exists() or path.is_symlink()]


def run() -> None:
    """Remove them; what root left behind (tests run as root) goes through sudo. Raises BuildFailure."""
    if running() is not None:
        raise BuildFailure("virtual machines run from build/: ./build.py vm down, then again")
    left = []
    for path in targets():
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        except PermissionError:
            left.append(path)
    if left:
        say(f"root's leftovers: {' '.join(relative(path) for path in left)}")
        subprocess.run(as_root(["rm", "-rf", "--", *(str(path) for path in left)]), check=True)
    say("clean")
