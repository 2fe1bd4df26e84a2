# SPDX-License-Identifier: Apache-2.0
"""The control socket: how programs on a host talk to its daemon.

A Unix socket of type SOCK_SEQPACKET: one message is one JSON object, and file descriptors ride beside it
(SCM_RIGHTS). The daemon learns who is calling from the kernel (SO_PEERCRED, unix(7)), never from the caller.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accord.wire.constants import Party, Reason
from accord.wire.errors import AccordError, error, error_of

DEFAULT_PATH = Path("/run/accord/control.sock")
ENVIRONMENT = "ACCORD_CONTROL"
MAX_MESSAGE = 128 * 1024
"""Bytes of one message; an early request travels in one, base64."""
_CUT = int(socket.MSG_TRUNC | socket.MSG_CTRUNC)
_MAX_FDS = 8
"""Of a message from a program."""


def control_path(explicit: str | os.PathLike[str] | None = None) -> Path:
    """The socket to use: as asked, else ``$ACCORD_CONTROL``, else the system's."""
    return Path(explicit or os.environ.get(ENVIRONMENT) or DEFAULT_PATH)


class Channel:
    """One end of a control connection."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock

    async def send(self, message: Mapping[str, Any], fds: Sequence[int] = ()) -> None:
        """Send one message. Raises ``ConnectionError`` when the other end is gone, ``UserError`` when too long."""
        await self._send(_encode(message), fds)

    async def _send(self, data: bytes, fds: Sequence[int]) -> None:
        while True:
            try:
                socket.send_fds(self.sock, [data], list(fds), socket.MSG_NOSIGNAL)
                return
            except BlockingIOError:
                await self._wait(self.sock.fileno(), write=True)

    async def receive(self, most: int = _MAX_FDS) -> tuple[dict[str, Any], list[int]] | None:
        """The next message and its file descriptors, ``most`` of them; None when the other end has closed.

        Raises ``UserError`` (``BAD_CONFIG``) for what is no JSON object or has more descriptors; they are closed then.
        """
        while True:
            try:
                data, fds, flags, _ = socket.recv_fds(self.sock, MAX_MESSAGE, most, socket.MSG_CMSG_CLOEXEC)
                break
            except BlockingIOError:
                await self._wait(self.sock.fileno(), write=False)
            except ConnectionError:
                return None
        if not data:
            for fd in fds:
                os.close(fd)
            return None
        try:
            if flags & _CUT:
                raise ValueError("message is too long")
            message = json.loads(data)
            if not isinstance(message, dict):
                raise ValueError("not an object")
        except (ValueError, RecursionError) as wrong:
            for fd in fds:
                os.close(fd)
            raise error(Reason.BAD_CONFIG, f"control message: {wrong}") from wrong
        return message, fds

    @staticmethod
    async def _wait(fd: int, *, write: bool) -> None:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            if not ready.done():
                ready.set_result(None)

        if write:
            loop.add_writer(fd, wake)
        else:
            loop.add_reader(fd, wake)
        try:
            await ready
        finally:
            if write:
                loop.remove_writer(fd)
            else:
                loop.remove_reader(fd)

    async def ask(self, message: Mapping[str, Any], fds: Sequence[int] = ()) -> tuple[dict[str, Any], list[int]]:
        """A question to a daemon, and its answer. Raises what the answer says, or ``UserError`` (``NO_DAEMON``)."""
        return await self._ask(_encode(message), fds)

    async def _ask(self, data: bytes, fds: Sequence[int]) -> tuple[dict[str, Any], list[int]]:
        await self._send(data, fds)
        answer = await self.receive()
        if answer is None:
            raise error(Reason.NO_DAEMON, "the daemon closed the control connection", "see the daemon's log")
        raise_failure(answer[0])
        return answer

    def close(self) -> None:
        """Close this end."""
        self.sock.close()


def peer_credentials(sock: socket.socket) -> tuple[int, int, int]:
    """(pid, uid, gid) of the process at the other end, as the kernel saw it connect."""
    pid, uid, gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return pid, uid, gid


def call(path: Path) -> Channel:
    """Connect to a daemon. Raises ``UserError``: ``NO_DAEMON``, ``NOT_PERMITTED``."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        sock.connect(os.fspath(path))
    except PermissionError as refusal:
        sock.close()
        raise error(
            Reason.NOT_PERMITTED, f"control socket {path}", "run as root, or add your user to [control] users"
        ) from refusal
    except OSError as refusal:
        sock.close()
        raise error(
            Reason.NO_DAEMON, f"control socket {path}: {refusal.strerror}", "start one: sudo accord daemon --iface IF"
        ) from refusal
    return Channel(sock)


async def ask(path: Path, message: Mapping[str, Any], fds: Sequence[int] = ()) -> tuple[dict[str, Any], list[int]]:
    """One question to a daemon, and its answer with the descriptors beside it. Raises ``AccordError``."""
    data = _encode(message)  # before it is called: it wakes up at the call, and should find the question there
    channel = call(path)
    try:
        return await channel._ask(data, fds)
    finally:
        channel.close()


def _encode(message: Mapping[str, Any]) -> bytes:
    data = json.dumps(message, separators=(",", ":")).encode()
    if len(data) > MAX_MESSAGE:
        raise error(Reason.BAD_CONFIG, f"control message of {len(data)} bytes", f"{MAX_MESSAGE} are allowed")
    return data


def failure_message(failure: AccordError) -> dict[str, Any]:
    """An error as it crosses the control socket."""
    return {
        "ok": False,
        "reason": failure.reason.name,
        "party": failure.party.name,
        "detail": failure.detail,
        "mend": failure.mend,
        "ladder": failure.trace,
    }


def raise_failure(message: dict[str, Any]) -> None:
    """The other way round: raise what ``failure_message`` described."""
    if not message.get("ok"):
        reason = Reason.__members__.get(str(message.get("reason")), Reason.PLUGIN_FAILED)
        party = Party.__members__.get(str(message.get("party")), reason.party)
        failure = error_of(party, reason, str(message.get("detail", "")), str(message.get("mend", "")))
        ladder = message.get("ladder")
        failure.trace = ladder if isinstance(ladder, list) else []
        raise failure
