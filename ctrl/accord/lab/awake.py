# SPDX-License-Identifier: Apache-2.0
"""Processors that do not sleep while something is measured.

An idle processor halts. To be woken takes it tens of microseconds, and a virtual one milliseconds now and then, when
its host has given its place away meanwhile: more than what a negotiation computes, and once for each packet that comes.
A request to the kernel's PM QoS (Documentation/power/pm_qos_interface.rst) lets idle processors spin instead.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from types import TracebackType
from typing import Final, Self

DEVICE: Final = Path("/dev/cpu_dma_latency")
_NO_LATENCY: Final = struct.pack("=i", 0)
"""Microseconds that a processor may take to wake."""


class Awake:
    """A context manager. ``held`` tells whether the kernel takes the request: without root, or in a kernel without
    CONFIG_CPU_IDLE, measuring goes on as it may."""

    def __init__(self, device: Path = DEVICE) -> None:
        self._device = device
        self._open: int | None = None

    @property
    def held(self) -> bool:
        """The request stands, as long as its file is open."""
        return self._open is not None

    def __enter__(self) -> Self:
        try:
            opened = os.open(self._device, os.O_WRONLY | os.O_CLOEXEC)
        except OSError:
            return self
        try:
            os.write(opened, _NO_LATENCY)
        except OSError:
            os.close(opened)
            return self
        self._open = opened
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._open is not None:
            os.close(self._open)
            self._open = None
