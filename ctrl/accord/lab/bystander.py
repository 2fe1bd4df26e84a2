# SPDX-License-Identifier: Apache-2.0
"""Traffic of others: a UDP echo a thousand times a second, and a TCP stream beside it. Counts what they suffer.

A script of its own, that starts fast and imports nothing of Accord:

    bystander.py serve ADDRESS                      prints its UDP and its TCP port, ends with its standard input
    bystander.py ask ADDRESS UDP-PORT TCP-PORT      prints "running", ends with its standard input and prints JSON:
        sent, lost                of the echo, both ways
        tcp_stalls                retransmission time-outs of the stream; -1 when the kernel (before 6.7) does not say
        tcp_bytes                 that the kernel at the other end acknowledged
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import struct
import sys
import threading
import time

INTERVAL = 0.001
GRACE = 1.0
"""Seconds for the last echoes to come back."""
BUFFER = 8 << 20
"""Bytes: what a busy machine lets wait must not count as lost."""
PIECE = bytes(8192)
PIECE_INTERVAL = 0.002
# struct tcp_info (linux/tcp.h): tcpi_bytes_acked, tcpi_total_rto.
BYTES_ACKED, TOTAL_RTO = 120, 240
SO_RCVBUFFORCE = 33


def udp(family: socket.AddressFamily) -> socket.socket:
    """A UDP socket with room."""
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
    return sock


def serve(address: str) -> None:
    """Echo datagrams, swallow streams."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    echo, listener = udp(family), socket.create_server((address, 0), family=family)
    echo.bind((address, 0))
    print(echo.getsockname()[1], listener.getsockname()[1], flush=True)
    streams: list[socket.socket] = []
    while True:
        ready, _, _ = select.select([echo, listener, *streams], [], [], 0.5)
        if select.select([sys.stdin], [], [], 0)[0]:
            return
        for each in ready:
            if each is echo:
                data, sender = echo.recvfrom(64)
                echo.sendto(data, sender)
            elif each is listener:
                streams.append(listener.accept()[0])
            elif not each.recv(1 << 20):
                streams.remove(each)


def stream(sock: socket.socket, over: threading.Event) -> None:
    """Write steadily until told to end."""
    while not over.wait(PIECE_INTERVAL):
        sock.sendall(PIECE)


def wait_for_the_end(over: threading.Event) -> None:
    """Of the standard input."""
    sys.stdin.read()
    over.set()


def probe(sock: socket.socket, over: threading.Event) -> tuple[int, int]:
    """Numbered datagrams every millisecond, those that were due while we were not scheduled included: sent, lost."""
    back: set[int] = set()
    sent, start, end = 0, time.monotonic(), 0.0
    while True:
        now = time.monotonic()
        if over.is_set() and not end:
            end = now + GRACE
        if end and (now > end or len(back) == sent):
            return sent, sent - len(back)
        while not end and sent <= (now - start) / INTERVAL:
            with contextlib.suppress(OSError):  # the interface has no address at this moment: lost
                sock.send(struct.pack("=Q", sent))
            sent += 1
        wait = INTERVAL if end else max(0.0, start + sent * INTERVAL - time.monotonic())
        while select.select([sock], [], [], wait)[0]:
            wait = 0.0
            try:
                back.add(struct.unpack("=Q", sock.recv(64))[0])
            except OSError:
                break


def ask(address: str, udp_port: int, tcp_port: int) -> None:
    """Probe and stream until the standard input ends; print what came of it."""
    over = threading.Event()
    echo = udp(socket.AF_INET6 if ":" in address else socket.AF_INET)
    echo.connect((address, udp_port))
    bulk = socket.create_connection((address, tcp_port))
    writer = threading.Thread(target=stream, args=(bulk, over), daemon=True)
    writer.start()
    threading.Thread(target=wait_for_the_end, args=(over,), daemon=True).start()
    print("running", flush=True)
    sent, lost = probe(echo, over)
    info = bulk.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    stalls = struct.unpack_from("=H", info, TOTAL_RTO)[0] if len(info) >= TOTAL_RTO + 2 else -1
    acked = struct.unpack_from("=Q", info, BYTES_ACKED)[0]
    print(json.dumps({"sent": sent, "lost": lost, "tcp_stalls": stalls, "tcp_bytes": acked}), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        ask(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
