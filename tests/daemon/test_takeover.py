# SPDX-License-Identifier: Apache-2.0
"""What one daemon hands to the next arrives whole, however much there is of it."""

from __future__ import annotations

import os
import socket

from accord.controller.adoption.adopting import LENT
from accord.controller.control import Channel
from accord.daemon import takeover
from tests.controller.pairs import run

OWN = 7
"""Certificate and key, UDP and TCP in both families, the connection of the program that listens."""


def test_a_port_arrives_with_as_many_connections_as_may_be_lent() -> None:
    async def main() -> None:
        old, new = (Channel(end) for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        reading, writing = os.pipe()
        lent = [bytes([number]).hex() * 12 for number in range(LENT)]
        await old.send({"ok": True, "lent": lent}, [reading] * (OWN + LENT))
        message, descriptors = await takeover._receive(new)
        assert message["lent"] == lent
        assert len(descriptors) == OWN + LENT
        for descriptor in (*descriptors, reading, writing):
            os.close(descriptor)
        old.close()
        new.close()

    run(main())
