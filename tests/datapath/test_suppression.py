# SPDX-License-Identifier: Apache-2.0
"""SYNs beside proposals, between two hosts with the XDP program on the responder's interface.

The initiator's frames are scapy's. Whether a SYN got through, the responder's kernel says: it answers with a SYN-ACK.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from accord.datapath.engine import Engine, EventKind
from accord.datapath.port import Rung
from accord.wire.constants import Reason
from tests.datapath.netns import Host, two_hosts
from tests.datapath.sides import PORT, Side, packet, transaction_id, until

pytestmark = pytest.mark.root

SYN_ACK = 0x12
XDP = pytest.mark.parametrize("rung", [Rung.XDP_NATIVE, Rung.XDP_GENERIC], ids=lambda rung: rung.name)


class Wire:
    """The initiator's end: frames by hand, and what comes back."""

    def __init__(self, near: Host, far: Host, family: int = 4) -> None:
        self.family = family
        self._link = Ether(src=near.mac, dst=far.mac)
        self._hosts = near, far
        self._sock = near.raw()
        self._sock.setblocking(False)

    def _network(self, source: str | None = None) -> Packet:
        near, far = self._hosts
        kind = IP if self.family == 4 else IPv6
        return kind(src=source or near.address(self.family), dst=far.address(self.family))

    def propose(self, transaction: bytes, *, source: str | None = None, port: int = PORT) -> None:
        """A proposal in one packet."""
        frame = self._link / self._network(source) / UDP(sport=50000, dport=port) / packet(transaction)
        self._sock.send(bytes(frame))

    def syn(self, transaction: bytes, sport: int, *, exid: int = 0xACC0, source: str | None = None) -> None:
        """A SYN with the option, as Linux would send it."""
        options = [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (1, 0)), ("NOP", None), ("WScale", 7)]
        ours = (254, struct.pack("!H", exid) + transaction)
        self._sock.send(
            bytes(
                self._link / self._network(source) / TCP(sport=sport, dport=PORT, flags="S", options=[*options, ours])
            )
        )

    def answered(self) -> set[int]:
        """Ports of ours to which a SYN-ACK has come since the last time."""
        found = set()
        while True:
            try:
                frame = Ether(self._sock.recv(65536))
            except BlockingIOError:
                return found
            if TCP in frame and frame[TCP].flags == SYN_ACK:
                found.add(frame[TCP].dport)

    def close(self) -> None:
        """No more."""
        self._sock.close()


class Responder(Side):
    """A daemon's end with a service and a listener on the port."""

    def seen(self, reason: Reason) -> int:
        """How many frames had this verdict."""
        return self.port.counters().get(reason, 0)

    def wait(self, reason: Reason, count: int = 1) -> None:
        """Until so many had."""
        until(lambda: self.seen(reason) >= count, [self])


@contextmanager
def responder(rung: Rung, family: int = 4, *, exposed: bool = True) -> Iterator[tuple[Wire, Responder]]:
    with two_hosts() as (near, far), Responder(far, rung) as side:
        side.bind(family)
        side.port.expose(PORT, exposed)
        listener = far.run(lambda: _listener(family))
        wire = Wire(near, far, family)
        try:
            side.beat()
            yield wire, side
        finally:
            wire.close()
            listener.close()


def _listener(family: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if family == 6 else socket.AF_INET)
    listener.bind(("::" if family == 6 else "0.0.0.0", PORT))
    listener.listen(16)
    return listener


def through(wire: Wire, side: Responder, sport: int) -> None:
    """Wait for the SYN-ACK to this port of ours."""
    answered: set[int] = set()

    def look() -> bool:
        answered.update(wire.answered())
        return sport in answered

    until(look, [side])


@XDP
@pytest.mark.parametrize("family", [4, 6])
def test_the_syn_behind_a_proposal_is_suppressed_once_and_the_next_one_is_answered(rung: Rung, family: int) -> None:
    with responder(rung, family) as (wire, side):
        transaction = transaction_id()
        wire.propose(transaction)
        wire.syn(transaction, 41000)
        side.wait(Reason.SYN_SUPPRESSED)
        wire.syn(transaction, 41000)  # the kernel's repetition has no option; even one that has is let through
        through(wire, side, 41000)
        assert side.seen(Reason.SYN_SUPPRESSED) == side.seen(Reason.SYN_REPEATED) == 1
        until(lambda: side.of(EventKind.OPENED), [side])
        (opened,) = side.of(EventKind.OPENED)
        assert (opened.transaction, opened.syn_first) == (transaction, False)


@XDP
@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize(("exid", "reason"), [(0xACC0, Reason.SYN_FIRST), (0xACC1, Reason.SYN_ADOPT)])
def test_a_syn_that_comes_first_passes_and_the_daemon_learns_that_it_did(
    rung: Rung, family: int, exid: int, reason: Reason
) -> None:
    with responder(rung, family) as (wire, side):
        transaction = transaction_id()
        wire.syn(transaction, 41000, exid=exid)
        wire.propose(transaction)
        until(lambda: side.of(EventKind.OPENED), [side])
        through(wire, side, 41000)
        (opened,) = side.of(EventKind.OPENED)
        assert (opened.transaction, opened.syn_first) == (transaction, True)
        assert side.seen(reason) == 1
        assert side.seen(Reason.SYN_SUPPRESSED) == 0


