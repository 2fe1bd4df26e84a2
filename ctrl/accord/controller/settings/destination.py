# SPDX-License-Identifier: Apache-2.0
"""Patterns that say which peers a part of the policy is for.

::

    10.0.0.0/8        10.1.2.3         10.0.0.0/8:443     networks and addresses, with or without a port
    fd00::/8          fd00::1          [fd00::/8]:443     IPv6 needs the brackets only where a port follows
    example.net       *.example.net    *.example.net:443  a name; all names below one, at any depth
    *                 *:443                               every peer
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_LABEL: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_FORMS: Final = "allowed: a network (10.0.0.0/8, fd00::/8), an address, a name, *.name or *, each with or without :port"


@dataclass(frozen=True, slots=True)
class Pattern:
    """One of the forms above: a network, or the labels of a name, and a port; None: any."""

    network: Network | None = None
    name: str | None = None
    below: bool = False
    """The names below ``name`` are meant, not ``name`` itself."""
    port: int | None = None

    def matches(self, host: str, port: int, address: str | None = None) -> bool:
        """Whether the peer is meant. ``host``: a name or a textual address, as the user wrote it; ``address``: what
        the name resolved to, so that networks match names too."""
        if self.port is not None and self.port != port:
            return False
        if self.network is not None:
            found = [parsed for text in (host, address) if text and (parsed := parse_address(text)) is not None]
            return any(self._within(address_) for address_ in found)
        if self.name is None:
            return True
        asked = normal_name(host)
        return asked.endswith("." + self.name) if self.below else asked == self.name

    def _within(self, address: Address) -> bool:
        return self.network is not None and address.version == self.network.version and address in self.network


def parse_pattern(text: str) -> Pattern:
    """The pattern that ``text`` writes. Raises ``ValueError``: what is wrong, and what is allowed."""
    host, port = _split_port(text)
    if host == "*":
        return Pattern(port=port)
    if "/" in host or parse_address(host) is not None:
        try:
            # Strict: host bits that are set are a slip of the pen often enough.
            return Pattern(network=ipaddress.ip_network(host), port=port)
        except ValueError as wrong:
            raise ValueError(f"{text!r} is no network: {wrong}; {_FORMS}") from wrong
    below = host.startswith("*.")
    name = normal_name(host[2:] if below else host)
    labels = name.split(".")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels) or labels[-1].isdecimal():
        raise ValueError(f"{text!r} is neither a network nor a name; {_FORMS}")
    return Pattern(name=name, below=below, port=port)


def parse_address(text: str) -> Address | None:
    """A textual address, brackets and zone left out; IPv4 inside IPv6 (RFC 4291, section 2.5.5.2) as IPv4.

    None when ``text`` is no address.
    """
    try:
        address = ipaddress.ip_address(text.removeprefix("[").removesuffix("]").partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def without_zone(host: str) -> str:
    """An address as a certificate or a peer may know it: a zone means nothing but to this host (RFC 4007)."""
    return host.partition("%")[0]


def normal_name(name: str) -> str:
    """Lower case, without the root's dot, other scripts as they are in the DNS (RFC 3490)."""
    name = name.lower().removesuffix(".")
    if not name.isascii():
        try:
            return name.encode("idna").decode()
        except UnicodeError:
            return name
    return name


def _split_port(text: str) -> tuple[str, int | None]:
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        # Both [fd00::/8]:443 and [fd00::]/8:443 are written.
        slash, _, digits = rest.partition(":") if ":" in rest else (rest, "", "")
        if not bracket or (slash and not slash.startswith("/")) or ("/" in host and slash):
            raise ValueError(f"{text!r} has brackets that do not fit; {_FORMS}")
        host += slash
        has_port = ":" in rest
    elif text.count(":") == 1:
        host, _, digits = text.partition(":")
        has_port = True
    else:
        return text, None
    if not has_port:
        return host, None
    if not digits.isascii() or not digits.isdecimal() or len(digits) > 5 or not 0 < int(digits) < 65536:
        raise ValueError(f"{text!r} has no port from 1 to 65535 after the colon; {_FORMS}")
    return host, int(digits)
