# SPDX-License-Identifier: Apache-2.0
"""An established stack, in an application's hands."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping
from types import TracebackType
from typing import Any, BinaryIO, Final, Self

from accord.controller.control import ask, control_path
from accord.controller.known import check_wishes
from accord.datapath.kernel_tls import KernelTlsCarrier
from accord.datapath.stream import SocketCarrier
from accord.protocols.framed_carrier import FramedCarrier
from accord.protocols.services import Carrier
from accord.wire.constants import Reason
from accord.wire.errors import error

_PIECE_BYTES: Final = 65536


class Association:
    """A byte stream over whichever stack both ends supported best.

    ``report`` says which one, and how it came to be: ``stack`` (top first), ``negotiated``, ``reason``,
    ``ready_ms``, ``ladder``, ... (``accord.controller.association.Report``).
    """

    def __init__(
        self,
        sock: socket.socket,
        report: dict[str, Any],
        control: str | os.PathLike[str] | None = None,
        *,
        messages: bool = False,
    ) -> None:
        """``messages``: it was asked for with them, so that framing is agreed, and what ``sock`` carries is frames."""
        by_kernel = report.get("inside", {}).get("tls", {}).get("kernel") == "yes"
        self.carrier: Carrier = KernelTlsCarrier(sock) if by_kernel else SocketCarrier(sock)
        """The stream itself, for whoever joins it to another."""
        self.report = report
        self._control = control
        self._messages: FramedCarrier | None = None
        if messages:
            agreed = report["inside"]["framing"]
            self._messages = FramedCarrier(self.carrier, agreed["longest_sent"], agreed["longest_received"])
            self.carrier = self._messages

    @property
    def stack(self) -> list[str]:
        """Protocol names, top first, such as ``["http", "tls", "tcp"]``."""
        return list(self.report["stack"])

    async def read(self, limit: int = 65536) -> bytes:
        """Up to ``limit`` bytes, at least one; empty once the peer has finished."""
        return await self.carrier.read(limit)

    async def read_all(self) -> bytes:
        """Everything until the peer finishes."""
        pieces = []
        while piece := await self.read():
            pieces.append(piece)
        return b"".join(pieces)

    async def write(self, data: bytes) -> None:
        """Send all of ``data``; returns when there is room for more."""
        await self.carrier.write(data)

    async def sendfile(self, file: BinaryIO, count: int | None = None) -> int:
        """Send a file from where it stands, to its end or ``count`` bytes of it; how many were sent.

        Where the stream is a kernel socket, TLS by the kernel included (policy ``kernel_tls``), by sendfile(2).
        """
        connection = self.carrier.kernel_socket
        if connection is not None:
            return await asyncio.get_running_loop().sock_sendfile(connection, file, file.tell(), count)
        sent = 0
        while count is None or sent < count:
            piece = file.read(_PIECE_BYTES if count is None else min(_PIECE_BYTES, count - sent))
            if not piece:
                break
            await self.write(piece)
            sent += len(piece)
        return sent

    async def renegotiate(self, policy: Mapping[str, Any] | None = None) -> None:
        """Have the stack changed, while data flows; return when it is. ``report`` then tells of the new one.

        ``policy`` overrides keys as for ``accord.connect``, from now on; only where this side has connected. Without
        it the policy of now chooses, and where it chooses the same stack that gets new keys.

        Raises ``AccordError`` when the stack stays what it is: ``UserError`` (``BAD_CONFIG``) where it cannot change,
        because it is a kernel socket of this process; ``PeerError`` (``NO_ASSOCIATION``) where the peer cannot change
        it; what a negotiation may end with; (``RENEGOTIATING``) when it is being changed with other wishes.
        """
        if not self.report.get("association"):
            raise error(
                Reason.BAD_CONFIG,
                f"{'/'.join(self.stack)} cannot change under this process",
                "connect with the policy renegotiate = true; a plain connection never can",
            )
        if policy:
            check_wishes(policy)
        message = {"op": "renegotiate", "association": self.report["association"], "policy": dict(policy or {})}
        answer, _ = await ask(control_path(self._control), message)
        self.report.update(stack=answer["stack"], generation=answer["generation"], inside={})

    async def send(self, message: bytes) -> None:
        """Send one message (Post Sockets: Message), which arrives whole and by itself.

        Raises ``UserError`` (BAD_CONFIG) when it is longer than the peer takes, and where messages were not asked for.
        """
        await self._framed().send(message)

    async def receive(self) -> bytes | None:
        """The next message; None once the peer has finished. Raises as ``send``, ``PeerError`` for what is none."""
        return await self._framed().receive()

    def _framed(self) -> FramedCarrier:
        if self._messages is None:
            raise error(
                Reason.BAD_CONFIG, "this association carries a stream", "ask for messages=True in connect and listen"
            )
        return self._messages

    async def finish(self) -> None:
        """Nothing more will be written; reading goes on."""
        await self.carrier.finish()

    async def close(self) -> None:
        """End both directions."""
        await self.carrier.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
