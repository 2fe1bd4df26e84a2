# SPDX-License-Identifier: Apache-2.0
"""Two streams joined: what comes out of one goes into the other, until both have finished."""

from __future__ import annotations

import asyncio

from accord.protocols.services import Carrier
from accord.wire.errors import AccordError


async def _copy(source: Carrier, sink: Carrier) -> None:
    while data := await source.read():
        await sink.write(data)
    await sink.finish()


async def bridge(one: Carrier, other: Carrier) -> AccordError | OSError | None:
    """Run until both directions are finished, then close both. An error ends both at once and is returned."""
    ways = {asyncio.create_task(_copy(one, other)), asyncio.create_task(_copy(other, one))}
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_EXCEPTION)
        for way in ways:
            if way.done() and (failure := way.exception()) is not None:
                raise failure
    except BaseException as failure:
        for way in ways:
            way.cancel()
        await asyncio.wait(ways)
        one.abort()
        other.abort()
        if isinstance(failure, AccordError | OSError):
            return failure
        raise
    try:
        await one.close()
        await other.close()
    except BaseException as failure:
        one.abort()
        other.abort()
        if isinstance(failure, AccordError | OSError):
            return failure
        raise
    return None
