# SPDX-License-Identifier: Apache-2.0
"""TCP as a node, in one of two ways; the proposal's payload tells which (HotNets 2009, sections 3 and 5).

                no SYN (``tcp_installed``)                       parallel SYN (``tcp_adopted``)
    proposal    the SYN's TCP header, 20..60 bytes               the option of the SYN that leaves beside it, 16 bytes
    answer      the SYN-ACK's: the options that both have,       the same 16 bytes
                TSecr, ISN + 1 acknowledged
    commit      empty                                            u8, where the stream begins: 0 at the connection's
                                                                 first byte, 1 behind the preface or the ClientHello

Headers are TCP's own, options and checksum included. Where a policy says anything of TCP's options, one more follows,
WISHES (``tcp_wishes``): behind the header, or behind ADOPT, which then has two bytes of zeros in front of it. No header
begins with those, for its source port would be 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol as Interface

from accord.negotiation.interface import Outcome, Role, View
from accord.protocols.services import Carrier, Services
from accord.protocols.simultaneous import Simultaneous
from accord.protocols.tcp_adopted import WITH_WISHES, AdoptedTcp
from accord.protocols.tcp_installed import InstalledTcp
from accord.wire.constants import Protocol, Reason
from accord.wire.tcp_option import OPTION_BYTES


class TcpPlugin:
    """TCP (RFC 9293) by the kernel."""

    name = "tcp"
    protocol = int(Protocol.TCP)
    repeatable = True
    simultaneous = Simultaneous.BOTH
    """Both SYNs have crossed, and both sides install the one connection that they open."""

    def open(self, role: Role, services: Services) -> TcpSession:
        """A session for one node of one negotiation."""
        return TcpSession(role, services)


class TcpWay(Interface):
    """How a node gets its connection. Calls as a ``Session``'s; ``drop`` comes for ``prune``, ``give_up`` for
    ``abort``."""

    def propose(self, view: View) -> Outcome:
        """The proposal's payload."""

    def respond(self, view: View, payload: bytes) -> Outcome:
        """The proposal's payload in, the answer's out."""

    def advance(self, view: View, payload: bytes) -> Outcome:
        """The answer's or the commit's payload in."""

    def resume(self, view: View) -> Outcome:
        """What was waited for has come."""

    def commit(self, view: View) -> None:
        """The connection is the stack's. Raises ``AccordError``."""

    def carrier(self, below: Carrier | None) -> Carrier:
        """Its stream."""

    def greeted_by(self, hello: bytes) -> None:
        """Responder: the ClientHello of the node above. Raises ``AccordError`` (LEGACY_FIRST)."""

    def drop(self) -> None:
        """The node is out, and the peer knows it."""

    def give_up(self) -> None:
        """The node is out, and the peer is still to be told."""

    @property
    def inside(self) -> Mapping[str, object]:
        """What was agreed inside the node."""


class TcpSession:
    """One TCP node. Not secure: it authenticates nobody."""

    protocol = int(Protocol.TCP)
    secure = False

    def __init__(self, role: Role, services: Services) -> None:
        self._role = role
        self._services = services
        adopted = role is Role.INITIATOR and services.syn is not None
        self._way: TcpWay = (AdoptedTcp if adopted else InstalledTcp)(role, services)

    @property
    def adopted(self) -> bool:
        """The connection was opened by its SYN, as any other; it was not installed."""
        return isinstance(self._way, AdoptedTcp)

    @property
    def inside(self) -> Mapping[str, object]:
        """What was agreed inside the node, as the kernel says it; empty before there is a connection."""
        way = {"way": "parallel-syn" if self.adopted else "no-syn"}
        return {**way, **self._way.inside}

    def propose(self, view: View) -> Outcome:
        """Initiator: what the kernel's SYN says, or which SYN is meant."""
        return self._way.propose(view)

    def respond(self, view: View, payload: bytes) -> Outcome:
        """Responder: the way that the initiator proposes."""
        self._way.drop()
        adopted = len(payload) == OPTION_BYTES or payload.startswith(WITH_WISHES)
        way = AdoptedTcp if adopted else InstalledTcp
        self._way = way(self._role, self._services)
        return self._way.respond(view, payload)

    def greeted_by(self, hello: bytes) -> None:
        """Responder: the ClientHello of the TLS node above, which may be said over the connection as well.

        Raises ``AccordError`` (LEGACY_FIRST) when it has been, and the connection is served as a plain one.
        """
        self._way.greeted_by(hello)

    def advance(self, view: View, payload: bytes) -> Outcome:
        """Initiator: the answer in, the commit out. Responder: the commit in."""
        return self._way.advance(view, payload)

    def resume(self, view: View) -> Outcome:
        """Initiator: the SYN-ACK is there, or never will be."""
        return self._way.resume(view)

    def exporter(self) -> bytes | None:
        """No secret."""
        return None

    def commit(self, view: View) -> None:
        """The connection is the stack's. Raises ``AccordError``; only once, a repetition does nothing."""
        self._way.commit(view)

    def prune(self, reason: Reason) -> None:
        """Drop what there is."""
        self._way.drop()

    def abort(self, reason: Reason) -> None:
        """Give up what there is."""
        self._way.give_up()

    def carrier(self, below: Carrier | None) -> Carrier:
        """The kernel connection's stream. TCP has nothing of ours below it: ``below`` is None."""
        return self._way.carrier(below)
