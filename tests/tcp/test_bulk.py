# SPDX-License-Identifier: Apache-2.0
"""A lot of data over an installed connection, beside the same over a plain one."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
import time

import pytest

from accord.datapath.tcp_repair import TcpRepair
from tests.tcp.conftest import Wire, reset_on_close

pytestmark = pytest.mark.root

_BLOCK = os.urandom(1 << 20)
_BLOCKS = 200


def transfer(sender: socket.socket, receiver: socket.socket) -> float:
    """Send 200 MB, check them by their hash, return the seconds that it took."""
    for connection in (sender, receiver):
        connection.settimeout(30)

    def send() -> None:
        for _ in range(_BLOCKS):
            sender.sendall(_BLOCK)
        sender.shutdown(socket.SHUT_WR)

    expected = hashlib.sha256()
    for _ in range(_BLOCKS):
        expected.update(_BLOCK)
    got = hashlib.sha256()
    buffer = bytearray(1 << 20)
    started = time.perf_counter()
    sending = threading.Thread(target=send)
    sending.start()
    while count := receiver.recv_into(buffer):
        got.update(memoryview(buffer)[:count])
    sending.join()
    seconds = time.perf_counter() - started
    assert got.digest() == expected.digest()
    return seconds


@pytest.mark.parametrize("family", [4, 6])
def test_two_hundred_megabytes_arrive_whole(wire: Wire, family: int, capsys: pytest.CaptureFixture[str]) -> None:
    here, there = wire.a.address(family), wire.b.address(family)
    with wire.a.inside():
        a = TcpRepair(here, there).reserve()
    with wire.b.inside():
        b = TcpRepair(there, here).reserve(443)
        listener = socket.create_server(("", 8000), family=socket.AF_INET if family == 4 else socket.AF_INET6)
    b.install(a.parameters)
    a.install(b.parameters)
    one, other = a.stream().detach(), b.stream().detach()
    installed = transfer(one, other)
    with wire.a.inside():
        plain = socket.create_connection((there, 8000), timeout=5)
    accepted, _ = listener.accept()
    ordinary = transfer(plain, accepted)
    for connection in (one, other, plain, accepted, listener):
        reset_on_close(connection)
    size = _BLOCKS * len(_BLOCK) * 8 / 1e9
    with capsys.disabled():
        print(
            f"\n  IPv{family}: installed {size / installed:.1f} Gbit/s, plain {size / ordinary:.1f} Gbit/s,"
            f" ratio {ordinary / installed:.2f} (one run each, hashing included)"
        )
