# SPDX-License-Identifier: Apache-2.0
"""A peer that vanished is noticed, one that lives and does not read is waited for."""

from __future__ import annotations

import contextlib
import errno
import socket
import time
from collections.abc import Iterator

import pytest
from pyroute2 import NetNS

from accord.datapath import tcp_liveness
from accord.wire.constants import Limit
from tests.tcp.conftest import Tap, Wire
from tests.tcp.test_repair import pair, sockets

pytestmark = pytest.mark.root


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, wire: Wire) -> Iterator[None]:
    """Seconds instead of minutes: what is tested is the mechanism."""
    for name, value in {"IDLE_SECONDS": 1, "INTERVAL_SECONDS": 1, "PROBES": 2, "MAX_RTO_SECONDS": 1}.items():
        monkeypatch.setattr(tcp_liveness, name, value)
    wire.a.setting("net/ipv4/tcp_retries2", "3")
    yield
    wire.a.setting("net/ipv4/tcp_retries2", "15")


@contextlib.contextmanager
def vanished(wire: Wire) -> Iterator[None]:
    """Nothing that host b says reaches anybody."""
    with NetNS(wire.b.name) as there:
        there.route("add", dst=f"{wire.a.ipv4}/32", type="blackhole")
        try:
            yield
        finally:
            there.route("del", dst=f"{wire.a.ipv4}/32", type="blackhole")


def has_options() -> bool:
    """Whether this kernel knows TCP_RTO_MAX_MS (Linux 6.15)."""
    with socket.socket() as probe:
        try:
            probe.setsockopt(socket.IPPROTO_TCP, tcp_liveness._TCP_RTO_MAX_MS, 10_000)
        except OSError:
            return False
    return True


def failure_of(connection: socket.socket) -> int | None:
    """The errno with which a read ends."""
    connection.settimeout(25)
    try:
        connection.recv(1)
    except OSError as failure:
        return failure.errno
    return 0


def test_both_ends_are_watched_by_the_values_of_one_place(wire: Wire) -> None:
    with pair(wire) as (a, b):
        for end in (a, b):
            with end.stream().detach() as connection:  # what is not handed on is not kept either
                assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
                assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
                assert not connection.getblocking()
                for option, value in (
                    (socket.TCP_KEEPIDLE, tcp_liveness.IDLE_SECONDS),
                    (socket.TCP_KEEPINTVL, tcp_liveness.INTERVAL_SECONDS),
                    (socket.TCP_KEEPCNT, tcp_liveness.PROBES),
                ):
                    assert connection.getsockopt(socket.IPPROTO_TCP, option) == value


def test_nobody_probes_before_a_negotiation_has_ended_one_way_or_the_other() -> None:
    """A probe that met a host which has not installed yet would be answered with a reset."""
    assert tcp_liveness.IDLE_SECONDS * 1000 > Limit.MAX_LIFETIME_MS


@pytest.mark.usefixtures("quick")
def test_an_idle_end_whose_peer_vanished_fails(wire: Wire) -> None:
    with pair(wire) as (a, b):
        near, _ = sockets(a, b)
        with vanished(wire):
            assert failure_of(near) in (errno.ETIMEDOUT, errno.EHOSTUNREACH)


@pytest.mark.usefixtures("quick")
def test_an_idle_end_whose_peer_answers_lives(wire: Wire) -> None:
    with pair(wire) as (a, b):
        near, far = sockets(a, b)
        tap = Tap(wire.b)
        deadline = time.monotonic() + 20
        while len(tap.segments()) < 8 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert tap.flags() == {"A"}, "probes and answers, at least four of each"
        tap.close()
        far.send(b"x")
        near.settimeout(5)
        assert near.recv(1) == b"x"


@pytest.mark.usefixtures("quick")
@pytest.mark.skipif(not has_options(), reason="TCP_RTO_MAX_MS: needs Linux 6.15")
def test_an_end_with_data_in_flight_whose_peer_vanished_fails(wire: Wire) -> None:
    with pair(wire) as (a, b):
        near, _ = sockets(a, b)
        with vanished(wire):
            near.send(b"into the void")
            assert failure_of(near) in (errno.ETIMEDOUT, errno.EHOSTUNREACH)


@pytest.mark.usefixtures("quick")
def test_a_peer_that_lives_and_does_not_read_is_waited_for(wire: Wire) -> None:
    with pair(wire) as (a, b):
        near, far = sockets(a, b)
        near.setblocking(False)
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                sent += near.send(bytes(65536))
        tap = Tap(wire.b)
        deadline = time.monotonic() + 20
        # As many probes of the closed window as would end a connection that nobody answers.
        while sum(segment.underlayer.src == wire.a.ipv4 for segment in tap.segments()) < 5:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        tap.close()
        assert near.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        far.settimeout(5)
        while sent:
            sent -= len(far.recv(min(sent, 65536)))
