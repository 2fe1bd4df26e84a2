# SPDX-License-Identifier: Apache-2.0
"""Two hosts of a lab, each with a daemon, a certificate and a program that meets the other."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from accord.lab.hosts import Hosts
from accord.lab.lab import Lab
from accord.lab.namespace import Namespace
from accord.protocols.authority import issue

PORT = 4000
INTRODUCER = 3478
NAMES = {"client": "ada.accord.test", "server": "bob.accord.test"}
CALLER = Path(__file__).with_name("caller.py")


@contextlib.contextmanager
def two_peers(directory: Path, **options: Any) -> Iterator[Hosts]:
    """A lab with a daemon on either host, and with an introducer where its path has a place for one."""
    with (
        Lab(f"peers-{os.getpid()}", **options) as lab,
        contextlib.closing(Hosts(lab, directory)) as hosts,
    ):
        directory.chmod(0o755)
        for role, name in NAMES.items():
            issue(directory, [name], stem=role)
            hosts.daemon(lab.role(role))
        if options.get("path") == "nat-both":
            meeting = lab.role("rendezvous")
            command = [sys.executable, "-m", "accord.lab.introducer", "serve", meeting.address4, str(INTRODUCER)]
            hosts.start(meeting, command, ready="introducing")
        yield hosts


def begin(hosts: Hosts, role: str, name: str, **more: Any) -> subprocess.Popen[str]:
    """The program on one host; it asks the introducer where the other is, unless ``more`` names a ``peer``."""
    other = "server" if role == "client" else "client"
    wish = {
        "server": None if "peer" in more else [hosts.lab.role("rendezvous").address4, INTRODUCER],
        "name": name,
        "say": f"from {role}",
        "expects": NAMES[other],
        "ca": str(hosts.ca),
        "certificate": str(hosts.directory / f"{role}.pem"),
        "key": str(hosts.directory / f"{role}.key"),
        **more,
    }
    host: Namespace = hosts.lab.role(role)
    command = [sys.executable, str(CALLER), json.dumps(wish)]
    return host.popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def both(hosts: Hosts, name: str, *, direct: bool = False, port: int = PORT, **more: Any) -> tuple[dict[str, Any], ...]:
    """The programs of both at once; what they print. ``direct``: each is told the other's own address."""
    callers = []
    for role, other in (("client", hosts.lab.server), ("server", hosts.lab.client)):
        where: dict[str, Any] = {"peer": [other.address4, port]} if direct else {}
        callers.append(begin(hosts, role, name, bind=["0.0.0.0", port], **where, **more))
    results: list[dict[str, Any]] = []
    for caller in callers:
        results.append(finished(caller, hosts))
    return tuple(results)


def finished(caller: subprocess.Popen[str], hosts: Hosts) -> dict[str, Any]:
    """What it printed when it ended."""
    out, errors = caller.communicate(timeout=40)
    assert caller.returncode == 0, errors + hosts.logs()
    result: dict[str, Any] = json.loads(out)
    return result


def met(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The stack of both, over which both have heard the other."""
    assert "failed" not in one, one
    assert "failed" not in other, other
    assert (one["heard"], other["heard"]) == ("from server", "from client")
    assert {one["role"], other["role"]} == {"initiator", "responder"}
    assert one["stack"] == other["stack"]
    stack: list[str] = one["stack"]
    return stack
