# SPDX-License-Identifier: Apache-2.0
"""Fuzzing without feedback, behind the few options of libFuzzer's that ``./build.py fuzz`` gives."""

from __future__ import annotations

import random
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

One = Callable[[bytes], object]


def change(chance: random.Random, data: bytes, others: Sequence[bytes], longest: int) -> bytes:
    """A few bytes are flipped, cut out, repeated, or come from another input."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4, 8))):
        at = chance.randrange(len(changed) + 1)
        match chance.randrange(5):
            case 0 if changed:
                changed[at % len(changed)] ^= 1 << chance.randrange(8)
            case 1 if changed:
                changed[at % len(changed)] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
            case 2:
                del changed[at : at + chance.randrange(1, 17)]
            case 3:
                changed[at:at] = changed[at : at + chance.randrange(1, 17)]
            case _:
                piece = chance.choice(others) if others else b""
                begin = chance.randrange(len(piece) + 1)
                changed[at:at] = piece[begin : begin + chance.randrange(1, 65)]
    return bytes(changed[:longest])


def run(one: One, arguments: Sequence[str]) -> int:
    """Files are run once each; with directories, or none, changed ones for ``-max_total_time`` seconds or ``-runs``.

    Returns 0, or 77, libFuzzer's number for an input that raised.
    """
    options = dict(word[1:].split("=", 1) for word in arguments if word.startswith("-") and "=" in word)
    paths = [Path(word) for word in arguments if not word.startswith("-")]
    inputs = [path for path in paths if path.is_file()]
    seeds = [path.read_bytes() for each in paths if each.is_dir() for path in sorted(each.iterdir())]
    seeds = seeds or [bytes(16)]
    prefix = options.get("artifact_prefix", "./")
    for path in inputs:
        _try(one, path.read_bytes(), "")
        print(f"ran {path}")
    if inputs:
        return 0
    chance = random.Random(int(options.get("seed", "1")))
    end = time.monotonic() + float(options.get("max_total_time", "inf"))
    count, most, longest = 0, int(options.get("runs", sys.maxsize)), int(options.get("max_len", "4096"))
    code = 0
    try:
        for data in seeds:
            _try(one, data, prefix)
            count += 1
        while time.monotonic() < end and count < most:
            _try(one, change(chance, chance.choice(seeds), seeds, longest), prefix)
            count += 1
            if count & (count - 1) == 0:
                print(f"#{count}\tpulse", flush=True)
    except KeyboardInterrupt:
        pass
    except Broken:
        code = 77
    print(f"stat::number_of_executed_units: {count}", flush=True)
    return code


class Broken(Exception):
    """An invariant is."""


def _try(one: One, data: bytes, prefix: str) -> None:
    try:
        one(data)
    except Exception as wrong:
        traceback.print_exc()
        if not prefix:
            raise
        path = Path(f"{prefix}crash-{abs(hash(data)):016x}")
        path.write_bytes(data)
        print(f"ERROR: {type(wrong).__name__}: {wrong}\nTest unit written to {path}", flush=True)
        raise Broken from wrong
