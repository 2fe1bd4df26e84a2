# SPDX-License-Identifier: Apache-2.0
"""This host's own addresses, from netlink."""

from __future__ import annotations

import ipaddress
from concurrent.futures import ThreadPoolExecutor

from pyroute2 import IPRoute


def local_addresses() -> set[str]:
    """Textual addresses of all interfaces, link-local ones left out. May be called with an event loop running."""
    # IPRoute runs an event loop of its own, which a thread has only one of.
    with ThreadPoolExecutor(1) as thread:
        found = thread.submit(_addresses).result()
    return {text for text in found if not ipaddress.ip_address(text).is_link_local}


def _addresses() -> set[str]:
    with IPRoute() as netlink:
        return {str(message.get_attr("IFA_ADDRESS")) for message in netlink.get_addr()}
