# SPDX-License-Identifier: Apache-2.0
"""UDP echo, both ends, to measure a round trip. Run by path, without the package: it starts in a blink.

echo.py serve ADDRESS               prints the port, answers until its standard input ends
echo.py ask ADDRESS PORT COUNT WAIT  prints a JSON list: seconds of each round trip that came back within WAIT
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import socket
import sys
import time

_PAYLOAD = 64
_PATIENCE = 20  # unanswered in a row: then the link counts as broken


def _socket(address: str) -> socket.socket:
    return socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)


def serve(address: str) -> None:
    """Answer each datagram with itself."""
    with _socket(address) as server:
        server.bind((address, 0))
        print(server.getsockname()[1], flush=True)
        poll = select.poll()
        poll.register(server, select.POLLIN)
        poll.register(sys.stdin, select.POLLIN | select.POLLHUP)
        while all(ready == server.fileno() for ready, _ in poll.poll()):
            datagram, peer = server.recvfrom(2048)
            server.sendto(datagram, peer)


def _sample(client: socket.socket, wait: float) -> float | None:
    nonce = secrets.token_bytes(_PAYLOAD)
    sent = time.monotonic()
    client.send(nonce)
    while (left := sent + wait - time.monotonic()) > 0:
        client.settimeout(left)
        try:
            answer = client.recv(2048)
        except TimeoutError:
            return None
        if answer == nonce:  # else a duplicate, or one that was given up
            return time.monotonic() - sent
    return None


def ask(address: str, port: int, count: int, wait: float) -> list[float]:
    """Up to ``count`` round trips, one after the other. The first is left out: it warms caches up."""
    found: list[float] = []
    unanswered = 0
    with _socket(address) as client:
        client.connect((address, port))
        while len(found) <= count and unanswered < _PATIENCE:
            sample = _sample(client, wait)
            if sample is None:
                unanswered += 1
            else:
                found.append(sample)
                unanswered = 0
    return found[1:]


def _be_prompt() -> None:
    """What is measured is the link, not who else wants the processor."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, -20)


if __name__ == "__main__":
    _be_prompt()
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        print(json.dumps(ask(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))))
