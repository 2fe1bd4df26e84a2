# SPDX-License-Identifier: Apache-2.0
"""What becomes of the interface under a running daemon, and that it negotiates again afterwards."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest

from accord.lab.deployment import Deployment
from accord.lab.pair import connect
from tests.failopen.conftest import deployed

pytestmark = pytest.mark.root


def works(both: Deployment) -> None:
    """A negotiation goes through, over both families."""
    for family in (4, 6):
        assert "tls" in asyncio.run(both.negotiate(family=family))


def ip(both: Deployment, *words: str) -> None:
    """``ip`` on the server."""
    both.server.run("ip", *words)


def test_a_link_that_goes_down_and_up_needs_no_new_attachment(both: Deployment) -> None:
    before = both.wait_for(both.server, back_end="af_xdp")
    ip(both, "link", "set", "acc0", "down")
    ip(both, "link", "set", "acc0", "up")
    ip(both, "-6", "addr", "replace", f"{both.server.address6}/64", "dev", "acc0", "nodad")
    works(both)
    after = both.wait_for(both.server)
    assert after["program_id"] == before["program_id"]
    assert after["interface_changes"] == before["interface_changes"]


def test_an_interface_that_is_renamed_keeps_its_attachment_and_is_called_by_its_new_name(both: Deployment) -> None:
    before = both.wait_for(both.server, interface="acc0")
    ip(both, "link", "set", "acc0", "down")
    ip(both, "link", "set", "acc0", "name", "wan7")
    ip(both, "link", "set", "wan7", "up")
    try:
        ip(both, "-6", "addr", "replace", f"{both.server.address6}/64", "dev", "wan7", "nodad")
        after = both.wait_for(both.server, interface="wan7")
        works(both)
        assert after["program_id"] == before["program_id"]
    finally:
        ip(both, "link", "set", "wan7", "down")
        ip(both, "link", "set", "wan7", "name", "acc0")
        ip(both, "link", "set", "acc0", "up")
        ip(both, "-6", "addr", "replace", f"{both.server.address6}/64", "dev", "acc0", "nodad")
    both.wait_for(both.server, interface="acc0")


def test_an_mtu_that_changes_under_load_is_followed_and_others_lose_nothing(both: Deployment) -> None:
    changes = both.wait_for(both.server)["interface_changes"]
    with both.bystander() as others:
        ip(both, "link", "set", "acc0", "mtu", "3000")
        both.wait_for(both.server, interface_changes=changes + 1, back_end="af_xdp")
        works(both)
        ip(both, "link", "set", "acc0", "mtu", "1500")
        both.wait_for(both.server, interface_changes=changes + 2, back_end="af_xdp")
        works(both)
    assert others["lost"] == 0
    assert others["tcp_stalls"] <= 0
    assert others["tcp_bytes"] > 0


def test_queues_that_are_added_under_load_get_rings_and_others_lose_nothing(tmp_path: Path) -> None:
    with deployed(tmp_path, queues=4, prepare=("ethtool", "-L", "acc0", "rx", "2", "tx", "2")) as both:
        assert both.wait_for(both.server, back_end="af_xdp")["queues"] == 2
        with both.bystander() as others:
            both.server.run("ethtool", "-L", "acc0", "rx", "4")
            both.wait_for(both.server, queues=4, back_end="af_xdp")
            works(both)
        assert others["lost"] == 0
        assert others["tcp_stalls"] <= 0


FOUR_QUEUES = ("ethtool", "-L", "acc0", "rx", "4", "tx", "2")
"""Towards the other end two: native XDP on a veth wants as many receive queues as the peer sends by."""


@pytest.mark.parametrize("attach", ["native", "generic"])
def test_queues_with_rings_cannot_be_removed_under_load_and_can_between_two_daemons(
    tmp_path: Path, attach: str
) -> None:
    """The kernel refuses, so that no ring is ever left without its queue; nobody notices the attempt."""
    with deployed(tmp_path, "--attach", attach, queues=4, prepare=FOUR_QUEUES) as both:
        before = both.wait_for(both.server, queues=4, back_end="af_xdp")
        first = both.server.processes[-1]
        with both.bystander() as others:
            with pytest.raises(subprocess.CalledProcessError, match="ethtool"):
                both.server.run("ethtool", "-L", "acc0", "rx", "2")
            works(both)
            after = both.wait_for(both.server, queues=4)
            assert after["interface_changes"] == before["interface_changes"]
            first.terminate()
            assert first.wait(20) == 0
            both.server.run("ethtool", "-L", "acc0", "rx", "2")
            both.daemon(both.server, "--attach", attach)
            both.wait_for(both.server, queues=2, back_end="af_xdp", attach_mode=attach)
            works(both)
        assert others["lost"] == 0
        assert others["tcp_stalls"] <= 0


def test_queues_that_are_removed_under_load_are_not_missed_where_no_ring_needs_them(tmp_path: Path) -> None:
    with deployed(tmp_path, "--back-end", "af_packet", queues=4, prepare=FOUR_QUEUES) as both:
        changes = both.wait_for(both.server, back_end="af_packet")["interface_changes"]
        with both.bystander() as others:
            both.server.run("ethtool", "-L", "acc0", "rx", "2")
            works(both)
            both.wait_for(both.server, interface_changes=changes + 1, back_end="af_packet")
            works(both)
        assert others["lost"] == 0
        assert others["tcp_stalls"] <= 0


@pytest.mark.parametrize("back_end", ["auto", "af_packet"])
def test_a_deleted_interface_is_waited_for_and_attached_to_when_it_is_back(tmp_path: Path, back_end: str) -> None:
    with deployed(tmp_path, "--back-end", back_end) as both:
        first = both.wait_for(both.server)
        ip(both, "link", "del", "acc0")  # and the client's end with it
        gone = both.wait_for(both.server, back_end="udp", interface="acc0")
        assert gone["program_id"] == 0
        connect(both.client, both.server)
        both.wait_for(both.server, back_end=first["back_end"], attach_mode=first["attach_mode"])
        both.wait_for(both.client, back_end="af_xdp")
        works(both)
        assert "acc0 is gone" in both.log(both.server)
        assert "acc0 is there" in both.log(both.server)
