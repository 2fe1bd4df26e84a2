# SPDX-License-Identifier: Apache-2.0
"""``accord.listen``: take the stacks that peers negotiate with a port of this host."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self

from accord.api.association import Association
from accord.api.opening import Opening
from accord.controller.control import Channel, ask, call, control_path, raise_failure
from accord.controller.held import opened
from accord.controller.settings.config import MEND_OF_A_LISTENER, NOT_WITH_A_LISTENER
from accord.controller.settings.policy import Secure
from accord.wire.constants import Reason
from accord.wire.errors import error

Files = tuple[str | None, str | None]
"""Of a certificate and its private key."""


def _absolute(path: str | os.PathLike[str] | None) -> str | None:
    return None if path is None else os.path.abspath(path)


class Listener:
    """A port that the daemon listens on for this process, as long as this process keeps it open."""

    def __init__(
        self,
        channel: Channel,
        details: dict[str, Any],
        control: str | os.PathLike[str] | None = None,
        *,
        messages: bool = False,
        files: Files = (None, None),
    ) -> None:
        self._channel = channel
        self._files = files
        self._control = control
        self._messages = messages
        self.details = details

    async def accept(self) -> Association:
        """The next association. Raises ``ConnectionError`` when the daemon is gone."""
        answer = await self._channel.receive()
        if answer is None:
            raise ConnectionAbortedError("the daemon closed the control connection")
        message, fds = answer
        raise_failure(message)
        return Association(socket.socket(fileno=fds[0]), message["report"], self._control, messages=self._messages)

    async def __aiter__(self) -> AsyncIterator[Association]:
        while True:
            try:
                yield await self.accept()
            except ConnectionAbortedError:
                return

    async def renew(self) -> None:
        """Read the files of the certificate and its key again, and show what they hold to whoever comes from now on.

        Raises ``AccordError``; then the port goes on with what it had.
        """
        port, (certificate, private_key) = self.details["port"], self._files
        if certificate is None or private_key is None:
            raise error(Reason.BAD_CONFIG, f"port {port} has no certificate of its own", "listen with one")
        request = {"op": "renew", "port": port, "certificate": os.fspath(certificate)}
        with opened(self._files) as files:
            await ask(control_path(self._control), {**request, "private_key": os.fspath(private_key)}, files)

    async def close(self) -> None:
        """Stop listening. Associations that were accepted stay, but for those over QUIC, which share the port."""
        self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _check_alone(*given: object) -> None:
    """Of what does not go together with ``to_listener``. Raises ``UserError`` (BAD_CONFIG)."""
    if any(value and value != Secure.NO for value in given):
        raise error(Reason.BAD_CONFIG, f"to_listener with what {NOT_WITH_A_LISTENER}", MEND_OF_A_LISTENER)


class listen(Opening[Listener]):
    """``async with accord.listen(443, certificate=..., private_key=...) as listener:`` or ``await`` it.

    ``forward_to`` lets the daemon hand each association's bytes to a local plain service instead of to this
    process. Without a certificate the daemon's own is used; the files are read by this process, not by the daemon.
    ``secure`` (``required``, ``preferred``, ``no``) overrides the daemon's policy for this port; ``plain`` serves
    hosts without Accord on the same TCP port; ``early_limit`` is the longest request, in bytes, that may come in the
    proposal, in clear and perhaps replayed. ``share_udp``: the UDP port of that number is another program's, and only
    negotiation packets are taken of what comes to it. ``messages``: only for peers that speak framing, so that messages
    keep their boundaries (``Association.send`` and ``receive``). ``to_listener``: the TCP port of that number is
    another program's, which listens on it and takes negotiated connections by its own ``accept()``; nothing comes up
    here, and nothing but ``share_udp`` goes together with it. Raises ``AccordError`` as ``connect`` does.
    """

    def __init__(
        self,
        port: int,
        *,
        forward_to: tuple[str, int] | None = None,
        certificate: str | os.PathLike[str] | None = None,
        private_key: str | os.PathLike[str] | None = None,
        early_limit: int = 0,
        secure: str | None = None,
        plain: bool = True,
        messages: bool = False,
        share_udp: bool = False,
        to_listener: bool = False,
        control: str | os.PathLike[str] | None = None,
    ) -> None:
        # Told before the daemon is asked: what nobody could read.
        if not 0 < port < 65536:
            raise error(Reason.BAD_CONFIG, f"port {port}", "ports are 1..65535")
        if secure is not None and secure not in tuple(Secure):
            raise error(Reason.BAD_CONFIG, f"secure = {secure!r}", f"allowed: {', '.join(Secure)}")
        if messages and forward_to is not None:
            raise error(Reason.BAD_CONFIG, "messages for a forwarded port", "a plain service takes a stream: drop one")
        if to_listener:
            _check_alone(forward_to is not None, certificate, private_key, early_limit, secure, messages)
        self._request = {
            "op": "listen",
            "port": port,
            "forward_to": list(forward_to) if forward_to else None,
            "certificate": _absolute(certificate),
            "private_key": _absolute(private_key),
            "early_limit": early_limit,
            "secure": secure,
            "plain": plain,
            "messages": messages,
            "share_udp": share_udp,
            "to_listener": to_listener,
        }
        # A program may go elsewhere before it renews.
        self._files: Files = (_absolute(certificate), _absolute(private_key))
        self._control = control_path(control)

    async def _open(self) -> Listener:
        channel = call(self._control)
        try:
            with opened(self._files) as files:
                answer, _ = await channel.ask(self._request, files)
        except BaseException:
            channel.close()
            raise
        messages = bool(self._request["messages"])
        return Listener(channel, answer, self._control, messages=messages, files=self._files)
