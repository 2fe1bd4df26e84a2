# SPDX-License-Identifier: Apache-2.0
"""What this kernel would have put into its own SYN towards a peer.

A connection that no SYN opens should not differ from one that a SYN did, so its numbers come from where the
kernel takes its own: the route (through a scratch socket) and the ``net.ipv4`` settings, IPv6 included.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from dataclasses import dataclass
from typing import Final

from accord.datapath import tcp_state
from accord.datapath.zone import SocketAddress
from accord.wire.errors import HostError
from accord.wire.tcp_header import MAX_WINDOW, MAX_WINDOW_SCALE

SCRATCH_PORT: Final = 9
"""Discard (RFC 863). Nothing is sent to it: the port only has to be some port."""
_FRESH_SECONDS: Final = 10.0
"""How old an answer may be before it is asked for anew: asking costs more than installing, and routes and settings
seldom change."""
_REMEMBERED_SECONDS: Final = 600.0
"""How old it may be for whoever is the first to ask again: a peer waits for his answer meanwhile, and a wrong MSS is
what path MTU discovery is for."""
_IDLE_SECONDS: Final = 0.05
"""After that, it is asked for."""
_REMEMBERED_PEERS: Final = 1024


@dataclass(frozen=True, slots=True)
class TcpNumbers:
    """A SYN's numbers towards one peer, but for port, ISN and timestamp."""

    mss: int
    """Bytes; from the route's MTU, or its advmss."""
    window: int
    """Bytes, at most 65535."""
    window_scale: int | None
    sack: bool
    timestamps: bool


_Key = tuple[int, SocketAddress, SocketAddress]
_remembered: dict[_Key, tuple[float, TcpNumbers]] = {}
_renewing: set[_Key] = set()


def numbers_towards(local: SocketAddress, remote: SocketAddress) -> TcpNumbers:
    """The numbers that the kernel uses now, or used a while ago. Ports of the addresses do not matter.

    On an event loop whoever asks after ten seconds gets the old ones, and the next one new ones.

    Raises ``HostError``: NO_PRIVILEGE without CAP_NET_ADMIN, CANNOT_INSTALL without a route to the peer.
    """
    now = time.monotonic()
    # Of the calling thread's network namespace: the same addresses may be other hosts in another one.
    key = (_namespace(), with_port(local, 0), with_port(remote, 0))
    known = _remembered.get(key)
    age = _REMEMBERED_SECONDS if known is None else now - known[0]
    if known is not None and (age < _FRESH_SECONDS or (age < _REMEMBERED_SECONDS and _renew_soon(key))):
        return known[1]
    return _renew(key)


def _namespace() -> int:
    return os.stat("/proc/thread-self/ns/net").st_ino


def _renew_soon(key: _Key) -> bool:
    """When nobody waits for it; False where there is no event loop."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return False
    if key not in _renewing:
        _renewing.add(key)
        loop.call_later(_IDLE_SECONDS, _renew_now, key)
    return True


def _renew_now(key: _Key) -> None:
    _renewing.discard(key)
    if key not in _remembered or key[0] != _namespace():
        return  # forgotten, or this thread has gone elsewhere
    with contextlib.suppress(HostError):  # for whoever asks next
        del _remembered[key]
        _renew(key)


def _renew(key: _Key) -> TcpNumbers:
    if len(_remembered) >= _REMEMBERED_PEERS:
        _remembered.clear()
    numbers = _ask(key[1], key[2])
    _remembered[key] = (time.monotonic(), numbers)
    return numbers


def _ask(local: SocketAddress, remote: SocketAddress) -> TcpNumbers:
    """A scratch socket is connected in repair mode and closed in it: neither sends anything."""
    mss, window = tcp_state.numbers(tcp_state.state(local, remote))
    return TcpNumbers(
        mss=min(mss, 0xFFFF),
        window=min(window, MAX_WINDOW),
        window_scale=_window_scale() if _setting("net/ipv4/tcp_window_scaling") else None,
        sack=bool(_setting("net/ipv4/tcp_sack")),
        timestamps=bool(_setting("net/ipv4/tcp_timestamps")),
    )


def _window_scale() -> int:
    """As ``tcp_select_initial_window``: enough for the largest buffer that the settings allow."""
    space = max(_setting("net/ipv4/tcp_rmem", 2), _setting("net/core/rmem_max"), 1)
    return max(0, min(space.bit_length() - 1 - 15, MAX_WINDOW_SCALE))


def _setting(name: str, column: int = 0) -> int:
    """A number from /proc/sys; 0 where this namespace does not show it (net.core.rmem_max, before 6.15)."""
    try:
        descriptor = os.open(f"/proc/sys/{name}", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    try:
        return int(os.read(descriptor, 128).split()[column])
    finally:
        os.close(descriptor)


def with_port(address: SocketAddress, port: int) -> SocketAddress:
    """The same host, another port."""
    if len(address) == 4:
        return address[0], port, address[2], address[3]
    return address[0], port


def forget() -> None:
    """Ask the kernel anew next time: routes or settings have changed."""
    _remembered.clear()
    _renewing.clear()
