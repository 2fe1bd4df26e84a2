# SPDX-License-Identifier: Apache-2.0
"""Over a link with delay: what the kernel believes of the round trip is the link's, never less.

A round trip that was timed too short (the negotiation's own, or none at all) would make BBR crawl for ten
seconds and fire retransmission timers early.
"""

from __future__ import annotations

import os
import socket
from dataclasses import replace

import pytest

from accord.datapath import tcp_sockopt
from accord.datapath.tcp_repair import TcpRepair
from accord.lab.lab import Lab
from accord.wire.tcp_header import TcpParameters
from tests.tcp.conftest import receive

pytestmark = pytest.mark.root

_RTT = 0.06


@pytest.mark.parametrize("first", ["initiator", "responder"])
@pytest.mark.parametrize("timestamps", [True, False])
def test_no_measured_round_trip_is_shorter_than_the_link(first: str, timestamps: bool) -> None:
    with Lab(f"tcp-rtt-{os.getpid()}", rtt=_RTT) as lab:
        here, there = lab.client, lab.server
        with here.enter():
            a = TcpRepair(here.address4, there.address4).reserve()
        with there.enter():
            b = TcpRepair(there.address4, here.address4).reserve(443)
        if not timestamps:
            a._own = without_timestamps(a._own)
        b.install(a.parameters)
        a.install(b.parameters)
        one, other = a.stream().detach(), b.stream().detach()
        speakers = (one, other) if first == "initiator" else (other, one)
        for round_ in range(3):
            for sender, receiver in (speakers, speakers[::-1]):
                data = bytes((round_,)) * 4000
                sender.settimeout(5)
                sender.sendall(data)
                assert receive(receiver, len(data)) == data
        for connection in (one, other):
            info = tcp_sockopt.info(connection)
            assert info.timestamps == timestamps
            assert _RTT * 0.95e6 <= info.min_rtt < tcp_sockopt.NO_RTT_YET
            assert info.rtt >= _RTT * 0.95e6
            connection.shutdown(socket.SHUT_RDWR)
            connection.close()


def without_timestamps(parameters: TcpParameters) -> TcpParameters:
    """The same SYN from a host with net.ipv4.tcp_timestamps = 0."""
    return replace(parameters, timestamp=None)
