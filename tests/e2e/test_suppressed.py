# SPDX-License-Identifier: Apache-2.0
"""A SYN with the option that leaves behind its proposal, through the whole of two daemons: dropped, and counted."""

from __future__ import annotations

import pytest

from accord.lab.hosts import Hosts
from tests.e2e.conftest import PAGE
from tests.e2e.test_negotiated_stacks import GET, address, body
from tests.e2e.test_stats import key, rises, stats, values

pytestmark = pytest.mark.root


@pytest.mark.parametrize("family", [4, 6])
def test_the_syn_beside_a_proposal_never_reaches_the_server_and_the_server_says_so(hosts: Hosts, family: int) -> None:
    server = hosts.lab.server
    before = values(hosts, server)
    done = hosts.connect("-v", address(hosts, family), stdin=GET)
    assert done.returncode == 0, done.stderr.decode()
    assert body(done.stdout) == PAGE
    risen = rises(before, values(hosts, server))
    assert risen[key("accord_steering_packets_total", reason="SYN_SUPPRESSED")] == 1
    assert risen[key("accord_proposals_total", order="proposal_first")] == 1
    assert "a SYN whose negotiation packet came first: dropped" in stats(hosts, server)
