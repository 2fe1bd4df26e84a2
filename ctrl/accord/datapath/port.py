# SPDX-License-Identifier: Apache-2.0
"""A port: an interface with the best back end that it could get, and the UDP sockets registered with it.

A typed skin over ``accord_port_*`` of ``dataplane_c/src/core.h``. Nothing here blocks.
"""

from __future__ import annotations

import enum
import os
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path as FilePath
from typing import Any, Protocol

from accord.datapath._core import ffi, lib
from accord.datapath.attached import attached
from accord.datapath.path import Path
from accord.wire.constants import Reason
from accord.wire.errors import AccordError, error

OBJECT_PATH = FilePath(__file__).with_name("accord_xdp.bpf.o")
"""The XDP program, compiled when the package was built."""

_MAX_QUEUES: int = lib.ACCORD_MAX_QUEUES
_MAX_FDS: int = lib.ACCORD_MAX_FDS
_BATCH = 64

_MENDS = {
    Reason.NO_PRIVILEGE: "run as root, or give CAP_NET_ADMIN, CAP_NET_RAW and CAP_BPF",
    Reason.FOREIGN_PROGRAM: "detach it (bpftool net), choose another interface, or allow a lower rung",
    Reason.NO_INTERFACE: "see ip link for the names",
    Reason.NO_KERNEL_SUPPORT: "accord doctor says what this host has; allow a lower rung",
    Reason.LOAD_FAILED: "./build.py build",
    Reason.MAP_MISMATCH: "./build.py build",
}


