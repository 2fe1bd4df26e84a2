# SPDX-License-Identifier: Apache-2.0
"""The state tables of the code, as the Promela that docs/model reads.

Not a translation of the tables' text: the code itself is driven through everything that it can be told, and what it did
is written down. A column that never changed the outcome is left out of a guard.

``python -m tests.model.tables`` writes the files anew (PYTHONPATH=ctrl:.); a test fails when they are stale.
"""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from accord.controller.adoption import table as adoption
from accord.controller.race import events as race_events
from accord.controller.race import table as race
from accord.controller.renegotiation import table as renegotiation
from accord.controller.settings.policy import Fallback, TcpOpen
from accord.negotiation.initiator import Initiator, InitiatorState
from accord.negotiation.interface import Role
from accord.negotiation.machine import EVENT_KINDS, Machine
from accord.negotiation.responder import Responder, ResponderState
from accord.wire.constants import Reason
from accord.wire.errors import AccordError, error

FOLDER: Final = Path(__file__).resolve().parents[2] / "docs/model"

Condition = Mapping[str, str]
"""By the name of a column, the Promela expression that held."""
Outcome = tuple[str, ...]
"""Promela statements; empty: nothing happened."""


@dataclass(frozen=True)
class Seen:
    """The code was in this condition, and did this."""

    when: Condition
    did: Outcome


# ---- From what was seen to guarded commands -------------------------------------------------------


def guards(rows: Sequence[Seen], columns: Sequence[str]) -> list[tuple[list[str], Outcome]]:
    """The fewest guards that tell the outcomes apart. Raises ``ValueError`` when no column does."""
    outcomes = {row.did for row in rows}
    if len(outcomes) == 1:
        return [([], outcomes.pop())]
    best: list[tuple[list[str], Outcome]] | None = None
    for column in columns:
        values = list(dict.fromkeys(row.when[column] for row in rows))
        if len(values) == 1:
            continue
        rest = [other for other in columns if other != column]
        found: dict[tuple[tuple[str, ...], Outcome], list[str]] = {}
        for value in values:
            for guard, outcome in guards([row for row in rows if row.when[column] == value], rest):
                found.setdefault((tuple(guard), outcome), []).append(value)
        merged = [
            ([*([] if len(held) == len(values) else [_any_of(held)]), *guard], outcome)
            for (guard, outcome), held in found.items()
        ]
        if best is None or len(merged) < len(best):
            best = merged
    if best is None:
        raise ValueError(f"one condition, several outcomes: {sorted(outcomes)}")
    return best


def _any_of(values: Sequence[str]) -> str:
    return values[0] if len(values) == 1 else f"({' || '.join(values)})"


def commands(rows: Iterable[Seen], first: Sequence[str], columns: Sequence[str]) -> Iterator[str]:
    """Guarded commands of an ``if``, grouped by the columns ``first``. Where nothing happens there is none."""
    groups: dict[tuple[str, ...], list[Seen]] = {}
    for row in rows:
        groups.setdefault(tuple(row.when[name] for name in first), []).append(row)
    for head, group in groups.items():
        for guard, outcome in guards(group, columns):
            if outcome:
                yield f"\t:: {' && '.join([*head, *guard])} ->\n\t\t{'; '.join(outcome)}"


def inline(name: str, lines: Iterable[str]) -> str:
    """All of them as one inline, which does nothing where none applies."""
    return f"inline {name}() {{\n\tif\n" + "\n".join(lines) + "\n\t:: else -> skip\n\tfi\n}\n"


def names(prefix: str, words: Iterable[str]) -> str:
    """A declaration of constants."""
    return "mtype = { " + ", ".join(prefix + word for word in words) + " };\n"


