# SPDX-License-Identifier: Apache-2.0
"""The man in the middle: every datagram and segment between the hosts goes through his hands.

Without an edit he only writes down what he sees. For an edit of a message he ends the transport of that negotiation on
both sides and speaks it himself: he acknowledges to the sender, takes the message apart when it is whole, changes it,
and sends it on in packets of his own. He tells a sender that a message has arrived when its receiver has told him.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from sim.mitm import wire
from sim.mitm.edits import MESSAGE_KINDS, NAIVE, Edit, Kind, Record, apply, flipped, repaired
from sim.mitm.wire import Nodes, Packet
from sim.tcp import Kind as Tcp
from sim.tcp import Segment

_ADOPT, _FALLBACK = 0xACC1, 0xACC0


class Leg(NamedTuple):
    """One way of one path: which host sends, and the path as it sees it."""

    source: Any
    path: Any


@dataclass(slots=True)
class Way:
    """One direction of a negotiation that he speaks himself."""

    got: dict[int, Packet] = field(default_factory=dict)
    prefix: int = 0
    done: int = 0
    """Offset of the message that is not whole yet."""
    told: int = 0
    """So many packets the sender has been told of."""
    sent: dict[int, bytes] = field(default_factory=dict)
    """By offset, what has gone on to the receiver."""
    arrived: set[int] = field(default_factory=set)
    """Of these, what the receiver has acknowledged."""
    ends: list[tuple[int, int]] = field(default_factory=list)
    """For each message that went on: the sender's packets up to its end, and how many of his own."""
    step: int = 0


@dataclass(slots=True)
class Session:
    """One negotiation."""

    number: int
    transaction: bytes
    legs: list[Leg | None]
    ways: tuple[Way, Way]
    seen: dict[int, dict[int, Packet]] = field(default_factory=lambda: {0: {}, 1: {}})
    """For the record: packets with chunks, by way and offset."""
    sent_views: list[tuple[int, Nodes]] = field(default_factory=list)
    """Messages as the initiator knows them: its own as sent, the responder's as received."""
    got_views: list[tuple[int, Nodes]] = field(default_factory=list)
    """As the responder knows them."""


