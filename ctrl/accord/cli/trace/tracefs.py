# SPDX-License-Identifier: Apache-2.0
"""The kernel's list of tracepoints, which bcc reads to know the arguments of each.

It is a file system of its own, tracefs. systemd mounts it at boot; a minimal machine, a container and whatever runs
under ``ip netns exec`` (which mounts a sysfs with nothing below it) have the directory and nothing in it. Then this
process mounts it for itself alone: in a mount namespace of its own, which ends with it and which the host never sees.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from accord.wire.constants import Reason
from accord.wire.errors import error

MOUNT_POINT = Path("/sys/kernel/tracing")
EVENTS = MOUNT_POINT / "events"

# mount(2), unshare(2)
_CLONE_NEWNS = 0x00020000
_MS_REC = 0x4000
_MS_PRIVATE = 1 << 18

_libc = ctypes.CDLL(None, use_errno=True)


def mount_if_missing() -> None:
    """Make ``EVENTS`` readable for this process and its children.

    Raises ``HostError`` ``NO_KERNEL_SUPPORT``: a kernel without tracepoints, or one that does not let us mount.
    """
    if EVENTS.is_dir():
        return
    _check(_libc.unshare(_CLONE_NEWNS), "a mount namespace")
    _check(_libc.mount(b"none", b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None), "a private mount namespace")
    _check(_libc.mount(b"tracefs", bytes(MOUNT_POINT), b"tracefs", ctypes.c_ulong(0), None), "tracefs")
    if not EVENTS.is_dir():
        raise error(Reason.NO_KERNEL_SUPPORT, "this kernel has no tracepoints", "a kernel with CONFIG_TRACEPOINTS")


def _check(result: int, what: str) -> None:
    if result != 0:
        why = os.strerror(ctypes.get_errno())
        mend = f"sudo mount -t tracefs tracefs {MOUNT_POINT}"
        raise error(Reason.NO_KERNEL_SUPPORT, f"tracing needs {what}: {why}", mend)
