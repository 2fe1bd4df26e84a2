# SPDX-License-Identifier: Apache-2.0
"""Many edits, in several processes: what came of each. An edit is a number, and the same number is the same edit."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

from sim.mitm.conversations import CONVERSATIONS, Conversation
from sim.mitm.corpus import corpus
from sim.mitm.edits import Edit
from sim.mitm.run import Base, Outcome, tampered, undisturbed
from sim.workers import mapped

_SHOWN: Final = 20
_CHUNK: Final = 20
_OTHER: Final = 1 << 20
"""The seed of the conversation that is spliced in is so far from that of the one that is edited."""


@dataclass(frozen=True, slots=True)
class Case:
    """One edit of one conversation."""

    number: int
    conversation: Conversation
    seed: int
    edit: Edit


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a case, small enough to be sent to another process."""

    number: int
    conversation: str
    kind: str
    text: str
    result: str
    reason: str
    responder: str
    struck: bool
    undetected: tuple[str, ...]
    weaker: tuple[str, ...]
    wrong: tuple[str, ...]

    @property
    def said(self) -> list[str]:
        """What did not hold."""
        return [*self.undetected, *self.weaker, *self.wrong]


@functools.lru_cache(maxsize=64)
def _base(name: str, seed: int) -> Base:
    return undisturbed(_named(name), seed)


@functools.lru_cache(maxsize=64)
def _corpus(name: str, seed: int) -> list[Edit]:
    return corpus(_base(name, seed).record, seed, streams=_named(name).real_tls)


def _named(name: str) -> Conversation:
    return next(conversation for conversation in CONVERSATIONS if conversation.name == name)


def case_of(number: int) -> Case:
    """The conversations take turns. When all edits of one are through, it is another one of its kind."""
    conversation = CONVERSATIONS[number % len(CONVERSATIONS)]
    place, seed = number // len(CONVERSATIONS), 1
    while place >= len(edits := _corpus(conversation.name, seed)):
        place, seed = place - len(edits), seed + 1
    return Case(number, conversation, seed, edits[place])


def play(case: Case, *, keep_ladder: bool = False) -> Outcome:
    """One edit. What it raises is wrong, whatever it is."""
    name = case.conversation.name
    base, other = _base(name, case.seed), _base(name, case.seed + _OTHER).record
    try:
        return tampered(case.conversation, case.seed, base, case.edit, other, keep_ladder=keep_ladder)
    except Exception as failure:
        return Outcome("exception", wrong=[f"{type(failure).__name__}: {failure}"])


def play_number(number: int) -> Result:
    """The edit of this number."""
    case = case_of(number)
    outcome = play(case)
    return Result(
        number,
        case.conversation.name,
        case.edit.kind.value,
        str(case.edit),
        outcome.result,
        outcome.reason,
        outcome.responder,
        outcome.struck,
        tuple(outcome.undetected),
        tuple(outcome.weaker),
        tuple(outcome.wrong),
    )


@dataclass(slots=True)
class Report:
    """Of a campaign."""

    edits: int = 0
    struck: int = 0
    undetected: int = 0
    weaker: int = 0
    wrong: int = 0
    by_kind: dict[str, Counter[str]] = field(default_factory=dict)
    by_conversation: dict[str, Counter[str]] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    responder_reasons: Counter[str] = field(default_factory=Counter)
    failures: dict[int, Result] = field(default_factory=dict)
    seconds: float = 0.0
    interrupted: bool = False

    def add(self, result: Result) -> None:
        """One edit more."""
        self.edits += 1
        self.struck += result.struck
        self.undetected += bool(result.undetected)
        self.weaker += bool(result.weaker)
        self.wrong += bool(result.wrong)
        outcome = result.result or "undetected"
        self.by_kind.setdefault(result.kind, Counter())[outcome] += 1
        self.by_conversation.setdefault(result.conversation, Counter())[outcome] += 1
        self.reasons[result.reason] += 1
        self.responder_reasons[result.responder] += 1
        if result.said:
            self.failures[result.number] = result

    @property
    def ok(self) -> bool:
        """Everything held."""
        return not self.failures

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "edits": self.edits,
            "struck": self.struck,
            "undetected_differences": self.undetected,
            "weaker_than_policy": self.weaker,
            "exceptions": self.wrong,
            "unclaimed": sum(counts["unclaimed"] for counts in self.by_kind.values()),
            "outcomes": {kind: dict(counts) for kind, counts in sorted(self.by_kind.items())},
            "conversations": {name: dict(counts) for name, counts in self.by_conversation.items()},
            "reasons": {name: count for name, count in self.reasons.most_common() if name},
            "responder": dict(self.responder_reasons.most_common()),
            "seconds": round(self.seconds, 1),
            "interrupted": self.interrupted,
            "failing": {
                str(number): {
                    "conversation": result.conversation,
                    "edit": result.text,
                    "said": result.said,
                }
                for number, result in sorted(self.failures.items())[:_SHOWN]
            },
        }


def campaign(
    numbers: Iterable[int], processes: int, tell: Callable[[Report], None], seconds: float | None = None
) -> Report:
    """Play them all, or as many as go into ``seconds``. ``tell`` is called after each; Ctrl-C ends it with a report."""
    report = Report()
    began = time.monotonic()
    try:
        with _workers(processes) as each:
            for result in each(numbers):
                report.add(result)
                report.seconds = time.monotonic() - began
                tell(report)
                if seconds is not None and report.seconds > seconds:
                    break
    except KeyboardInterrupt:
        report.interrupted = True
    return report


@contextlib.contextmanager
def _workers(processes: int) -> Iterator[Callable[[Iterable[int]], Iterator[Result]]]:
    if processes == 1:
        yield lambda numbers: map(play_number, numbers)
        return
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _begin_worker)
    try:
        yield lambda numbers: mapped(pool, play_number, numbers, _CHUNK)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one that started it ends it
