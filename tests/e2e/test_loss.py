# SPDX-License-Identifier: Apache-2.0
"""A link that loses packets: every negotiation completes, and carries the right bytes."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import pytest

from accord.lab.hosts import PORT, SERVER_NAME
from tests.e2e.conftest import PAGE, two_hosts

pytestmark = pytest.mark.root


@pytest.mark.parametrize(("stack", "family"), [("tls/tcp", 4), ("quic", 6)])
def test_100_of_100_negotiations_complete_with_5_percent_loss_each_way(tmp_path: Path, stack: str, family: int) -> None:
    with two_hosts(tmp_path, "loss", loss=0.05) as hosts:
        server = hosts.lab.server
        spec = {
            "remote": f"{server.address4}:{PORT}" if family == 4 else f"[{server.address6}]:{PORT}",
            "policy": {"secure": "required", "prefer": [stack], "fallback": "never"},
            "server_name": SERVER_NAME,
            "ca_file": str(hosts.ca),
            "control": str(hosts.control(hosts.lab.client)),
            "request": "GET /index.html HTTP/1.0\r\n\r\n",
            "sha256": hashlib.sha256(PAGE).hexdigest(),
            "count": 100,
            "at_once": 10,
        }
        script = Path(__file__).with_name("many.py")
        done = hosts.lab.client.run([sys.executable, str(script), json.dumps(spec)], capture_output=True, timeout=100)
        assert done.returncode == 0, done.stderr.decode()
        result = json.loads(done.stdout)
        assert result["outcomes"] == {"ok": 100}, hosts.logs()
        assert result["stacks"] == {f"http/{stack}": 100}
        lost = hosts.lab.counters()
        assert lost.up.lost > 0, "the link did lose packets"
        assert lost.down.lost > 0
