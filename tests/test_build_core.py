# SPDX-License-Identifier: Apache-2.0
"""How the cffi module is made from the headers, and whether its types say what it holds."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from cffi import FFI

from accord.datapath import _build
from buildtools import core_types

ROOT = Path(__file__).resolve().parent.parent
WIRE = (ROOT / "include/accord/wire.h").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def ffi() -> FFI:
    """The definition alone, not compiled."""
    made = FFI()
    for text, packed in _build.definitions(ROOT):
        made.cdef(text, packed=packed)
    return made


def compiled(program: str) -> str:
    """What a C program prints: the compiler as the judge."""
    includes = [f"-I{ROOT / path}" for path in _build.INCLUDES]
    with tempfile.TemporaryDirectory() as directory:
        binary = Path(directory) / "program"
        command = [*_build.compiler(), *includes, "-xc", "-", "-o", str(binary)]
        subprocess.run(command, input=program, text=True, check=True)
        return subprocess.run([binary], capture_output=True, text=True, check=True).stdout


def enumerators(ffi: FFI) -> dict[str, int]:
    """All constants of the wire format, as cffi sees them."""
    enums: list[Any] = [ffi.typeof(f"enum {name}") for name in re.findall(r"^enum (\w+)", WIRE, re.MULTILINE)]
    return {name: value for enum in enums for name, value in enum.relements.items()}


def structs(ffi: FFI) -> list[str]:
    """Those with fields: the others are opaque."""
    names = ffi.list_types()[1]
    return [name for name in names if ffi.typeof(f"struct {name}").fields]


def typed_functions() -> list[str]:
    """Names of the functions that the type file declares."""
    tree = ast.parse(core_types.TARGET.read_text(encoding="utf-8"))
    names = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return sorted(name for name in names if name.startswith("accord_"))


def test_the_packed_structs_are_those_that_the_wire_format_marks() -> None:
    marked = set(re.findall(r"ACCORD_ASSERT_SIZE\((\w+), \d+\)", WIRE))
    assert _build.packed_structs(ROOT) == marked
    assert len(marked) >= 4


def test_every_struct_has_the_size_and_the_offsets_that_the_c_compiler_gives_it(ffi: FFI) -> None:
    prints = []
    expected = []
    for name in structs(ffi):
        prints.append(f'printf("{name} %zu\\n", sizeof(struct {name}));')
        expected.append(f"{name} {ffi.sizeof(f'struct {name}')}")
        fields: Any = ffi.typeof(f"struct {name}").fields
        for field, description in fields:
            prints.append(f'printf("{name}.{field} %zu\\n", offsetof(struct {name}, {field}));')
            expected.append(f"{name}.{field} {description.offset}")
    program = f'#include <stdio.h>\n#include "core.h"\nint main(void) {{ {"".join(prints)} return 0; }}\n'
    assert compiled(program).splitlines() == expected
    assert len(expected) > 50


def test_every_constant_of_the_wire_format_has_the_compilers_value(ffi: FFI) -> None:
    expected = enumerators(ffi)
    prints = "".join(f'printf("{name} %lld\\n", (long long){name});' for name in expected)
    program = f'#include <stdio.h>\n#include "core.h"\nint main(void) {{ {prints} return 0; }}\n'
    values = {name: int(value) for name, value in (line.split() for line in compiled(program).splitlines())}
    assert values == expected
    assert values["ACCORD_MAGIC"] == int.from_bytes(b"ACRD", "big")


def test_the_type_file_lists_exactly_the_functions_of_the_compiled_module() -> None:
    from accord.datapath._core import lib

    assert typed_functions() == [name for name in sorted(dir(lib)) if name.startswith("accord_")]


def test_the_type_file_is_what_core_h_leads_to_today() -> None:
    stale = "run .venv/bin/python -m buildtools.core_types"
    assert core_types.TARGET.read_text(encoding="utf-8") == core_types.stub(ROOT), stale


def test_without_a_compiler_the_package_to_install_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(_build.BuildError, match="apt-get install gcc"):
        _build.compiler()


def test_a_compiler_that_does_not_run_is_named_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "/nonexistent/cc -m64")
    with pytest.raises(_build.BuildError, match="does not run"):
        _build.check_headers(ROOT)


def test_all_missing_headers_are_named_at_once_by_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_build, "NEEDED_HEADERS", {"no/such.h": "libno-dev", "nor/this.h": "libnor-dev"})
    with pytest.raises(_build.BuildError, match="apt-get install libno-dev libnor-dev"):
        _build.check_headers(ROOT)


def test_a_broken_header_fails_with_the_preprocessors_words(tmp_path: Path) -> None:
    (tmp_path / "include/accord").mkdir(parents=True)
    (tmp_path / "include/accord/wire.h").write_text("#error broken on purpose\n")
    (tmp_path / "dataplane_c/src").mkdir(parents=True)
    (tmp_path / "dataplane_c/src/core.h").write_text('#include "accord/wire.h"\n')
    with pytest.raises(_build.BuildError, match="broken on purpose"):
        list(_build.definitions(tmp_path))


def test_the_build_file_imports_nothing_of_the_package_that_it_builds() -> None:
    program = "import runpy; runpy.run_path('ctrl/accord/datapath/_build.py', run_name='__cffi__')"
    subprocess.run([sys.executable, "-I", "-c", program], cwd=ROOT, check=True)
