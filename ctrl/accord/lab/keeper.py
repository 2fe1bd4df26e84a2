# SPDX-License-Identifier: Apache-2.0
"""Takes a lab down when the process that made it dies without doing so: kill -9 included.

``python -m accord.lab.keeper NAME INSTANCE PIDFD``. It waits on the owner's pidfd, which cannot be mistaken
for another process, and loads what it needs only when it is needed.
"""

from __future__ import annotations

import select
import sys


def main() -> None:
    """Wait for the owner's end, then clean up, if it is still the same lab that is there."""
    name, instance, pidfd = sys.argv[1:]
    poll = select.poll()
    poll.register(int(pidfd), select.POLLIN)
    poll.poll()

    from accord.lab import state

    with state.locked(name):
        state.dismantle(name, instance)


if __name__ == "__main__":
    main()
