# SPDX-License-Identifier: Apache-2.0
"""Durations, probabilities and rates as people write them: 50ms, 1%, 100mbit."""

from __future__ import annotations

import re
from collections.abc import Mapping

_NUMBER = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([a-zµμ%/]*)", re.ASCII | re.IGNORECASE)

DURATIONS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}
RATES = {
    **dict.fromkeys(("bit", "bps", "bit/s"), 1.0),
    **dict.fromkeys(("kbit", "kbps", "kbit/s"), 1e3),
    **dict.fromkeys(("mbit", "mbps", "mbit/s"), 1e6),
    **dict.fromkeys(("gbit", "gbps", "gbit/s"), 1e9),
}


def _measure(text: str, units: Mapping[str, float], what: str, example: str) -> float:
    match = _NUMBER.fullmatch(text.strip())
    if match is None or match[2].lower() not in units:
        raise ValueError(f"{text!r} is no {what}: write a number and a unit, as in {example}")
    return float(match[1]) * units[match[2].lower()]


def parse_duration(text: str) -> float:
    """Seconds, from ``50ms``, ``0.2s``, ``250us``. Raises ``ValueError`` (a bare number has no unit: refused,
    but for 0)."""
    if text.strip() == "0":
        return 0.0
    return _measure(text, DURATIONS, "duration", "50ms or 0.2s")


def parse_probability(text: str) -> float:
    """0..1, from ``1%`` or ``0.01``. Raises ``ValueError``."""
    value = _measure(text, {"%": 0.01, "": 1.0}, "probability", "1% or 0.01")
    if value > 1:
        raise ValueError(f"{text!r} is more than always: a probability is 0% to 100%, or 0 to 1")
    return value


def parse_rate(text: str) -> int:
    """Bits per second, from ``100mbit``, ``2.5gbit``, ``64kbit``. Raises ``ValueError``.

    Note that tc(8) reads ``mbps`` as megabytes; here, as everywhere else, it means bits.
    """
    return round(_measure(text, RATES, "rate", "100mbit or 1gbit"))


def parse_count(text: str) -> int:
    """A whole number. Raises ``ValueError``."""
    if not re.fullmatch(r"[0-9]{1,9}", text.strip(), re.ASCII):
        raise ValueError(f"{text!r} is no whole number")
    return int(text)


def format_duration(seconds: float) -> str:
    """``50 ms``, ``250 us``, ``1.2 s``."""
    if seconds == 0:
        return "0 ms"
    if seconds < 1e-3:
        return f"{seconds * 1e6:.3g} us"
    if seconds < 1:
        return f"{seconds * 1e3:.4g} ms"
    return f"{seconds:.4g} s"


def format_rate(bits: float) -> str:
    """``100 Mbit/s``."""
    for unit, size in (("Gbit/s", 1e9), ("Mbit/s", 1e6), ("kbit/s", 1e3)):
        if bits >= size:
            return f"{bits / size:.4g} {unit}"
    return f"{bits:.4g} bit/s"
