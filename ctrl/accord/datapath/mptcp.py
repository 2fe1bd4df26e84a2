# SPDX-License-Identifier: Apache-2.0
"""Kernel Multipath TCP (RFC 8684; Documentation/networking/mptcp.rst): sockets, and whether a connection really is one.

An MPTCP connection that lost its option on the way is one of plain TCP, and no call fails. What the kernel says of it
is then that it knows nothing of MPTCP.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import socket
import struct
from typing import Final

from accord.datapath.bound import bound_socket
from accord.datapath.probe_finding import kernel_error
from accord.datapath.stream import SocketCarrier
from accord.datapath.tcp_sockopt import naming
from accord.wire.constants import Reason
from accord.wire.errors import AccordError, error

# <linux/in.h>, <linux/socket.h>, <linux/mptcp.h>: what Python's modules do not name.
IPPROTO_MPTCP: Final = 262
_SOL_MPTCP: Final = 284
_MPTCP_INFO: Final = 1
_INFO_BYTES: Final = 16
_INFO_FLAGS: Final = struct.Struct("=8xI")
"""Of ``struct mptcp_info``, which grew behind its first 16 bytes: six u8 and padding, then u32 flags, ..."""
_FLAG_FALLBACK: Final = 1
_NO_ADDRESS: Final = struct.pack("=H14x", socket.AF_UNSPEC)
"""To connect to it is to disconnect (connect(2)), with a reset; Python's sockets know no such address."""
_libc: Final = ctypes.CDLL(None)
SWITCHED_OFF: Final = "switched off"
MEND_SWITCH: Final = "sysctl -w net.mptcp.enabled=1"
MEND_KERNEL: Final = "boot a kernel with CONFIG_MPTCP=y"


def mptcp_socket(local: str) -> socket.socket:
    """Bound to a free port of this address, textual. Raises ``HostError``: NO_KERNEL_SUPPORT, CANNOT_INSTALL."""
    return bound_socket(local, IPPROTO_MPTCP, "MPTCP", _lacking)


def is_multipath(connection: socket.socket) -> bool:
    """Whether a connection is one of MPTCP; False: it fell back to plain TCP, or was never anything else.

    Needs Linux 5.16, before which it is False for all. Raises ``HostError``.
    """
    with naming("getsockopt(MPTCP_INFO)"):
        try:
            data = connection.getsockopt(_SOL_MPTCP, _MPTCP_INFO, _INFO_BYTES)
        except OSError as unknown:
            # TCP's own answer to this level: the first over IPv4, the other over IPv6.
            if unknown.errno in (errno.EOPNOTSUPP, errno.ENOPROTOOPT):
                return False
            raise
    (flags,) = _INFO_FLAGS.unpack_from(data)
    return not flags & _FLAG_FALLBACK


class MptcpCarrier(SocketCarrier):
    """The stream of an MPTCP connection, or of the plain TCP one that it fell back to."""

    def __init__(self, connection: socket.socket, listener: socket.socket | None = None) -> None:
        """``listener``: that of an accepted connection, which ends with the stream: over it come the SYNs of further
        paths, which the kernel takes for what they are. Every other connection to it is closed."""
        super().__init__(connection)
        # On a kernel that does not know it for MPTCP (before 5.17) small writes take longer, and that is all.
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._listener = listener
        if listener is not None:
            self._loop = asyncio.get_running_loop()
            self._loop.add_reader(listener, self._turn_away)

    @property
    def kernel_socket(self) -> socket.socket | None:
        """Of a connection that was accepted None: its owner has to be told of its end."""
        return None if self._listener is not None else super().kernel_socket

    def abort(self) -> None:
        """Send a reset, now, and forget what is in flight."""
        # To most kernels a close without lingering is an orderly end of an MPTCP connection: that came with Linux 7.1.
        if self._socket is not None:
            _libc.connect(self._socket.fileno(), _NO_ADDRESS, len(_NO_ADDRESS))
        super().abort()

    def _turn_away(self) -> None:
        assert self._listener is not None, "nobody looks at it any more"
        try:
            self._listener.accept()[0].close()
        except (BlockingIOError, InterruptedError, ConnectionError):
            return
        except OSError:  # no file to be had: it would be tried again at once, for ever
            self._close_listener()

    def _end(self) -> socket.socket:
        connection = super()._end()
        self._close_listener()
        return connection

    def _close_listener(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            if self._loop is not None and not self._loop.is_closed():
                self._loop.remove_reader(listener)
            listener.close()


def _lacking(refused: OSError) -> AccordError:
    off = refused.errno == errno.ENOPROTOOPT
    why = SWITCHED_OFF if off else kernel_error(refused)
    return error(Reason.NO_KERNEL_SUPPORT, f"MPTCP sockets: {why}", MEND_SWITCH if off else MEND_KERNEL)
