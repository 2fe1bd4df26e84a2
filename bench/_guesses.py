# SPDX-License-Identifier: Apache-2.0
"""SYNs with transaction IDs that are guessed, from this host's own address: as many, and as fast, as asked.

_guesses.py SOURCE DESTINATION PORT COUNT RATE SEED     IPv4; prints a JSON line of progress now and then, the last with
                                                        "over": true. By turns of ExID FALLBACK and ADOPT.
"""

from __future__ import annotations

import json
import random
import socket
import struct
import sys
import time

from accord.wire.constants import TcpOption

_TURN = 64
"""Packets between two looks at the clock."""
_REPORT_SECONDS = 0.25
# RFC 9293: data offset of 9 words; SYN; window; no urgent data.
_OFFSET_FLAGS, _WINDOW = 9 << 12 | 0x002, 64240
_CHECKSUM = 0x1234
"""The same for all: the last two bytes of each ID make it right. So 80 of the 96 bits are guessed."""


def _fold(total: int) -> int:
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


class Guesser:
    """Makes TCP segments."""

    def __init__(self, source: str, destination: str, port: int, seed: int) -> None:
        self._chance = random.Random(seed)
        self._port = port
        addresses = socket.inet_aton(source) + socket.inet_aton(destination)
        pseudo = addresses + struct.pack("!HH", socket.IPPROTO_TCP, 36)
        self._fixed = sum(struct.unpack("!6H", pseudo)) + port + _OFFSET_FLAGS + _WINDOW + _CHECKSUM

    def segment(self, kind: int) -> bytes:
        """A SYN with the option of this ExID, checksum and all."""
        # Below ip_local_port_range: what a SYN does to a live connection of the same ports is another question.
        source_port = self._chance.randint(1024, 32767)
        words = struct.unpack("!7H", self._chance.randbytes(14))  # sequence number, and five words of the ID
        option = (254 << 8 | 16) + kind
        last = 0xFFFF - _fold(self._fixed + source_port + sum(words) + option)
        return struct.pack(
            "!HHHHIHHHHBBH6H",
            source_port,
            self._port,
            words[0],
            words[1],
            0,
            _OFFSET_FLAGS,
            _WINDOW,
            _CHECKSUM,
            0,
            254,
            16,
            kind,
            *words[2:],
            last,
        )


def main(source: str, destination: str, port: int, count: int, rate: float, seed: int) -> None:
    """Send."""
    guesser = Guesser(source, destination, port, seed)
    kinds = (int(TcpOption.EXID), int(TcpOption.EXID_ADOPT))
    sent, told = 0, 0.0
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as raw:
        raw.bind((source, 0))
        raw.connect((destination, 0))
        start = time.monotonic()
        while sent < count:
            for number in range(min(_TURN, count - sent)):
                raw.send(guesser.segment(kinds[number & 1]))
            sent += min(_TURN, count - sent)
            now = time.monotonic()
            if now > told + _REPORT_SECONDS:
                told = now
                print(json.dumps({"over": False, "sent": sent}), flush=True)
            time.sleep(max(0.0, start + sent / rate - now))
        seconds = time.monotonic() - start
    print(json.dumps({"over": True, "sent": sent, "rate": round(sent / seconds)}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]), int(sys.argv[6]))
