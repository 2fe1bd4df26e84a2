# SPDX-License-Identifier: Apache-2.0
"""Two hosts in one loop whose application is an inner negotiation: what each was given, said and kept."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from accord.negotiation.events import Aborted, Action, Committed, Event, MessageComplete, NodeArrived, Resume, Send
from accord.negotiation.initiator import Initiator, Proposed
from accord.negotiation.interface import Role
from accord.negotiation.responder import Accepted, Responder
from accord.protocols.http import HttpPlugin
from accord.protocols.inner import InnerPlugin
from accord.protocols.quic import QuicPlugin
from accord.protocols.sealed.configuration import Aead, Kem, KeyConfiguration
from accord.protocols.sealed.host_keys import HostKey, HostKeys, make
from accord.protocols.sealed.hosting import Offering, Proposing
from accord.protocols.sealed.replay import ReplayFilter
from accord.protocols.services import CarrierSession, Plugin
from accord.protocols.tls import TlsPlugin
from accord.wire.constants import Protocol
from accord.wire.message import Encoded
from tests.protocols.conftest import Pki
from tests.protocols.support import HOST, Application, DatagramEnd, memory_pair, services
from tests.protocols.test_negotiated import FirstIsBest, NextTurn, Pipe

PIPE_ID, TLS_ID, QUIC_ID, INNER_ID = 1, 2, 3, 4
TRANSACTION = b"t" * 12
START = 1_800_000_000.0
"""Unix time of every host here."""
HYBRID = make(Kem.HYBRID, Aead.CHACHA20_POLY1305, START)
PLAIN = make(Kem.X25519, Aead.AES_128_GCM, START)

Tamper = Callable[[int, Sequence[Encoded]], Sequence[Encoded] | None]
"""Step and nodes in, nodes out; None: the message is lost."""


@dataclass
class Pair:
    """Both outer machines; messages go to and fro at once."""

    initiator: Initiator
    responder: Responder
    tamper: Tamper | None = None
    committed: dict[Role, Committed] = field(default_factory=dict)
    aborted: dict[Role, Aborted] = field(default_factory=dict)
    sent: list[Send] = field(default_factory=list)
    notes: dict[Role, list[str]] = field(default_factory=lambda: {role: [] for role in Role})

    @property
    def steps(self) -> list[int]:
        return [message.step for message in self.sent]

    def payload(self, step: int, node: int = INNER_ID) -> bytes:
        """What the node's descriptor was in the message of that step."""
        (found,) = (data for each in self.sent if each.step == step for number, _, data in each.nodes if number == node)
        return found

    def start(self) -> Pair:
        self.carry(Role.INITIATOR, self.initiator.start())
        return self

    def carry(self, role: Role, actions: Sequence[Action]) -> None:
        other = Role.RESPONDER if role is Role.INITIATOR else Role.INITIATOR
        machine = self.responder if role is Role.INITIATOR else self.initiator
        for action in actions:
            if isinstance(action, Committed):
                self.committed[role] = action
            elif isinstance(action, Aborted):
                self.aborted[role] = action
            elif isinstance(action, Send):
                self.sent.append(action)
                nodes = self.tamper(action.step, action.nodes) if self.tamper else action.nodes
                if nodes is None:
                    continue
                for node, protocol, data in nodes:
                    self.carry(other, machine.receive(NodeArrived(action.step, node, protocol, data)))
                self.carry(other, machine.receive(MessageComplete(action.step)))

    def responder_hears(self, event: Event) -> None:
        self.carry(Role.RESPONDER, self.responder.receive(event))

    def answer_early(self, application: Application, response: bytes) -> None:
        """The service behind the responder has answered the early request."""
        application.fetches[-1].response = response
        self.responder_hears(Resume(INNER_ID))


def key_ring(*keys: HostKey) -> HostKeys:
    return HostKeys(keys, lambda: START)


def pair(
    pki: Pki,
    *,
    key: KeyConfiguration | None = HYBRID.configuration,
    keys: HostKeys | None = None,
    prefer: int = TLS_ID,
    applications: tuple[Application, Application] | None = None,
    replay: ReplayFilter | None = None,
    tamper: Tamper | None = None,
    transaction: bytes = TRANSACTION,
    now: float = START,
    server_name: str = HOST,
    supported: tuple[int, ...] = (Protocol.HTTP,),
) -> Pair:
    """``key``: what the initiator takes for the peer's; ``keys``: those of the responder. ``now``: the initiator's."""
    near_pipe, far_pipe = memory_pair()
    near_end, far_end = (DatagramEnd(NextTurn(), lambda: [0.0]) for _ in range(2))
    near_end.peer, far_end.peer = far_end, near_end
    apps = applications or (Application(), Application())
    trusting = dataclasses.replace(pki.trusting(server_name), sni=False)
    near = dataclasses.replace(services(Role.INITIATOR, trusting, datagrams=near_end), random=bytes)
    far = dataclasses.replace(services(Role.RESPONDER, pki.being(pki.good), datagrams=far_end), random=bytes)
    notes: dict[Role, list[str]] = {role: [] for role in Role}
    http = HttpPlugin()

    def inner_graph() -> Sequence[Proposed]:
        inside = dataclasses.replace(near, application=apps[0], inner=None)
        top = Proposed(1, Protocol.HTTP, http.open(Role.INITIATOR, inside))
        return [Proposed(0, Protocol.INNER, None, (1,)), top]

    def accept_inner(early: bool) -> Accepted:
        service = apps[1] if early else Application()
        inside = dataclasses.replace(far, application=service, inner=None)
        return Accepted(FirstIsBest(), lambda node, protocol: http.open(Role.RESPONDER, inside))

    admit = replay.admit if replay is not None else lambda digest, sealed_at: True
    ring = keys or key_ring(HYBRID)
    proposing = Proposing(transaction, inner_graph, FirstIsBest(), key, lambda: now, notes[Role.INITIATOR].append)
    offering = Offering(transaction, ring, supported, accept_inner, admit, notes[Role.RESPONDER].append)
    near, far = dataclasses.replace(near, inner=proposing), dataclasses.replace(far, inner=offering)
    plugins: dict[int, Plugin] = {TLS_ID: TlsPlugin(), QUIC_ID: QuicPlugin(), INNER_ID: InnerPlugin()}

    def open_session(role: Role, node: int) -> CarrierSession:
        if node == PIPE_ID:
            return Pipe(near_pipe if role is Role.INITIATOR else far_pipe)
        return plugins[node].open(role, near if role is Role.INITIATOR else far)

    children = {0: (PIPE_ID, QUIC_ID), PIPE_ID: (TLS_ID,), TLS_ID: (INNER_ID,), QUIC_ID: (INNER_ID,), INNER_ID: ()}
    proposed = [Proposed(0, Protocol.UDP, None, children[0])]
    for node in (PIPE_ID, TLS_ID, QUIC_ID, INNER_ID):
        session = open_session(Role.INITIATOR, node)
        proposed.append(Proposed(node, session.protocol, session, children[node], 9 if node == prefer else None))
    accepted = Accepted(FirstIsBest(), lambda node, protocol: open_session(Role.RESPONDER, node))
    both = Pair(
        Initiator(transaction, proposed, FirstIsBest()), Responder(transaction, lambda service: accepted, b"c" * 16)
    )
    both.tamper, both.notes = tamper, notes
    return both


def run(work: Callable[[], object]) -> None:
    """Within a loop, which data after the commit needs."""

    async def inside() -> None:
        found = work()
        if asyncio.iscoroutine(found):
            await found

    asyncio.run(asyncio.wait_for(inside(), 30))
