# SPDX-License-Identifier: Apache-2.0
"""This process's own cgroup of version 2, as a directory (cgroups(7)): what a sockops program is attached to."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from accord.wire.constants import Reason
from accord.wire.errors import error

MOUNT = "mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified"
"""What mends a host without one."""

_ESCAPED = re.compile(r"\\([0-7]{3})")


def own_cgroup() -> Path:
    """The directory. Raises ``HostError`` (``NO_KERNEL_SUPPORT``) when none is to be seen from here."""
    try:
        mine = Path("/proc/self/cgroup").read_text(encoding="utf-8", errors="surrogateescape")
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as refusal:
        raise error(Reason.NO_KERNEL_SUPPORT, f"{refusal.filename}: {refusal.strerror}", "mount /proc") from refusal
    return find(mine, mounts)


def find(mine: str, mounts: str) -> Path:
    """The same, from the texts of ``/proc/self/cgroup`` and ``/proc/self/mountinfo``."""
    path = next((line[3:] for line in mine.splitlines() if line.startswith("0::/")), None)
    if path is None:
        raise error(Reason.NO_KERNEL_SUPPORT, "this process is in no cgroup of version 2", MOUNT)
    mounted = [(root, point) for root, point in map(_cgroup2, mounts.splitlines()) if point]
    for root, point in mounted:
        if PurePosixPath(path).is_relative_to(root):
            return Path(point) / PurePosixPath(path).relative_to(root)
    if mounted:
        raise error(Reason.NO_KERNEL_SUPPORT, f"cgroup {path} is not among those that are mounted here", MOUNT)
    raise error(Reason.NO_KERNEL_SUPPORT, "no cgroup2 file system is mounted", MOUNT)


def _cgroup2(line: str) -> tuple[str, str]:
    """Root and mount point of a line of mountinfo (proc(5)), empty for other file systems.

    Octal escapes stand for blanks and the like.
    """
    before, _, after = line.partition(" - ")
    fields = before.split(" ")
    if after.split(" ", 1)[0] != "cgroup2" or len(fields) < 5:
        return "", ""
    root, point = (_ESCAPED.sub(lambda found: chr(int(found[1], 8)), each) for each in fields[3:5])
    return root, point
