# SPDX-License-Identifier: Apache-2.0
"""This host's own addresses, from netlink."""

from __future__ import annotations

import ipaddress

from pyroute2 import IPRoute


def local_addresses() -> set[str]:
    """Textual addresses of all interfaces, link-local ones left out."""
    with IPRoute() as netlink:
        found = {str(message.get_attr("IFA_ADDRESS")) for message in netlink.get_addr()}
    return {text for text in found if not ipaddress.ip_address(text).is_link_local}
