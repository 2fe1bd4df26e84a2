# SPDX-License-Identifier: Apache-2.0
"""Write ctrl/accord/datapath/_core.pyi, the types of the cffi module, from core.h.

After a change of the functions in core.h: ``.venv/bin/python -m buildtools.core_types``. The result is
committed, and a test fails when it is stale. (The one part of buildtools that needs the virtual environment.)
"""

from __future__ import annotations

import re
from pathlib import Path

from accord.datapath import _build

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "ctrl/accord/datapath/_core.pyi"
LINE = 120

HEAD = '''# SPDX-License-Identifier: Apache-2.0
"""Types of the cffi module. Written by buildtools/core_types.py from dataplane_c/src/core.h: edit those.

A C pointer, struct or array is ``CData``, which no checker can see into: wrappers convert at once.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

CData: TypeAlias = Any

class _Ffi:
    NULL: CData
    error: type[Exception]
    errno: int
    def new(self, cdecl: str, init: object = ...) -> CData: ...
    def cast(self, cdecl: str, value: object) -> CData: ...
    def from_buffer(self, cdecl: str | object, python_buffer: object = ..., require_writable: bool = ...) -> CData: ...
    def buffer(self, cdata: CData, size: int = ...) -> Any: ...
    def memmove(self, dest: object, src: object, n: int) -> None: ...
    def unpack(self, cdata: CData, length: int) -> Any: ...
    def string(self, cdata: CData, maxlen: int = ...) -> Any: ...
    def gc(self, cdata: CData, destructor: Callable[[CData], object] | None, size: int = ...) -> CData: ...
    def release(self, cdata: CData) -> None: ...
    def addressof(self, cdata: CData, *fields_or_indexes: str | int) -> CData: ...
    def sizeof(self, cdecl: str | CData) -> int: ...
    def alignof(self, cdecl: str) -> int: ...
    def offsetof(self, cdecl: str, *fields_or_indexes: str | int) -> int: ...
    def typeof(self, cdecl: str | CData) -> Any: ...
    def list_types(self) -> tuple[list[str], list[str], list[str]]: ...

class _Lib:
    # Constants: every enumerator of wire.h, maps.h and core.h.
    def __getattr__(self, name: str) -> int: ...
    # Functions, in the order of core.h.
'''

TAIL = """
ffi: _Ffi
lib: _Lib
"""

FUNCTION = re.compile(r"^(?P<result>[\w ]+?[ *]+)(?P<name>accord_\w+)\((?P<parameters>[^()]*)\);", re.MULTILINE)


def python_type(c_type: str) -> str:
    """``None``, ``int`` or ``CData``."""
    if "*" in c_type:
        return "CData"
    return "None" if c_type.strip() == "void" else "int"


def laid_out(head: str, parameters: list[str], tail: str) -> str:
    """On one line, else the parameters on one of their own, else each on its own."""
    if len(line := head + ", ".join(parameters) + tail) <= LINE:
        return line
    if len(inner := "        " + ", ".join(parameters)) <= LINE:
        return f"{head}\n{inner}\n    {tail}"
    return "\n".join([head, *(f"        {parameter}," for parameter in parameters), f"    {tail}"])


def stub(root: Path) -> str:
    """The whole file, laid out as ruff does."""
    text = "".join(piece for piece, _ in _build.definitions(root))
    lines = []
    for match in FUNCTION.finditer(text):
        parameters = ["self"]
        for parameter in match["parameters"].split(","):
            if parameter.strip() == "void":
                continue
            name = re.split(r"[\s*]", parameter.strip())[-1]
            parameters.append(f"{name}: {python_type(parameter)}")
        result = python_type(match["result"])
        lines.append(laid_out(f"    def {match['name']}(", parameters, f") -> {result}: ..."))
    return HEAD + "\n".join(lines) + "\n" + TAIL


if __name__ == "__main__":
    TARGET.write_text(stub(ROOT), encoding="utf-8")