class Rung(enum.IntEnum):
    """``enum accord_rung``: the back ends, best first."""

    XDP_NATIVE = 0
    XDP_GENERIC = 1
    PACKET = 2
    UDP = 3


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a rung was not reached: ``errno`` is 0 when no call failed, ``detail`` says which one did."""

    reason: Reason
    errno: int
    detail: str


@dataclass(frozen=True, slots=True)
class PortReport:
    """What ``open`` came to. ``queues`` are those with a ring of ours, ``program_id`` is 0 without XDP."""

    rung: Rung
    queues: int
    program_id: int
    refusals: dict[Rung, Refusal]
    busy_poll_us: int = 0
    """In effect; 0 with ``busy_poll_refusal`` when it was asked for and could not be had."""
    busy_poll_refusal: Refusal | None = None


@dataclass(frozen=True, slots=True)
class RingStatistics:
    """``struct accord_ring_statistics``: frames since the port was opened, ``wakeups`` are system calls.

    What the kernel counts is XDP_STATISTICS of linux/if_xdp.h, or PACKET_STATISTICS on ``Rung.PACKET``.
    """

    queue: int
    size: int
    received: int
    sent: int
    receive_wakeups: int
    send_wakeups: int
    receive_dropped: int
    receive_ring_full: int
    fill_ring_empty: int
    receive_bad_address: int
    send_bad_address: int
    send_ring_empty: int


_RING_FIELDS = tuple(field.name for field in fields(RingStatistics))


def _refusal(failure: Any) -> Refusal | None:
    if not failure.reason:
        return None
    return Refusal(Reason(failure.reason), failure.error, ffi.string(failure.detail).decode())


class EnginePointer(Protocol):
    """What ``poll`` wants of an engine."""

    @property
    def pointer(self) -> Any:
        """``struct accord_engine *``."""


def _refusals(report: Any, interface: str | None) -> dict[Rung, Refusal]:
    found = {
        rung: Refusal(Reason(report.reason[rung]), report.error[rung], ffi.string(report.detail[rung]).decode())
        for rung in Rung
        if report.reason[rung]
    }
    foreign = [rung for rung, refusal in found.items() if refusal.reason is Reason.FOREIGN_PROGRAM]
    if foreign and interface is not None and (whose := _whose(interface)):
        for rung in foreign:
            found[rung] = replace(found[rung], detail=f"{found[rung].detail}; {whose}")
    return found


def _whose(interface: str) -> str:
    """Who has the XDP program of the interface; empty when it is gone by now, or nothing can be found out."""
    try:
        index = socket.if_nametoindex(interface)
        if lib.accord_privilege_asks():
            return _whose_by_broker(index)
        other = attached(index)
    except (OSError, AccordError):
        return ""
    return "" if other is None else other.whose()


def _whose_by_broker(index: int) -> str:
    from accord.datapath.privilege import Ask, ask  # which needs this module

    return ask(Ask.WHOSE_PROGRAM, index)[0].decode("utf-8", "replace")


def _report(report: Any, interface: str | None) -> PortReport:
    return PortReport(
        Rung(report.rung),
        report.queues,
        report.program_id,
        _refusals(report, interface),
        report.busy_poll_us,
        _refusal(report.busy_poll),
    )


class _Config:
    """``struct accord_port_config``, and the texts that it points to."""

    def __init__(
        self,
        interface: str | None,
        first_rung: Rung,
        last_rung: Rung,
        skip: Iterable[Rung],
        any_port: bool,
        object_path: str | os.PathLike[str],
        frames: int,
        busy_poll_us: int,
    ) -> None:
        self.interface = interface
        self._rest = (any_port, object_path, frames, busy_poll_us)
        self.pointer: Any = ffi.new("struct accord_port_config *")
        self._keep = [ffi.new("char[]", os.fsencode(text)) for text in (interface or "", object_path)]
        self.pointer.interface = self._keep[0] if interface else ffi.NULL
        self.pointer.object_path = self._keep[1]
        self.pointer.first_rung, self.pointer.last_rung = first_rung, last_rung
        self.pointer.skip_rungs = sum({1 << rung for rung in skip})
        self.pointer.any_port, self.pointer.frames, self.pointer.busy_poll_us = any_port, frames, busy_poll_us

    def on(self, interface: str | None, rungs: Sequence[Rung] | None) -> _Config:
        """The same for another interface, and with other rungs if they are given."""
        if rungs is None:
            config = _Config(interface, self.pointer.first_rung, self.pointer.last_rung, (), *self._rest)
            config.pointer.skip_rungs = self.pointer.skip_rungs
            return config
        return _Config(interface, rungs[0], rungs[-1], set(Rung) - set(rungs), *self._rest)

    def check(self, result: int, report: Any) -> None:
        """Raise what a negative result says."""
        if result < 0:
            reason = Reason(-result)
            details = "; ".join(refusal.detail for refusal in _refusals(report, self.interface).values())
            rungs = f"no rung from {self.pointer.first_rung} to {self.pointer.last_rung}"
            raise error(reason, details or rungs, _MENDS.get(reason, ""))


class Spare:
    """An XDP program that is loaded but not attached, for the next ``Port.open`` of this process or of a fork of it.

    Most of the time of an attachment goes into the kernel's verifier. Whoever starts ports has this done in advance.
    """

    def __init__(self, object_path: str | os.PathLike[str] = OBJECT_PATH) -> None:
        """Raises ``HostError`` or ``OurError`` when it cannot be loaded."""
        self.pointer: Any = ffi.new("struct accord_program **")
        failure = ffi.new("struct accord_failure *")
        result = lib.accord_program_open(os.fsencode(object_path), self.pointer, failure)
        if result < 0:
            raise error(Reason(-result), ffi.string(failure.detail).decode(), _MENDS.get(Reason(-result), ""))

    def take(self) -> Any:
        """The program, ``struct accord_program *``, now the caller's; NULL when it was used."""
        program, self.pointer[0] = self.pointer[0], ffi.NULL
        return program

    def close(self) -> None:
        """Unload it here, unless it was used."""
        program = self.take()
        if program != ffi.NULL:
            lib.accord_program_close(program)


