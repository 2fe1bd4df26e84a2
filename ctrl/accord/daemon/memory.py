# SPDX-License-Identifier: Apache-2.0
"""A bound to the memory of the process that runs plug-ins: who asks for too much meets MemoryError, not the host's OOM
killer, which would take the daemon (setrlimit(2), RLIMIT_DATA: private writable memory, since Linux 4.7)."""

from __future__ import annotations

import contextlib
import logging
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Final

log = logging.getLogger("accord.daemon")

_MIB: Final = 1 << 20


def taken() -> int:
    """Bytes that count, as the kernel has it now (proc(5), VmData)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmData:"))


@contextlib.contextmanager
def limited(mib: int) -> Iterator[None]:
    """This process may take so much more than it has, for as long as this lasts; 0: as much as the host allows.

    The engine and the rings have theirs by then: what grows later is associations, and plug-ins.
    """
    before = resource.getrlimit(resource.RLIMIT_DATA)
    if mib:
        _, hard = before
        soft = taken() + mib * _MIB
        try:
            resource.setrlimit(resource.RLIMIT_DATA, (soft if hard < 0 else min(soft, hard), hard))
        except (ValueError, OSError) as refusal:
            log.warning("no limit to the memory of plug-ins: %s", refusal)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_DATA, before)


def limit() -> int:
    """In force, bytes; 0: none."""
    soft, _ = resource.getrlimit(resource.RLIMIT_DATA)
    return max(0, soft)
