# SPDX-License-Identifier: Apache-2.0
"""The XDP program that an interface has, and whose it is: what an operator needs to know before he detaches it."""

from __future__ import annotations

import os
import pwd
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from accord.datapath._core import ffi, lib
from accord.wire.constants import Reason
from accord.wire.errors import error

PROGRAM_NAME = "accord_xdp"
"""What our own is called."""

_MAX_COMMAND = 120
_BPF_FILES = ("anon_inode:bpf-prog", "anon_inode:bpf_link", "anon_inode:bpf-link")


@dataclass(frozen=True, slots=True)
class Attached:
    """``struct accord_attached``; ``loaded`` is in seconds since the epoch, ``link`` 0 for netlink or not known."""

    program: int
    name: str
    tag: str
    mode: str
    link: int
    user: int
    loaded: float

    def __str__(self) -> str:
        link = f" by link {self.link}" if self.link else ""
        return f"XDP program {self.name or '(unnamed)'}, ID {self.program}, tag {self.tag}, attached {self.mode}{link}"

    def whose(self) -> str:
        """Who loaded it and when, and which processes hold it, as far as /proc shows them to this process."""
        try:
            user = pwd.getpwuid(self.user).pw_name
        except KeyError:
            user = f"user {self.user}"
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.loaded))
        held = [f"process {pid} ({command})" for pid, command in holders(self.program)]
        by = ", ".join(held) or "no process that is to be seen: pinned, or left by one that has ended"
        return f"loaded by {user} at {when}, held by {by}"


def attached(index: int) -> Attached | None:
    """The program of the interface with this index; None when there is none. Raises ``HostError``."""
    found = ffi.new("struct accord_attached *")
    if (result := lib.accord_attached_find(index, found)) < 0:
        raise error(Reason(-result), f"asking for the XDP program of interface {index}")
    if not found.program_id:
        return None
    now = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return Attached(
        found.program_id,
        _printable(bytes(ffi.string(found.name)).decode("utf-8", "replace")),
        bytes(found.tag).hex(),
        ffi.string(lib.accord_attached_mode(found.mode)).decode(),
        found.link_id,
        found.user,
        now + found.loaded_ns / 1e9,
    )


def holders(program: int) -> Iterator[tuple[int, str]]:
    """Process ID and command line of each process with a descriptor of the program or of a link to it."""
    wanted = re.compile(rf"^prog_id:\s*{program}$", re.MULTILINE)
    for process in sorted((each for each in os.listdir("/proc") if each.isdigit()), key=int):
        if any(wanted.search(info) for info in _bpf_descriptors(Path("/proc", process))):
            yield int(process), _command(Path("/proc", process))


def _bpf_descriptors(process: Path) -> Iterator[str]:
    """/proc/PID/fdinfo of what the BPF system call made; nothing of processes that end or are not ours to see."""
    try:
        for descriptor in os.listdir(process / "fd"):
            if os.readlink(process / "fd" / descriptor) in _BPF_FILES:
                yield (process / "fdinfo" / descriptor).read_text()
    except OSError:
        return


def _command(process: Path) -> str:
    try:
        words = (process / "cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        words = ""
    return _printable(words if len(words) <= _MAX_COMMAND else words[: _MAX_COMMAND - 3] + "...") or "name unknown"


def _printable(text: str) -> str:
    """What others have named may hold what a terminal would obey."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