@pytest.mark.parametrize("rung", [Rung.PACKET, Rung.UDP], ids=lambda rung: rung.name)
def test_without_an_xdp_program_every_syn_passes_and_nobody_can_tell_which_came_first(rung: Rung) -> None:
    with responder(rung) as (wire, side):
        transaction = transaction_id()
        wire.propose(transaction)
        wire.syn(transaction, 41000)
        through(wire, side, 41000)
        until(lambda: side.of(EventKind.OPENED), [side])
        assert [opened.syn_first for opened in side.of(EventKind.OPENED)] == [None]


def test_a_syn_that_adopts_passes_behind_its_proposal() -> None:
    with responder(Rung.XDP_GENERIC) as (wire, side):
        transaction = transaction_id()
        wire.propose(transaction)
        wire.syn(transaction, 41000, exid=0xACC1)
        through(wire, side, 41000)


def test_two_hosts_behind_one_address_do_not_disturb_each_other() -> None:
    with responder(Rung.XDP_GENERIC) as (wire, side):
        first, second, third = (transaction_id() for _ in range(3))
        wire.propose(first)
        wire.propose(second)
        wire.syn(second, 41002)
        wire.syn(third, 41003)  # has proposed nothing
        wire.syn(first, 41001)
        side.wait(Reason.SYN_SUPPRESSED, 2)
        through(wire, side, 41003)
        assert side.seen(Reason.SYN_FIRST) == 1


def test_an_id_that_is_replayed_from_another_address_does_nothing_to_its_owner() -> None:
    with responder(Rung.XDP_GENERIC) as (wire, side):
        transaction = transaction_id()
        wire.propose(transaction, source="192.0.2.77")
        wire.syn(transaction, 41000)
        through(wire, side, 41000)
        assert side.seen(Reason.SYN_ELSEWHERE) == 1


def _no_service(side: Responder) -> None:
    side.port.expose(PORT, False)


def _stopping(side: Responder) -> None:
    side.port.suppress(False)


@pytest.mark.parametrize("refuse", [_no_service, _stopping], ids=lambda each: each.__name__[1:])
@pytest.mark.parametrize("when", ["before the proposal", "between the two"])
def test_a_daemon_that_would_refuse_loses_no_syn(refuse: Callable[[Responder], None], when: str) -> None:
    with responder(Rung.XDP_GENERIC) as (wire, side):
        transaction = transaction_id()
        if when == "before the proposal":
            refuse(side)
        wire.propose(transaction)
        side.wait(Reason.STEERED)
        refuse(side)
        wire.syn(transaction, 41000)
        through(wire, side, 41000)
        assert side.seen(Reason.SYN_SUPPRESSED) == 0


def test_a_socket_of_an_initiator_makes_no_service_of_its_port() -> None:
    with responder(Rung.XDP_GENERIC, exposed=False) as (wire, side):
        transaction = transaction_id()
        wire.propose(transaction)
        wire.syn(transaction, 41000)
        through(wire, side, 41000)
        assert side.seen(Reason.STEERED) == 1


def test_while_hardly_a_slot_is_free_for_another_peer_syns_pass_and_later_they_are_suppressed_again() -> None:
    with responder(Rung.XDP_GENERIC) as (wire, side):
        side.engine = Engine(transactions=64, unproven=8)
        side.engine.support([17, 6])
        for _ in range(6):
            wire.propose(transaction_id())
        until(lambda: len(side.of(EventKind.OPENED)) == 6, [side])
        transaction = transaction_id()
        wire.propose(transaction)
        wire.syn(transaction, 41000)
        through(wire, side, 41000)
        assert side.seen(Reason.SYN_SUPPRESSED) == 0
        for opened in side.of(EventKind.OPENED):
            side.engine.close(0, opened.handle)
        side.pump()
        transaction = transaction_id()
        wire.propose(transaction)
        wire.syn(transaction, 41001)
        side.wait(Reason.SYN_SUPPRESSED)


def test_an_exposed_port_stays_one_on_the_next_interface() -> None:
    with responder(Rung.XDP_GENERIC) as (wire, side):
        side.host.run(lambda: side.port.reopen(side.host.interface))
        side.beat()
        transaction = transaction_id()
        wire.propose(transaction)
        wire.syn(transaction, 41000)
        side.wait(Reason.SYN_SUPPRESSED)


def test_a_daemon_that_goes_away_takes_the_suppression_with_it() -> None:
    with responder(Rung.XDP_GENERIC) as (wire, side):
        transaction = transaction_id()
        wire.propose(transaction)
        side.wait(Reason.STEERED)
        side.host.run(lambda: side.port.reopen(None, sockets_only=True))
        wire.syn(transaction, 41000)
        through(wire, side, 41000)
