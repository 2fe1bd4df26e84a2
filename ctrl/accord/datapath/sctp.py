# SPDX-License-Identifier: Apache-2.0
"""Kernel SCTP (RFC 9260), one-to-one style (RFC 6458, section 4), as a byte stream.

SCTP knows no half-closed state: after SHUTDOWN the peer may not send any more. So the end of one direction is a
message of one byte whose payload protocol identifier (PPID) says so, and the association ends when both have had it.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Final

from accord.datapath.bound import bound_socket
from accord.datapath.stream import SocketCarrier
from accord.wire.constants import Reason
from accord.wire.errors import AccordError, error

IPPROTO_SCTP: Final = 132
# <linux/sctp.h>
_SCTP_NODELAY: Final = 3
_SCTP_RECVRCVINFO: Final = 32
_SCTP_SNDINFO: Final = 2
_SCTP_RCVINFO: Final = 3
_SNDINFO: Final = struct.Struct("=HH4sIi")
"""Stream, flags, PPID (in the network's byte order, as all of SCTP leaves it), context, association."""
_RCVINFO_PPID: Final = slice(8, 12)
"""Of ``struct sctp_rcvinfo``: stream, stream sequence number, flags, two bytes of padding, PPID, ..."""
PPID_DATA: Final = b"ACd\0"
PPID_END: Final = b"ACe\0"
_MESSAGE_BYTES: Final = 65536
_CONTROL_BYTES: Final = socket.CMSG_SPACE(28)


def sctp_socket(local: str) -> socket.socket:
    """Bound to a free port of this address, textual. Raises ``HostError``: NO_KERNEL_SUPPORT, CANNOT_INSTALL."""

    def lacking(refused: OSError) -> AccordError:
        mend = "modprobe sctp, or a kernel with CONFIG_IP_SCTP"
        return error(Reason.NO_KERNEL_SUPPORT, f"SCTP sockets: {refused.strerror}", mend)

    made = bound_socket(local, IPPROTO_SCTP, "SCTP", lacking)
    try:
        made.setsockopt(IPPROTO_SCTP, _SCTP_NODELAY, 1)
        made.setsockopt(IPPROTO_SCTP, _SCTP_RECVRCVINFO, 1)
    except BaseException:
        made.close()
        raise
    return made


class SctpCarrier(SocketCarrier):
    """The stream of an association. It goes to no program as a socket: where its direction ends, the PPID says."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(connection)
        # Of a listening socket's associations some kernels inherit neither.
        connection.setsockopt(IPPROTO_SCTP, _SCTP_NODELAY, 1)
        connection.setsockopt(IPPROTO_SCTP, _SCTP_RECVRCVINFO, 1)
        self._ended = self._finished = False

    @property
    def kernel_socket(self) -> socket.socket | None:
        """None: the bytes on the socket are not all of the stream's."""
        return None

    async def read(self, limit: int = 65536) -> bytes:
        """Up to ``limit`` bytes, at least one; empty once the peer has finished."""
        if limit < 1:
            raise ValueError("limit is less than 1")
        await self._share()
        while not self._ended:
            try:
                data, ancillary, _, _ = self._open().recvmsg(limit, _CONTROL_BYTES)
            except (BlockingIOError, InterruptedError):
                await self._readable()
                continue
            if not data:
                raise _broken("the association ended before its stream did")
            infos = (value for level, kind, value in ancillary if (level, kind) == (IPPROTO_SCTP, _SCTP_RCVINFO))
            if next(infos, b"")[_RCVINFO_PPID] == PPID_END:
                self._ended = True
            else:
                return data
        return b""

    async def write(self, data: bytes) -> None:
        """Send all of ``data``, in messages of 64 KiB at most."""
        if self._finished:
            raise error(Reason.CLOSED, "SCTP: write after finish or close")
        rest = memoryview(data)
        await self._share()
        while rest:
            await self._send(rest[:_MESSAGE_BYTES], PPID_DATA)
            rest = rest[_MESSAGE_BYTES:]

    async def finish(self) -> None:
        """Tell the peer that nothing more comes; reading goes on."""
        if not self._finished:
            self._finished = True
            with contextlib.suppress(ConnectionError):
                await self._send(memoryview(b"\0"), PPID_END)

    async def close(self) -> None:
        """Orderly end of both directions: SHUTDOWN, once what was written has arrived."""
        if self._socket is None:
            return
        with contextlib.suppress(OSError, AccordError):
            await self.finish()
        with contextlib.suppress(AccordError):
            await super().close()

    async def _send(self, message: memoryview, ppid: bytes) -> None:
        """One message, whole: the kernel takes all of it or nothing."""
        info = [(IPPROTO_SCTP, _SCTP_SNDINFO, _SNDINFO.pack(0, 0, ppid, 0, 0))]
        while True:
            try:
                self._open().sendmsg([message], info)
                return
            except (BlockingIOError, InterruptedError):
                await self._writable()


def _broken(why: str) -> AccordError:
    return error(Reason.STREAM_BROKEN, f"SCTP: {why}")