class Port:
    """Made by ``Port.open``; closed by ``close`` or by leaving its ``with`` block."""

    def __init__(self, pointer: Any, config: _Config, report: PortReport) -> None:
        self._pointer = pointer
        self._config = config
        self.report = report
        self._datagrams: Any = ffi.new("struct accord_datagram[]", _BATCH)
        self._path: Any = ffi.new("struct accord_path *")

    @classmethod
    def open(
        cls,
        interface: str | None = None,
        first_rung: Rung = Rung.XDP_NATIVE,
        last_rung: Rung = Rung.UDP,
        any_port: bool = False,
        *,
        object_path: str | os.PathLike[str] = OBJECT_PATH,
        frames: int = 0,
        busy_poll_us: int = 0,
        skip: Iterable[Rung] = (),
        sockets_only: bool = False,
        spare: Spare | None = None,
    ) -> Port:
        """Try the rungs from ``first_rung`` to ``last_rung``; ``report`` says which was reached, and why no better.

        Those in ``skip`` are left out. An XDP program of others is never replaced: it refuses both XDP rungs.

        ``any_port`` takes the magic cookie on every UDP port rather than on the registered ones. ``frames``
        is the size of each receive queue's UMEM in frames, half of them for each direction; 0 is the default.
        ``busy_poll_us``, if not 0, has each poll run the driver's receive queues itself (``SO_BUSY_POLL``): fewer
        interrupts, for more processor time; where it cannot be had the report says why, and all goes on without.
        ``sockets_only``: attach to nothing yet, ``reopen`` does.
        ``spare`` is used for the first XDP rung that is tried.
        Raises ``HostError`` or ``UserError`` when none could be reached, with the last rung's reason.
        """
        config = _Config(interface, first_rung, last_rung, skip, any_port, object_path, frames, busy_poll_us)
        report = ffi.new("struct accord_port_report *")
        pointer = ffi.new("struct accord_port **")
        first = config.on(None, (Rung.UDP,)) if sockets_only else config
        config.pointer.spare = ffi.NULL if spare is None else spare.pointer
        result = lib.accord_port_open(first.pointer, report, pointer)
        config.pointer.spare = ffi.NULL
        first.check(result, report)
        return cls(pointer[0], config, _report(report, interface))

    def reopen(self, interface: str | None, *, rungs: Sequence[Rung] | None = None, sockets_only: bool = False) -> None:
        """Leave the interface, climb the rungs that ``open`` was given on this one; file descriptors change.

        ``rungs``, in their order, are tried instead of those. Registered sockets stay and are served throughout.
        ``sockets_only`` goes to ``Rung.UDP`` whatever was wanted. Raises as ``open`` when no rung could be reached; the
        port then goes on with its sockets alone, on ``Rung.UDP``, and ``report`` says why.
        """
        config = self._config.on(interface, (Rung.UDP,) if sockets_only else rungs)
        report = ffi.new("struct accord_port_report *")
        result = lib.accord_port_reopen(self._open, config.pointer, report)
        self.report = _report(report, interface)
        config.check(result, report)

    def __enter__(self) -> Port:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _open(self) -> Any:
        if self._pointer is None:
            raise ValueError("the port is closed")
        return self._pointer

    @property
    def pointer(self) -> Any:
        """``struct accord_port *``."""
        return self._open

    def close(self) -> None:
        """Detach the XDP program and close the rings; registered sockets stay open. Twice does no harm."""
        pointer, self._pointer = self._pointer, None
        if pointer is not None:
            lib.accord_port_close(pointer)

    def fds(self) -> list[int]:
        """File descriptors to wait on for reading, beside the registered sockets."""
        fds = ffi.new("int32_t[]", _MAX_FDS)
        return list(fds[0 : lib.accord_port_fds(self._open, fds, _MAX_FDS)])

    def add_socket(self, sock: socket.socket) -> int:
        """Register a bound UDP socket, which ``poll`` reads from now on; returns its index for ``Path.socket``.

        Raises ``UserError`` (``BAD_CONFIG``) when it is no bound UDP socket or is registered already.
        """
        index: int = lib.accord_port_add_socket(self._open, sock.fileno())
        if index < 0:
            raise error(Reason(-index), f"cannot register {sock}", "pass a bound UDP socket, once")
        return index

    def remove_socket(self, index: int) -> None:
        """Forget a registered socket, before its owner closes it. Raises ``OurError`` when there is none."""
        result = lib.accord_port_remove_socket(self._open, index)
        if result < 0:
            raise error(Reason(-result), f"no socket is registered as {index}")

    def expose(self, port: int, exposed: bool = True) -> None:
        """There is a service behind the port, or no longer: SYNs beside proposals to it may be suppressed."""
        lib.accord_port_expose(self._open, port, exposed)

    def share(self, port: int, shared: bool = True) -> None:
        """Take negotiation packets on a UDP port that another program has, or no longer. Not on ``Rung.UDP``: nothing
        can be picked from another's socket."""
        lib.accord_port_share(self._open, port, shared)

    def suppress(self, wanted: bool) -> None:
        """Whether SYNs may be suppressed at all; from ``open`` on they may, as long as the engine has room."""
        lib.accord_port_suppress(self._open, wanted)

    def replace_socket(self, index: int, sock: socket.socket) -> None:
        """From now on ``index`` is ``sock``, of the same family and port; the socket before is not read any more.

        Raises ``UserError`` (``BAD_CONFIG``) when it is no such socket or is registered already.
        """
        result = lib.accord_port_replace_socket(self._open, index, sock.fileno())
        if result < 0:
            raise error(Reason(-result), f"cannot put {sock} in the place of socket {index}")

    def poll(self, engine: EnginePointer, now_us: int) -> int:
        """Receive a batch from everywhere, then send what the engine has. Call again while it is not 0."""
        return int(lib.accord_port_poll(self._open, engine.pointer, now_us))

    def datagrams(self) -> list[tuple[Path, bytes]]:
        """Datagrams on registered sockets that are not negotiation packets, each once and in order of arrival."""
        found: list[tuple[Path, bytes]] = []
        while count := lib.accord_port_datagrams(self._open, self._datagrams, _BATCH):
            for each in self._datagrams[0:count]:
                found.append((Path.from_c(each.path), bytes(ffi.buffer(each.data, each.length))))
        return found

    def errors(self) -> list[Path]:
        """Paths whose packets ICMP called undeliverable: a hint, as ICMP can be forged."""
        found: list[Path] = []
        while lib.accord_port_error(self._open, self._path) < 0:
            found.append(Path.from_c(self._path))
        return found

    @property
    def attached(self) -> bool:
        """The XDP program, if there is one, is where it was attached; false after somebody detached it by force."""
        return bool(lib.accord_port_attached(self._open))

    def settle(self) -> None:
        """Returns when each packet is delivered whose socket the kernel had looked up before; takes milliseconds."""
        lib.accord_port_settle()

    def quiet(self) -> None:
        """Until the next heartbeat the kernel gets everything: what the rings hold is the last that they get."""
        lib.accord_port_quiet(self._open)

    def heartbeat(self) -> None:
        """A sign of life, due three times in ``Limit.HEARTBEAT_MS``: without it the XDP program passes everything."""
        lib.accord_port_heartbeat(self._open)

    def cookies(self, ring: Any) -> None:
        """What the XDP program makes cookies with: ``Engine.cookies``."""
        lib.accord_port_cookies(self._open, ring)

    def follow(self, engine: EnginePointer, now: int) -> None:
        """Have the XDP program answer strangers while ``engine`` is at ``Level.COOKIE``, and tell it of them. Polls do
        so, too; but a host that everything is kept from does not poll."""
        lib.accord_port_follow(self._open, engine.pointer, now)

    def ring_statistics(self) -> list[RingStatistics]:
        """Each ring's, by queue; none on ``Rung.UDP``."""
        rings = ffi.new("struct accord_ring_statistics[]", _MAX_QUEUES)
        count = lib.accord_port_rings(self._open, rings, _MAX_QUEUES)
        return [RingStatistics(*(getattr(ring, name) for name in _RING_FIELDS)) for ring in rings[0:count]]

    def counters(self) -> dict[Reason, int]:
        """Packets since ``open`` by what became of them, zeros left out. Raises ``OurError`` (``MAP_MISMATCH``)."""
        counters = ffi.new("uint64_t[]", lib.ACCORD_REASON_LIMIT)
        result = lib.accord_port_counters(self._open, counters)
        if result < 0:
            raise error(Reason(-result), "reading the BPF map counters")
        return {Reason(index): count for index, count in enumerate(counters) if count}
