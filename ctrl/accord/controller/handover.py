# SPDX-License-Identifier: Apache-2.0
"""The half of a live upgrade that the old daemon's data path does (docs/OPERATIONS.md, "Live upgrade").

The sockets of an exposed port go to the new daemon; what is in flight stays here. The kernel keeps the two apart: a
UDP socket that is connected to a peer gets that peer's datagrams before any other socket of the port does. So each
peer of a negotiation in flight, and of a QUIC association, gets one, and when nobody is left without, the socket of
the port itself can be handed over: what comes to it from then on is from somebody new.

Whenever a packet arrives, one daemon has all of its negotiation:

| it arrives                                    | and                                                                |
|-----------------------------------------------|--------------------------------------------------------------------|
| in a ring that is about to be closed          | is read: from before the last look on, the program passes everything |
| in a peer's socket that is bound, but not yet | is read in the next round, whoever sent it; then its sender gets a |
| connected (anybody's may)                     | socket too, and by that, or another of the port, it is answered    |
| in the port's socket, meanwhile               | likewise; the rounds end when one has found nobody new             |
| in the port's socket, although its sender has | likewise: after the last socket was connected, the round that finds |
| one by now (the kernel chose it before)       | nobody new comes after each such packet was delivered (``settle``) |
| in the port's socket, after that              | waits there for the new daemon, and so does all that follows       |
| in a socket that ``prune`` closes             | nobody has acknowledged it: it is repeated, to the new daemon      |
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from dataclasses import dataclass, field
from typing import Any

from accord.controller.adoption.adopting import Candidate
from accord.controller.controller import Controller
from accord.controller.exposed import Exposed
from accord.controller.udp_sockets import UdpSocket
from accord.datapath import clock, privilege, unkept
from accord.datapath.path import Path

log = logging.getLogger("accord.handover")

_SETTLE_SECONDS = 1.0
"""A peer that has got our answer commits within a round trip, and its connection is there by then."""
_LOOK_SECONDS = 0.002
_ROUNDS = 100
"""More peers may begin while others get their sockets; each round is shorter than the one before."""


@dataclass(slots=True)
class Offer:
    """One exposed port, to be handed over: the sockets that go, and those that stay in their place."""

    exposed: Exposed
    sockets: list[socket.socket] = field(default_factory=list)
    """UDP, then TCP listeners, then connections."""
    originals: dict[int, tuple[UdpSocket, socket.socket]] = field(default_factory=dict)
    """By position in ``exposed.sockets``: what the port's own socket was."""
    lent: list[Candidate] = field(default_factory=list)
    """Connections that go as well, last in ``sockets``."""

    def describe(self) -> dict[str, Any]:
        """For the new daemon, which may have no configuration of this port."""
        exposed = self.exposed
        return {
            "port": exposed.port,
            "to": None if exposed.target is None else list(exposed.target),
            "certificate": str(exposed.security.certificate),
            "private_key": str(exposed.security.private_key),
            "early_limit": exposed.early_limit,
            "secure": None if exposed.secure is None else str(exposed.secure),
            "messages": exposed.messages,
            "plain": bool(exposed.listeners),
            "share_udp": exposed.shared,
            "to_listener": exposed.given is not None,
            "lent": [(candidate.named_transaction or b"").hex() for candidate in self.lent],
        }


@dataclass(frozen=True, slots=True)
class Connected:
    """A peer in flight, and the socket that the kernel gives its datagrams to."""

    socket: UdpSocket
    peer: Path


