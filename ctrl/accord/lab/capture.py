# SPDX-License-Identifier: Apache-2.0
"""Packet captures by tcpdump that hold every packet of a time span: none missed at its start or its end."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from accord.lab.namespace import Namespace
from accord.wire.constants import Reason
from accord.wire.errors import HostError

_PATIENCE = 10.0
_CAPTURED = re.compile(rb"(\d+) packets? captured")
_RECEIVED = re.compile(rb"(\d+) packets? received by filter")
_DROPPED = re.compile(rb"(\d+) packets? dropped by kernel")
_BUFFER_KIB = 65536
# Whole frames of a lab's interfaces, MTU 1500, and no more: tcpdump's default of 256 KiB leaves room for only
# 256 packets in that buffer, because each takes a slot of the longest.
_SNAPLEN = 2048


class _Tcpdump:
    """One running tcpdump and what it says."""

    def __init__(self, where: Namespace, path: Path, expression: str) -> None:
        argv = ["tcpdump", "-i", where.interface, "-w", str(path), "-U", "--immediate-mode", "-s", str(_SNAPLEN), "-n"]
        # Debian's tcpdump becomes another user when started as root, who cannot write everywhere.
        argv += ["-B", str(_BUFFER_KIB), "-Z", "root"]
        try:
            self._process = where.popen(
                [*argv, *([expression] if expression else [])],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except FileNotFoundError:
            raise HostError(
                Reason.NO_KERNEL_SUPPORT, "tcpdump is not installed", "install it with: apt-get install tcpdump"
            ) from None
        assert self._process.stderr is not None
        self._errors = self._process.stderr.fileno()
        self._said = b""

    def wait_until_listening(self) -> None:
        """tcpdump says so after the socket is open, bound and filtered (pcap_activate)."""
        deadline = time.monotonic() + _PATIENCE
        while b"listening on" not in self._said:
            if not self._read(deadline):
                self._process.kill()
                self._process.wait()
                said = self._said.decode(errors="replace").strip()
                raise HostError(Reason.NO_KERNEL_SUPPORT, f"tcpdump does not start: {said}")

    def drain(self) -> int:
        """Wait until it has written all that the kernel has for it; returns the packets that the kernel dropped.

        On SIGUSR1 tcpdump says what it has written and what its filter let through.
        """
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            self._said = b""
            self._process.send_signal(signal.SIGUSR1)
            while not (dropped := _DROPPED.search(self._said)):
                if not self._read(deadline):
                    return 0
            captured, received = _CAPTURED.search(self._said), _RECEIVED.search(self._said)
            if captured and received and int(captured[1]) + int(dropped[1]) >= int(received[1]):
                return int(dropped[1])
            time.sleep(0.005)
        return 0

    def stop(self) -> None:
        """End it; the file is closed then."""
        self._process.terminate()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stderr is not None
        self._process.stderr.close()

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._errors], [], [], max(deadline - time.monotonic(), 0))
        piece = os.read(self._errors, 4096) if ready else b""
        self._said += piece
        return bool(piece)


@contextlib.contextmanager
def capture(where: Namespace, path: str | os.PathLike[str], expression: str = "") -> Iterator[Path]:
    """Capture to a pcap file what passes while the context is open.

    At a host: what its kernel sends and receives (frames that a native XDP program or an AF_XDP socket took or
    sent are not among it). At the link: every frame that either host sent, once, when it sent it, whether or not
    the link then loses it; link-layer header LINUX_SLL2. ``expression`` is a filter as in pcap-filter(7).

    Raises ``HostError`` if tcpdump is missing, does not start, or at the end if the capture has a gap.
    """
    if where.interface == "any":
        # In the filter and not by -Q, so that the kernel does it and counts only what tcpdump writes.
        expression = f"inbound and ({expression})" if expression else "inbound"
    tcpdump = _Tcpdump(where, Path(path), expression)
    tcpdump.wait_until_listening()
    try:
        yield Path(path)
        dropped = tcpdump.drain()
    finally:
        tcpdump.stop()
    if dropped:
        raise HostError(Reason.NO_KERNEL_SUPPORT, f"the capture misses {dropped} packets: too many at once for tcpdump")
