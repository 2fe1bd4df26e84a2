# SPDX-License-Identifier: Apache-2.0
"""What both roles need around a stack: the services of its sessions, and its byte stream once it is committed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

from accord.datapath import clock
from accord.datapath.tcp_repair import TcpRepair
from accord.negotiation.interface import Role, Session
from accord.protocols.services import (
    Adoptions,
    ApplicationService,
    Carrier,
    CarrierSession,
    DatagramService,
    Security,
    Services,
    SynConnection,
)

if TYPE_CHECKING:
    from accord.controller.controller import Controller


def services_for(
    controller: Controller,
    role: Role,
    local: tuple[str, int],
    remote: tuple[str, int],
    security: Security,
    datagrams: DatagramService | None,
    application: ApplicationService,
    now: Callable[[], float] = clock.now,
    *,
    syn: SynConnection | None = None,
    adoptions: Adoptions | None = None,
) -> Services:
    """The host as the sessions of one negotiation may see it. Addresses are textual, with a zone where needed."""
    return Services(
        role=role,
        local=local,
        remote=remote,
        now=now,
        random=os.urandom,
        call_later=call_later,
        security=security,
        tcp=TcpRepair(local[0], remote[0]) if controller.tcp_refusal is None else None,
        syn=syn,
        adoptions=adoptions,
        datagrams=datagrams,
        application=application,
    )


def call_later(delay: float, function: Callable[[], None]) -> Callable[[], None]:
    """A timer of the event loop; returns what cancels it."""
    return asyncio.get_running_loop().call_later(max(0.0, delay), function).cancel


def build_carrier(sessions: Sequence[Session], lowest: Callable[[Carrier], None] | None = None) -> Carrier:
    """The stream of a committed stack: each session's on top of that below it. ``lowest`` is shown the first one's."""
    carrier: Carrier | None = None
    for session in sessions:
        carrier = cast(CarrierSession, session).carrier(carrier)
        if lowest is not None:
            lowest(carrier)
            lowest = None
    assert carrier is not None, "a stack has at least one session"
    return carrier
