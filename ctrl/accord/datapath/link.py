# SPDX-License-Identifier: Apache-2.0
"""What an interface is at this moment, and a socket that rings when some interface changes."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

from accord.datapath._core import ffi, lib
from accord.datapath.privilege import link_bell
from accord.wire.constants import Reason
from accord.wire.errors import error

_SCRATCH = 65536


@dataclass(frozen=True, slots=True)
class Netdev:
    """``struct accord_netdev``: what the rings and the XDP program were made for. ``address`` is Ethernet's."""

    name: str
    index: int
    mtu: int
    queues: int
    address: bytes


def look(name: str) -> Netdev:
    """The interface of that name. Raises ``UserError`` (``NO_INTERFACE``) or ``HostError`` (no Ethernet)."""
    found = ffi.new("struct accord_netdev *")
    failure = ffi.new("struct accord_failure *")
    result = lib.accord_netdev_open(os.fsencode(name), found, failure)
    if result < 0:
        raise error(Reason(-result), ffi.string(failure.detail).decode(), "see ip link for the names")
    return Netdev(ffi.string(found.name).decode(), found.index, found.mtu, found.queues, bytes(found.address))


def name_of(index: int) -> str | None:
    """What the interface of that index is called now; None when it is gone."""
    try:
        return socket.if_indextoname(index)
    except OSError:
        return None


class LinkBell:
    """A netlink socket (rtnetlink(7), group RTMGRP_LINK) that becomes readable when an interface changes.

    What it says is not read: it may have been lost in an overflow, or be old news. The interface itself is
    looked at instead. So there is nothing to parse, and no netlink library to load for it.
    """

    def __init__(self) -> None:
        self._sock = link_bell()

    def fileno(self) -> int:
        """To wait on for reading."""
        return self._sock.fileno()

    def silence(self) -> None:
        """Throw away what has rung until now."""
        while True:
            try:
                self._sock.recv(_SCRATCH)
            except BlockingIOError:
                return
            except OSError:  # ENOBUFS: some of the ringing was lost
                continue

    def close(self) -> None:
        """Ring no more."""
        self._sock.close()
