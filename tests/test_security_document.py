# SPDX-License-Identifier: Apache-2.0
"""The table of docs/SECURITY.md names what is there: each threat once, and by tests and commands that exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs/SECURITY.md"
THREATS = 33
_ROW = re.compile(r"^\| (\d+) \| (.+?) \| (.+?) \| (.+?) \| (.+) \|$", re.MULTILINE)
_NAME = re.compile(r"`([^`]+)`")


def rows() -> dict[int, tuple[str, str]]:
    """How it is done and what shows it, by number."""
    found = _ROW.findall(DOCUMENT.read_text())
    assert [int(number) for number, *_ in found] == list(range(1, THREATS + 1)), "each once, in order"
    return {int(number): (how, shown) for number, _, _, how, shown in found}


@cache
def functions(path: Path) -> frozenset[str]:
    """What pytest would collect of a file."""
    tree = ast.parse(path.read_text())
    defined = (node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(node.name for node in defined if node.name.startswith("test_"))


def exists(name: str) -> bool:
    """A test, or a command with a target of its own."""
    if name.startswith("./build.py "):
        return command_exists(name.split()[1:])
    if name.startswith("make "):
        return target_exists(name.split()[1:])
    file, _, test = name.partition("::")
    if file.startswith("C:"):
        path = ROOT / "dataplane_c/tests" / file.removeprefix("C:")
        return path.exists() and f"RUN({test});" in path.read_text()
    path = ROOT / "tests" / file
    return path.exists() and path.name.startswith("test_") and test in functions(path)


def command_exists(words: list[str]) -> bool:
    """``fuzz --target T``, ``fuzz xdp``, ``bench NAME [--option N]``, ``sim [--option N]``, ``model``."""
    options = [word for word in words[1:] if word.startswith("--")]
    match words:
        case ["fuzz", "--target", target]:
            places = (f"dataplane_c/fuzz/fuzz_{target}.c", f"fuzz/targets/{target}.py")
            return any((ROOT / place).exists() for place in places)
        case ["fuzz", "xdp"]:
            return (ROOT / "dataplane_c/campaign/main.c").exists()
        case ["bench", name, *_]:
            source = ROOT / "bench" / f"{name}.py"
            return source.exists() and all(f'"{option}"' in source.read_text() for option in options)
        case ["sim", *_]:
            return all(f'"{option}"' in (ROOT / "sim/__main__.py").read_text() for option in options)
        case ["model"]:
            return (ROOT / "buildtools/model.py").exists()
    return False


def target_exists(words: list[str]) -> bool:
    """``make -C DIRECTORY TARGET [VARIABLE=value]``."""
    match words:
        case ["-C", directory, target, *variables]:
            made = ROOT / directory / "Makefile"
            text = made.read_text() if made.exists() else ""
            return f"\n{target}:" in text and all(f"$({each.partition('=')[0]})" in text for each in variables)
    return False


@pytest.mark.parametrize("number", range(1, THREATS + 1))
def test_what_is_said_to_show_it_is_there(number: int) -> None:
    how, shown = rows()[number]
    names = _NAME.findall(shown)
    assert any("::" in name for name in names), "a test, not a command alone"
    assert [name for name in names if not exists(name)] == []
    files = [name for name in _NAME.findall(how) if "/" in name]
    assert [name for name in files if not (ROOT / name).exists()] == []


def test_a_name_that_is_not_there_is_noticed() -> None:
    for name in (
        "xdp/test_random_packets.py::test_nothing_of_the_kind",
        "xdp/test_nothing.py::test_random_datagrams_pass_untouched",
        "C:test_bounds.c::nothing_of_the_kind",
        "C:test_nothing.c::peers_that_send_first_chunks_only_cannot_keep_an_honest_one_out",
        "./build.py fuzz --target nothing",
        "./build.py bench nothing",
        "./build.py bench fallback --nothing",
        "./build.py fuzz nothing",
        "./build.py sim --nothing",
        "./build.py nothing",
        "make -C dataplane_c nothing",
        "make -C dataplane_c amplification NOTHING=1",
        "make -C nowhere amplification",
    ):
        assert not exists(name), name


def test_files_and_settings_of_the_budgets_are_there() -> None:
    text = DOCUMENT.read_text()
    budgets = text[text.index("## Budgets") : text.index("## Reporting")]
    reference = (ROOT / "docs/POLICY.md").read_text()
    for name in _NAME.findall(budgets):
        if "/" in name:
            assert (ROOT / name).exists(), name
        elif "_" in name or name == "unproven":
            assert f"`{name}`" in reference, name
