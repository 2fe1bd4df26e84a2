# SPDX-License-Identifier: Apache-2.0
"""Somebody else's XDP program, attached to a host's interface in every way that Linux knows.

Started as a program it attaches a pinned one by a bpf_link, which it holds until its standard input ends:
``foreign.py PIN INTERFACE-INDEX FLAGS [ANYTHING...]``. It knows nothing of Accord.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import struct
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.datapath.netns import Host

NAME = "somebody_else"
WAYS = ("xdpdrv by netlink", "xdpgeneric by netlink", "xdpdrv by link", "xdpgeneric by link")
MODES = {"xdpdrv": "in the driver", "xdpgeneric": "in generic mode"}

_SYS_BPF = {"x86_64": 321, "aarch64": 280}
_BPF_OBJ_GET, _BPF_LINK_CREATE, _BPF_XDP = 7, 28, 37  # linux/bpf.h
_FLAGS = {"xdpgeneric": 1 << 1, "xdpdrv": 1 << 2}  # XDP_FLAGS_* of linux/if_link.h


@contextmanager
def pinned(directory: Path) -> Iterator[str]:
    """The path at which the program is pinned, for as long as the block lasts."""
    source, built = Path(__file__).with_name("foreign.bpf.c"), directory / "foreign.o"
    subprocess.run(["clang", "-O2", "-target", "bpf", "-c", source, "-o", built], check=True, timeout=30)
    pin = f"/sys/fs/bpf/accord-test-{uuid.uuid4().hex}"
    subprocess.run(["bpftool", "prog", "load", built, pin], check=True, timeout=30)
    try:
        yield pin
    finally:
        os.unlink(pin)


def missing_tool() -> str | None:
    """The first that is not there."""
    return next((tool for tool in ("clang", "bpftool") if shutil.which(tool) is None), None)


def attach(host: Host, pin: str, mode: str) -> None:
    """By netlink, as bpftool and iproute2 do. Raises CalledProcessError."""
    host.command("bpftool", "net", "attach", mode, "pinned", pin, "dev", host.interface)


def detach(host: Host, mode: str) -> None:
    """What ``attach`` attached."""
    host.command("bpftool", "net", "detach", mode, "dev", host.interface)


@contextmanager
def attached(host: Host, pin: str, way: str, *words: str) -> Iterator[int]:
    """Attached one of ``WAYS`` for as long as the block lasts; the process that holds it, 0 with netlink.

    Raises CalledProcessError where the kernel refuses. ``words`` stand on the holder's command line.
    """
    mode, _, how = way.partition(" by ")
    if how == "netlink":
        attach(host, pin, mode)
        try:
            yield 0
        finally:
            detach(host, mode)
        return
    command = [sys.executable, "-I", __file__, pin, str(host.index), str(_FLAGS[mode]), *words]
    holder = host.run(lambda: subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
    try:
        assert holder.stdout is not None
        if (said := holder.stdout.readline()) != "attached\n":
            raise subprocess.CalledProcessError(1, command, said)
        yield holder.pid
    finally:
        holder.communicate(timeout=10)


def _bpf(command: int, attributes: bytes) -> int:
    """The system call; ``attributes`` as ``union bpf_attr``. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    memory = ctypes.create_string_buffer(attributes.ljust(128, b"\0"))
    result: int = libc.syscall(_SYS_BPF[os.uname().machine], command, memory, 128)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _hold(pin: str, index: int, flags: int) -> None:
    path = ctypes.create_string_buffer(os.fsencode(pin))
    program = _bpf(_BPF_OBJ_GET, struct.pack("=Q", ctypes.addressof(path)))
    try:
        _bpf(_BPF_LINK_CREATE, struct.pack("=IIII", program, index, _BPF_XDP, flags))
    except OSError as refusal:
        print(refusal, flush=True)
        return
    print("attached", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    _hold(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
