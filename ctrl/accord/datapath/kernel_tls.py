# SPDX-License-Identifier: Apache-2.0
"""Records of TLS 1.3 made and read by the kernel (Documentation/networking/tls.rst, linux/tls.h).

A connection gets the upper-layer protocol "tls", then the keys of each direction. From then on its socket carries
plaintext: read, write, sendfile and splice of any program. What is no data (alerts, post-handshake messages) the
kernel gives only to who asks for a record's type; ``KernelTlsCarrier`` does, a program with the bare socket gets EIO.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import socket
import struct
from typing import Final

from accord.datapath.stream import SocketCarrier
from accord.datapath.tcp_sockopt import naming
from accord.wire.constants import Reason
from accord.wire.errors import AccordError, error

# <linux/tcp.h>, <linux/socket.h>, <linux/tls.h>: what Python's modules do not name.
TCP_ULP: Final = 31
SOL_TLS: Final = 282
TLS_TX, TLS_RX = 1, 2
TLS_SET_RECORD_TYPE, TLS_GET_RECORD_TYPE = 1, 2
_VERSION: Final = 0x0304
_AES_GCM_128, _AES_GCM_256, _CHACHA20_POLY1305 = 51, 52, 54
_ALERT, _HANDSHAKE, _DATA = 21, 22, 23
_CLOSE_NOTIFY: Final = 0
_NEW_SESSION_TICKET: Final = 4
_CONTROL_BYTES: Final = socket.CMSG_SPACE(1)
_TRIAL: Final = b"a record"
_SECONDS: Final = 5.0


def crypto_info(cipher: str, key: bytes, iv: bytes, sequence: int) -> bytes:
    """``struct tls12_crypto_info_*`` of a suite: version u16, cipher u16, then nonce, key, salt, record number.

    A GCM suite's 12 bytes of nonce are the salt (4) and what follows it (8); numbers are in the host's byte order, the
    record number in the network's. Raises ``ValueError`` for another suite.
    """
    number = sequence.to_bytes(8, "big")
    match cipher:
        case "TLS_AES_128_GCM_SHA256":
            return struct.pack("=HH8s16s4s8s", _VERSION, _AES_GCM_128, iv[4:], key, iv[:4], number)
        case "TLS_AES_256_GCM_SHA384":
            return struct.pack("=HH8s32s4s8s", _VERSION, _AES_GCM_256, iv[4:], key, iv[:4], number)
        case "TLS_CHACHA20_POLY1305_SHA256":
            return struct.pack("=HH12s32s8s", _VERSION, _CHACHA20_POLY1305, iv, key, number)
    raise ValueError(f"{cipher}: no suite of the kernel's")


def load() -> None:
    """Have the kernel load its module, which it does only for who has privileges. A kernel without it is no error."""
    with socket.socket() as unconnected:
        try:
            unconnected.setsockopt(socket.IPPROTO_TCP, TCP_ULP, b"tls")
        except OSError:
            return


def install(connection: socket.socket, send: bytes, receive: bytes) -> None:
    """Hand an established connection the keys, each a ``crypto_info``. Raises ``HostError`` (CANNOT_INSTALL).

    Nothing may have been read of the records that come; what waits in the socket is read by the kernel.
    """
    with naming('setsockopt(TCP_ULP, "tls")'):
        connection.setsockopt(socket.IPPROTO_TCP, TCP_ULP, b"tls")
    with naming("setsockopt(TLS_TX)"):
        connection.setsockopt(SOL_TLS, TLS_TX, send)
    with naming("setsockopt(TLS_RX)"):
        connection.setsockopt(SOL_TLS, TLS_RX, receive)


@functools.cache
def refusal(cipher: str) -> str | None:
    """Why the kernel does not do this suite, by a record sent over loopback; None: it does."""
    try:
        size = 16 if "128" in cipher else 32
        info = crypto_info(cipher, bytes(size), bytes(12), 0)
    except ValueError as unknown:
        return str(unknown)
    try:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            near = socket.create_connection(listener.getsockname(), _SECONDS)
            with near:
                far, _ = listener.accept()
                with far:
                    far.settimeout(_SECONDS)
                    for end in (near, far):
                        install(end, info, info)
                    near.sendall(_TRIAL)
                    return None if far.recv(len(_TRIAL)) == _TRIAL else "a record arrived as another"
    except AccordError as refused:
        return refused.detail
    except OSError as failed:
        return f"a record over loopback: {failed.strerror or failed}"


class KernelTlsCarrier(SocketCarrier):
    """The stream of a connection whose records the kernel makes. Its end is authenticated, as everywhere in TLS:
    ``finish`` sends close_notify, and an end without one is ``PeerError`` (STREAM_BROKEN)."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(connection)
        self._notified = False
        self._ended = False

    async def read(self, limit: int = 65536) -> bytes:
        """Up to ``limit`` bytes, at least one; empty after the peer's close_notify."""
        if limit < 1:
            raise ValueError("limit is less than 1")
        await self._share()
        while not self._ended:
            try:
                data, ancillary, _, _ = self._open().recvmsg(limit, _CONTROL_BYTES)
            except (BlockingIOError, InterruptedError):
                await self._readable()
                continue
            except OSError as failed:
                if failed.errno in (errno.EBADMSG, errno.EIO, errno.EINVAL, errno.EMSGSIZE):
                    raise _broken(os.strerror(failed.errno)) from failed
                raise
            kind = next((int(value[0]) for level, _, value in ancillary if level == SOL_TLS), None)
            if kind in (None, _DATA):
                if data:
                    return data
                if kind is None:
                    raise _broken("cut off without close_notify (RFC 8446 section 6.1)")
            elif kind == _ALERT and data[1:2] == bytes((_CLOSE_NOTIFY,)):
                self._ended = True
            elif kind == _ALERT:
                raise _broken(f"alert {data[1] if len(data) > 1 else '?'}")
            elif kind != _HANDSHAKE or data[:1] != bytes((_NEW_SESSION_TICKET,)):
                raise _broken(f"a record of type {kind} that the kernel's TLS has no answer to")
        return b""

    async def finish(self) -> None:
        """Send close_notify, and FIN."""
        if not self._notified:
            self._notified = True
            await self._notify()
        await super().finish()

    async def close(self) -> None:
        """Orderly end of both directions; a peer that is gone already is no error."""
        if self.kernel_socket is not None and not self._notified:
            self._notified = True
            with contextlib.suppress(OSError):
                await self._notify()
        await super().close()

    async def _notify(self) -> None:
        record_type = [(SOL_TLS, TLS_SET_RECORD_TYPE, bytes((_ALERT,)))]
        while True:
            try:
                self._open().sendmsg([bytes((1, _CLOSE_NOTIFY))], record_type)
                return
            except (BlockingIOError, InterruptedError):
                await self._writable()


def _broken(why: str) -> AccordError:
    return error(Reason.STREAM_BROKEN, f"TLS in the kernel: {why}")
