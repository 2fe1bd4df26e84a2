# SPDX-License-Identifier: Apache-2.0
"""TOML files whose errors name file, line and key, all of them at once.

``Document`` parses; ``Table`` hands out values of the right type and notes what is wrong with the others;
``Document.finish`` raises one ``UserError`` (BAD_CONFIG) with a line of text for each note.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from accord.wire.constants import Reason
from accord.wire.errors import AccordError, error

KeyPath = tuple[str | int, ...]
"""Keys and, in arrays, indices, from the top."""

MAX_FILE_BYTES: Final = 1 << 18
"""A configuration of more is none; the bound keeps parsing short."""
_MISSING: Final = object()
_AT_LINE: Final = re.compile(r"\(at line (\d+), column \d+\)")

_Choice = TypeVar("_Choice")


class Document:
    """One TOML text. ``name`` is what errors call it: the file's path as the user wrote it."""

    def __init__(self, text: str, name: str) -> None:
        self.name = name
        # TOML's lines end with a newline and nothing else that Python's splitlines knows.
        self._lines = re.findall(r"[^\n]*\n|[^\n]+", text)
        self._notes: list[tuple[int, str]] = []
        try:
            self._data = tomllib.loads(text)
        except (ValueError, RecursionError) as wrong:
            # The parser's own errors are ValueErrors; so are those of a number with thousands of digits.
            line, what = self._syntax(wrong)
            raise _bad([f"{name}:{line}: {what}"], "the syntax is described at toml.io") from wrong

    @classmethod
    def read(cls, path: Path) -> Document:
        """The file's document. Raises ``UserError`` (BAD_CONFIG), also when it cannot be read."""
        try:
            with path.open("rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
        except OSError as failed:
            raise _bad([f"{path}: {failed.strerror}"], "name a file that this user may read") from failed
        if len(data) > MAX_FILE_BYTES:
            raise _bad([f"{path}:1: longer than {MAX_FILE_BYTES} bytes"], "name a configuration file")
        try:
            return cls(data.decode(), str(path))
        except UnicodeDecodeError as wrong:
            line = data.count(b"\n", 0, wrong.start) + 1
            raise _bad([f"{path}:{line}: not UTF-8: {wrong.reason}"], "save the file as UTF-8") from wrong

    @property
    def top(self) -> Table:
        """The whole document as a table."""
        return Table(self, (), self._data)

    def note(self, path: KeyPath, wrong: str, allowed: str = "") -> None:
        """Something is wrong with the value at ``path``. Shown by ``finish``."""
        line = self.line_of(path)
        self._notes.append((line, f"{self.name}:{line}: {dotted(path)}: {wrong}" + (f"; {allowed}" if allowed else "")))

    def include(self, lines: str) -> None:
        """Errors of another file that this one names, as its ``UserError`` has them."""
        self._notes.append((len(self._lines) + 1, lines))

    def finish(self) -> None:
        """Raise ``UserError`` (BAD_CONFIG) with everything that was noted, by line; return if nothing was."""
        if self._notes:
            raise _bad([text for _, text in sorted(self._notes, key=lambda note: note[0])], "")

    def line_of(self, path: KeyPath) -> int:
        """The line, from 1, on which the value at ``path`` begins, or for a missing one the table that lacks it.

        The shortest beginning of the text that parses and holds the path ends with the value; the value begins
        after the longest shorter one that parses. What is there stays there, so the search is a bisection.
        """
        while path and not _holds(self._data, path):
            path = path[:-1]
        if not path:
            return 1
        low, high = 0, len(self._lines)
        while low < high:
            middle = self._parsable((low + high) // 2)
            if _holds(self._parse(middle), path):
                high = middle
                continue
            following = self._next_parsable(middle + 1)
            if _holds(self._parse(following), path):
                return middle + 1
            low = following
        return low + 1

    def _parsable(self, count: int) -> int:
        """The largest number of lines, up to ``count``, that parses; 0 always does."""
        while count and self._parse(count) is None:
            count -= 1
        return count

    def _next_parsable(self, count: int) -> int:
        while count < len(self._lines) and self._parse(count) is None:
            count += 1
        return count

    def _parse(self, count: int) -> dict[str, Any] | None:
        try:
            return tomllib.loads("".join(self._lines[:count]))
        except (ValueError, RecursionError):
            return None

    def _syntax(self, wrong: ValueError | RecursionError) -> tuple[int, str]:
        if isinstance(wrong, tomllib.TOMLDecodeError):
            text = str(wrong)
            found = _AT_LINE.search(text)
            if found:
                return int(found.group(1)), f"syntax error: {_AT_LINE.sub('', text).strip()}"
            return max(1, len(self._lines)), f"syntax error: {text}"
        # These come without a position: the first line that the parser gives up on in the same way.
        for count in range(1, len(self._lines) + 1):
            try:
                tomllib.loads("".join(self._lines[:count]))
            except tomllib.TOMLDecodeError:
                continue
            except (ValueError, RecursionError):
                what = "nested too deeply" if isinstance(wrong, RecursionError) else f"bad value: {wrong}"
                return count, what
        return max(1, len(self._lines)), f"bad value: {wrong}"


class Table:
    """One table of a document. Every getter removes its key; ``finish`` then complains about what is left.

    A getter that finds a value of the wrong kind notes it and returns the default, so that one reading finds
    all errors of a file.
    """

    def __init__(self, document: Document, path: KeyPath, data: Mapping[str, Any]) -> None:
        self.document = document
        self.path = path
        self._left = dict(data)
        self._known: list[str] = []

    def __contains__(self, key: str) -> bool:
        return key in self._left

    def names(self) -> tuple[str, ...]:
        """Those that nobody has asked for yet, for tables whose keys are names of the user's."""
        return tuple(self._left)

    def note(self, key: str, wrong: str, allowed: str = "") -> None:
        """Something is wrong with the value of ``key``."""
        self.document.note((*self.path, key), wrong, allowed)

    def text(self, key: str, default: str | None = None) -> str | None:
        """A string that is not empty."""
        value = self._take(key)
        if value is _MISSING:
            return default
        if not isinstance(value, str) or not value:
            self.note(key, f"{_shown(value)} is no text", "a string in quotes belongs here")
            return default
        return value

    def choice(self, key: str, choices: Mapping[str, _Choice], default: _Choice) -> _Choice:
        """One of the names in ``choices``; returns what the name stands for."""
        value = self._take(key)
        if value is _MISSING:
            return default
        if not isinstance(value, str) or value not in choices:
            self.note(key, f"{_shown(value)} is not known{_similar(value, choices)}", f"allowed: {_listed(choices)}")
            return default
        return choices[value]

    def integer(self, key: str, lowest: int, highest: int, default: int) -> int:
        """A number in ``lowest..highest``."""
        value = self._take(key)
        if value is _MISSING:
            return default
        if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
            self.note(key, f"{_shown(value)} is out of range", f"allowed: {lowest}..{highest}")
            return default
        return value

    def boolean(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self._take(key)
        if value is _MISSING:
            return default
        if not isinstance(value, bool):
            self.note(key, f"{_shown(value)} is neither true nor false", "write true or false, without quotes")
            return default
        return value

    def strings(self, key: str, convert: Callable[[str], _Choice], default: tuple[_Choice, ...]) -> tuple[_Choice, ...]:
        """An array of strings; ``convert`` raises ``ValueError`` (what is wrong; what is allowed) for a bad one."""
        value = self._take(key)
        if value is _MISSING:
            return default
        if not isinstance(value, list):
            self.note(key, f"{_shown(value)} is no list", 'write a list of strings: ["a", "b"]')
            return default
        found: list[_Choice] = []
        for number, element in enumerate(value, start=1):
            try:
                if not isinstance(element, str):
                    raise ValueError(f"{_shown(element)} is no text; a string in quotes belongs here")
                found.append(convert(element))
            except ValueError as wrong:
                self.note(key, f"element {number}: {wrong}")
        return tuple(found)

    def converted(self, key: str, convert: Callable[[str], _Choice], default: _Choice) -> _Choice:
        """A string; ``convert`` as in ``strings``."""
        value = self.text(key)
        if value is None:
            return default
        try:
            return convert(value)
        except ValueError as wrong:
            self.note(key, str(wrong))
            return default

    def table(self, key: str) -> Table | None:
        """A table; None when there is none."""
        value = self._take(key)
        if value is _MISSING:
            return None
        if not isinstance(value, dict):
            self.note(key, f"{_shown(value)} is no table", f"write [{dotted((*self.path, key))}]")
            return None
        return Table(self.document, (*self.path, key), value)

    def tables(self, key: str) -> Iterator[Table]:
        """The tables of an array of tables."""
        value = self._take(key)
        if value is _MISSING:
            return
        if not isinstance(value, list) or not all(isinstance(element, dict) for element in value):
            self.note(key, "is no array of tables", f"write [[{dotted((*self.path, key))}]], with two brackets")
            return
        for index, element in enumerate(value):
            yield Table(self.document, (*self.path, key, index), element)

    def discard(self, key: str) -> None:
        """What is wrong with this key was noted already."""
        self._take(key)

    def finish(self) -> None:
        """Note every key that nobody asked for."""
        for key in self._left:
            self.note(key, f"is no key of this table{_similar(key, self._known)}", f"allowed: {_listed(self._known)}")

    def _take(self, key: str) -> Any:
        self._known.append(key)
        return self._left.pop(key, _MISSING)


def dotted(path: KeyPath) -> str:
    """``destination[2].secure``; indices from 1, as people count. The empty path is the whole file."""
    text = ""
    for key in path:
        if isinstance(key, int):
            text += f"[{key + 1}]"
        else:
            shown = key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _shown(key)
            text += f".{shown}" if text else shown
    return text or "the file"


def _holds(data: Any, path: KeyPath) -> bool:
    for key in path:
        if isinstance(key, int):
            if not isinstance(data, list) or key >= len(data):
                return False
        elif not isinstance(data, dict) or key not in data:
            return False
        data = data[key]
    return True


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _similar(value: object, known: Collection[str]) -> str:
    near = difflib.get_close_matches(value, known, n=1) if isinstance(value, str) and len(value) < 100 else []
    return f" (did you mean {near[0]}?)" if near else ""


def _listed(names: Collection[str]) -> str:
    return ", ".join(names)


def _bad(lines: list[str], mend: str) -> AccordError:
    return error(Reason.BAD_CONFIG, "\n".join(lines), mend)
