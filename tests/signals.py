# SPDX-License-Identifier: Apache-2.0
"""What signals are to a process that a test starts."""

from __future__ import annotations

import signal


def heed() -> None:
    """As at a terminal, also where the tests run in the background (SIGINT ignored) or under nohup (SIGHUP).

    For ``preexec_fn``: what is ignored stays so over execve(2).
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
