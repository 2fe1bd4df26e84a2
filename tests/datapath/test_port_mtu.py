# SPDX-License-Identifier: Apache-2.0
"""Messages of 60 KiB over links of every usual MTU, and over one that is smaller than its ends."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from accord.datapath.engine import EventKind
from accord.datapath.path import Path
from accord.datapath.port import Rung
from accord.lab.lab import Lab
from accord.wire.constants import Limit, Reason
from accord.wire.errors import HostError
from tests.datapath.netns import Host, two_hosts
from tests.datapath.sides import PORT, Side, until

pytestmark = pytest.mark.root

LONG = random.Random(3).randbytes(60_000)
IPV6_UDP = 48


def datagrams_received(host: Host, side: Side) -> int:
    """By the rings and by the host's kernel (AF_PACKET gets copies of what the kernel gets, too)."""
    by_rings = sum(ring.received for ring in side.port.ring_statistics())
    return by_rings if side.port.report.rung is Rung.PACKET else by_rings + host.snmp6("Udp6InDatagrams")


def exchange(near: Host, far: Host, sides: Sequence[Side], mtu: int) -> tuple[int, int]:
    """A long message each way over IPv6; the datagrams that each side received."""
    initiator, responder = sides
    path = Path.udp((near.address6, 50000), (far.address6, PORT), socket=initiator.bind(6, 50000))
    responder.bind(6, PORT)
    initiator.propose(replace(path, mtu=mtu), LONG)
    until(lambda: responder.of(EventKind.MESSAGE), sides)
    responder.answer(responder.of(EventKind.OPENED)[0], LONG)
    until(lambda: initiator.of(EventKind.MESSAGE), sides)
    assert responder.payloads() == initiator.payloads() == [LONG]
    return datagrams_received(near, initiator), datagrams_received(far, responder)


@pytest.mark.parametrize("mtu", [1280, 1500, 3000, 9000])
@pytest.mark.parametrize("rung", list(Rung), ids=lambda rung: rung.name)
def test_a_long_message_goes_each_way_in_datagrams_of_the_links_mtu(rung: Rung, mtu: int) -> None:
    with two_hosts(mtu=mtu) as (near, far):
        if rung is Rung.XDP_NATIVE and mtu > 4096:
            with pytest.raises(HostError) as refused:
                Side(far, rung)
            assert refused.value.reason is Reason.NO_KERNEL_SUPPORT
            return
        with Side(near, rung) as initiator, Side(far, rung) as responder:
            counts = exchange(near, far, [initiator, responder], mtu)
            whole = -(-len(LONG) // (Limit.MIN_MTU_PACKET - 40))  # packets
            together = (min(mtu - IPV6_UDP, Limit.MAX_PACKET)) // Limit.MIN_MTU_PACKET
            for received in counts:
                if together == 1:
                    assert received >= whole
                else:
                    # Acknowledgements are in it, and flights that end with a datagram that is not full.
                    assert received < whole
            for side in (initiator, responder):
                assert Reason.MTU_BLACK_HOLE not in side.engine.counters()
                # Longer than a frame of a UMEM: left to the kernel, and so to the socket.
                assert (Reason.LONG_PACKET in side.port.counters()) == (rung is Rung.XDP_GENERIC and mtu > 4096)


@pytest.mark.parametrize("rung", [Rung.XDP_GENERIC, Rung.PACKET], ids=lambda rung: rung.name)
def test_a_link_that_drops_long_frames_in_silence_costs_two_of_them(rung: Rung) -> None:
    with Lab(f"mtu-{os.getpid()}-{int(rung)}", rtt=0.01) as lab, contextlib.ExitStack() as stack:
        hosts = []
        for space in (lab.client, lab.server):
            # The ends believe in 3000; the interfaces in the middle have 1500, and drop what is longer.
            space.run(["ip", "link", "set", "dev", space.interface, "mtu", "3000"], check=True)
            fd = space.call(os.open, "/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, fd)
            hosts.append(Host(space.interface, space.address4, space.address6, fd=fd))
        with Side(hosts[0], rung) as initiator, Side(hosts[1], rung) as responder:
            exchange(hosts[0], hosts[1], [initiator, responder], 3000)
            for side in (initiator, responder):
                assert side.engine.counters()[Reason.MTU_BLACK_HOLE] == 1
