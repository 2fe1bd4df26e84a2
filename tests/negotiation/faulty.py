# SPDX-License-Identifier: Apache-2.0
"""Everything that a plug-in should not do in one call, as scripts of ``FakeSession``: by name, what it does there."""

from __future__ import annotations

from typing import NoReturn

from accord.negotiation.interface import Answer, Defer, Refuse, View, Wait
from accord.wire.constants import Reason
from accord.wire.errors import AccordError, OurError


class LyingBytes(bytes):
    """Says that it is short."""

    def __len__(self) -> int:
        return 3


class Mute(Exception):
    """Cannot even be told."""

    def __str__(self) -> str:
        raise ValueError("no words")


class Unspeakable:
    """Neither can this."""

    def __repr__(self) -> str:
        raise ValueError("no words")

    def __eq__(self, other: object) -> bool:
        raise ValueError("no comparison")

    __hash__ = None  # type: ignore[assignment]


class Nameless(AccordError):
    """An error of a class of its own, without what all of them have."""

    def __init__(self) -> None:
        Exception.__init__(self)


class OwnAnswer(Answer):
    """Looks like an answer until its payload is read a second time."""


def overruling(view: View) -> NoReturn:
    """Tries to change what the others are shown."""
    view.below[0] = None  # type: ignore[index]
    raise AssertionError("a view could be changed")


def renaming(view: View) -> NoReturn:
    """The same, by name."""
    view.budget = 1 << 30  # type: ignore[misc]
    raise AssertionError("a view could be changed")


RAISES: dict[str, BaseException] = {
    "an error": ZeroDivisionError("x"),
    "an error without words": Mute(),
    "an error without a reason": Nameless(),
    "an error of 100 MB": ValueError("x" * 100_000_000),
    "the end of the program": SystemExit(3),
    "the end of a generator": GeneratorExit(),
    "no more iterations": StopIteration(),
    "too deep": RecursionError("x"),
    "out of its order": OurError(Reason.PLUGIN_FAILED, "commit of responder in phase open"),
}
"""What is raised, and none of it is what a plug-in is allowed to raise."""

RETURNS: dict[str, object] = {
    "nothing": None,
    "a number": 7,
    "what cannot be printed": Unspeakable(),
    "its own class": Answer,
    "an answer of text": Answer("text"),  # type: ignore[arg-type]
    "an answer of a bytearray": Answer(bytearray(b"x")),  # type: ignore[arg-type]
    "an answer that lies about its length": Answer(LyingBytes(100_000)),
    "an answer of its own kind": OwnAnswer(b"x"),
    "an answer that is more or less done": Answer(b"x", more="yes"),  # type: ignore[arg-type]
    "an answer confirmed by a number": Answer(b"x", confirm=5),  # type: ignore[arg-type]
    "an answer longer than any message": Answer(bytes(70_000)),
    "a refusal for no reason": Refuse(Reason.OK),
    "a refusal for a word": Refuse("no"),  # type: ignore[arg-type]
    "a refusal in numbers": Refuse(Reason.POLICY, 5),  # type: ignore[arg-type]
    "a wait for a number": Wait(5),  # type: ignore[arg-type]
    "after a list": Defer(["x"]),  # type: ignore[arg-type]
    "after words": Defer(frozenset({"x"})),  # type: ignore[arg-type]
}

MUTATES = {"a view by its place": overruling, "a view by its name": renaming}

FAULTS: dict[str, object] = {**RAISES, **RETURNS, **MUTATES}
