# SPDX-License-Identifier: Apache-2.0
"""Hosts by name, as users write them: what goes to the resolver, into SNI and into the check of a certificate."""

from __future__ import annotations

import ipaddress
import re

from accord.wire.constants import Reason
from accord.wire.errors import error

_NAME = re.compile(
    r"(?!.{254})(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.?", re.I | re.A
)
"""RFC 1123, section 2.1, and the underscores that people do use: labels of 63 bytes at most, 253 in all."""


def host_name(text: str) -> str:
    """A name in the form that the DNS has it, ``xn--...`` for what is not ASCII (RFC 5890, as getaddrinfo(3) does it);
    an address as it is, but an IPv4 one that is written as an IPv6 one as IPv4.

    Raises ``UserError`` (``BAD_CONFIG``) for what is neither.
    """
    address, _, zone = text.partition("%")
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        pass
    else:
        mapped = found.ipv4_mapped if found.version == 6 else None
        return text if mapped is None or zone else str(mapped)
    try:
        name = text if text.isascii() else text.encode("idna").decode("ascii")
    except UnicodeError as wrong:
        raise error(Reason.BAD_CONFIG, f"{text!r} is no host name: {wrong.__cause__ or wrong}", _MEND) from wrong
    if not _NAME.fullmatch(name):
        raise error(Reason.BAD_CONFIG, f"{text!r} is no host name", _MEND)
    return name


_MEND = "write it as example.net, 192.0.2.1 or fd00::1"
