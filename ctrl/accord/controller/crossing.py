# SPDX-License-Identifier: Apache-2.0
"""One kernel TCP connection out of two SYNs that crossed (RFC 9293, section 3.5, Figure 7).

Each side has announced its own SYN in its proposal: from the port of the meeting's UDP socket to the other's. Which
side answers the other is known only when both are here, so the session that proposes and the one that responds use one
reservation: the SYN-ACK of the side that does not lead has the numbers of the SYN that it had proposed.
"""

from __future__ import annotations

from accord.protocols.services import Carrier, TcpEndpoint, TcpParameters, TcpService
from accord.wire.constants import Reason
from accord.wire.errors import error


class CrossingTcp:
    """``TcpService`` between one pair of addresses, as a meeting's sessions see it."""

    def __init__(self, tcp: TcpService, port: int) -> None:
        """``port``: the local one, of the UDP socket that the meeting is on."""
        self._tcp = tcp
        self._port = port
        self._endpoint: TcpEndpoint | None = None
        self._users = 0
        self._taken = False
        self._kept = True

    def reserve(self, port: int | None = None) -> TcpEndpoint:
        """The connection's local end, the same for whoever asks; ``port`` is the meeting's in any case.

        Raises ``HostError``; CANNOT_INSTALL once it is a stack's.
        """
        if self._taken:
            raise error(Reason.CANNOT_INSTALL, "both proposals' TCP connection is in use")
        if self._endpoint is None:
            self._endpoint = self._tcp.reserve(self._port)
        self._users += 1
        return _Use(self, self._endpoint)

    def close(self) -> None:
        """The meeting is over: what no stack has taken is dropped with its last user."""
        self._kept = False
        self._drop()

    def spoilt(self, endpoint: TcpEndpoint) -> None:
        """It was installed for nothing: whoever comes next gets other numbers."""
        endpoint.release()
        if self._endpoint is endpoint:
            self._endpoint = None

    def left(self, *, with_it: bool) -> None:
        """A user is done; ``with_it``: it has taken the connection over."""
        self._users -= 1
        self._taken = self._taken or with_it
        self._drop()

    def _drop(self) -> None:
        if self._endpoint is not None and not self._kept and self._users == 0:
            endpoint, self._endpoint = self._endpoint, None
            if not self._taken:
                endpoint.release()


class _Use:
    """``TcpEndpoint`` of one session."""

    def __init__(self, crossing: CrossingTcp, endpoint: TcpEndpoint) -> None:
        self._crossing: CrossingTcp | None = crossing
        self._endpoint = endpoint
        self._begun = False

    @property
    def parameters(self) -> TcpParameters:
        """Ours: those of the SYN that was proposed."""
        return self._endpoint.parameters

    def install(self, peer: TcpParameters) -> None:
        """As ``TcpEndpoint.install``."""
        self._begun = True
        self._endpoint.install(peer)

    def installed(self) -> None:
        """As ``TcpEndpoint.installed``."""
        self._endpoint.installed()

    def release(self) -> None:
        """This session wants it no longer."""
        if self._begun and self._crossing is not None:
            self._crossing.spoilt(self._endpoint)
        self._leave(with_it=False)

    def stream(self) -> Carrier:
        """As ``TcpEndpoint.stream``."""
        stream = self._endpoint.stream()
        self._leave(with_it=True)
        return stream

    def _leave(self, *, with_it: bool) -> None:
        crossing, self._crossing = self._crossing, None
        if crossing is not None:
            crossing.left(with_it=with_it)