class Handover:
    """``settle``, ``freeze``, then ``commit`` or ``resume``."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._endpoint = controller.endpoint
        self._sockets = controller.endpoint.sockets
        self._offers: list[Offer] = []
        self._made: dict[int, list[Connected]] = {}
        """By the index of the port's own socket."""
        self._attached = False

    async def settle(self) -> None:
        """Wait for a moment in which no negotiation looks for the connection that it adopts (parallel SYN): the
        listeners go, so whatever is accepted afterwards is accepted by the new daemon, which knows nothing of it.

        On a busy host there may be none, so after a while no such negotiation begins any more: its peers have a plain
        connection all the same. ``freeze`` is to follow at once.
        """
        for refuse in (False, True):
            adopters = [exposed.adopter for exposed in self._controller.exposed.values() if exposed.adopter is not None]
            for adopter in adopters:
                adopter.refuse(refuse)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SETTLE_SECONDS):
                    while any(adopter.searching for adopter in adopters):
                        await asyncio.sleep(_LOOK_SECONDS)
                    return

    def freeze(self) -> list[Offer]:
        """Leave the interface, and stop reading the sockets that go: what comes in waits in them for their new owner.

        Nothing is waited for in here: between the last look at a socket and its last user lies no other work.
        """
        self._attached = self._controller.link is not None
        self._controller.detach()
        self._offers = [Offer(exposed) for exposed in self._controller.exposed.values()]
        for offer in self._offers:
            # A proposal leaves before its SYN: those of connections that were accepted are read below, and none may
            # begin to look for a connection that is not.
            if offer.exposed.adopter is not None:
                offer.exposed.adopter.refuse()
        made = self._made = self._connect_all()
        for offer in self._offers:
            # That took its time, with peers whose commit was read meanwhile: their connections are here by now, and
            # the new daemon would make nothing of them.
            offer.exposed.accept_waiting()
            offer.exposed.pause()
            if offer.exposed.adopter is not None:
                offer.exposed.adopter.abandon()
                offer.lent = offer.exposed.adopter.lend()
        for offer in self._offers:
            for position, bound in enumerate(offer.exposed.sockets):
                stays = made[bound.index]
                # Negotiations know it by its index: under that, there has to be a socket by which they can send.
                swap = self._sockets.swap
                original = swap(bound, stays[0].socket.sock.dup()) if stays else self._sockets.detach(bound)
                offer.originals[position] = (bound, original)
                offer.sockets.append(original)
            offer.exposed.sockets += [
                each.socket for bound, _ in offer.originals.values() for each in made[bound.index]
            ]
            offer.sockets += offer.exposed.listeners
            offer.sockets += [candidate.connection for candidate in offer.lent]
        return self._offers

    def slots(self) -> bytes:
        """After ``freeze``: what the new daemon needs for the commits of those of whose answers nothing was kept.

        ``commit`` forgets them here: a slot serves one commit, so one daemon has it. Who has something else in flight
        here, from the same port, repeats its commit until ``prune`` lets it through to the new one.
        """
        return unkept.image(self._endpoint.engine, clock.now_us())

    def commit(self) -> None:
        """The new daemon has them: close ours, and go on with what stays."""
        unkept.clear(self._endpoint.engine)
        for offer in self._offers:
            for bound, original in offer.originals.values():
                if bound.sock is original:  # nothing stays
                    offer.exposed.sockets.remove(bound)
                original.close()
            for listener in offer.exposed.listeners:
                listener.close()
            offer.exposed.listeners.clear()
            if offer.exposed.adopter is not None:
                offer.exposed.adopter.keep(offer.lent)

    def prune(self) -> None:
        """Close the sockets of peers with whom nothing is left to do: what such a peer begins next is for the new
        daemon, and a port number that is used again by somebody else does not come to the old one."""
        for offer in self._offers:
            for bound, _ in offer.originals.values():
                live = self._sockets.peers(bound)
                # The first one cannot go alone: it is also the socket that negotiations know by their index.
                for each in self._made[bound.index][1:]:
                    if each.peer not in live:
                        self._made[bound.index].remove(each)
                        offer.exposed.sockets.remove(each.socket)
                        self._sockets.detach(each.socket).close()
                first = self._made[bound.index][:1]
                if first and not live:
                    self._made[bound.index].clear()
                    for socket_ in (first[0].socket, bound):
                        offer.exposed.sockets.remove(socket_)
                        self._sockets.detach(socket_).close()

    def resume(self) -> None:
        """There is no new daemon after all: everything as before. The connected sockets do no harm."""
        for offer in self._offers:
            for position, (bound, original) in offer.originals.items():
                if bound.sock is original:
                    offer.exposed.sockets[position] = self._sockets.add(original, bound.channels)
                else:
                    self._sockets.swap(bound, original).close()
            if offer.exposed.adopter is not None:
                offer.exposed.adopter.refuse(False)
                offer.exposed.adopter.take_back(offer.lent)
            offer.exposed.accept()
        if self._attached:
            self._controller.attach()
        self._endpoint.kick()

    # ---- the kernel's demultiplexer ----

    def _connect_all(self) -> dict[int, list[Connected]]:
        """A connected socket for each peer in flight."""
        bounds = [bound for offer in self._offers for bound in offer.exposed.sockets]
        made: dict[int, list[Connected]] = {bound.index: [] for bound in bounds}
        known: dict[int, set[Path]] = {bound.index: set() for bound in bounds}
        for bound in bounds:
            # Both have to allow it. Only now, lest somebody else takes part of the port meanwhile.
            bound.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        settled = True
        for _ in range(_ROUNDS):
            self._endpoint.pump()  # reads the sockets empty: afterwards every packet read has its peer's path
            fresh = [(bound, path) for bound in bounds for path in self._sockets.peers(bound) - known[bound.index]]
            if not fresh and settled:
                return made
            settled = not fresh
            if settled:
                self._endpoint.port.settle()
            for bound, path in fresh:
                known[bound.index].add(path)
                try:
                    own = self._sockets.add(_connected(bound, path), bound.channels)
                    made[bound.index].append(Connected(own, path))
                except OSError as refusal:
                    log.warning("%s port %d stays behind: %s", path.remote, path.remote_port, refusal.strerror)
        log.warning("peers keep coming: some may have to repeat themselves")
        return made


def _connected(bound: UdpSocket, path: Path) -> socket.socket:
    """A socket for one peer of ``bound``. Raises ``OSError``."""
    sock = socket.socket(bound.sock.family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if path.family == 6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            privilege.bind(sock, path.local, bound.port, path.scope)
            sock.connect((path.remote, path.remote_port, 0, path.scope))
        else:
            privilege.bind(sock, path.local, bound.port)
            sock.connect((path.remote, path.remote_port))
    except BaseException:
        sock.close()
        raise
    return sock
