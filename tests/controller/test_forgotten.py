# SPDX-License-Identifier: Apache-2.0
"""What a responder keeps of a negotiation that is over: nothing, and without the help of Python's collector."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
from collections import Counter
from pathlib import Path

import pytest

from accord.controller.exchange import Exchange
from accord.controller.responding import Answering
from accord.negotiation.interface import Role
from accord.negotiation.responder import Responder
from accord.wire.constants import Reason
from accord.wire.errors import AccordError
from tests.controller.pairs import QUIC, Pair, pair, run

KEPT = (Answering, Responder)


def kept() -> Counter[str]:
    """By class, those of the responder's, whether or not anything leads to them."""
    found = Counter(type(each).__name__ for each in gc.get_objects() if isinstance(each, KEPT))
    for each in gc.get_objects():
        found["exchanges"] += isinstance(each, Exchange) and each._role is Role.RESPONDER
    return +found


async def refused(both: Pair) -> None:
    """By the initiator, of whose peer the certificate is another's."""
    wanted = dataclasses.replace(both.security, server_name="other.accord.test")
    with pytest.raises(AccordError) as caught:
        await both.client.connect("127.0.0.1", both.relay.port, overrides=QUIC, security=wanted)
    assert caught.value.reason is Reason.CERTIFICATE_NAME


def test_a_negotiation_that_came_to_nothing_leaves_nothing_for_the_collector_to_find(tmp_path: Path) -> None:
    async def main() -> None:
        async with pair(tmp_path, ("127.0.0.1", 9)) as both:  # nobody is asked for the service
            gc.collect()
            gc.disable()
            try:
                for _ in range(3):
                    await refused(both)
                assert kept(), "this can be seen as long as it lasts"
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(10):
                        while kept():
                            await asyncio.sleep(0.1)
                assert kept() == {}
            finally:
                gc.enable()

    run(main())
