# SPDX-License-Identifier: Apache-2.0
"""The three namespaces of a lab and what connects them.

      client                      link                        server
    +--------+          +--------------------+             +--------+
    |   acc0 |==========| to-client to-server|=============| acc0   |
    +--------+   veth   +--------------------+    veth     +--------+
    10.83.0.1/24                                      10.83.0.2/24
    fd83::1/64                                        fd83::2/64

Between to-client and to-server is either a bridge with netem on both, or ``accord-link``.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.ethtool.ioctl import IoctlEthtool

from accord.lab.namespace import Namespace, create

INTERFACE = "acc0"
TO_CLIENT = "to-client"
TO_SERVER = "to-server"
ROLES = ("client", "link", "server")
MTU = 1500

CLIENT4, SERVER4 = "10.83.0.1", "10.83.0.2"
CLIENT6, SERVER6 = "fd83::1", "fd83::2"
_CLIENT_MAC, _SERVER_MAC = "02:ac:c0:00:00:01", "02:ac:c0:00:00:02"  # locally administered
_NODAD = 0x02  # IFA_F_NODAD

# A veth tells its peer "the checksum is good" without computing one, and passes segments of 64 KiB. Behind
# a forwarder, and for AF_XDP, both are wrong: frames have to look as they do on a cable.
_OFFLOADS = ("segmentation", "tx-checksum", "rx-checksum", "rx-gro", "gso-list")


def handle_name(lab: str, role: str) -> str:
    """The namespace's name: ``accord-LAB-client``."""
    return f"accord-{lab}-{role}"


def namespaces(lab: str) -> dict[str, Namespace]:
    """The three of a lab, whether they exist or not."""

    def host(role: str, address4: str, address6: str) -> Namespace:
        # Two daemons on one machine: each needs a control socket of its own.
        environment = {"ACCORD_CONTROL": f"/run/accord/lab-{lab}-{role}.sock"}
        return Namespace(handle_name(lab, role), INTERFACE, address4, address6, environment)

    return {
        "client": host("client", CLIENT4, CLIENT6),
        "link": Namespace(handle_name(lab, "link"), "any"),
        "server": host("server", SERVER4, SERVER6),
    }


def build(lab: str) -> dict[str, Namespace]:
    """Make the three namespaces and their interfaces, all up; nothing passes through the link yet.

    Raises ``HostError`` and ``OSError``. What was made by then stays: the caller removes it.
    """
    made = namespaces(lab)
    for namespace in made.values():
        create(namespace.name)
    made["link"].call(_prepare_link)
    for role, own, peer, middle in (
        ("client", (CLIENT4, CLIENT6, _CLIENT_MAC), (SERVER4, SERVER6, _SERVER_MAC), TO_CLIENT),
        ("server", (SERVER4, SERVER6, _SERVER_MAC), (CLIENT4, CLIENT6, _CLIENT_MAC), TO_SERVER),
    ):
        made[role].call(_build_host, own, peer, middle, made["link"].name)
        made["link"].call(_raise_interface, middle)
    return made


def _prepare_link() -> None:
    # The link is a cable: it must not speak, and IPv6 would.
    _sysctl("ipv6/conf/default/disable_ipv6", 1)
    _sysctl("ipv6/conf/all/disable_ipv6", 1)
    with IPRoute() as route:
        route.link("set", index=1, state="up")


def _build_host(own: tuple[str, str, str], peer: tuple[str, str, str], middle: str, link: str) -> None:
    # No duplicate address detection: an address that is tentative for a second is no use to a test. No
    # router solicitations: nobody is there to answer.
    for name, value in (("accept_dad", 0), ("dad_transmits", 0), ("accept_ra", 0), ("router_solicitations", 0)):
        _sysctl(f"ipv6/conf/default/{name}", value)
    with IPRoute() as route:
        route.link("set", index=1, state="up")
        route.link(
            "add",
            kind="veth",
            ifname=INTERFACE,
            address=own[2],
            mtu=MTU,
            peer={"ifname": middle, "mtu": MTU, "net_ns_fd": link},
        )
        _offloads_off(INTERFACE)
        index = _index(route, INTERFACE)
        route.addr("add", index=index, address=own[0], prefixlen=24)
        with _ipv6_or_nothing():
            route.addr("add", index=index, address=own[1], prefixlen=64, flags=_NODAD)
        route.link("set", index=index, state="up")
        # Known neighbours: on a real network the next hop is near and known. Here it is the whole link away,
        # and an address resolution would cost the first packet a round trip, or be lost.
        route.neigh("add", dst=peer[0], lladdr=peer[2], ifindex=index, state="permanent")
        with _ipv6_or_nothing():
            route.neigh("add", dst=peer[1], lladdr=peer[2], ifindex=index, state="permanent")


def _raise_interface(name: str) -> None:
    _offloads_off(name)
    with IPRoute() as route:
        route.link("set", index=_index(route, name), state="up")


def _index(route: Any, name: str) -> int:
    found: list[int] = list(route.link_lookup(ifname=name))
    return found[0]


def _offloads_off(interface: str) -> None:
    ethtool = IoctlEthtool(interface)
    try:
        features = ethtool.get_features()
        for name in features.keys():  # noqa: SIM118 - no mapping, it only has keys()
            if any(part in name for part in _OFFLOADS) and features.is_active(name):
                features[name] = False
        ethtool.set_features(features)
    finally:
        ethtool.close()


def _ipv6_or_nothing() -> contextlib.AbstractContextManager[None]:
    """On a kernel that was booted without IPv6 the lab has IPv4 alone."""
    if Path("/proc/net/if_inet6").exists():
        return contextlib.nullcontext()
    return contextlib.suppress(Exception)


def _sysctl(name: str, value: int) -> None:
    """Of the calling thread's namespace. Missing (no IPv6 in this kernel) is no error."""
    with contextlib.suppress(FileNotFoundError):
        Path("/proc/sys/net", name).write_text(f"{value}\n")
