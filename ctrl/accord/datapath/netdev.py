# SPDX-License-Identifier: Apache-2.0
"""This host's interfaces and its own addresses."""

from __future__ import annotations

import ipaddress
import socket
from concurrent.futures import ThreadPoolExecutor

from accord.wire.constants import Reason
from accord.wire.errors import error


def interface_index(name: str) -> int:
    """The kernel's number of an interface. Raises ``UserError`` (``NO_INTERFACE``): a name that was mistyped."""
    try:
        return socket.if_nametoindex(name)
    except OSError as refusal:
        raise error(Reason.NO_INTERFACE, name, "see: ip -br link") from refusal


def local_addresses() -> set[str]:
    """Textual addresses of all interfaces, link-local ones left out. May be called with an event loop running."""
    # IPRoute runs an event loop of its own, which a thread has only one of.
    with ThreadPoolExecutor(1) as thread:
        found = thread.submit(_addresses).result()
    return {text for text in found if not ipaddress.ip_address(text).is_link_local}


def _addresses() -> set[str]:
    # A fifth of a daemon's start would go into it, and most daemons never come here.
    from pyroute2 import IPRoute

    with IPRoute() as netlink:
        return {str(message.get_attr("IFA_ADDRESS")) for message in netlink.get_addr()}
