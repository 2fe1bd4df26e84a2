# SPDX-License-Identifier: Apache-2.0
"""``accord.rendezvous``: meet a peer that calls the same, on a UDP socket that the application brings.

In the words of RFC 9622, section 6.5: Rendezvous of a Preconnection, with the candidates resolved before.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from accord.api.association import Association
from accord.api.opening import Opening
from accord.controller.control import ask, control_path
from accord.controller.held import opened
from accord.controller.known import check_wishes
from accord.controller.names import host_name
from accord.wire.constants import Reason
from accord.wire.errors import error


class rendezvous(Opening[Association]):
    """``async with accord.rendezvous(sock, [("198.51.100.7", 40000)], "tea", ...) as conn:`` or ``await`` it.

    ``sock`` is the bound UDP socket by which the application has learnt where the peer may be (``peers``, addresses and
    ports), and its peer the same of this host: from a rendezvous server, or because both know each other. ``name`` is
    what both call the meeting. Both have to call within ``seconds`` of each other. From this call on the socket belongs
    to the daemon: do not read from it, and close it.

    Either side may come to lead. So both bring a ``certificate`` and ``private_key`` (PEM), and say by ``server_name``
    which name the peer's must be for: who leads verifies the other's. That the other is told nothing about who leads,
    but that it knows the meeting's name and is where it should be, the application has to mind
    (``report["role"]``: ``initiator`` led). ``policy``, ``ca_file``, ``verify`` and ``ladder`` are as for ``connect``.

    Making one raises ``UserError`` (``BAD_CONFIG``) for what cannot be read. Opening raises ``AccordError``; TIMEOUT
    when the peer was not met.
    """

    def __init__(
        self,
        sock: socket.socket,
        peers: Sequence[tuple[str, int]],
        name: str,
        *,
        certificate: str | os.PathLike[str],
        private_key: str | os.PathLike[str],
        server_name: str | None = None,
        policy: Mapping[str, Any] | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        verify: bool = True,
        seconds: float = 30.0,
        ladder: bool = False,
        control: str | os.PathLike[str] | None = None,
    ) -> None:
        check_wishes(policy or {})
        if verify and server_name is None:
            raise error(
                Reason.BAD_CONFIG, "no name that the peer's certificate is for", "give server_name, or verify=False"
            )
        self._sock = sock
        self._request = {
            "op": "rendezvous",
            "peers": [[address, port] for address, port in peers],
            "name": name,
            "policy": dict(policy or {}),
            "server_name": None if server_name is None else host_name(server_name),
            "ca_file": None if ca_file is None else os.path.abspath(ca_file),
            "certificate": os.path.abspath(certificate),
            "private_key": os.path.abspath(private_key),
            "verify": verify,
            "seconds": float(seconds),
            "ladder": ladder,
        }
        self._files = (ca_file, certificate, private_key)
        self._control = control_path(control)

    async def _open(self) -> Association:
        with opened(self._files) as files:
            message, fds = await ask(self._control, self._request, [self._sock.fileno(), *files])
        return Association(socket.socket(fileno=fds[0]), message["report"])
