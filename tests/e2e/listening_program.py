# SPDX-License-Identifier: Apache-2.0
"""A program that listens on a TCP port and knows nothing of Accord: what it says, an ordinary program sees.

    python listening_program.py ADDRESS PORT [GREETING]

Of each connection it reads lines and does as they say, until the peer ends: ``tell`` answers with one line of JSON, the
peer's address and what the kernel says of the connection; ``digest N`` reads N bytes and answers with their SHA-256;
``produce N`` answers with N bytes, the same each time. With a greeting it speaks first.
"""

from __future__ import annotations

import hashlib
import json
import random
import socket
import struct
import sys
import threading

TCP_INFO = struct.Struct("=8B24I4Q4I")
"""``struct tcp_info`` of <linux/tcp.h>, as far as tcpi_min_rtt."""


def produced(count: int) -> bytes:
    """What ``produce`` answers with."""
    return random.Random(count).randbytes(count)


def told(connection: socket.socket) -> dict[str, object]:
    """What ``tell`` answers with."""
    info = TCP_INFO.unpack(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO.size))
    return {
        "peer": connection.getpeername()[:2],
        "own": connection.getsockname()[:2],
        "options": info[5],
        "peers_scale": info[6] & 0x0F,
        "own_scale": info[6] >> 4,
        "send_mss": info[10],
        "round_trip_us": info[23],
        "least_round_trip_us": info[39],
    }


def serve(connection: socket.socket) -> None:
    """One connection, to its end."""
    with connection, connection.makefile("rb") as stream:
        connection.sendall("".join(f"{word}\n" for word in sys.argv[3:]).encode())
        for line in stream:
            word, _, number = line.decode().strip().partition(" ")
            if word == "tell":
                connection.sendall(json.dumps(told(connection)).encode() + b"\n")
            elif word == "digest":
                connection.sendall(hashlib.sha256(stream.read(int(number))).hexdigest().encode() + b"\n")
            elif word == "produce":
                connection.sendall(produced(int(number)))


def main() -> None:
    """Until it is ended."""
    address, port = sys.argv[1], int(sys.argv[2])
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, port), family=family, backlog=128, dualstack_ipv6=address == "::") as listener:
        print("ready", flush=True)
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=serve, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    main()
