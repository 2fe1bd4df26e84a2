# SPDX-License-Identifier: Apache-2.0
"""The one clock: CLOCK_BOOTTIME, which no administrator steps and which does not stop in suspend."""

import time


def now_us() -> int:
    """Microseconds, for the engine."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000


def now() -> float:
    """Seconds, for plug-ins and traces."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
