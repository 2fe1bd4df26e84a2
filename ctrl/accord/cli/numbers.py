# SPDX-License-Identifier: Apache-2.0
"""Numbers of the command line that are no whole ones."""

from __future__ import annotations

import math
from typing import Any

import click

MOST = 1e8
"""Where an option has no bound of its own. In seconds three years: the kernel's and Python's timers take that."""


class Finite(click.FloatRange):
    """A range in which neither nan lies, which compares with no bound, nor inf, which no timer takes."""

    def __init__(self, min: float, max: float = MOST, *, min_open: bool = False) -> None:
        super().__init__(min, max, min_open=min_open)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Fails for what is not in the range."""
        if not math.isfinite(click.FLOAT.convert(value, param, ctx)):
            self.fail(f"{value} is no number of the range {self._describe_range()}.", param, ctx)
        return super().convert(value, param, ctx)
