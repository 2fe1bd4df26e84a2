# SPDX-License-Identifier: Apache-2.0
"""What needs privilege, done by this process or asked of the broker: ``dataplane_c/src/privilege.h`` in Python.

A process asks once it has been told to (``ask_from``); until then everything is done by itself.
"""

from __future__ import annotations

import enum
import ipaddress
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from accord.datapath._core import ffi, lib
from accord.datapath.births import OBJECT_PATH as BIRTHS_PATH
from accord.datapath.captures import OBJECT_PATH as CAPTURE_PATH
from accord.datapath.port import OBJECT_PATH, Rung, Spare
from accord.datapath.syn_option import OBJECT_PATH as SOCKOPS_PATH
from accord.wire.constants import Reason
from accord.wire.errors import AccordError, error

ALL_PORTS: Final = frozenset(range(1, 65536))


class Ask(enum.IntEnum):
    """Requests that Python answers, by what follows them."""

    FILE = lib.ACCORD_ASK_BOUNDARY
    """A path of the configuration; -> the file."""
    OWN_CERTIFICATE = FILE + 1
    """-> certificate and private key of this host's own, two files."""
    CONFIGURATION = FILE + 2
    """-> a pickled ``DaemonConfig``, or text that says what is wrong with the file, in a file."""
    REMOVE_CONTROL_SOCKET = FILE + 3
    WHOSE_PROGRAM = FILE + 4
    """number: interface index; -> text."""
    COUNTS = FILE + 5
    """-> the broker's process ID, its requests and refusals so far, decimal."""
    STATE = FILE + 6
    """number: which (``state_file.Kept``); -> the file that outlasts the daemon, if there is one."""
    NEW_STATE = FILE + 7
    """number; -> a new one, empty, to be written."""
    STATE_WRITTEN = FILE + 8
    """number: the new one takes the old one's place."""
    KEYS = FILE + 9
    """-> the texts of this host's keys for inner negotiations, an empty line after each, in a file."""
    TUNNEL = FILE + 10
    """A ``wireguard.Setup``: its interface is made."""
    NO_TUNNEL = FILE + 11
    """number: the port that an interface which TUNNEL made receives on."""


def ask_from(sock: socket.socket) -> None:
    """From now on ask at the other end of this socket, which stays open for good."""
    lib.accord_privilege_from(sock.detach())


def asks() -> bool:
    """This process has a broker."""
    return bool(lib.accord_privilege_asks())


def drop(user: int, group: int, *, keep_memlock: bool) -> None:
    """Give up every privilege (``accord_privilege_drop``). Raises ``HostError`` (``NO_PRIVILEGE``)."""
    failure = ffi.new("struct accord_failure *")
    _check(lib.accord_privilege_drop(user, group, keep_memlock, failure), failure)


def ask(kind: Ask, number: int = 0, data: bytes = b"") -> tuple[bytes, list[int]]:
    """Ask for what Python answers: data and descriptors, the caller's. Raises ``HostError``."""
    request = ffi.new("struct accord_request *", {"kind": kind, "number": number})
    failure = ffi.new("struct accord_failure *")
    answer = ffi.new("uint8_t[]", lib.ACCORD_ASK_BYTES)
    length = ffi.new("uint32_t *", lib.ACCORD_ASK_BYTES)
    fds = ffi.new("int32_t[]", [-1] * lib.ACCORD_ASK_FDS)
    _check(lib.accord_privilege_ask(request, data, len(data), answer, length, fds, failure), failure)
    return bytes(ffi.buffer(answer, length[0])), [fd for fd in fds if fd >= 0]


def bind(sock: socket.socket, host: str, port: int, scope: int = 0) -> None:
    """As ``bind`` of a numeric address; a port that is reserved for root is asked for. Raises ``OSError``."""
    packed = ipaddress.ip_address(host).packed
    address = ffi.new("struct accord_bind *", {"family": 4 if len(packed) == 4 else 6, "port": port, "scope": scope})
    ffi.memmove(address.address, packed, len(packed))
    failure = ffi.new("struct accord_failure *")
    if lib.accord_bind(sock.fileno(), address, failure) < 0:
        raise OSError(failure.error, os.strerror(failure.error) if failure.error else _detail(failure))


