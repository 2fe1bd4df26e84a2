# SPDX-License-Identifier: Apache-2.0
"""How ``accord.datapath._core`` is made: the C core, seen through cffi in API mode.

The definition that cffi needs is ``dataplane_c/src/core.h`` itself, after the preprocessor, so there is
no second list of functions, structs and constants to keep in step. cffi checks every size, offset and
value of it against what the C compiler says. This file is run by setuptools (``cffi_modules`` in
``setup.py``), with the project's root as current directory and before the package exists: it imports
nothing of the project.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from cffi import FFI

INCLUDES = ("include", "dataplane_c/src")
LIBRARIES = ("bpf", "xdp", "elf", "z", "ssl", "crypto")
COMPILE_ARGS = ("-std=c11", "-O2", "-g", "-Wall", "-Wextra", "-fvisibility=hidden")
DEFINES = (("_GNU_SOURCE", None),)

# Header that must be there -> the Debian package that brings it.
NEEDED_HEADERS = {
    "linux/types.h": "linux-libc-dev",
    "bpf/libbpf.h": "libbpf-dev",
    "xdp/xsk.h": "libxdp-dev",
    "libelf.h": "libelf-dev",
    "zlib.h": "zlib1g-dev",
    "openssl/provider.h": "libssl-dev",
}

# What <linux/types.h> calls the integers of the wire; byte order is the C code's business, not cffi's.
KERNEL_TYPES = """
typedef uint8_t __u8;
typedef uint16_t __u16;
typedef uint32_t __u32;
typedef uint64_t __u64;
typedef uint16_t __be16;
typedef uint32_t __be32;
typedef uint64_t __be64;
"""

_STRUCT = re.compile(r"^struct (?P<name>\w+) \{[^{}]*\}[^;{}]*;", re.MULTILINE)


class BuildError(Exception):
    """The host lacks something that the build needs; the text names the command that mends it."""


def compiler() -> list[str]:
    """The C compiler as a command line. Raises BuildError."""
    if configured := os.environ.get("CC"):
        return configured.split()
    for name in ("gcc", "cc", "clang"):
        if path := shutil.which(name):
            return [path]
    raise BuildError("no C compiler: apt-get install gcc libc6-dev")


def preprocess(source: str, root: Path, *options: str) -> str:
    """``source`` after the preprocessor, without line markers. Raises BuildError with the compiler's words."""
    command = [*compiler(), *options, "-E", "-P", "-xc", *(f"-I{root / path}" for path in INCLUDES), "-"]
    try:
        done = subprocess.run(command, input=source, capture_output=True, text=True, check=False)
    except OSError as error:
        raise BuildError(f"the C compiler does not run: {error}: apt-get install gcc libc6-dev") from error
    if done.returncode != 0:
        raise BuildError(f"the C preprocessor failed:\n{done.stderr}")
    return done.stdout


def whole_program(root: Path) -> list[str]:
    """For compiler and linker, of gcc; clang needs a linker that not every host has, and does the second by itself.

    A packet's way goes through a dozen files, and is a tenth shorter when they are seen as one. What a transaction
    begins with is cleared by the library: gcc's own ``rep stos`` takes dozens of cycles before it does anything.
    """
    probe = "#if defined(__GNUC__) && !defined(__clang__)\naccord_gcc\n#ifdef __x86_64__\naccord_x86\n#endif\n#endif\n"
    found = preprocess(probe, root)
    options = ["-flto=auto"] if "accord_gcc" in found else []
    return [*options, "-mmemset-strategy=libcall:-1:noalign"] if "accord_x86" in found else options


def check_headers(root: Path) -> None:
    """Raises BuildError that names the Debian packages of all missing headers at once."""
    probe = "".join(
        f'#if !__has_include(<{header}>)\naccord_missing "{package}"\n#endif\n'
        for header, package in NEEDED_HEADERS.items()
    )
    missing = re.findall(r'accord_missing "(\S+)"', preprocess(probe, root))
    if missing:
        raise BuildError(f"C headers are missing: apt-get install {' '.join(missing)}")


def packed_structs(root: Path) -> frozenset[str]:
    """Names of the structs of wire.h that are marked ACCORD_PACKED: the mark itself is gone after cpp."""
    text = (root / "include/accord/wire.h").read_text(encoding="utf-8")
    return frozenset(
        match["name"] for match in _STRUCT.finditer(text) if match[0].rstrip(";").endswith("ACCORD_PACKED")
    )


def definitions(root: Path) -> Iterator[tuple[str, bool]]:
    """The cffi definition in order, in pieces: (C text, whether its structs are packed)."""
    text = preprocess('#include "core.h"\n', root, "-DACCORD_CDEF")
    # What ACCORD_ASSERT_SIZE leaves behind under ACCORD_CDEF; cffi asserts the sizes itself.
    text = re.sub(r"^struct accord_no_such_\w+;\n?", "", text, flags=re.MULTILINE)
    packed = packed_structs(root)
    yield KERNEL_TYPES, False
    done = 0
    for match in _STRUCT.finditer(text):
        if match["name"] in packed:
            yield text[done : match.start()], False
            yield match[0], True
            done = match.end()
    yield text[done:], False


def sources(root: Path) -> list[str]:
    """The core's C files, relative to ``root`` as setuptools wants them."""
    return sorted(str(path.relative_to(root)) for path in (root / "dataplane_c/src").glob("*.c"))


def headers(root: Path) -> list[str]:
    """All that a change of must lead to a new build."""
    found = [*(root / "dataplane_c/src").glob("*.h"), *(root / "include/accord").glob("*.h")]
    return sorted(str(path.relative_to(root)) for path in found)


def make_ffi() -> FFI:
    """The builder that ``setup.py`` hands to setuptools; the current directory is the project's root.

    Raises SystemExit with BuildError's words: whoever runs pip is not helped by a traceback of setuptools.
    """
    root = Path()
    ffi = FFI()
    try:
        check_headers(root)
        optimization = whole_program(root)
        for text, packed in definitions(root):
            ffi.cdef(text, packed=packed)
    except BuildError as error:
        raise SystemExit(f"accord: {error}") from error
    ffi.set_source(
        "accord.datapath._core",
        '#include "core.h"\n',
        sources=sources(root),
        depends=headers(root),
        include_dirs=list(INCLUDES),
        libraries=list(LIBRARIES),
        extra_compile_args=[*COMPILE_ARGS, *optimization],
        extra_link_args=optimization,
        define_macros=list(DEFINES),
    )
    return ffi
