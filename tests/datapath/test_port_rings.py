# SPDX-License-Identifier: Apache-2.0
"""The rings of a port: one for each receive queue, what they count, and busy polling."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from accord.datapath.engine import EventKind
from accord.datapath.port import Port, RingStatistics, Rung
from accord.wire.constants import Reason
from tests.datapath.netns import Host, two_hosts
from tests.datapath.sides import PORT, Side, packet, transaction_id, until

pytestmark = pytest.mark.root

QUEUES = 4
FLOWS = 40
XDP = [Rung.XDP_NATIVE, Rung.XDP_GENERIC]


@pytest.fixture
def wide() -> Iterator[tuple[Host, Host]]:
    """Two hosts whose interfaces have several queues; the kernel spreads flows over them by hash."""
    with two_hosts(queues=QUEUES) as pair:
        yield pair


def only_ring(side: Side) -> RingStatistics:
    """Of a port with one queue."""
    (ring,) = side.port.ring_statistics()
    return ring


def test_the_udp_rung_has_no_rings() -> None:
    with Port.open() as port:
        assert port.ring_statistics() == []


def exchange(near: Host, responder: Side) -> list[int]:
    """One packet and its answer for each of ``FLOWS`` source ports; returns how many answers each got."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(near.udp(4)) for _ in range(FLOWS)]
        for client in clients:
            client.sendto(packet(transaction_id()), (responder.host.address4, PORT))
        until(lambda: len(responder.of(EventKind.MESSAGE)) == FLOWS, [responder])
        for event in responder.of(EventKind.OPENED):
            responder.answer(event, b"to the right one")
        responder.pump()
        answers = [0] * FLOWS
        for index, client in enumerate(clients):
            client.setblocking(True)
            client.settimeout(5)
            assert client.recv(2000).endswith(b"to the right one")
            answers[index] += 1
        return answers


@pytest.mark.parametrize("rung", XDP, ids=lambda rung: rung.name)
def test_flows_spread_over_the_queues_and_each_answer_leaves_by_its_own(wide: tuple[Host, Host], rung: Rung) -> None:
    near, far = wide
    with Side(far, rung) as responder:
        responder.bind(4)
        assert responder.port.report.queues == len(responder.port.ring_statistics()) == QUEUES
        assert exchange(near, responder) == [1] * FLOWS
        rings = responder.port.ring_statistics()
        assert [ring.queue for ring in rings] == list(range(QUEUES))
        assert sum(ring.received for ring in rings) == responder.port.counters()[Reason.STEERED] == FLOWS
        assert sum(ring.received > 0 for ring in rings) >= 2, "forty flows do not all hash to one queue"
        assert [ring.sent for ring in rings] == [ring.received for ring in rings]
        # An answer costs at most a system call, and the batch of a queue costs one.
        assert all(ring.send_wakeups <= 1 for ring in rings)


def test_af_packet_sees_every_queue(wide: tuple[Host, Host]) -> None:
    near, far = wide
    with Side(far, Rung.PACKET) as responder:
        responder.bind(4)
        assert exchange(near, responder) == [1] * FLOWS
        ring = only_ring(responder)
        assert (ring.received, ring.sent, ring.receive_dropped) == (FLOWS, FLOWS, 0)


@pytest.mark.parametrize("rung", XDP, ids=lambda rung: rung.name)
def test_what_a_full_receive_ring_drops_is_counted_in_its_statistics(near: Host, far: Host, rung: Rung) -> None:
    sent = 500
    with Side(far, rung, frames=128) as responder, near.udp(4) as plain:
        responder.bind(4)
        size = only_ring(responder).size
        assert size == 64
        for _ in range(sent):  # nobody polls
            plain.sendto(packet(transaction_id()), (far.address4, PORT))
        until(lambda: responder.of(EventKind.OPENED), [responder])
        while responder.pump():
            pass
        ring = only_ring(responder)
        lost = ring.receive_dropped + ring.receive_ring_full + ring.fill_ring_empty
        assert size <= ring.received < sent
        assert lost > 0
        assert len(responder.of(EventKind.OPENED)) <= ring.received
        assert (ring.receive_bad_address, ring.send_bad_address) == (0, 0)


def test_what_the_af_packet_socket_has_no_room_for_is_counted_once(near: Host, far: Host) -> None:
    sent = 12_000
    with Side(far, Rung.PACKET) as responder, near.udp(4) as plain:
        responder.bind(4)
        whole = packet(transaction_id(), bytes(1100))
        for _ in range(sent):
            plain.sendto(whole, (far.address4, PORT))
        until(lambda: responder.of(EventKind.MESSAGE), [responder])
        while responder.port.poll(responder.engine, 0):
            pass
        first, again = only_ring(responder), only_ring(responder)
        assert first.receive_dropped == again.receive_dropped > 0
        assert first.received + first.receive_dropped == sent


@pytest.mark.parametrize("rung", XDP, ids=lambda rung: rung.name)
def test_busy_polling_runs_the_receive_queue_from_poll(near: Host, far: Host, rung: Rung) -> None:
    with Side(far, rung, busy_poll_us=20) as polling, near.udp(4) as plain:
        polling.bind(4)
        report = polling.port.report
        assert (report.busy_poll_us, report.busy_poll_refusal) == (20, None)
        before = only_ring(polling).receive_wakeups
        for _ in range(10):
            polling.pump()
        assert only_ring(polling).receive_wakeups == before + 10
        plain.sendto(packet(transaction_id()), (far.address4, PORT))
        until(lambda: polling.of(EventKind.MESSAGE), [polling])
        assert only_ring(polling).received == 1


@pytest.mark.parametrize("rung", XDP, ids=lambda rung: rung.name)
def test_without_busy_polling_an_idle_poll_costs_no_system_call(far: Host, rung: Rung) -> None:
    with Side(far, rung) as idle:
        idle.pump()
        before = only_ring(idle)
        for _ in range(10):
            idle.pump()
        assert only_ring(idle) == before


@pytest.mark.parametrize("rung", [Rung.PACKET, Rung.UDP], ids=lambda rung: rung.name)
def test_busy_polling_is_refused_with_a_reason_where_there_is_no_af_xdp(far: Host, rung: Rung) -> None:
    with Side(far, rung, busy_poll_us=20) as side:
        refusal = side.port.report.busy_poll_refusal
        assert side.port.report.busy_poll_us == 0
        assert refusal is not None
        assert refusal.reason is Reason.NO_KERNEL_SUPPORT
        assert "AF_XDP" in refusal.detail
