# SPDX-License-Identifier: Apache-2.0
"""Errors of a TOML file name the line on which the value begins, and nothing makes the reader crash."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.controller.settings.toml import MAX_FILE_BYTES, Document, dotted
from accord.wire.constants import Reason
from accord.wire.errors import UserError

TEXT = '''# a comment
first = 1

[table]
# another
text = """
two lines
[table.not-a-table]
"""
list = [
  "a",
  "b",  # ] not the end
]
inline = { x = 1, y = { z = 2 } }

[[array]]
name = "one"
[[array]]

name = "two"
after = [1]
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("first",), 2),
        (("table",), 4),
        (("table", "text"), 6),
        (("table", "list"), 10),
        (("table", "inline"), 14),
        (("table", "inline", "y", "z"), 14),
        (("array",), 16),
        (("array", 0, "name"), 17),
        (("array", 1), 18),
        (("array", 1, "name"), 20),
        (("array", 1, "after"), 21),
    ],
)
def test_the_line_of_a_value_is_where_it_begins(path: tuple[str | int, ...], line: int) -> None:
    assert Document(TEXT, "f").line_of(path) == line


def test_the_line_of_a_missing_key_is_that_of_the_table_that_lacks_it() -> None:
    assert Document(TEXT, "f").line_of(("array", 1, "missing")) == 18
    assert Document(TEXT, "f").line_of(("missing",)) == 1


@given(
    st.lists(st.tuples(st.sampled_from(["int", "text", "list", "table"]), st.integers(0, 3)), min_size=1, max_size=12)
)
def test_the_line_of_every_key_is_found_whatever_stands_around_it(parts: list[tuple[str, int]]) -> None:
    lines: list[str] = []
    expected: dict[tuple[str | int, ...], int] = {}
    prefix: tuple[str, ...] = ()
    for number, (kind, blank) in enumerate(parts):
        lines += ["", "# comment = [", ""][:blank]
        key = f"k{number}"
        if kind == "table":
            prefix = (key,)
            expected[prefix] = len(lines) + 1
            lines.append(f"[{key}]")
            continue
        expected[(*prefix, key)] = len(lines) + 1
        lines += {
            "int": [f"{key} = {number}"],
            "text": [f"{key} = '''", f"{key} = 0", "'''"],
            "list": [f"{key} = [", "1,", "2]"],
        }[kind]
    document = Document("\n".join(lines), "f")
    assert {path: document.line_of(path) for path in expected} == expected


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("a = 1\nb = \n", 2, "Invalid value"),
        ("a = 1\na = 2\n", 2, "Cannot overwrite"),
        ("a = 1\nb = [1,\n2\n", 3, "Unclosed array"),
        ("a = 1\n\nb = " + "[" * 5000, 3, "nested too deeply"),
        ("a = 1\nb = " + "9" * 5000 + "\n", 2, "bad value"),
        ("a = 2024-02-31\n", 1, "Invalid date"),
        ("\x00", 1, "syntax error"),
    ],
)
def test_a_syntax_error_names_its_line(text: str, line: int, what: str) -> None:
    with pytest.raises(UserError) as caught:
        Document(text, "f.toml")
    assert caught.value.reason is Reason.BAD_CONFIG
    assert caught.value.detail.startswith(f"f.toml:{line}: ")
    assert what in caught.value.detail


@given(st.text(max_size=200))
def test_any_text_parses_or_is_a_user_error_with_a_line(text: str) -> None:
    try:
        tomllib.loads(text)
    except (ValueError, RecursionError):
        with pytest.raises(UserError) as caught:
            Document(text, "f")
        assert 1 <= int(caught.value.detail.split(":")[1]) <= text.count("\n") + 1
    else:
        Document(text, "f").finish()


def test_a_file_that_cannot_be_read_or_is_no_text_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        Document.read(tmp_path / "missing")
    with pytest.raises(UserError, match="Is a directory"):
        Document.read(tmp_path)
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b'a = 1\nb = "\xe9"\n')
    with pytest.raises(UserError, match=r"latin\.toml:2: not UTF-8"):
        Document.read(latin)
    long = tmp_path / "long.toml"
    long.write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    with pytest.raises(UserError, match="longer than"):
        Document.read(long)


def test_all_errors_are_reported_at_once_and_in_the_order_of_the_file() -> None:
    document = Document("a = 1\nb = 'x'\nc = true\nspeling = 1\n", "f")
    top = document.top
    assert top.boolean("c", False) is True
    assert top.integer("b", 0, 9, 7) == 7
    assert top.text("a") is None
    assert top.text("spelling") is None
    top.finish()
    with pytest.raises(UserError) as caught:
        document.finish()
    lines = caught.value.detail.splitlines()
    assert [line.split(":")[1] for line in lines] == ["1", "2", "4"]
    assert "did you mean spelling?" in lines[2]


def test_a_path_is_written_as_people_count() -> None:
    assert dotted(("destination", 1, "odd key")) == "destination[2].'odd key'"
    assert dotted(()) == "the file"
