# SPDX-License-Identifier: Apache-2.0
"""What pyproject.toml cannot say: the native parts. Everything declarative is over there.

Three kinds: the cffi module ``accord.datapath._core`` (made by ``ctrl/accord/datapath/_build.py``), the
BPF objects (one for each ``ebpf/*.bpf.c``, compiled by clang, package data of ``accord.datapath``), and
the lab's link forwarder (``accord.lab``'s own executable).
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import ClassVar

from setuptools import Command, setup
from setuptools.command.build import build

ROOT = Path(__file__).resolve().parent
BPF_FLAGS = ("-O2", "-g", "-Wall", "-Wextra", "-Werror", "-target", "bpf", "-mcpu=v3")
LINK_MAKEFILE = Path("dataplane_c/lab")


def fail(message: str) -> None:
    """End with a plain sentence rather than a traceback."""
    sys.exit(f"accord: {message}")


class BuildNative(Command):
    """Compile the BPF objects and the lab's forwarder; setuptools' protocol for sub-commands of build."""

    description = "compile the BPF objects and the lab's link forwarder"
    user_options: ClassVar[list[tuple[str, str | None, str]]] = [
        ("inplace", "i", "put the results next to the Python sources"),
    ]
    boolean_options: ClassVar[list[str]] = ["inplace"]

    def initialize_options(self) -> None:
        self.build_lib: str | None = None
        self.editable_mode = False
        self.inplace = False

    def finalize_options(self) -> None:
        self.set_undefined_options("build_py", ("build_lib", "build_lib"))

    def _package(self) -> Path:
        return Path("ctrl/accord") if self.inplace or self.editable_mode else Path(str(self.build_lib)) / "accord"

    def _objects(self) -> list[tuple[Path, Path]]:
        target = self._package() / "datapath"
        sources = sorted(Path("ebpf").glob("*.bpf.c"))
        return [(source, target / (source.name.removesuffix(".c") + ".o")) for source in sources]

    def _link(self) -> list[Path]:
        return [self._package() / "lab/accord-link"] if (LINK_MAKEFILE / "Makefile").exists() else []

    def run(self) -> None:
        objects = self._objects()
        clang = shutil.which("clang")
        if objects and clang is None:
            fail("clang is missing, BPF objects cannot be compiled: apt-get install clang libbpf-dev linux-libc-dev")
        # <linux/types.h> includes <asm/types.h>, which Debian keeps in the multiarch directory.
        includes = ["-Iinclude", f"-I/usr/include/{sysconfig.get_config_var('MULTIARCH')}"]
        for source, target in objects:
            target.parent.mkdir(parents=True, exist_ok=True)
            self._call([str(clang), *BPF_FLAGS, *includes, "-c", str(source), "-o", str(target)])
        for target in self._link():
            target.parent.mkdir(parents=True, exist_ok=True)
            self._call(["make", "-C", str(LINK_MAKEFILE), f"OUTPUT={target.resolve()}"])

    def _call(self, command: list[str]) -> None:
        print(" ".join(command), flush=True)
        try:
            subprocess.run(command, check=True)
        except OSError as error:
            fail(f"{command[0]} does not run: {error}: apt-get install clang gcc make")
        except subprocess.CalledProcessError:
            fail(
                f"{command[0]} failed, see above; if a header is missing: "
                "apt-get install libbpf-dev linux-libc-dev libc6-dev"
            )

    def get_source_files(self) -> list[str]:
        """For source distributions."""
        found = [*Path("ebpf").glob("*.[ch]"), *Path("include").rglob("*.h"), *LINK_MAKEFILE.glob("*")]
        return sorted(str(path) for path in found if path.is_file())

    def get_outputs(self) -> list[str]:
        return [str(path) for path in (*(target for _, target in self._objects()), *self._link())]

    def get_output_mapping(self) -> dict[str, str]:
        """Editable installations: nothing is generated elsewhere and linked."""
        return {}


class Build(build):
    """setuptools' build, and the native parts with it."""

    sub_commands: ClassVar = [*build.sub_commands, ("build_native", None)]


setup(
    cmdclass={"build": Build, "build_native": BuildNative},
    cffi_modules=["ctrl/accord/datapath/_build.py:make_ffi"],
)
