# SPDX-License-Identifier: Apache-2.0
"""Connections whose sockets the kernel makes of their first segment, in the queue of whoever listens on the port
(docs/PROTOCOL.md, section 9.2): ``dataplane_c/src/birth.h`` in Python."""

from __future__ import annotations

import enum
import os
from pathlib import Path
from typing import Any, Final

from accord.datapath._core import ffi, lib
from accord.wire.constants import Reason
from accord.wire.errors import error

OBJECT_PATH: Final = Path(__file__).with_name("accord_born.bpf.o")
"""The TC program, compiled when the package was built."""

_MENDS: Final = {
    Reason.NO_KERNEL_SUPPORT: "boot Linux 6.9 or later with BTF, and sysctl -w net.ipv4.tcp_syncookies=1; accord "
    "doctor says which of these is missing",
    Reason.NO_INTERFACE: "give the daemon the interface that peers come by: accord daemon --iface",
    Reason.NO_PRIVILEGE: "run as root, or give CAP_NET_ADMIN and CAP_BPF",
    Reason.BACKEND_FAILED: "start the program that is to have them, on an address that peers reach (ss -ltn)",
    Reason.CANNOT_INSTALL: "let another port or stack be used, or forward to the program: accord expose --to",
    Reason.NO_MEMORY: "ask again in a few seconds",
    Reason.MAP_MISMATCH: "./build.py build",
    Reason.LOAD_FAILED: "accord doctor says what this kernel has; or ./build.py build",
}


class Fate(enum.StrEnum):
    """What became of a connection that was expected."""

    WAITING = "never_came"
    """No first segment has come, so far."""
    BORN = "born"
    """The listener has it."""
    DESERTED = "deserted"
    """The segment came, and nobody listened any more: the kernel has answered with a reset."""
    REFUSED = "refused"
    """The kernel would not make the socket."""


_FATES: Final = {
    lib.ACCORD_BIRTH_WAITING: Fate.WAITING,
    lib.ACCORD_BIRTH_BORN: Fate.BORN,
    lib.ACCORD_BIRTH_DESERTED: Fate.DESERTED,
    lib.ACCORD_BIRTH_REFUSED: Fate.REFUSED,
}

LIFETIME: Final = float(lib.ACCORD_BIRTH_SECONDS)
"""Seconds for which a connection is expected."""


class Births:
    """The TC program on one interface, and what it expects. It goes with the process that attached it."""

    def __init__(self, interface: str | None) -> None:
        """Load and attach it, or have that done. Raises ``AccordError``: what is missing, and its mend."""
        pointer = ffi.new("struct accord_births **")
        failure = ffi.new("struct accord_failure *")
        name = os.fsencode(interface or "")
        _check(lib.accord_births_open(os.fsencode(OBJECT_PATH), name, pointer, failure), failure)
        self._pointer: Any = pointer[0]

    def listens(self, port: int) -> None:
        """Return when a program listens on the port that can be given connections.

        Raises ``AccordError``: BACKEND_FAILED (nobody does), CANNOT_INSTALL (by MPTCP), NO_KERNEL_SUPPORT.
        """
        failure = ffi.new("struct accord_failure *")
        _check(lib.accord_births_listens(self._open, port, failure), failure)

    def expect(self, state: Any) -> None:
        """From now on the first segment of this connection, a ``struct accord_tcp_state``, makes its socket, once.

        Raises ``AccordError``: as ``listens``, and NO_MEMORY.
        """
        failure = ffi.new("struct accord_failure *")
        _check(lib.accord_births_expect(self._open, state, failure), failure)

    def end(self, state: Any, *, patient: bool = False, rouse: bool = False) -> tuple[Fate | None, int]:
        """What became of it, and how many later segments came before its first; it is expected no more. None: it was
        not. ``patient``: one whose first segment has not come stays expected; ``rouse``: and its initiator, who has
        committed, is asked for a segment, as he may wait for the program to speak first. Raises ``AccordError``."""
        end, failure = ffi.new("struct accord_birth *"), ffi.new("struct accord_failure *")
        look = patient * lib.ACCORD_BIRTH_PATIENT | rouse * lib.ACCORD_BIRTH_ROUSE
        _check(lib.accord_births_end(self._open, state, look, end, failure), failure)
        return _FATES.get(end.fate), int(end.early)

    def close(self) -> None:
        """Detach it, unless it is the broker's. Twice does no harm."""
        pointer, self._pointer = self._pointer, None
        if pointer is not None:
            lib.accord_births_close(pointer)

    @property
    def _open(self) -> Any:
        if self._pointer is None:
            raise ValueError("the births are closed")
        return self._pointer


def _check(result: int, failure: Any) -> None:
    if result < 0:
        reason = Reason(-result)
        detail = ffi.string(failure.detail).decode("utf-8", "replace")
        raise error(reason, detail, _MENDS.get(reason, "accord doctor says what this host has"))
