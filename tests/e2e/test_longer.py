# SPDX-License-Identifier: Apache-2.0
"""Five steps between two daemons on real packets: what the proposal did not show is named later, or by the peer."""

from __future__ import annotations

import pytest

from accord.lab.hosts import PORT, Hosts
from tests.e2e.conftest import PAGE

pytestmark = pytest.mark.root

GET = b"GET /index.html HTTP/1.0\r\n\r\n"


@pytest.mark.parametrize("tcp", ["no-syn", "parallel-syn"])
@pytest.mark.parametrize("word", ["defer", "choose"])
def test_a_request_is_answered_over_what_was_not_in_the_proposal(hosts: Hosts, word: str, tcp: str) -> None:
    policy = ("--prefer", "tls/tcp", "--only", "--fallback", "never", "--tcp", tcp, f"--{word}", "tls")
    done = hosts.connect("-v", *policy, f"{hosts.lab.server.address4}:{PORT}", stdin=GET)
    assert done.returncode == 0, done.stderr.decode() + hosts.logs()
    assert done.stdout.partition(b"\r\n\r\n")[2] == PAGE
    said = done.stderr.decode()
    assert said.startswith("http/tls/tcp to ")
    steps = [line[line.index("step ") :] for line in said.splitlines() if "step " in line]
    assert [" ".join(line.split()[:3]) for line in steps] == [
        "step 0 proposal:",
        "step 1 answer:",
        "step 2 further:",
        "step 3 answer:",
        "step 4 commit:",
    ]
    assert "tls" not in steps[0]
    assert "tls" in steps[2]
