# SPDX-License-Identifier: Apache-2.0
"""The virtual environment and what is compiled into the source tree."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from buildtools.console import BUILD, ROOT, BuildFailure, relative, say, step
from buildtools.host import install_packages
from buildtools.stamps import Stamp, build_lock, digest, files

VENV = ROOT / ".venv"
PYTHON = VENV / "bin/python"
# bcc belongs to Debian's own Python, so the environment is made from that one, whatever else is on the PATH.
SYSTEM_PYTHON = Path("/usr/bin/python3")
MINIMUM = (3, 11)

DATAPATH = ROOT / "ctrl/accord/datapath"
NATIVE_SOURCES = (
    "setup.py",
    "ctrl/accord/datapath/_build.py",
    "include/accord/*.h",
    "dataplane_c/src/*.[ch]",
    "dataplane_c/lab/*",
    "ebpf/*.[ch]",
)


def setup() -> None:
    """Packages, virtual environment, pinned dependencies. Nothing is called where nothing changed."""
    with build_lock():
        _setup()


def build() -> None:
    """``setup``, then the cffi module, the BPF objects and the command ``accord``, in place."""
    with build_lock():
        _setup()
        _build()


def _setup() -> None:
    install_packages()
    _make_environment()
    _install_dependencies()


def _build() -> None:
    installed = Stamp(
        VENV / "accord-installed",
        digest(files("pyproject.toml", "setup.py"), str(ROOT)),
        [VENV / "bin/accord"],
    )
    native = Stamp(BUILD / "stamp/native", digest(files(*NATIVE_SOURCES), *_toolchain()), products())
    if not installed.fresh():
        say("compiling the C core and the BPF objects, installing the command accord")
        step("install", _pip("install", "--no-deps", "--no-build-isolation", "--editable", "."))
        installed.set()
        native.set()
    elif not native.fresh():
        say("compiling the C core and the BPF objects")
        command = [str(PYTHON), "setup.py", "build_ext", "--inplace", "build_native", "--inplace"]
        step("native", command)
        native.set()
    absent = [relative(product) for product in products() if not product.exists()]
    if absent:
        raise BuildFailure(f"the build ended well but did not make {', '.join(absent)}: ./build.py clean, try again")


def products() -> list[Path]:
    """What the compilers leave in the source tree."""
    objects = [DATAPATH / (path.name[: -len(".c")] + ".o") for path in files("ebpf/*.bpf.c")]
    link = [ROOT / "ctrl/accord/lab/accord-link"] if (ROOT / "dataplane_c/lab/Makefile").exists() else []
    return [DATAPATH / "_core.abi3.so", *objects, *link]


def _make_environment() -> None:
    if PYTHON.exists() and _version(PYTHON) >= MINIMUM:
        return
    python = SYSTEM_PYTHON if SYSTEM_PYTHON.exists() else Path(sys.executable)
    found = _version(python)
    if found < MINIMUM:
        raise BuildFailure(
            f"{python} is Python {found[0]}.{found[1]}, Accord needs {MINIMUM[0]}.{MINIMUM[1]}: "
            "use Debian 12 or later, or install a newer python3 with its venv module"
        )
    say(f"making the virtual environment {relative(VENV)}")
    step(
        "venv",
        [str(python), "-m", "venv", "--clear", "--system-site-packages", str(VENV)],
        mend="Is its venv module there? apt-get install python3-venv",
    )


def _install_dependencies() -> None:
    stamp = Stamp(VENV / "accord-dependencies", digest(files("constraints.txt")), [VENV / "bin/pytest"])
    if stamp.fresh():
        return
    say("installing the pinned Python packages of constraints.txt")
    step("pip", _pip("install", "-r", "constraints.txt"), mend="Is the package index reachable? Then try again.")
    stamp.set()


def _pip(*arguments: str) -> list[str]:
    return [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]


def _version(python: Path) -> tuple[int, ...]:
    """Major and minor; (0, 0) when it does not run, as after the system's Python was replaced."""
    if os.path.realpath(python) == os.path.realpath(sys.executable):
        return sys.version_info[:2]
    program = "import sys; print(*sys.version_info[:2])"
    try:
        done = subprocess.run([str(python), "-c", program], stdout=subprocess.PIPE, check=True)
    except (OSError, subprocess.CalledProcessError):
        return (0, 0)
    return tuple(int(number) for number in done.stdout.split())


def _toolchain() -> list[str]:
    """Identity of the compilers, without starting them: another one is a reason to build again."""
    identity = []
    for name in ("gcc", "clang"):
        path = shutil.which(name)
        status = os.stat(path) if path else None
        identity.append(f"{name} {path} {status.st_size} {int(status.st_mtime)}" if status else f"no {name}")
    return [*identity, os.environ.get("CC", ""), os.environ.get("CFLAGS", ""), os.uname().machine]