def link_bell() -> socket.socket:
    """A netlink socket, rtnetlink(7), of the group RTMGRP_LINK. Raises ``HostError``."""
    failure = ffi.new("struct accord_failure *")
    return socket.socket(fileno=_check(lib.accord_link_bell(failure), failure))


def _detail(failure: Any) -> str:
    return str(ffi.string(failure.detail).decode("utf-8", "replace"))


def _check(result: int, failure: Any) -> int:
    if result < 0:
        raise error(Reason(-result), _detail(failure), "see the daemon's log, and docs/OPERATIONS.md, Privileges")
    return result


# ---- the broker's side ----


@dataclass(slots=True)
class Pending:
    """A request that Python answers. Descriptors that came with it are closed already: none of them takes any."""

    kind: int
    number: int
    data: bytes


class Broker:
    """``struct accord_broker``: answers requests at its end of the pair, by what the configuration allows."""

    def __init__(
        self,
        sock: socket.socket,
        interface: str | None,
        rungs: set[Rung],
        ports: frozenset[int],
        spare: Spare | None,
        cgroup: Path | None = None,
    ) -> None:
        """``cgroup``: where the sockops program may be attached; None: nowhere."""
        allowed = bytearray(8192)
        for port in ports:
            allowed[port // 8] |= 1 << port % 8
        config = ffi.new("struct accord_broker_config *")
        keep = [
            ffi.new("char[]", os.fsencode(interface or "")),
            ffi.new("char[]", os.fsencode(OBJECT_PATH)),
            ffi.new("uint8_t[]", bytes(allowed)),
            ffi.new("char[]", os.fsencode(BIRTHS_PATH)),
            ffi.new("char[]", os.fsencode(CAPTURE_PATH)),
        ]
        config.interface = keep[0] if interface else ffi.NULL
        config.object_path, config.ports, config.births_path, config.capture_path = keep[1:5]
        if cgroup is not None:
            keep += [ffi.new("char[]", os.fsencode(cgroup)), ffi.new("char[]", os.fsencode(SOCKOPS_PATH))]
            config.cgroup, config.sockops_path = keep[-2:]
        config.rungs = sum(1 << rung for rung in rungs)
        config.spare = ffi.NULL if spare is None else spare.take()
        self._pointer = lib.accord_broker_new(config, sock.detach())
        if self._pointer == ffi.NULL:
            raise error(Reason.NO_MEMORY, "the broker")
        self._pending = ffi.new("struct accord_pending *")

    def step(self) -> Pending | None:
        """Answer all requests that there are, up to one that Python answers. Raises ``EOFError``: no worker."""
        while (done := lib.accord_broker_step(self._pointer, self._pending)) == 1:
            pass
        return self._taken(done)

    def serve(self, others: list[int]) -> Pending | None:
        """Answer requests until there is one that Python answers, or another descriptor is readable (None).

        Raises ``EOFError``: no worker.
        """
        return self._taken(lib.accord_broker_serve(self._pointer, self._pending, others, len(others)))

    def _taken(self, done: int) -> Pending | None:
        if done < 0:
            raise EOFError
        if done != 2:
            return None
        for fd in self._pending.fds:
            if fd >= 0:
                os.close(fd)
        request = self._pending.request
        return Pending(request.kind, request.number, bytes(ffi.buffer(self._pending.data, self._pending.length)))

    def answer(self, data: bytes = b"", fds: tuple[int, ...] = (), failure: AccordError | None = None) -> None:
        """Answer the pending request; descriptors stay the caller's."""
        reply = ffi.new("struct accord_reply *")
        if failure is not None:
            reply.result = -int(failure.reason)
            reply.failure.reason = int(failure.reason)
            reply.failure.detail = failure.detail.encode()[:159]
        lib.accord_broker_answer(self._pointer, reply, data, len(data), list(fds) or ffi.NULL, len(fds))

    def knows(self, interface: int) -> bool:
        """The interface with this index is the configured one."""
        return bool(lib.accord_broker_knows(self._pointer, interface))

    def counts(self) -> tuple[int, int]:
        """Requests so far, and how many of them were refused."""
        asked, refused = ffi.new("uint64_t *"), ffi.new("uint64_t *")
        lib.accord_broker_counts(self._pointer, asked, refused)
        return int(asked[0]), int(refused[0])

    def close(self) -> None:
        """Detach what is attached."""
        pointer, self._pointer = self._pointer, ffi.NULL
        lib.accord_broker_free(pointer)
