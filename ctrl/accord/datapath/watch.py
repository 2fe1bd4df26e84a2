# SPDX-License-Identifier: Apache-2.0
"""Watching the verdicts of an XDP program that a daemon has loaded: its maps, and the records that it writes.

The daemon is not asked and does not notice. Who reads the rings is the caller's business; what goes into them,
and for how long, is decided here. Needs CAP_BPF (for maps by their ID, CAP_SYS_ADMIN).
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from accord.datapath._core import ffi, lib
from accord.datapath.xdp_test import Verdict
from accord.wire.constants import Reason
from accord.wire.errors import error

LEASE_SECONDS = 1.0
"""A watcher that ends without a word is written to for so long."""

_RECORD = struct.Struct("=QIIIHH")
"""``struct accord_verdict``: at_ns u64, interface u32, queue u32, frame_bytes u32, reason u16, verdict u16."""


@dataclass(frozen=True, slots=True)
class Record:
    """One packet: when (CLOCK_BOOTTIME, ns), where, what the program did and why; ``head`` is the frame's start."""

    at_ns: int
    interface: int
    queue: int
    frame_bytes: int
    reason: Reason
    verdict: Verdict
    head: bytes


def decode(data: bytes) -> Record:
    """A record out of a ring, with what follows it. Raises ``OurError`` (``MAP_MISMATCH``) when it is none."""
    try:
        at_ns, interface, queue, frame_bytes, reason, verdict = _RECORD.unpack_from(data)
        head_bytes = min(frame_bytes, lib.ACCORD_WATCH_BYTES)
        head = data[_RECORD.size : _RECORD.size + head_bytes]
        if len(head) != head_bytes:
            raise ValueError(f"{len(head)} of {head_bytes} bytes of the frame")
        return Record(at_ns, interface, queue, frame_bytes, Reason(reason), Verdict(verdict), head)
    except (struct.error, ValueError) as wrong:
        raise error(Reason.MAP_MISMATCH, f"a record of {len(data)} bytes from the XDP program: {wrong}") from wrong


def attached(interface: str) -> int:
    """ID of the XDP program on an interface of this network namespace, 0 for none. Raises ``UserError``."""
    try:
        index = socket.if_nametoindex(interface)
    except OSError as refusal:
        raise error(Reason.NO_INTERFACE, interface, "see: ip -br link") from refusal
    return int(lib.accord_watch_find(index))


class Watcher:
    """One at a time to a program. Raises ``HostError``, ``OurError`` when the program cannot be watched."""

    def __init__(self, program_id: int) -> None:
        failure = ffi.new("struct accord_failure *")
        pointer = ffi.new("struct accord_watcher **")
        self._pointer: Any = None
        if (result := lib.accord_watch_open(program_id, pointer, failure)) < 0:
            raise error(Reason(-result), ffi.string(failure.detail).decode(), "sudo; and one version of everything")
        self._pointer = pointer[0]
        self._lease = lib.accord_watch_lease(self._pointer)
        owner = self._lease.owner
        if self._lease.until_ns > _now_ns() and owner != os.getpid():
            self.close()
            raise error(Reason.NOT_PERMITTED, f"process {owner} is watching already", "end it first")

    def __enter__(self) -> Watcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def join(self, cpu: int, fd: int) -> None:
        """What the program sees on this CPU goes to the ring of this perf event."""
        if (result := lib.accord_watch_join(self._pointer, cpu, fd)) < 0:
            raise error(Reason(-result), f"a ring for CPU {cpu}")

    def begin(self, reasons: Iterable[Reason]) -> None:
        """From now on, for ``LEASE_SECONDS``: packets with these reasons."""
        masks = [0, 0, 0, 0]
        for reason in reasons:
            masks[reason // 64] |= 1 << reason % 64
        for index, mask in enumerate(masks):
            self._lease.reasons[index] = mask
        self._lease.owner = os.getpid()
        self.renew()

    @property
    def until_ns(self) -> int:
        """When the lease ends, CLOCK_BOOTTIME; 0: nobody is told anything."""
        return int(self._lease.until_ns)

    def renew(self) -> None:
        """For ``LEASE_SECONDS`` more."""
        self._lease.until_ns = _now_ns() + int(LEASE_SECONDS * 1e9)

    def close(self) -> None:
        """The program writes no more; the rings stay their owner's. Twice does no harm."""
        pointer, self._pointer = self._pointer, None
        if pointer is not None:
            lib.accord_watch_close(pointer)


def _now_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
