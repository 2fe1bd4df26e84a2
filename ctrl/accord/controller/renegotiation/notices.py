# SPDX-License-Identifier: Apache-2.0
"""Sending a ``negotiation.notice``: a small negotiation of its own, on a path that is known already."""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from accord.controller.exchange import Exchange
from accord.controller.ladder import Ladder
from accord.controller.udp_sockets import UdpSocket
from accord.datapath import clock
from accord.datapath.path import Path
from accord.negotiation.interface import Role
from accord.negotiation.notice import Notice
from accord.wire.constants import Protocol, Reason
from accord.wire.errors import AccordError

if TYPE_CHECKING:
    from accord.controller.controller import Controller

_TRANSACTION_BYTES: Final = 12


async def notify(
    controller: Controller, path: Path, claim: Callable[[bytes], bytes], service_port: int | None = None
) -> Reason:
    """Send it and return the peer's answer. ``claim`` makes RENEGOTIATES for a transaction ID.

    Without a socket of ours on the path's local port it leaves by a new one. Raises ``AccordError`` where there is no
    answer.
    """
    endpoint = controller.endpoint
    with contextlib.ExitStack() as used:
        bound: UdpSocket | None = None
        if path.context == Protocol.UDP:
            bound = endpoint.sockets.of(path)
            if bound is None:
                scope = f"%{path.scope}" if path.scope else ""
                bound = endpoint.sockets.bind(path.local + scope, 0)
                used.callback(endpoint.sockets.unbind, bound)
            path = dataclasses.replace(path, local_port=bound.port, socket=bound.index)
        transaction = secrets.token_bytes(_TRANSACTION_BYTES)
        machine = Notice(transaction, claim(transaction), context_protocol=path.context, service_port=service_port)
        handle = endpoint.engine.open(clock.now_us(), transaction, path)
        exchange = Exchange(endpoint, handle, Ladder(clock.now), Role.INITIATOR, lambda: None)
        endpoint.adopt(handle, exchange)
        try:
            exchange.run(machine, machine.start())
            endpoint.pump()
            await exchange.committed
        except AccordError as answer:
            if exchange.heard:
                return answer.reason
            raise
        finally:
            exchange.close()
    raise AssertionError("a notice is never committed to")
