# SPDX-License-Identifier: Apache-2.0
"""Where packets come from and go to."""

from __future__ import annotations

import functools
import ipaddress
from dataclasses import dataclass, field
from typing import Any

from accord.datapath._core import ffi, lib
from accord.wire.constants import Protocol

NO_SOCKET: int = lib.ACCORD_PATH_NO_SOCKET


@dataclass(frozen=True, slots=True)
class Path:
    """``struct accord_path`` without its link header, which the data path learns and keeps for itself.

    ``family`` is 4 or 6, ``context`` a protocol ID (UDP, or DIRECT for IP protocol 253). Addresses are text,
    without a zone: ``scope`` is the interface index of a link-local remote address, else 0. An empty ``local``
    leaves the choice to the kernel. ``socket`` is the index that ``Port.add_socket`` gave, or ``NO_SOCKET``.
    ``mtu``: of the link or route, bytes with the IP header; 0: not known, so datagrams stay short.
    """

    family: int
    context: int
    local: str
    local_port: int
    remote: str
    remote_port: int
    socket: int = NO_SOCKET
    scope: int = 0
    mtu: int = field(default=0, compare=False)

    @classmethod
    def udp(cls, local: tuple[str, int], remote: tuple[str, int], *, socket: int = NO_SOCKET, scope: int = 0) -> Path:
        """A path in the UDP context between two (address, port) pairs; the family is the remote address's."""
        family = ipaddress.ip_address(remote[0]).version
        return cls(family, Protocol.UDP, local[0], local[1], remote[0], remote[1], socket, scope)

    def to_c(self) -> Any:
        """A new ``struct accord_path *``. Raises ``ValueError`` for an address that is none, or of another family."""
        path = ffi.new("struct accord_path *")
        path.family = self.family
        path.context = self.context
        path.local_port = self.local_port
        path.remote_port = self.remote_port
        path.socket = self.socket
        path.scope = self.scope
        path.mtu = self.mtu
        if self.local:
            ffi.memmove(path.local, *self._packed(self.local))
        ffi.memmove(path.remote, *self._packed(self.remote))
        return path

    def _packed(self, text: str) -> tuple[bytes, int]:
        found = packed(text)
        if len(found) != (4 if self.family == 4 else 16):
            raise ValueError(f"{text} is no IPv{self.family} address")
        return found, len(found)

    @classmethod
    def from_c(cls, path: Any) -> Path:
        """From a ``struct accord_path`` (or a pointer to one); everything is copied."""
        size = 4 if path.family == 4 else 16
        return cls(
            family=path.family,
            context=path.context,
            local=_text(bytes(ffi.buffer(path.local, size))),
            local_port=path.local_port,
            remote=_text(bytes(ffi.buffer(path.remote, size))),
            remote_port=path.remote_port,
            socket=path.socket,
            scope=path.scope,
            mtu=path.mtu,
        )


@functools.lru_cache(maxsize=4096)
def _text(packed: bytes) -> str:
    return str(ipaddress.ip_address(packed))


@functools.lru_cache(maxsize=4096)
def packed(text: str) -> bytes:
    """The 4 or 16 bytes of an address without a zone. Raises ``ValueError`` when it is none."""
    return ipaddress.ip_address(text).packed
