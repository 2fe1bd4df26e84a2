# SPDX-License-Identifier: Apache-2.0
"""The table of memory in docs/OPERATIONS.md, made from what the engine itself says.

``python -m tests.datapath.memory_document`` writes it anew (PYTHONPATH=ctrl); a test fails when it is stale.
"""

from __future__ import annotations

import re
from pathlib import Path

from accord.datapath._core import ffi, lib

DOCUMENT = Path(__file__).parents[2] / "docs/OPERATIONS.md"
PART = re.compile(r"(<!-- begin memory -->\n).*?(<!-- end memory -->)", re.DOTALL)
MEBIBYTE = 1 << 20
# As the engine completes zeros: dataplane_c/src/memory.c, and the reasons beside them in core.h.
DEFAULTS = {"transactions": 1024, "unproven": 256, "buffers": 4096, "events": 4096, "slots": 0}
SLOTS = 2500
"""Of the configuration; the engine itself has none."""
TEN_THOUSAND = {"transactions": 10_000, "unproven": 10_000, "buffers": 65_536, "events": 4096, "slots": 0}
HEAD_BYTES = 4
"""Of one chain of the hash table, which has the next power of two of them."""


def engine_bytes(settings: dict[str, int]) -> int:
    """What an engine of these settings takes."""
    return int(lib.accord_engine_bytes(ffi.new("struct accord_engine_config *", settings)))


def per(setting: str, step: int) -> int:
    """Bytes of one more; ``step`` more of them keep every part aligned and the hash table as large as it is."""
    more = engine_bytes({**DEFAULTS, setting: DEFAULTS[setting] + step})
    return (more - engine_bytes(DEFAULTS)) // step


def up_to(number: int, multiple: int) -> int:
    """The next multiple."""
    return -(-number // multiple) * multiple


def coefficients() -> dict[str, int]:
    """Bytes of one transaction (without its chain), buffer and event, and what is always there: the first and the
    last rounded up, so that not every field that comes or goes makes the document stale."""
    found = {"transactions": per("transactions", -4), "buffers": per("buffers", 1), "events": per("events", 2)}
    # Of 4096, by which both parts of it are aligned.
    found["slots"] = per("slots", 4096) - HEAD_BYTES
    variable = sum(count * DEFAULTS[name] for name, count in found.items()) + HEAD_BYTES * DEFAULTS["transactions"]
    fixed = engine_bytes(DEFAULTS) - variable
    return {**found, "transactions": up_to(found["transactions"], 128), "fixed": up_to(fixed, 16_384)}


def predicted(settings: dict[str, int]) -> int:
    """By the table, without asking the engine: at most so much."""
    each = coefficients()
    chains = 1 << (settings["transactions"] - 1).bit_length()
    if settings.get("slots"):
        chains += 1 << (settings["slots"] - 1).bit_length()
    return (
        each["fixed"] + HEAD_BYTES * chains + sum(each[name] * settings[name] for name in each.keys() & settings.keys())
    )


def table() -> str:
    """Rows of settings, then the examples."""
    each = coefficients()
    rows = [
        f"| always | {each['fixed']:,} | the engine itself, and room for the descriptors of one batch of events |",
        f"| each of `transactions` | {each['transactions']:,} | a slot, its timer, and {HEAD_BYTES} more for each up "
        "to the next power of two |",
        f"| each of `buffers` | {each['buffers']:,} | one packet of 1200 bytes to be sent, or up to 2048 of chunks "
        "that came in |",
        f"| each of `slots` | {each['slots']:,} | an answer without memory, and {HEAD_BYTES} more for each up to the "
        "next power of two |",
        f"| each event of {DEFAULTS['events']} | {each['events']:,} | no setting of the file |",
    ]
    examples = [
        f"{settings['transactions']:,} transactions and {settings['buffers']:,} buffers: "
        f"**{predicted(settings) / MEBIBYTE:.0f} MiB**{note}"
        for settings, note in (
            ({**DEFAULTS, "slots": SLOTS}, f", with {SLOTS:,} slots, the default"),
            (TEN_THOUSAND, ", without slots"),
        )
    ]
    return "\n".join(["| what | bytes | |", "|---|---|---|", *rows]) + "\n\n" + "; ".join(examples) + ".\n"


def render(text: str) -> str:
    """The document with its table as it should be."""
    return PART.sub(lambda part: part[1] + "\n" + table() + "\n" + part[2], text)


if __name__ == "__main__":
    DOCUMENT.write_text(render(DOCUMENT.read_text()))
