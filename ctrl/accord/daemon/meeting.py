# SPDX-License-Identifier: Apache-2.0
"""A program's wish to meet a peer, as it comes over the control socket."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accord.controller.association import Association
from accord.controller.controller import Controller
from accord.controller.names import host_name
from accord.protocols.services import Security
from accord.wire.constants import Reason
from accord.wire.errors import error

_SECONDS_MAX = 3600.0


async def met(controller: Controller, message: dict[str, Any], files: Sequence[Path | None]) -> Association:
    """``Controller.rendezvous``, by a message of ``accord.rendezvous``. Raises ``AccordError``."""
    sock = message.get("socket")
    if not isinstance(sock, socket.socket):
        raise error(
            Reason.BAD_CONFIG, "control message: a meeting needs a UDP socket", "pass it, bound, before the files"
        )
    try:
        ca_file, certificate, private_key = files
        peers, seconds, name = _peers(message.get("peers")), message.get("seconds", 30.0), message.get("name")
        policy, server_name = message.get("policy") or {}, message.get("server_name")
        if not isinstance(seconds, int | float) or not 0 < seconds <= _SECONDS_MAX:
            raise error(Reason.BAD_CONFIG, f"seconds = {seconds!r}", f"above 0 and at most {_SECONDS_MAX:g}")
        if not isinstance(name, str) or not isinstance(policy, dict) or not isinstance(server_name, str | None):
            raise error(Reason.BAD_CONFIG, "control message: name, policy or server_name is not of the right type")
        if certificate is None or private_key is None:
            raise error(Reason.BAD_CONFIG, "a meeting needs a certificate and its private key", "either side may lead")
        security = Security(
            server_name=None if server_name is None else host_name(server_name),
            verify=message.get("verify", True) is not False,
            ca_file=ca_file,
            certificate=certificate,
            private_key=private_key,
        )
    except BaseException:
        sock.close()
        raise
    association = await controller.rendezvous(
        sock,
        peers,
        name=name,
        security=security,
        overrides=policy,
        seconds=float(seconds),
    )
    if message.get("ladder") is not True:
        association.report.ladder = []
    return association


def _peers(found: object) -> list[tuple[str, int]]:
    try:
        pairs = [(address, port) for address, port in found]  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        pairs = []
    if not pairs or not all(isinstance(address, str) and type(port) is int for address, port in pairs):
        raise error(Reason.BAD_CONFIG, "control message: 'peers' is no list of [address, port]")
    return pairs
