# SPDX-License-Identifier: Apache-2.0
"""How far a benchmark is."""

from __future__ import annotations

import sys


def say(text: str, last: bool = False) -> None:
    """Progress, on one line of a terminal; of a file only what became of each part."""
    if not sys.stderr.isatty():
        if last:
            print(text, file=sys.stderr, flush=True)
    else:
        print(f"\r\033[K{text}", end="\n" if last else "", file=sys.stderr, flush=True)
