# SPDX-License-Identifier: Apache-2.0
"""On a router, a frame for this interface may carry a packet for another host: that one is not taken."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from accord.datapath.xdp_test import Program
from accord.wire.constants import Reason
from tests.datapath.netns import Host, two_hosts
from tests.xdp.craft import DIRECT, ETHER, OURS_4, OURS_6, header, ip4, ip6

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def router() -> Iterator[Host]:
    """A host with two addresses of its own, 192.0.2.2 and 2001:db8::2, and a way to others."""
    with two_hosts() as (_, far):
        for family, default in (("-4", "192.0.2.1"), ("-6", "2001:db8::1")):
            far.command("ip", family, "route", "add", "default", "via", default)
        yield far


FORWARDED = {
    "IPv4 to a neighbour": ETHER / ip4(proto=DIRECT, dst="192.0.2.77") / header(),
    "IPv4 to the world": ETHER / ip4(proto=DIRECT, dst="198.51.100.9") / header(),
    "IPv6 to a neighbour": ETHER / ip6(nh=DIRECT, dst="2001:db8::77") / header(),
    "IPv6 to the world": ETHER / ip6(nh=DIRECT, dst="2001:db8:9::9") / header(),
}


def reasons(router: Host, program: Program, forwarding: str) -> tuple[list[Reason | None], list[Reason | None]]:
    """Of the two packets for the host, and of those for others."""
    router.set("ipv4/conf/all/forwarding", forwarding)
    router.set("ipv6/conf/all/forwarding", forwarding)
    own = [bytes(OURS_4), bytes(OURS_6)]
    return router.run(
        lambda: (
            [program.run(frame).reason for frame in own],
            [program.run(bytes(frame)).reason for frame in FORWARDED.values()],
        )
    )


def test_a_router_takes_the_packets_to_itself_and_forwards_those_to_others(router: Host, program: Program) -> None:
    own, others = reasons(router, program, "1")
    assert own == [Reason.STEERED, Reason.STEERED]
    assert others == [Reason.NOT_LOCAL] * len(FORWARDED)


def test_a_host_that_does_not_forward_takes_every_packet_to_its_ethernet_address(
    router: Host, program: Program
) -> None:
    own, others = reasons(router, program, "0")
    assert {*own, *others} == {Reason.STEERED}
