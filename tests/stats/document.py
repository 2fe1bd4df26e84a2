# SPDX-License-Identifier: Apache-2.0
"""The table of counters in docs/OPERATIONS.md, made from the families themselves.

``python -m tests.stats.document`` writes it anew (PYTHONPATH=ctrl); a test fails when it is stale.
"""

from __future__ import annotations

import re
from pathlib import Path

from accord.controller.metrics import FAMILIES

DOCUMENT = Path(__file__).parents[2] / "docs/OPERATIONS.md"
PART = re.compile(r"(<!-- begin metrics -->\n).*?(<!-- end metrics -->)", re.DOTALL)


def table() -> str:
    """One row to a family."""
    rows = [
        f"| `{family.name}` | {family.kind} | {', '.join(f'`{label}`' for label in family.labels)} | {family.help} |"
        for family in FAMILIES
    ]
    return "\n".join(["| name | kind | labels | |", "|---|---|---|---|", *rows]) + "\n"


def render(text: str) -> str:
    """The document with its table as it should be."""
    return PART.sub(lambda part: part[1] + "\n" + table() + "\n" + part[2], text)


if __name__ == "__main__":
    DOCUMENT.write_text(render(DOCUMENT.read_text()))