class Middle:
    """``carry`` puts a datagram of a leg on the network, ``reverse`` gives the leg of its answers; ``later`` calls back
    after so many seconds."""

    def __init__(
        self,
        edit: Edit | None,
        other: Record | None,
        carry: Callable[[Leg, bytes], None],
        reverse: Callable[[Leg], Leg],
        later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self.edit, self._other = edit, other
        self._carry, self._reverse, self._later = carry, reverse, later
        self._sessions: dict[bytes, Session] = {}
        self.record: Final = Record()
        self.struck = False
        """The edit was made."""
        self._counts = [0, 0]
        self._segments = [0, 0]
        self._dropped: dict[tuple[int, int], int] = {}
        self._to_replay: list[tuple[Leg, bytes]] = []

    def has_seen(self, transaction: bytes) -> bool:
        """A negotiation that has begun: anything of it was on the path."""
        return transaction in self._sessions

    # ---- datagrams ----

    def datagram(self, leg: Leg, data: bytes) -> None:
        """One comes by."""
        edit = self.edit
        if int.from_bytes(data[4:8], "big") != wire.MAGIC or len(data) < wire.HEADER.size or not 4 <= data[0] <= 15:
            if edit is not None and edit.kind is Kind.DROP and edit.step < 0:
                return  # in-band datagrams are dropped with the negotiation's, whichever way they go
            self._carry(leg, data)
            return
        for packet in wire.packets_of(data):
            self._packet(leg, packet)

    def _packet(self, leg: Leg, data: bytes) -> None:
        packet, edit = wire.parse(data), self.edit
        session = self._session(leg, packet)
        if packet.chunks:
            session.seen[packet.way].setdefault(packet.offset, packet)
        number = self._counts[packet.way]
        self._counts[packet.way] += 1
        if edit is None:
            self.record.packets[packet.way].append(len(data))
        elif edit.kind in MESSAGE_KINDS and edit.session == session.number:
            self._relay(session, packet)
            return
        elif edit.kind is Kind.REPLAY:
            self._keep(leg, packet, data)
        elif edit.way == packet.way:
            changed = self._touch(leg, packet, data, number)
            if changed is None:
                return
            data = changed
        self._carry(leg, data)

    def _session(self, leg: Leg, packet: Packet) -> Session:
        session = self._sessions.get(packet.transaction)
        if session is None:
            session = Session(len(self._sessions), packet.transaction, [None, None], (Way(), Way()))
            self._sessions[packet.transaction] = session
        session.legs[packet.way] = leg
        session.legs[1 - packet.way] = session.legs[1 - packet.way] or self._reverse(leg)
        return session

    def _touch(self, leg: Leg, packet: Packet, data: bytes, number: int) -> bytes | None:
        """A packet of the edit's way; None: it does not go on."""
        edit = self.edit
        assert edit is not None
        if edit.kind is Kind.DROP:
            return self._drop(edit, packet, data)
        if edit.step != number:
            return data
        self.struck = True
        if edit.kind is Kind.FLIP:
            return wire.sealed(flipped(data, *edit.args))
        if edit.kind is Kind.ACK:
            count, swallow = edit.args
            forged = wire.acknowledgement(packet.transaction, 1 - packet.way, 1 - packet.way, 0, 0, count)
            self._carry(self._reverse(leg), forged)
            return None if swallow else data
        if edit.kind is Kind.CHALLENGE:
            self._carry(self._reverse(leg), wire.challenge(packet.transaction, edit.data))
            return None if edit.args[0] else data
        return data

    def _drop(self, edit: Edit, packet: Packet, data: bytes) -> bytes | None:
        if edit.step >= 0 and (packet.step != edit.step or not packet.chunks):
            return data
        self.struck = True
        times = self._dropped.get((packet.way, packet.offset), 0)
        if edit.args[0] and times >= edit.args[0]:
            return data
        self._dropped[packet.way, packet.offset] = times + 1
        return None

    def _keep(self, leg: Leg, packet: Packet, data: bytes) -> None:
        edit = self.edit
        assert edit is not None
        if packet.way != 0:
            return
        if not self._to_replay:
            self.struck = True
            for again in range(edit.args[1]):
                self._later(edit.args[0] / 1000 + again * 0.002, self._replay)
        self._to_replay.append((leg, data))

    def _replay(self) -> None:
        for leg, data in self._to_replay:
            self._carry(leg, data)

    # ---- the messages ----

    def _relay(self, session: Session, packet: Packet) -> None:
        """A packet reaches him, and nobody else."""
        way, back = session.ways[packet.way], session.ways[1 - packet.way]
        if packet.challenge:
            self._show(session, packet.cookie)
            return
        if packet.flags & wire.ACK:
            back.arrived.update(range(packet.ack_offset, packet.ack_offset + packet.ack_count))
            self._tell(session, 1 - packet.way)
        if not packet.chunks:
            return
        if packet.offset in way.got:
            for offset, data in way.sent.items():
                if offset not in way.arrived:
                    self._send(session, packet.way, data)
        way.got.setdefault(packet.offset, packet)
        while way.prefix in way.got:
            way.prefix += 1
            if way.got[way.prefix - 1].flags & wire.END:
                whole = [way.got[offset] for offset in range(way.done, way.prefix)]
                way.done = way.prefix
                self._message(session, packet.way, whole)
        self._tell(session, packet.way, again=True)

    def _show(self, session: Session, cookie: bytes) -> None:
        """The responder asks for a cookie: it binds what he has sent, so it is his to bring back."""
        sent = session.ways[0].sent
        if 0 in sent:
            sent[0] = wire.with_cookie(sent[0], cookie)
            for data in sent.values():
                self._send(session, 0, data)

    def _tell(self, session: Session, number: int, *, again: bool = False) -> None:
        """The sender of this way hears which of its packets have arrived: the last of a message, if its receiver says
        so; the others, since nobody would send more otherwise."""
        way, count = session.ways[number], 0
        for end, own in way.ends:
            if all(offset in way.arrived for offset in range(own)):
                count = end
        if way.done < way.prefix:
            count = max(count, way.prefix)
        elif way.prefix > 1 and not way.got[way.prefix - 1].flags & wire.MORE:
            count = max(count, way.prefix - 1)
        if count and (again or count > way.told):
            way.told = count
            back = session.ways[1 - number]
            step, offset = back.step or 1 - number, len(back.sent)
            data = wire.acknowledgement(session.transaction, 1 - number, step, offset, 0, count)
            self._send(session, 1 - number, data)

    def _message(self, session: Session, number: int, packets: Sequence[Packet]) -> None:
        way, edit = session.ways[number], self.edit
        assert edit is not None
        step, nodes = packets[0].step, wire.joined(packets)
        forwarded, strikes = nodes, (edit.way, edit.step) == (number, step)
        if strikes and edit.kind is Kind.ABORT and edit.args[1]:
            self.struck = True
            aborted = apply(edit, nodes, None)
            self._forward(session, 1 - number, step + 1, aborted, 1)
            return
        if strikes:
            forwarded = apply(edit, nodes, self._other)
            self.struck = self.struck or forwarded != nodes
        if edit.excuse != NAIVE:
            forwarded = self._repair(session, number, edit, forwarded)
        views = (session.sent_views, session.got_views)
        views[number].append((step, nodes))
        views[1 - number].append((step, forwarded))
        self._forward(session, number, step, forwarded, len(packets))
        way.ends.append((way.prefix, len(way.sent)))

    def _forward(self, session: Session, number: int, step: int, nodes: Nodes, at_least: int) -> None:
        way = session.ways[number]
        way.step = step
        for data in wire.cut(session.transaction, number, step, len(way.sent), nodes, at_least):
            way.sent[len(way.sent)] = data
            self._send(session, number, data)

    def _repair(self, session: Session, number: int, edit: Edit, nodes: Nodes) -> Nodes:
        views = session.got_views if number == 0 else session.sent_views
        if not views or not nodes or nodes[0].id != 0:
            return nodes
        *_, believed = wire.transcripts(views)
        return repaired(nodes, edit, views[-1][1], believed)

    def _send(self, session: Session, number: int, data: bytes) -> None:
        leg = session.legs[number]
        if leg is not None:
            self._carry(leg, data)

    # ---- TCP ----

    def segment(self, source: int, segment: Segment) -> Segment:
        """As it goes on. ``source``: the index of the host that sends; 0 is who calls."""
        edit, way = self.edit, int(source != 0)
        if segment.kind is Tcp.SYN:
            self.record.options = self.record.options or segment.option is not None
        if edit is not None and edit.kind is Kind.OPTION and edit.way == way:
            return self._option(edit, segment)
        if not segment.data:
            return segment
        number = self._segments[way]
        self._segments[way] += 1
        if edit is None:
            self.record.segments[way].append(len(segment.data))
        elif edit.kind is Kind.STREAM and (edit.way, edit.step) == (way, number):
            self.struck = True
            return replace(segment, data=flipped(segment.data, *edit.args))
        return segment

    def _option(self, edit: Edit, segment: Segment) -> Segment:
        if segment.kind is not (Tcp.SYN if edit.way == 0 else Tcp.SYN_ACK):
            return segment
        what, option = edit.args[0], segment.option
        if what == 3 and option is None and self._sessions:
            self.struck = True
            return replace(segment, option=(_ADOPT, next(iter(self._sessions))))
        if option is None or what == 3:
            return segment
        self.struck = True
        kind, transaction = option
        changed = (
            None,
            (kind, bytes(byte ^ 0xFF for byte in transaction)),
            (_FALLBACK if kind == _ADOPT else _ADOPT, transaction),
        )[what]
        return replace(segment, option=changed)

    # ---- the record ----

    def recorded(self) -> Record:
        """What he has seen, with whole messages."""
        for session in self._sessions.values():
            for packets in session.seen.values():
                gathered: list[Packet] = []
                for offset in sorted(packets):
                    gathered.append(packets[offset])
                    if packets[offset].flags & wire.END:
                        self.record.messages[session.number, packets[offset].step] = wire.joined(gathered)
                        gathered = []
        return self.record
