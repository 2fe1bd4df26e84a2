# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C is for the process that has the others."""

from __future__ import annotations

import functools
import multiprocessing
import signal
from concurrent.futures import ProcessPoolExecutor

from sim.workers import mapped


def test_processes_of_a_pool_never_hear_ctrl_c_and_who_started_them_does() -> None:
    blocked = functools.partial(signal.pthread_sigmask, signal.SIG_BLOCK)
    nothing: set[signal.Signals] = set()
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        (theirs,) = mapped(pool, blocked, [nothing])
    assert signal.SIGINT in theirs
    assert signal.SIGINT not in blocked(nothing)