def _upper(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper()


# ---- The race (accord.controller.race.table) ------------------------------------------------------

_PRETEXT: Final = {
    (spoken, final): race_events.NegotiationFailed(
        error(Reason.BAD_MAC if final else Reason.NO_COMMON_STACK if spoken else Reason.TIMEOUT), spoken
    )
    for spoken in (False, True)
    for final in (False, True)
}
_RACE_COLUMNS: Final = ("tcp", "fallback", "bare", "patient", "trusts", "lost", "spoken", "final", "marked")


def _race_inputs() -> Iterator[tuple[race_events.Event, dict[str, str]]]:
    other = {"spoken": "", "final": "", "marked": ""}
    for (spoken, final), event in _PRETEXT.items():
        yield event, {**other, "spoken": _is("spoken", spoken), "final": _is("final", final)}
    for heard in (False, True):
        yield race_events.SynAck(heard), {**other, "marked": _is("marked", heard)}
    yield race_events.TcpFailed(error(Reason.UNREACHABLE)), other
    for kind in (
        race_events.Answered, race_events.Committed, race_events.PlainReady, race_events.PlainSpoken, race_events.Waited
    ):  # fmt: skip
        yield kind(), other


def _is(name: str, value: bool) -> str:
    return name if value else f"!{name}"


def _race_did(before: race.Race, after: race.Race, actions: tuple[race_events.Action, ...]) -> Outcome:
    done = [] if after.state is before.state else [f"race = RACE_{after.state.name}"]
    if (after._connection is None) != (before._connection is None):
        done.append("lost = true")
    for action in actions:
        match action:
            case race_events.Open(syn):
                done.append(f"do_open(SYN_{syn.name})")
            case race_events.Wait(patience):
                done.append(f"do_wait(FOR_{patience.name})")
            case _:
                done.append(f"do_{_upper(type(action).__name__).lower()}()")
    return tuple(done)


def race_table() -> str:
    """The race, under all rules, after everything that can have happened."""
    begun, seen = [], []
    for tcp, fallback in itertools.product((TcpOpen.NO_SYN, TcpOpen.PARALLEL_SYN), Fallback):
        for bare, propose, patient, trusts, made in itertools.product((False, True), repeat=5):
            here = {
                "tcp": _is("parallel_syn", tcp is TcpOpen.PARALLEL_SYN),
                "fallback": f"fallback == {fallback.name}",
                "bare": _is("bare", bare),
                "patient": _is("patient", patient),
                "trusts": _is("trusts_mark", trusts),
            }
            fresh = race.Race(race.Rules(tcp, fallback, bare, propose, patient, trusts, made))
            first = copy.copy(fresh)
            did = _race_did(fresh, first, first.start())
            begun.append(Seen({**here, "propose": _is("asks", propose), "made": _is("made", made)}, did))
            if made:  # it tells what leaves first, and nothing else
                seen += _race_runs(first, here)
    order = list(race.State)
    seen.sort(key=lambda row: (order.index(race.State[row.when["state"].split("RACE_")[1]]), row.when["event"]))
    return "\n".join(
        [
            names("RACE_", (state.name for state in race.State)),
            names("ON_", (_upper(kind.__name__) for kind in race_events.EVENT_KINDS)),
            names("SYN_", (syn.name for syn in race_events.Syn)),
            names("FOR_", (patience.name for patience in race_events.Patience)),
            names("", (fallback.name for fallback in Fallback)),
            inline(
                "race_start", commands(begun, (), ("propose", "made", "tcp", "fallback", "bare", "patient", "trusts"))
            ),
            inline("race_receive", commands(seen, ("state", "event"), _RACE_COLUMNS)),
        ]
    )


def _race_runs(first: race.Race, here: Mapping[str, str]) -> Iterator[Seen]:
    todo, known = [first], set()
    while todo:
        before = todo.pop()
        key = (before.state, before._connection is None)
        if key in known:
            continue
        known.add(key)
        for event, said in _race_inputs():
            after = copy.copy(before)  # whatever a race holds is immutable
            did = _race_did(before, after, after.receive(event))
            yield Seen(
                {
                    "state": f"race == RACE_{before.state.name}",
                    "event": f"event == ON_{_upper(type(event).__name__)}",
                    "lost": _is("lost", before._connection is not None),
                    **here,
                    **said,
                },
                did,
            )
            todo.append(after)


# ---- The place kept for a connection (accord.controller.adoption.table) ---------------------------

_ID: Final = bytes(12)
_ADDRESSES: Final = {"OWN": "192.0.2.1", "STRANGER": "192.0.2.2"}
_BROUGHT: Final = (adoption.Event.SYN, adoption.Event.PREFACE, adoption.Event.HELLO)
_SAID: Final = (
    adoption.Event.SAYS_PREFACE, adoption.Event.SAYS_HELLO, adoption.Event.SAYS_RECORD, adoption.Event.SAYS_END,
    adoption.Event.SAYS_PLAIN, adoption.Event.GONE,
)  # fmt: skip
Registry = adoption.Registry[str]


def _held(registry: Registry) -> str:
    entry = registry._entries.get(_ID)
    return "NOBODY" if entry is None or entry.held is None else entry.held


def _spare(registry: Registry) -> str:
    entry = registry._entries.get(_ID)
    return "NOBODY" if entry is None or not entry.spares else next(iter(entry.spares.values()))


def _place_inputs(
    held: str, taken: Sequence[str]
) -> Iterator[tuple[adoption.Event, str, Callable[[Registry], list[Any]]]]:
    for event, who in itertools.product(_BROUGHT, _ADDRESSES):
        if who not in taken:
            yield event, who, lambda it, event=event, who=who: it.accepted(_ID, event, who, _ADDRESSES[who])  # type: ignore[misc]
    for event in _SAID:
        yield event, "", lambda it, event=event: it.said(_ID, event, held)  # type: ignore[misc]
    yield adoption.Event.EXPECT, "", lambda it: it.expect(_ID, _ADDRESSES["OWN"])
    for event in (adoption.Event.COMMIT_FIRST, adoption.Event.COMMIT_BEHIND):
        behind = event is adoption.Event.COMMIT_BEHIND
        yield event, "", lambda it, behind=behind: it.commit(_ID, behind_preface=behind)  # type: ignore[misc]
    for event in (adoption.Event.END, adoption.Event.EXPIRE):
        yield event, "", lambda it, event=event: it.end(_ID, event)  # type: ignore[misc]


def _place_did(before: Registry, after: Registry, who: str, call: Callable[[Registry], list[Any]]) -> Outcome:
    try:
        steps = call(after)
    except AccordError:
        return ("do_refuse()",)
    done = []
    for do, connection in steps:
        verb = do.name.lower().replace("_new", "").replace("_held", "")
        if verb != "hold":
            whose = "" if verb in ("stop", "fail") else "newcomer" if connection == who else "held"
            done.append(f"do_{verb}({whose})")
    if after.state(_ID) is not before.state(_ID):
        done.append(f"place = PLACE_{after.state(_ID).name}")
    if (held := _held(after)) != _held(before):
        done.append("held = " + ("NOBODY" if held == "NOBODY" else "spare" if held == _spare(before) else "newcomer"))
    if (spare := _spare(after)) != _spare(before):
        done.append("spare = " + ("NOBODY" if spare == "NOBODY" else "newcomer"))
    return tuple(done)


def adoption_table() -> str:
    """A place, after everything that can have happened, with the peer's own connection and one from elsewhere."""
    seen, known = [], set()
    todo: list[Registry] = [adoption.Registry(8)]
    while todo:
        before = todo.pop()
        if (key := (before.state(_ID), _held(before), _spare(before))) in known:
            continue
        known.add(key)
        for event, who, call in _place_inputs(key[1], key[1:]):
            after = copy.deepcopy(before)
            did = _place_did(before, after, who, call)
            when = {
                "state": f"place == PLACE_{key[0].name}",
                "event": f"event == MET_{event.name}",
                "held": f"held == {key[1]}",
                "spare": f"spare == {key[2]}",
                "who": f"newcomer == {who}" if who else "",
            }
            seen.append(Seen(when, did))
            todo.append(after)
    order = [*adoption.State]
    seen.sort(key=lambda row: order.index(adoption.State[row.when["state"].split("PLACE_")[1]]))
    return "\n".join(
        [
            names("PLACE_", (state.name for state in adoption.State)),
            names("MET_", (event.name for event in adoption.Event)),
            names("", ("NOBODY", *_ADDRESSES)),
            inline("place_receive", commands(seen, ("state", "event"), ("who", "held", "spare"))),
        ]
    )


# ---- The three-step exchange (accord.negotiation) -------------------------------------------------


def exchange_table() -> str:
    """Which handler each side has for what, in which state. What the handlers do is the model's."""
    parts = [names("ON_", (_upper(kind.__name__) for kind in EVENT_KINDS))]
    sides: tuple[tuple[str, type[Machine], Iterable[Any]], ...] = (
        ("initiator", Initiator, InitiatorState),
        ("responder", Responder, ResponderState),
    )
    for side, machine, states in sides:
        members = list(states)
        parts.append(names(f"{side[0].upper()}_", (state.name for state in members)))
        lines = [
            f"\t:: {side} == {side[0].upper()}_{state.name} && event == ON_{_upper(kind.__name__)} ->\n"
            f"\t\t{side}{machine.TABLE[state, kind]}()"
            for state in members
            for kind in EVENT_KINDS
            if machine.TABLE[state, kind] != "_ignore"
        ]
        parts.append(inline(f"{side}_receive", lines))
    return "\n".join(parts)


# ---- An association that goes over to another stack (accord.controller.renegotiation.table) --------


def renegotiation_table() -> str:
    """What each end does, and becomes; an event that is not in the table changes nothing."""
    parts = [
        names("END_", (state.name for state in renegotiation.State)),
        names("HAS_", (event.name for event in renegotiation.Event)),
        names("DO_", (do.name for do in renegotiation.Do)),
    ]
    for role in Role:
        end = f"{role.value}_end"
        lines = [
            f"\t:: {end} == END_{state.name} && what == HAS_{event.name} ->\n"
            f"\t\ttodo = DO_{do.name}; {end} = END_{after.name}"
            for (state, event), (do, after) in renegotiation.TABLE[role].items()
        ]
        body = "\n".join(lines) + "\n\t:: else -> todo = DO_NOTHING"
        parts.append(f"inline {role.value}_take(what) {{\n\tif\n{body}\n\tfi\n}}\n")
    return "\n".join(parts)


FILES: Final[Mapping[str, Callable[[], str]]] = {
    "race_table.pmh": race_table,
    "adoption_table.pmh": adoption_table,
    "exchange_table.pmh": exchange_table,
    "renegotiation_table.pmh": renegotiation_table,
}

_HEAD: Final = (
    "/* SPDX-License-Identifier: Apache-2.0 */\n/* Made from the code by tests/model/tables.py: do not edit. */\n\n"
)


def render(name: str) -> str:
    """What the file has to say."""
    return _HEAD + FILES[name]()


if __name__ == "__main__":
    for file in FILES:
        (FOLDER / file).write_text(render(file))
