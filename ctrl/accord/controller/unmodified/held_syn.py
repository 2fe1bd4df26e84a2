# SPDX-License-Identifier: Apache-2.0
"""A SYN that was taken on its way out: either its SYN-ACK is handed back to the kernel, or it goes on, once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from accord.protocols.services import Carrier, TcpParameters
from accord.wire.constants import Reason
from accord.wire.errors import AccordError, error

if TYPE_CHECKING:
    from accord.datapath.captures import Captured


class Way(Protocol):
    """Out and in, by the interface that it was taken at."""

    def release(self, frame: bytes) -> None:
        """Let a SYN go. Raises ``AccordError``."""

    def hand_in(self, frame: bytes) -> None:
        """Give this host a SYN-ACK. Raises ``AccordError``."""


class HeldSyn:
    """``TcpService`` and ``TcpEndpoint`` of one negotiation: the numbers are those of the kernel that sent it."""

    def __init__(self, captured: Captured, way: Way) -> None:
        self.captured = captured
        self._way = way
        self._peer: TcpParameters | None = None
        self.answered = False
        """The kernel has its SYN-ACK: the connection is the program's."""
        self.gone = False
        """It is on its way as without Accord."""

    def let_go(self) -> None:
        """Onto the wire, as it was; nothing happens when it has left, or has its answer. Raises ``AccordError``."""
        if not self.answered and not self.gone:
            self.gone = True
            self._way.release(self.captured.frame)

    # ---- TcpService ----

    def reserve(self, port: int | None = None) -> HeldSyn:
        """Itself; its port is bound already."""
        return self

    # ---- TcpEndpoint ----

    @property
    def parameters(self) -> TcpParameters:
        """As the kernel wrote them."""
        return self.captured.own

    def install(self, peer: TcpParameters) -> None:
        """What the SYN-ACK is going to say. The kernel is told nothing yet."""
        self._peer = peer

    def installed(self) -> None:
        """Hand the SYN-ACK in: the peer's kernel has its socket, or it would not have answered.

        Raises ``AccordError``: the SYN has left meanwhile (LEGACY_FIRST), or it cannot be handed in.
        """
        if self.gone or self._peer is None:
            raise error(Reason.LEGACY_FIRST, "the SYN has been let go")
        if not self.answered:
            self._way.hand_in(self.captured.answer(self._peer))
            self.answered = True

    def release(self) -> None:
        """The negotiation gives it up; whoever held it lets it go."""

    def stream(self) -> Carrier:
        """Of nothing: the connection is the program's."""
        return _Elsewhere()


class _Elsewhere:
    """``Carrier`` of a connection that this process has no part in."""

    kernel_socket = None

    async def read(self, limit: int = 65536) -> bytes:
        """Raises ``AccordError`` (CLOSED)."""
        raise _not_here()

    async def write(self, data: bytes) -> None:
        """Raises ``AccordError`` (CLOSED)."""
        raise _not_here()

    async def finish(self) -> None:
        """The program's to do."""

    async def close(self) -> None:
        """The program's to do."""

    def abort(self) -> None:
        """The program's to do."""


def _not_here() -> AccordError:
    return error(Reason.CLOSED, "the connection is an unmodified program's")
