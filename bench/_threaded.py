# SPDX-License-Identifier: Apache-2.0
"""An interface whose polls are a thread's, on a processor of our choice: who receives is then not who sends."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from pathlib import Path

import click

from accord.lab.pair import PairHost

_SECONDS = 5.0


def poll_on(host: PairHost, cpu: int) -> None:
    """From now on the interface's packets are received on ``cpu`` (Documentation/networking/napi.rst, "Threaded NAPI").

    A veth has polls only while a native XDP program is attached. Raises ``click.ClickException`` where it has none.
    """
    before = _threads(host.interface)
    # sysfs shows the interfaces of the network namespace that it was mounted in.
    script = f"mount -t sysfs sysfs /sys && echo 1 > /sys/class/net/{host.interface}/threaded"
    try:
        host.run("unshare", "--mount", "sh", "-c", script)
    except subprocess.CalledProcessError as refused:
        raise click.ClickException(f"{host.interface}: no polls by a thread: {refused.stderr.strip()}") from refused
    deadline = time.monotonic() + _SECONDS
    while not (made := _threads(host.interface) - before):
        if time.monotonic() > deadline:
            raise click.ClickException(f"{host.interface}: the kernel made no thread for its polls")
        time.sleep(0.01)
    for thread in made:
        os.sched_setaffinity(thread, {cpu})


def _threads(interface: str) -> set[int]:
    """Of all interfaces of that name, in whichever namespace."""
    found = set()
    for directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (directory / "comm").read_text().startswith(f"napi/{interface}-"):
                found.add(int(directory.name))
    return found
