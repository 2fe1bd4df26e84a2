# SPDX-License-Identifier: Apache-2.0
"""The list of tracepoints is there for a tracer, whatever the host has mounted, and the host's mounts stay."""

from __future__ import annotations

import subprocess
import sys

import pytest

_REPORT = """
import os
from accord.cli.trace.tracefs import EVENTS, mount_if_missing
from accord.wire.errors import AccordError
before = os.stat("/proc/self/ns/mnt").st_ino
try:
    mount_if_missing()
    print((EVENTS / "sock" / "inet_sock_set_state" / "format").exists(), os.stat("/proc/self/ns/mnt").st_ino == before)
except AccordError as failure:
    print(failure)
"""
_UNMOUNTED = "while umount /sys/kernel/tracing 2>/dev/null; do :; done"


def report(preparation: str, *through: str) -> str:
    """What ``mount_if_missing`` came to in a mount namespace that was prepared so, and left as it was."""
    script = f"""{preparation}
        before=$(cat /proc/self/mounts)
        "$@"
        test "$before" = "$(cat /proc/self/mounts)" """
    command = ["unshare", "--mount", "sh", "-c", script, "sh", *through, sys.executable, "-c", _REPORT]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout.strip()


@pytest.mark.root
def test_where_nothing_is_mounted_the_tracer_sees_the_tracepoints_and_nobody_else_does() -> None:
    assert report(_UNMOUNTED) == "True False"


@pytest.mark.root
def test_a_host_that_mounts_it_is_taken_as_it_is() -> None:
    assert report(f"{_UNMOUNTED}; mount -t tracefs tracefs /sys/kernel/tracing") == "True True"


@pytest.mark.root
def test_who_may_not_mount_is_told_what_to_mount() -> None:
    said = report(_UNMOUNTED, "setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin")
    assert "Operation not permitted" in said
    assert "sudo mount -t tracefs tracefs /sys/kernel/tracing" in said
