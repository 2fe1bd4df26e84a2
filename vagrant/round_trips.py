# SPDX-License-Identifier: Apache-2.0
"""Round trips by slope: what a case takes at two round-trip times, and a line through them.

A connection takes n round trips and the time of the processors. Where these are translated the second is tens of
milliseconds and more, at every round-trip time the same, so it is the line's offset; its slope is n, as in
`./build.py bench roundtrips`. Of the connections at each round-trip time the quickest counts: what else a shared
processor has to do only ever adds. By how much the middle one is slower says how far the quickest may be from what it
would have been on a processor of its own: a slope that differs from the lab's by less than that tells nothing, and is
absent; by more, it is a failure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

LAB: Final = {
    "today-tls-tcp": (2.0, 3.0),
    "accord-tls-tcp": (1.0, 2.0),
    "accord-parallel-syn": (1.0, 2.0),
    "accord-quic": (1.0, 2.0),
    "accord-tcp-early": (1.0, 1.0),
    "no-accord-peer": (2.0, 3.0),
}
"""Round trips until ready and until the first response, by slope in the lab, to the nearest whole one."""
MEASURES: Final = ("ready", "first_response")
SHORTEST_MS: Final = 80.0
"""A link whose round trip is shorter is not counted: work that elsewhere is hidden behind the wait sticks out of it."""
WITHIN: Final = 0.15


def slope(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Slope and offset (milliseconds) of the line through (round trip, time taken), both in milliseconds."""
    middle = sum(rtt for rtt, _ in points) / len(points)
    height = sum(taken for _, taken in points) / len(points)
    spread = sum((rtt - middle) ** 2 for rtt, _ in points)
    by = sum((rtt - middle) * (taken - height) for rtt, taken in points) / spread
    return by, height - by * middle


def rows(measured: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A judged row for each case of the demo that passed on two links or more, of the rows that it passed with."""
    found = []
    for name, wanted in LAB.items():
        of = [row for row in measured if row["case"] == name and _counts(row)]
        if len({row["rtt_ms"] for row in of}) < 2:
            continue
        row: dict[str, Any] = {"case": name, "slope": sorted(each["rtt_ms"] for each in of), "stack": of[-1]["stack"]}
        wrong, unknown = [], []
        for measure, trips in zip(MEASURES, wanted, strict=True):
            by, offset = slope([(each["measured_rtt_ms"], each[f"{measure}_least_ms"]) for each in of])
            row[f"{measure}_rtts"], row[f"{measure}_offset_ms"] = round(by, 3), round(offset, 1)
            row[f"{measure}_noise_rtts"] = round(noise := _noise(of, measure), 3)
            said = f"{measure.replace('_', ' ')}: {by:.2f} round trips by slope, {trips:g} in the lab"
            if abs(by - trips) > WITHIN + noise:
                wrong.append(said)
            elif abs(by - trips) > WITHIN:
                unknown.append(f"{said}, and the processors' time differs by {noise:.2f} round trips by itself")
        result = "fail" if wrong else "absent" if unknown else "pass"
        found.append({**row, "result": result, "reason": "; ".join(wrong + unknown)})
    return found


def _noise(of: Sequence[dict[str, Any]], measure: str) -> float:
    """What the processors of others may have done to the slope, round trips."""
    rtts: list[float] = [row["measured_rtt_ms"] for row in of]
    late: list[float] = [row[f"{measure}_rtts"] * row["measured_rtt_ms"] - row[f"{measure}_least_ms"] for row in of]
    return max(0.0, *late) / (max(rtts) - min(rtts))


def _counts(row: dict[str, Any]) -> bool:
    return row["result"] == "pass" and "weather" not in row and row.get("measured_rtt_ms", 0) >= SHORTEST_MS
