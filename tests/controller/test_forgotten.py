# SPDX-License-Identifier: Apache-2.0
"""What a responder keeps of a negotiation that is over: nothing, and without the help of Python's collector."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest

from accord.controller.exchange import Exchange
from accord.controller.renegotiation.lasting import LastingCarrier
from accord.controller.renegotiation.responder_end import ResponderEnd
from accord.controller.responding import Answering
from accord.negotiation.interface import Role
from accord.negotiation.responder import Responder
from accord.wire.constants import Reason
from accord.wire.errors import AccordError
from tests.controller.pairs import QUIC, Pair, pair, run

KEPT = (Answering, Responder, ResponderEnd)


def kept() -> Counter[str]:
    """By class, those of the responder's, whether or not anything leads to them."""
    found = Counter(type(each).__name__ for each in gc.get_objects() if isinstance(each, KEPT))
    for each in gc.get_objects():
        found["exchanges"] += isinstance(each, Exchange) and each._role is Role.RESPONDER
        found["streams"] += isinstance(each, LastingCarrier) and each.role is Role.RESPONDER
    return +found


def for_the_collector() -> Counter[str]:
    """What of ours, and of QUIC's, nothing leads to but itself, by class."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        return Counter(
            type(each).__qualname__
            for each in gc.garbage
            if type(each).__module__.split(".")[0] in ("accord", "aioquic", "OpenSSL")
        )
    finally:
        gc.set_debug(0)
        gc.garbage.clear()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
    writer.close()


async def committed(both: Pair) -> None:
    association = await both.connect()
    await association.carrier.write(b"ping")
    assert await association.carrier.read() == b"ping"
    await association.carrier.finish()
    assert await association.carrier.read() == b"", "an orderly end: a failure keeps the frames that it came through"
    await association.carrier.close()


async def refused(both: Pair) -> None:
    """By the initiator, of whose peer the certificate is another's."""
    wanted = dataclasses.replace(both.security, server_name="other.accord.test")
    with pytest.raises(AccordError) as caught:
        await both.client.connect("127.0.0.1", both.relay.port, overrides=QUIC, security=wanted)
    assert caught.value.reason is Reason.CERTIFICATE_NAME


@pytest.mark.parametrize("what", [committed, refused])
def test_a_negotiation_that_is_over_leaves_nothing_for_the_collector_to_find(
    tmp_path: Path, what: Callable[[Pair], Coroutine[None, None, None]]
) -> None:
    async def main() -> None:
        service = await asyncio.start_server(echo, "127.0.0.1", 0)
        async with service, pair(tmp_path, service.sockets[0].getsockname()) as both:
            gc.collect()
            gc.disable()
            try:
                for _ in range(3):
                    await what(both)
                assert kept(), "this can be seen as long as it lasts"
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(10):
                        while kept():
                            await asyncio.sleep(0.1)
                assert kept() == {}
                if what is committed:  # an exception leads to the frames that it came through, and they to it
                    assert for_the_collector() == {}
            finally:
                gc.enable()

    run(main())
