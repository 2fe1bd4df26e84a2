# SPDX-License-Identifier: Apache-2.0
"""Other people's bulk TCP through an interface on which a port of ours is open, by the port's rung."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator

from accord.datapath.port import Port, Rung
from tests.datapath.netns import Host

_CHUNK = 1 << 20
_WARM_UP = 0.05  # seconds: past slow start, which on a link without delay is over at once
_PORT = 5001
MODES: dict[str, Rung | None] = {
    "none": None,
    "native": Rung.XDP_NATIVE,
    "generic": Rung.XDP_GENERIC,
    "packet": Rung.PACKET,
}


@contextlib.contextmanager
def _port(host: Host, rung: Rung | None) -> Iterator[None]:
    """A port that has a steered UDP port, a heartbeat, and nothing to do."""
    if rung is None:
        yield
        return
    port = host.run(lambda: Port.open(host.interface, rung, rung))
    with port, host.udp(4, 443) as sock:
        port.add_socket(sock)
        host.run(port.heartbeat)
        yield


def _prefer(cpu: int) -> None:
    """This thread gets that processor before all others; it sleeps whenever it waits for the other end."""
    os.sched_setaffinity(0, {cpu})
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))


def _connect(near: Host, far: Host) -> tuple[socket.socket, socket.socket]:
    def listen() -> socket.socket:
        return socket.create_server((far.address4, _PORT))

    with far.run(listen) as listener:
        sender = near.run(lambda: socket.create_connection((far.address4, _PORT), timeout=5))
        receiver, _ = listener.accept()
    sender.settimeout(None)
    return sender, receiver


def _gigabits(near: Host, far: Host, seconds: float) -> float:
    sender, receiver = _connect(near, far)
    stop = threading.Event()
    rates: list[float] = []

    def send() -> None:
        _prefer(1)
        data = bytes(_CHUNK)
        with contextlib.suppress(OSError):
            while not stop.is_set():
                sender.sendall(data)
        sender.close()

    def receive() -> None:
        _prefer(0)
        buffer = bytearray(_CHUNK)
        end = time.monotonic() + _WARM_UP
        while time.monotonic() < end:
            receiver.recv_into(buffer)
        count, begun = 0, time.monotonic()
        while (now := time.monotonic()) < begun + seconds:
            count += receiver.recv_into(buffer)
        rates.append(count * 8 / (now - begun) / 1e9)
        stop.set()
        receiver.close()

    threads = [threading.Thread(target=body) for body in (send, receive)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return rates[0]


def measure(near: Host, far: Host, seconds: float, repeats: int) -> list[dict[str, float]]:
    """Gigabits a second by mode, one dictionary a repeat. One connection, from ``near`` to ``far``."""
    rounds = []
    for _ in range(repeats):
        taken = {}
        for mode, rung in MODES.items():
            with _port(far, rung):
                taken[mode] = _gigabits(near, far, seconds)
        rounds.append(taken)
    return rounds
