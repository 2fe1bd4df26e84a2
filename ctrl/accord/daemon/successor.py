# SPDX-License-Identifier: Apache-2.0
"""SIGUSR2: start what is installed now, with the command line of this process, to take over from it."""

from __future__ import annotations

import logging
import subprocess
import sys

log = logging.getLogger("accord.takeover")

_FLAG = "--takeover"


def start_successor() -> subprocess.Popen[bytes] | None:
    """The new process, a child of this one until this one ends; None when it cannot be started."""
    words = [sys.executable, *sys.orig_argv[1:]]
    if _FLAG not in words:
        words.append(_FLAG)
    try:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL)
    except OSError as refusal:
        log.error("no successor: %s: %s", words[0], refusal.strerror)
        return None
    log.warning("asked for a live upgrade: pid %d is to take over", process.pid)
    return process
