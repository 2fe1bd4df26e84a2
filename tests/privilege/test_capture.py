# SPDX-License-Identifier: Apache-2.0
"""What the broker sends for the worker: SYNs outward and SYN-ACKs inward, whole and without data, and nothing else."""

from __future__ import annotations

import contextlib
import os
import socket
import struct

import pytest
from scapy.compat import raw
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from accord.datapath._core import lib
from accord.datapath.probe_scratch import in_scratch_namespace
from tests.datapath.test_captures import veth
from tests.privilege.test_broker import Talk, head

pytestmark = pytest.mark.root

ETHERNET = Ether(dst="02:00:00:00:00:02", src="02:00:00:00:00:01")
FOUR, SIX = IP(src="10.0.0.1", dst="10.0.0.2"), IPv6(src="2001:db8::1", dst="2001:db8::2")
OPTIONS = [("MSS", 1460), ("SAckOK", b""), ("NOP", None), ("NOP", None)]
OUTWARD, INWARD = 0, 1


def packed(frame: bytes, length: int | None = None) -> bytes:
    return struct.pack("=I136s", len(frame) if length is None else length, frame)


def opening(flags: str, ip: IP | IPv6 = FOUR, data: bytes = b"") -> bytes:
    return raw(ETHERNET / ip / TCP(sport=40000, dport=80, flags=flags, options=OPTIONS) / data)


def test_nothing_but_syns_leaves_and_nothing_but_syn_acks_comes_in() -> None:
    def run() -> None:
        with veth(), Talk("cap0") as talk, socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as wire:
            wire.bind(("cap1", 3))
            wire.setblocking(False)
            send = lib.ACCORD_ASK_CAPTURE_SEND
            good = opening("S")
            assert talk.ask(head(send, mode=OUTWARD) + packed(good))[0] < 0, "no program is attached"
            for kind in (lib.ACCORD_ASK_CAPTURE, lib.ACCORD_ASK_CAPTURE_RING):
                result, _, fds = talk.ask(head(kind))
                assert result == 0
                assert len(fds) == 1
                os.close(fds[0])
            before = talk.refusals()
            wrong = [
                *((OUTWARD, packed(opening(flags))) for flags in ("SA", "A", "R", "F", "SF", "SR", "")),
                *((INWARD, packed(opening(flags))) for flags in ("S", "A", "RA", "SAF")),
                *((mode, packed(opening(flags, data=b"x"))) for mode, flags in ((OUTWARD, "S"), (INWARD, "SA"))),
                *((OUTWARD, packed(good, length)) for length in range(len(good))),
                *((OUTWARD, packed(good, length)) for length in (len(good) + 1, 136, 137, 2**31, 2**32 - 1)),
                *((OUTWARD, packed(opening("S", SIX), length)) for length in range(len(opening("S", SIX)))),
                (2, packed(good)),
                (OUTWARD, packed(raw(ETHERNET / FOUR / UDP() / (b"\x02" * 30)))),
                (OUTWARD, packed(good[:12] + b"\x86\xdd" + good[14:])),
                (OUTWARD, packed(good[:12] + b"\x08\x06" + good[14:])),
                (OUTWARD, packed(good[:14] + b"\x4f" + good[15:])),
            ]
            for mode, frame in wrong:
                assert talk.ask(head(send, mode=mode) + frame)[0] < 0
            assert talk.refusals() == before + len(wrong)
            for each in (good, opening("S", SIX), opening("SEC")):
                assert talk.ask(head(send, mode=OUTWARD) + packed(each))[0] == 0
            assert talk.ask(head(send, mode=INWARD) + packed(opening("SA")))[0] == 0
            seen = []
            with contextlib.suppress(BlockingIOError):
                while True:
                    frame = wire.recv(2048)
                    if frame[6:12] == good[6:12]:  # the kernel has some to say as well
                        seen.append(frame)
            assert seen == [good, opening("S", SIX), opening("SEC")]

    in_scratch_namespace(run)
