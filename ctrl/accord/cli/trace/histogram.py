# SPDX-License-Identifier: Apache-2.0
"""Histograms of durations as the tracers' BPF side keeps them: four buckets to each power of two microseconds."""

from __future__ import annotations

_SUB_BITS = 2
_BAR = 40


def bounds(slot: int) -> tuple[int, int]:
    """First microsecond of a bucket and the first one after it; the inverse of ``slot_of``."""
    if slot < 1 << _SUB_BITS:
        return slot, slot + 1
    power, sub = divmod(slot, 1 << _SUB_BITS)
    width = 1 << (power - 1)
    low = ((1 << _SUB_BITS) + sub) * width
    return low, low + width


def slot_of(microseconds: int) -> int:
    """The bucket of a duration, as ``slot_of`` of stages.bcc.c computes it."""
    if microseconds < 1 << _SUB_BITS:
        return microseconds
    power = microseconds.bit_length() - 1
    return ((power - 1) << _SUB_BITS) + (microseconds >> (power - _SUB_BITS) & ((1 << _SUB_BITS) - 1))


def quantile(counts: dict[int, int], part: float) -> int:
    """Upper bound, in microseconds, of the bucket that holds this part of all; ``counts`` is not empty."""
    wanted, up_to = part * sum(counts.values()), 0
    for slot in sorted(counts):
        up_to += counts[slot]
        if up_to >= wanted:
            break
    return bounds(slot)[1]


def milliseconds(microseconds: float) -> str:
    """With three digits that mean something."""
    return f"{microseconds / 1000:.3f}" if microseconds < 10_000 else f"{microseconds / 1000:.1f}"


def render(counts: dict[int, int]) -> list[str]:
    """One line to a bucket; a gap of empty ones is one line."""
    most = max(counts.values())
    lines: list[str] = []
    before = min(counts)
    for slot, count in sorted(counts.items()):
        if slot > before + 1:
            lines.append(f"{'...':>10}")
        before = slot
        low, high = bounds(slot)
        bar = "*" * -(-count * _BAR // most)
        lines.append(f"{milliseconds(low):>10} .. {milliseconds(high):>8} ms {count:>8}  {bar}".rstrip())
    return lines
