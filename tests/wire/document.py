# SPDX-License-Identifier: Apache-2.0
"""The parts of docs/PROTOCOL.md that follow from other files: constants, reasons, state tables, the example.

``python -m tests.wire.document`` writes them anew (PYTHONPATH=ctrl); a test fails when they are stale.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from accord.controller.adoption import table as adoption
from accord.controller.race.events import EVENT_KINDS as RACE_EVENTS
from accord.controller.race.table import TABLE as RACE_TABLE
from accord.controller.race.table import State
from accord.controller.renegotiation import table as renegotiation
from accord.negotiation.initiator import Initiator, InitiatorState
from accord.negotiation.interface import Role
from accord.negotiation.machine import EVENT_KINDS, Machine
from accord.negotiation.responder import Responder, ResponderState
from tests.wire import example, header

DOCUMENT = header.ROOT / "docs/PROTOCOL.md"
PART = re.compile(r"(<!-- begin (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def comments() -> dict[str, str]:
    """What ``wire.h`` says beside each enumerator."""
    text = (header.ROOT / "include/accord/wire.h").read_text()
    beside = re.findall(r"ACCORD_(\w+) = [^,\n]+,\s*/\* (.*?) \*/", text)
    return dict(beside)


def _number(name: str, value: int) -> str:
    as_hexadecimal = re.match("MAGIC|TLV_|PROTOCOL_|FLAG|CHUNK_F|CHUNK_L|NODE_PLACE|NODE_FLAGS|TCP_OPTION_EXID", name)
    width = {"TLV_": 4, "FLAG": 4, "CHUN": 2, "NODE": 2}.get(name[:4], 0)
    return f"0x{value:0{width}x}" if as_hexadecimal else str(value)


def constants(enum: str) -> str:
    """One enum as a table."""
    beside, values = comments(), header.enum(enum)
    rows = [f"| `{name}` | {_number(name, value)} | {beside.get(name, '')} |" for name, value in values.items()]
    return "\n".join(["| name | value | |", "|---|---|---|", *rows]) + "\n"


def struct(name: str) -> str:
    """One struct as a table."""
    rows = [f"| {offset} | {size} | `{field}` |" for field, offset, size in header.fields(name)]
    return "\n".join(["| offset | bytes | field |", "|---|---|---|", *rows]) + "\n"


def reasons() -> str:
    """The reason enum as a table."""
    parties = {value: name.removeprefix("PARTY_").lower() for name, value in header.enum("party").items()}
    rows = [
        f"| {value} | `{name}` | {parties[party]} | {text} |" for name, (value, party, text) in header.reasons().items()
    ]
    return "\n".join(["| value | name | whose fault | |", "|---|---|---|---|", *rows]) + "\n"


def states(machine: type[Machine], states: type[InitiatorState] | type[ResponderState]) -> str:
    """A state table: a row to a state, a column to a kind of event; an empty field: nothing happens."""
    lines = [
        "| state | " + " | ".join(kind.__name__ for kind in EVENT_KINDS) + " |",
        "|---" * (len(EVENT_KINDS) + 1) + "|",
    ]
    for state in states:
        handlers = [machine.TABLE[state, kind].removeprefix("_") for kind in EVENT_KINDS]
        lines.append(f"| {state.name} | " + " | ".join("" if name == "ignore" else name for name in handlers) + " |")
    return "\n".join(lines) + "\n"


def race() -> str:
    """The state table of the race with the plain connection."""
    lines = [
        "| state | " + " | ".join(kind.__name__ for kind in RACE_EVENTS) + " |",
        "|---" * (len(RACE_EVENTS) + 1) + "|",
    ]
    for state in sorted({state for state, _ in RACE_TABLE}, key=list(State).index):
        handlers = [RACE_TABLE.get((state, kind), "").removeprefix("_").replace("_", " ") for kind in RACE_EVENTS]
        lines.append(f"| {state.name} | " + " | ".join(handlers) + " |")
    return "\n".join(lines) + "\n"


def places() -> str:
    """The state table of a place that is kept for a connection (parallel SYN, responder)."""
    lines = [
        "| state | " + " | ".join(event.name for event in adoption.Event) + " |",
        "|---" * (len(adoption.Event) + 1) + "|",
    ]
    for state, row in adoption.TABLE.items():
        cells = []
        for event in adoption.Event:
            after, todo = row[event]
            words = ", ".join(do.name.lower().replace("_", " ") for do in todo)
            cells.append(
                f"{words} → {after.name}" if after and todo else words if todo else after.name if after else ""
            )
        lines.append(f"| {state.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def change(role: Role) -> str:
    """The state table of one end of an association that goes over to another stack."""
    events = list(renegotiation.Event)
    lines = ["| state | " + " | ".join(event.name for event in events) + " |", "|---" * (len(events) + 1) + "|"]
    table = renegotiation.TABLE[role]
    for state in renegotiation.State:
        cells = []
        for event in events:
            do, after = table.get((state, event), (renegotiation.Do.NOTHING, state))
            words = [do.value] if do is not renegotiation.Do.NOTHING else []
            cells.append(" → ".join([*words, after.name] if after is not state else words))
        if any(cells):
            lines.append(f"| {state.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _dump(data: bytes) -> str:
    lines = []
    for at in range(0, len(data), 16):
        row = data[at : at + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        lines.append(f"{at:04x}  {row.hex(' '):<47}  {text}")
    return "\n".join(lines) + "\n"


def worked_example(built: example.Example) -> str:
    """The three packets and what was computed for them."""
    parts = [
        ("transaction ID", example.TRANSACTION),
        ("cookie", example.COOKIE),
        ("exporter", example.EXPORTER),
        ("packet, step 0", built.proposal),
        ("T(0)", built.hashes[0]),
        ("packet, step 1", built.answer),
        ("T(1)", built.hashes[1]),
        ("MAC of the responder", built.macs[0]),
        ("packet, step 2", built.commit),
        ("T(2)", built.hashes[2]),
        ("MAC of the initiator", built.macs[1]),
    ]
    return "```\n" + "\n".join(f"{name}\n{_dump(data)}" for name, data in parts) + "```\n"


PARTS: dict[str, Callable[[], str]] = {
    **{f"constants:{name}": (lambda name=name: constants(name)) for name in (  # type: ignore[misc]
        "packet_constant", "packet_flag", "chunk_flag", "node_flag", "cookie_kind", "tlv_type", "protocol", "word",
        "node_id", "step", "tcp_option", "limit",
    )},
    **{f"struct:{name}": (lambda name=name: struct(name)) for name in (  # type: ignore[misc]
        "header", "chunk", "cookie", "descriptor", "tlv",
    )},
    "reasons": reasons,
    "states:initiator": lambda: states(Initiator, InitiatorState),
    "states:responder": lambda: states(Responder, ResponderState),
    "states:race": race,
    "states:adoption": places,
    "states:initiator_end": lambda: change(Role.INITIATOR),
    "states:responder_end": lambda: change(Role.RESPONDER),
    "example": lambda: worked_example(example.build()),
    "figure": lambda: worked_example(example.figure()),
}  # fmt: skip


def render(text: str) -> str:
    """The document with every part as it should be. Raises ``KeyError`` for a part that nobody can make."""
    return PART.sub(lambda part: part[1] + "\n" + PARTS[part[2]]() + "\n" + part[3], text)


if __name__ == "__main__":
    DOCUMENT.write_text(render(DOCUMENT.read_text()))
