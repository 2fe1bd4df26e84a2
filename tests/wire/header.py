# SPDX-License-Identifier: Apache-2.0
"""``include/accord/wire.h`` as the C preprocessor and cffi's own C parser read it: the oracle of constants."""

from __future__ import annotations

import functools
import re
import subprocess
from pathlib import Path
from typing import Any

import cffi

ROOT = Path(__file__).resolve().parents[2]

_TYPEDEFS = (
    "typedef uint8_t __u8; typedef uint16_t __u16; typedef uint32_t __u32; typedef uint64_t __u64;"
    "typedef uint16_t __be16; typedef uint32_t __be32; typedef uint64_t __be64;"
)
_ROW = "#define ROW(name, value, party, text) @ name value ACCORD_PARTY_##party text\nACCORD_REASONS(ROW)\n"


def _preprocess(extra: str = "") -> str:
    source = f'#define ACCORD_CDEF 1\n#include "accord/wire.h"\n{extra}'
    command = ["cc", "-E", "-P", "-x", "c", "-I", str(ROOT / "include"), "-"]
    return subprocess.run(command, input=source, capture_output=True, text=True, check=True, timeout=30).stdout


@functools.cache
def ffi() -> Any:
    parsed = cffi.FFI()
    parsed.cdef(_TYPEDEFS + _preprocess(), packed=True)
    return parsed


def enum(name: str) -> dict[str, int]:
    """The enumerators of ``enum accord_<name>``, without the prefix ``ACCORD_``."""
    values: dict[str, int] = ffi().typeof(f"enum accord_{name}").relements
    # cffi lists them backwards.
    return {key.removeprefix("ACCORD_"): value for key, value in reversed(values.items())}


def size(struct: str) -> int:
    """Of ``struct accord_<struct>``, in bytes."""
    return int(ffi().sizeof(f"struct accord_{struct}"))


def fields(struct: str) -> list[tuple[str, int, int]]:
    """Name, offset and size of each field."""
    found = ffi().typeof(f"struct accord_{struct}").fields
    return [(name, field.offset, ffi().sizeof(field.type)) for name, field in found]


def reasons() -> dict[str, tuple[int, int, str]]:
    """Name to value, party and text, from the X macro."""
    parties = enum("party")
    rows = re.findall(r'@ (\w+) (\d+) ACCORD_(PARTY_\w+) "([^"]*)"', _preprocess(_ROW))
    return {name: (int(value), parties[party], text) for name, value, party, text in rows}
