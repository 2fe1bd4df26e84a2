# SPDX-License-Identifier: Apache-2.0
"""``accord.connect``: ask the host's daemon for a stack to a peer."""

from __future__ import annotations

import base64
import os
import re
import socket
from collections.abc import Mapping
from typing import Any, Final

from accord.api.association import Association
from accord.api.opening import Opening
from accord.controller.control import ask, control_path
from accord.controller.held import opened
from accord.controller.known import check_wishes
from accord.controller.names import host_name
from accord.wire.constants import Reason
from accord.wire.errors import error


def parse_remote(remote: str) -> tuple[str, int]:
    """``host:port`` or ``[v6]:port``. Raises ``UserError`` when it is neither."""
    match = _REMOTE.fullmatch(remote)
    if match is None or not 0 < int(match[3]) < 65536:
        raise error(Reason.BAD_CONFIG, f"{remote!r} is not HOST:PORT", "write example.net:443 or [fd00::1]:443")
    return host_name(match[1] or match[2]), int(match[3])


_REMOTE = re.compile(r"(?:\[([^][]+)\]|([^][]+)):([0-9]{1,5})", re.ASCII)


EARLY_MOST: Final = 65536
"""Bytes. No service takes more early (``early_limit``), and it has to fit into a message to the daemon."""


class connect(Opening[Association]):
    """``async with accord.connect("host:443", policy={"secure": "required"}) as conn:`` or ``await`` it.

    ``policy`` overrides keys of the daemon's policy for this one destination (docs/POLICY.md), within what
    that policy allows; ``early`` is a request that may be repeated without harm and may travel in the first
    message (policy ``early = "idempotent"``). Whether it did or not, its answer is what is read first.
    ``server_name`` is the name that the peer's certificate must be for, when it is not ``host``; ``ca_file``
    holds the roots to trust instead of the system's, and is read by this process.
    ``family`` is 4 or 6; None: whichever works. ``ladder``: tell in ``report["ladder"]`` what happened when.
    ``messages``: the peer is to speak framing, so that messages keep their boundaries (``Association.send`` and
    ``receive``); there is no plain connection then, nor early data.

    Making one raises ``UserError`` (``BAD_CONFIG``) for a remote or a policy that cannot be read. Opening raises
    ``AccordError``; its class says whose fault it was: ``UserError`` ``NO_DAEMON`` without a daemon, ``PeerError``,
    ``PathError``, ``HostError``.
    """

    def __init__(
        self,
        remote: str,
        policy: Mapping[str, Any] | None = None,
        *,
        early: bytes = b"",
        server_name: str | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        verify: bool = True,
        family: int | None = None,
        ladder: bool = False,
        messages: bool = False,
        control: str | os.PathLike[str] | None = None,
    ) -> None:
        host, port = parse_remote(remote)
        # What cannot be read is told before the daemon is asked; what its policy forbids only it knows.
        check_wishes(policy or {})
        if messages and early:
            raise error(Reason.BAD_CONFIG, "early data and messages", "send the first message over the association")
        if len(early) > EARLY_MOST:
            raise error(
                Reason.BAD_CONFIG,
                f"an early request of more than {EARLY_MOST} bytes",
                "send what is longer over the association",
            )
        self._messages = messages
        self._request = {
            "op": "connect",
            "host": host,
            "port": port,
            "policy": dict(policy or {}),
            "early": base64.b64encode(early).decode(),
            "server_name": host_name(server_name) if server_name else None,
            "ca_file": None if ca_file is None else os.path.abspath(ca_file),
            "verify": verify,
            "family": family,
            "ladder": ladder,
            "messages": messages,
        }
        self._ca_file = ca_file
        self._control = control_path(control)

    async def _open(self) -> Association:
        with opened([self._ca_file]) as files:
            message, fds = await ask(self._control, self._request, files)
        return Association(socket.socket(fileno=fds[0]), message["report"], self._control, messages=self._messages)
