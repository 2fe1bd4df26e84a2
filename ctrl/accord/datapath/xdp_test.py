# SPDX-License-Identifier: Apache-2.0
"""The XDP program alone, run over single frames by BPF_PROG_TEST_RUN: for tests, benchmarks and probes.

Nothing is attached; the frames come from the loopback interface of the present network namespace. Needs
CAP_BPF and CAP_NET_ADMIN.
"""

from __future__ import annotations

import enum
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from accord.datapath._core import ffi, lib
from accord.datapath.cookies import CookieKey, ring_of
from accord.datapath.port import OBJECT_PATH
from accord.wire.constants import Reason
from accord.wire.errors import error

_AF_XDP = 44  # <linux/socket.h>; Python 3.11 does not name it
_OUTPUT_BYTES = 16384


class Verdict(enum.IntEnum):
    """``enum xdp_action`` of <linux/bpf.h>."""

    ABORTED = 0
    DROP = 1
    PASS = 2
    TX = 3
    REDIRECT = 4


@dataclass(frozen=True, slots=True)
class Run:
    """What a frame came to: the verdict, the counter that went up, the frame as it was left, ns for one run."""

    verdict: Verdict
    reason: Reason | None
    output: bytes
    duration_ns: int


class Program:
    """One loaded copy of the program, with its own maps. Raises ``HostError`` when the kernel refuses it."""

    def __init__(self, object_path: str | os.PathLike[str] = OBJECT_PATH) -> None:
        failure = ffi.new("struct accord_failure *")
        pointer = ffi.new("struct accord_program **")
        self._pointer: Any = None
        self._socket: socket.socket | None = None
        if (result := lib.accord_program_open(os.fsencode(object_path), pointer, failure)) < 0:
            raise error(Reason(-result), ffi.string(failure.detail).decode())
        self._pointer = pointer[0]
        self._settings = lib.accord_program_settings(self._pointer)
        self.configure()
        self.heartbeat()

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Unload it. Twice does no harm."""
        pointer, self._pointer = self._pointer, None
        if pointer is not None:
            lib.accord_program_close(pointer)
        if self._socket is not None:
            self._socket.close()

    @property
    def id(self) -> int:
        """The kernel's ID of it."""
        return int(lib.accord_program_id(self._pointer))

    def configure(
        self,
        *,
        any_port: bool = False,
        suppress: bool = True,
        challenge: bool = False,
        address: str = "02:00:00:00:00:02",
        frame_limit: int = 1792,
        layout: int = lib.ACCORD_MAP_LAYOUT,
    ) -> None:
        """Write the map "settings", all but its heartbeat; ``frame_limit`` is in bytes."""
        self._settings.flags = (
            any_port * lib.ACCORD_SETTINGS_ANY_PORT
            | suppress * lib.ACCORD_SETTINGS_SUPPRESS
            | challenge * lib.ACCORD_SETTINGS_CHALLENGE
        )
        self._settings.frame_limit = frame_limit
        self._settings.layout = layout
        ffi.memmove(self._settings.address, bytes.fromhex(address.replace(":", "")), 6)

    def cookies(self, keys: Sequence[CookieKey], slot: int) -> None:
        """What cookies are made and checked with: ``cookies.ring_of``."""
        self._settings.cookies = ring_of(keys, slot)[0]

    def challenges(self) -> tuple[int, int, int]:
        """First packets that were answered by a cookie, refused for theirs, passed on for theirs: of queue 0."""
        counts = self._settings.challenges[0]
        return counts.answered, counts.refused, counts.passed

    def heartbeat(self, age_ms: int = 0) -> None:
        """A sign of life, ``age_ms`` milliseconds ago, or when the host was started."""
        self._settings.heartbeat_ns = max(0, time.clock_gettime_ns(time.CLOCK_BOOTTIME) - age_ms * 1_000_000)

    def steer(self, port: int, steered: bool = True, *, service: bool = True) -> None:
        """Put a port into the map "ports", or take it out; its SYNs may be suppressed if it is a ``service``.

        Raises ``OurError`` when the map is full.
        """
        flags = steered * (lib.ACCORD_PORT_STEERED | service * lib.ACCORD_PORT_SUPPRESS)
        if (result := lib.accord_program_steer(self._pointer, port, flags)) < 0:
            raise error(Reason(-result), f"map ports has no room for port {port}")

    def heard(self, transaction: bytes) -> Any:
        """The slot of a transaction in the map "heard": a copy of its ``struct accord_heard``, whosever it is."""
        slots = lib.accord_program_heard(self._pointer)
        return ffi.new("struct accord_heard *", slots[lib.accord_heard_slot(transaction)])

    def forget(self, transaction: bytes) -> None:
        """Empty that slot."""
        self._hear(transaction, ffi.new("struct accord_heard *"))

    def age(self, transaction: bytes, age_ms: int) -> None:
        """Have what is in that slot be so many milliseconds older."""
        entry = self.heard(transaction)
        flags = entry.state & lib.ACCORD_HEARD_FLAGS
        entry.state = max(0, entry.state - flags - age_ms * 1_000_000) // 16 * 16 | flags
        self._hear(transaction, entry)

    def _hear(self, transaction: bytes, entry: Any) -> None:
        if (result := lib.accord_program_hear(self._pointer, lib.accord_heard_slot(transaction), entry)) < 0:
            raise error(Reason(-result), "map heard")

    def join(self, joined: bool = True) -> None:
        """Give queue 0 an AF_XDP socket, or take it away; it need not be bound, as a test run delivers nothing."""
        if joined and self._socket is None:
            self._socket = socket.socket(_AF_XDP, socket.SOCK_RAW | socket.SOCK_CLOEXEC)
        fd = self._socket.fileno() if joined and self._socket else -1
        if (result := lib.accord_program_join(self._pointer, 0, fd)) < 0:
            raise error(Reason(-result), "map xsks, queue 0")

    def counters(self) -> list[int]:
        """All counters, by reason."""
        counters = ffi.new("uint64_t[]", lib.ACCORD_REASON_LIMIT)
        if (result := lib.accord_program_counters(self._pointer, counters)) < 0:
            raise error(Reason(-result), "reading the BPF map counters")
        return list(counters)

    def run(self, frame: bytes, repeat: int = 1) -> Run:
        """One frame of at least 14 bytes through the program. Raises ``HostError`` when the kernel will not run it."""
        output = ffi.new("uint8_t[]", _OUTPUT_BYTES)
        length, verdict, duration = (ffi.new("uint32_t *") for _ in range(3))
        length[0] = _OUTPUT_BYTES
        before = self.counters()
        result = lib.accord_program_test_run(
            self._pointer, frame, len(frame), repeat, output, length, verdict, duration
        )
        if result < 0:
            raise error(Reason(-result), f"BPF_PROG_TEST_RUN of {len(frame)} bytes")
        rises = {index: now - then for index, (now, then) in enumerate(zip(self.counters(), before, strict=True))}
        reasons = [index for index, rise in rises.items() if rise]
        if sum(rises.values()) != repeat or len(reasons) > 1:
            raise error(Reason.MAP_MISMATCH, f"{repeat} runs raised the counters by {sum(rises.values())}: {reasons}")
        return Run(
            Verdict(verdict[0]),
            Reason(reasons[0]) if reasons else None,
            bytes(ffi.buffer(output, length[0])),
            duration[0],
        )
