# SPDX-License-Identifier: Apache-2.0
"""Perf ring buffers, one to a CPU, read by bcc's library: what tracers hear the kernel by."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from typing import Any

from accord.wire.constants import Reason
from accord.wire.errors import error

_PAGES = 64
"""Of 4 KiB, for each CPU: 1,500 records of 168 bytes between two reads."""


class Rings:
    """Opened with the object and closed with it, and then the kernel forgets them, in whatever maps they are.

    ``received`` gets the bytes of one record, padded to a multiple of eight less four; ``lost`` a number of them.
    Both are called within ``poll``. Raises ``HostError`` when the kernel gives no rings.
    """

    def __init__(self, received: Callable[[bytes], None], lost: Callable[[int], None]) -> None:
        from bcc.libbcc import _LOST_CB_TYPE, _RAW_CB_TYPE, lib
        from bcc.utils import get_online_cpus

        self._failure: BaseException | None = None

        def on_record(_: Any, data: int, size: int) -> None:
            try:
                received(ctypes.string_at(data, size))
            except BaseException as failure:  # an exception does not cross C: poll raises it
                self._failure = self._failure or failure

        def on_loss(_: Any, count: int) -> None:
            lost(count)

        self._lib = lib
        # The library keeps the addresses only.
        self._callbacks = (_RAW_CB_TYPE(on_record), _LOST_CB_TYPE(on_loss))
        self._readers: dict[int, int] = {}
        for cpu in get_online_cpus():
            reader = lib.bpf_open_perf_buffer(*self._callbacks, None, -1, cpu, _PAGES)
            if not reader:
                self.close()
                raise error(Reason.NO_PRIVILEGE, f"no perf ring on CPU {cpu}", "run with sudo")
            self._readers[cpu] = reader

    def __enter__(self) -> Rings:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fds(self) -> Iterator[tuple[int, int]]:
        """CPU and file descriptor of each ring: what a map of perf events wants."""
        for cpu, reader in self._readers.items():
            yield cpu, self._lib.perf_reader_fd(reader)

    def join(self, table: Any) -> None:
        """Have a bcc program's perf output come here."""
        for cpu, fd in self.fds():
            table[table.Key(cpu)] = table.Leaf(fd)

    def poll(self, seconds: float) -> None:
        """Hand over what is there, or what comes first within that time."""
        readers = (ctypes.c_void_p * len(self._readers))(*self._readers.values())
        self._lib.perf_reader_poll(len(readers), readers, max(0, round(seconds * 1000)))
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def close(self) -> None:
        """Give the memory back. Twice does no harm."""
        readers, self._readers = self._readers, {}
        for reader in readers.values():
            self._lib.perf_reader_free(reader)
