# SPDX-License-Identifier: Apache-2.0
"""An address translator before one host: mappings of its ports, and who may use them (RFC 4787, RFC 5382).

One mapping for each port inside, whoever it talks to; what comes back passes from addresses that it has talked to.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

Address = tuple[str, int]

_FIRST_PORT: Final = 61000


@dataclass(slots=True)
class Translator:
    """``protocol``: of IP, or any number that tells them apart. One without ports has port 0 everywhere."""

    inside: str
    outside: str
    _out: dict[tuple[int, int], int] = field(default_factory=dict)
    _back: dict[tuple[int, int], int] = field(default_factory=dict)
    _heard: set[tuple[int, int, str]] = field(default_factory=set)

    def out(self, protocol: int, port: int, target: str) -> Address:
        """How the host's packets look outside."""
        mapped = self._out.get((protocol, port))
        if mapped is None:
            mapped = _FIRST_PORT + len(self._out) if port else 0
            self._out[protocol, port] = mapped
            self._back[protocol, mapped] = port
        self._heard.add((protocol, mapped, target))
        return self.outside, mapped

    def back(self, protocol: int, mapped: int, source: str) -> Address | None:
        """For whom a packet from outside is; None: nobody."""
        if (protocol, mapped, source) not in self._heard:
            return None
        return self.inside, self._back[protocol, mapped]
