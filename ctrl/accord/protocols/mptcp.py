# SPDX-License-Identifier: Apache-2.0
"""Kernel Multipath TCP (RFC 8684) as a node: a plan, which the kernels carry out after the commit.

The responder takes one connection, from that address and port only; the further paths of it are the kernels' affair
(``ip mptcp``). What is above it (TLS, as a rule: the keys of MPTCP travel in clear) has done its handshake in the
negotiation, so one round trip, SYN and SYN-ACK with MP_CAPABLE, lies between the commit and the first data.

Whoever takes that option off makes a plain TCP connection of it, without telling anybody (RFC 8684, section 3.7). So
the association is not there before the connection is, and then ``inside`` says which of the two it is.
"""

from __future__ import annotations

from collections.abc import Mapping

from accord.negotiation.interface import Role
from accord.protocols.port_plan import PortPlan
from accord.protocols.services import Carrier, MptcpPort, Services
from accord.wire.constants import Protocol, Reason

_FELL_BACK = "MPTCP: no MP_CAPABLE of the peer's came, so the connection is one of plain TCP (RFC 8684, section 3.7)"


class MptcpSession(PortPlan[MptcpPort]):
    """One MPTCP node."""

    protocol: int = Protocol.MPTCP

    def __init__(self, role: Role, services: Services) -> None:
        super().__init__("mptcp", "MPTCP", role)
        self._services = services

    @property
    def inside(self) -> Mapping[str, object]:
        """The two ports; once the connection is there also ``multipath``: whether it is one of MPTCP, not plain TCP."""
        multipath = None if self._own is None else self._own.multipath
        return {**super().inside, **({} if multipath is None else {"multipath": multipath})}

    @property
    def remark(self) -> tuple[Reason, str] | None:
        """What the path has done to the connection, once that is there; None: nothing."""
        fell_back = self._own is not None and self._own.multipath is False
        return (Reason.OPTION_STRIPPED, _FELL_BACK) if fell_back else None

    async def there(self) -> Carrier:
        """After ``carrier``: the connection's stream, once that is there. Raises ``AccordError``: why it never is."""
        assert self._own is not None, "what is committed was reserved"
        return await self._own.there()

    def _service(self) -> MptcpPort | None:
        return None if self._services.mptcp is None else self._services.mptcp.reserve()


class MptcpPlugin:
    """MPTCP, found as ``mptcp``."""

    name: str = "mptcp"
    protocol: int = Protocol.MPTCP

    def open(self, role: Role, services: Services) -> MptcpSession:
        """A session for one node of one negotiation."""
        return MptcpSession(role, services)
