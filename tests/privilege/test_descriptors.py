# SPDX-License-Identifier: Apache-2.0
"""What a child of the daemon's processes would get of it: nothing."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

import pytest

from accord.lab.deployment import Deployment

pytestmark = pytest.mark.root

UMEM_KB = 4096 * 2048 // 1024
"""Of one receive queue, by the defaults of the data path."""


def processes(both: Deployment) -> list[int]:
    """All of the server's daemon."""
    status = both.wait_for(both.server)
    return [int(status["pid"]), int(status["privileges"]["broker_pid"])]


def test_every_descriptor_is_closed_on_exec(running: Deployment) -> None:
    """/proc/PID/fdinfo (proc(5)): standard input, output and error alone are passed on."""
    for pid in processes(running):
        kept = {}
        for descriptor in os.listdir(f"/proc/{pid}/fdinfo"):
            with contextlib.suppress(FileNotFoundError):  # a connection that ended meanwhile
                info = Path(f"/proc/{pid}/fdinfo/{descriptor}").read_text()
                flags = int(re.findall(r"^flags:\s*(\d+)", info, re.M)[0], 8)
                if int(descriptor) > 2 and not flags & os.O_CLOEXEC:
                    kept[descriptor] = os.readlink(f"/proc/{pid}/fd/{descriptor}")
        assert not kept, f"process {pid}"


def test_a_umem_is_not_inherited(running: Deployment) -> None:
    """VmFlags of /proc/PID/smaps: "dc", do not copy this area on fork."""
    found = []
    for pid in processes(running):
        areas = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", Path(f"/proc/{pid}/smaps").read_text(), flags=re.M)
        for area in areas:
            if re.search(rf"^Size:\s+{UMEM_KB} kB$", area, re.M):
                found.append(" dc" in area.partition("VmFlags:")[2])
    on_xdp = running.wait_for(running.server)["back_end"] == "af_xdp"
    assert any(found) if on_xdp else not any(found)
