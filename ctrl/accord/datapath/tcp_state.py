# SPDX-License-Identifier: Apache-2.0
"""Kernel TCP state by TCP_REPAIR: ``accord_tcp_*`` of ``dataplane_c/src/privilege.h``, here or by the broker."""

from __future__ import annotations

import socket
from typing import Any, ClassVar

from accord.datapath._core import ffi, lib
from accord.datapath.path import packed
from accord.datapath.tcp_sockopt import host_error
from accord.datapath.zone import SocketAddress
from accord.wire.constants import Reason
from accord.wire.errors import HostError


def state(local: SocketAddress, remote: SocketAddress, **fields: int) -> Any:
    """``struct accord_tcp_state`` between two socket addresses, whose ports do not matter."""
    here, there = packed(local[0].partition("%")[0]), packed(remote[0].partition("%")[0])
    made = ffi.new("struct accord_tcp_state *", {"family": 4 if len(here) == 4 else 6, **fields})
    made.scope = local[3] or (remote[3] if len(remote) == 4 else 0) if len(local) == 4 else 0
    ffi.memmove(made.local, here, len(here))
    ffi.memmove(made.remote, there, len(there))
    return made


def numbers(wanted: Any) -> tuple[int, int]:
    """MSS and window in bytes that the kernel's own SYN would have. Raises ``HostError``."""
    found = ffi.new("struct accord_tcp_numbers *")
    failure = ffi.new("struct accord_failure *")
    _check(lib.accord_tcp_numbers(wanted, found, failure), failure)
    return found.mss, found.window


class Installing:
    """A socket that is being made ESTABLISHED: bound, or for a service not bound. The broker works meanwhile."""

    _latest: ClassVar[Any] = None
    """Kept whatever becomes of its owner: the next request writes into it."""

    def __init__(self, wanted: Any, connection: socket.socket) -> None:
        self._ahead = ffi.new("struct accord_ahead *")
        lib.accord_tcp_install(wanted, connection.fileno(), self._ahead)
        Installing._latest = self._ahead  # now: until the call the one before it was still to be written into

    def wait(self) -> None:
        """Return once the kernel has the connection. Raises ``HostError`` when it will not have it."""
        failure = ffi.new("struct accord_failure *")
        _check(lib.accord_tcp_installed(self._ahead, failure), failure)


def silence(connection: socket.socket) -> None:
    """End an installed connection without a segment, or, with data in it that nobody has read, by the reset that
    closing it sends; the socket stays to be closed. Raises ``HostError``."""
    failure = ffi.new("struct accord_failure *")
    _check(lib.accord_tcp_silence(connection.fileno(), failure), failure)


def _check(result: int, failure: Any) -> int:
    if result < 0:
        detail = ffi.string(failure.detail).decode("utf-8", "replace")
        if not failure.error:  # ours, or the broker's
            raise HostError(Reason(-result), detail, "let another stack be chosen: docs/POLICY.md")
        raise host_error(OSError(failure.error, ""), detail)
    return result
