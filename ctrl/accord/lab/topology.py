# SPDX-License-Identifier: Apache-2.0
"""The namespaces of a lab and what connects them.

      client                      link                        server
    +--------+          +--------------------+             +--------+
    |   acc0 |==========| to-client to-server|=============| acc0   |
    +--------+   veth   +--------------------+    veth     +--------+
    10.83.0.1/24                                      10.83.0.2/24
    fd83::1/64                                        fd83::2/64

Between to-client and to-server is either a bridge with netem on both, or ``accord-link``. A lab with a path
(``accord.lab.paths``) has a router too, at one end of the link, and then the hosts are on networks of their own:

      client                     link                      router                      server
    10.83.0.1/24  =====  to-client  to-server  =====  client-side  server-side  =====  10.83.1.2/24     near="server"
    fd83::1/64                                                                         fd83:0:0:1::2/64

      client                     router                     link                       server
    10.83.0.1/24  =====  client-side  server-side  =====  to-client  to-server  =====  10.83.1.2/24     near="client"
      client2            client2-side
    10.83.2.1/24  =====
    fd83:0:0:2::1/64

The router is 254 (IPv6: fe) on each network, and every host's default gateway. Where each host has a router before it,
a third one joins their outer networks and that of the host that both can reach:

      client            router              link             internet              router2            server
    10.83.0.1/24  =====  0 | 1  =====  to-client  to-server  =====  1 | 4  ===========  4 | 3  =====  10.83.3.2/24
                     10.83.1.1                                        5             10.83.4.1
                                                                      |
                                                        10.83.5.1/24  rendezvous
"""

from __future__ import annotations

import contextlib
import pathlib
import time
from dataclasses import dataclass
from typing import Any

from pyroute2 import IPRoute
from pyroute2.ethtool.ioctl import IoctlEthtool

from accord.lab.namespace import Namespace, create
from accord.lab.paths import PathKind

INTERFACE = "acc0"
TO_CLIENT = "to-client"
TO_SERVER = "to-server"
ROLES = ("client", "link", "server")
"""Of a lab without a path."""
BOTH_ROLES = (*ROLES, "router", "router2", "internet", "rendezvous")
"""Of one whose hosts are behind a router each."""
ALL_ROLES = (*BOTH_ROLES, "client2")
MTU = 1500

CLIENT4, SERVER4 = "10.83.0.1", "10.83.0.2"
CLIENT6, SERVER6 = "fd83::1", "fd83::2"
_NODAD = 0x02  # IFA_F_NODAD
_LINK_SECONDS = 2.0
"""Longer than the kernel lets an interface wait for that."""

# A veth tells its peer "the checksum is good" without computing one, and passes segments of 64 KiB. Behind
# a forwarder, and for AF_XDP, both are wrong: frames have to look as they do on a cable.
_OFFLOADS = ("segmentation", "tx-checksum", "rx-checksum", "rx-gro", "gso-list")


def handle_name(lab: str, role: str) -> str:
    """The namespace's name: ``accord-LAB-client``."""
    return f"accord-{lab}-{role}"


@dataclass(frozen=True, slots=True)
class End:
    """One end of a wire that has addresses: /24 and /64."""

    interface: str
    address4: str
    address6: str
    mac: str


def _mac(number: int) -> str:
    return f"02:ac:c0:00:00:{number:02x}"  # locally administered


def _end(interface: str, network: int, host: int) -> End:
    prefix = f"fd83:0:0:{network}::" if network else "fd83::"
    return End(interface, f"10.83.{network}.{host}", f"{prefix}{host:x}", _mac(network << 4 | host & 15))


_CLIENT, _SERVER = End(INTERFACE, CLIENT4, CLIENT6, _mac(1)), End(INTERFACE, SERVER4, SERVER6, _mac(2))
_FAR_SERVER, _CLIENT2 = _end(INTERFACE, 1, 2), _end(INTERFACE, 2, 1)
CLIENT_SIDE, SERVER_SIDE, CLIENT2_SIDE = (
    _end("client-side", 0, 254),
    _end("server-side", 1, 254),
    _end("client2-side", 2, 254),
)
"""The router's interfaces."""
_NAT1, _NAT2 = _end("server-side", 1, 1), _end("server-side", 4, 1)
_NAT2_SIDE, _BEHIND_NAT2 = _end("client-side", 3, 254), _end(INTERFACE, 3, 2)
_RENDEZVOUS = _end(INTERFACE, 5, 1)
_INTERNET = {network: _end(f"network{network}", network, 254) for network in (1, 4, 5)}


def roles(path: PathKind | None) -> tuple[str, ...]:
    """The namespaces that a lab with this path has."""
    if path is None:
        return ROLES
    if path.both:
        return BOTH_ROLES
    return (*ROLES, "router", *(("client2",) if path.clients == 2 else ()))


def namespaces(lab: str, path: PathKind | None = None) -> dict[str, Namespace]:
    """Those of a lab, whether they exist or not."""

    def host(role: str, end: End) -> Namespace:
        # Two daemons on one machine: each needs a control socket of its own.
        environment = {"ACCORD_CONTROL": f"/run/accord/lab-{lab}-{role}.sock"}
        return Namespace(handle_name(lab, role), end.interface, end.address4, end.address6, environment)

    every = {
        "client": host("client", _CLIENT),
        "link": Namespace(handle_name(lab, "link"), "any"),
        "server": host("server", _SERVER if path is None else _BEHIND_NAT2 if path.both else _FAR_SERVER),
        "router": Namespace(handle_name(lab, "router"), "any"),
        "router2": Namespace(handle_name(lab, "router2"), "any"),
        "internet": Namespace(handle_name(lab, "internet"), "any"),
        "rendezvous": host("rendezvous", _RENDEZVOUS),
        "client2": host("client2", _CLIENT2),
    }
    return {role: every[role] for role in roles(path)}


def build(lab: str, path: PathKind | None = None) -> dict[str, Namespace]:
    """Make the namespaces and their interfaces, all up; nothing passes through the link yet.

    Raises ``HostError`` and ``OSError``. What was made by then stays: the caller removes it.
    """
    made = namespaces(lab, path)
    for namespace in made.values():
        create(namespace.name)
    made["link"].call(_prepare_link)
    if path is None:
        _lay(made["client"], _CLIENT, _SERVER, made["link"], TO_CLIENT)
        _lay(made["server"], _SERVER, _CLIENT, made["link"], TO_SERVER)
        return made
    router = made["router"]
    router.call(_prepare_router)
    if path.both:
        _lay_both(made)
        for each, host in ((router, made["client"]), (made["router2"], made["server"])):
            path.apply(each, [host])
        return made
    if path.near == "server":
        _lay(made["client"], _CLIENT, CLIENT_SIDE, made["link"], TO_CLIENT, gateway=True)
        _lay(router, CLIENT_SIDE, _CLIENT, made["link"], TO_SERVER)
        _lay(made["server"], _FAR_SERVER, SERVER_SIDE, router, SERVER_SIDE, gateway=True)
    else:
        _lay(made["client"], _CLIENT, CLIENT_SIDE, router, CLIENT_SIDE, gateway=True)
        _lay(router, SERVER_SIDE, _FAR_SERVER, made["link"], TO_CLIENT)
        _lay(made["server"], _FAR_SERVER, SERVER_SIDE, made["link"], TO_SERVER, gateway=True)
    if "client2" in made:
        _lay(made["client2"], _CLIENT2, CLIENT2_SIDE, router, CLIENT2_SIDE, gateway=True)
    path.apply(router, [made[role] for role in ("client", "client2", "server") if role in made])
    return made


def _lay_both(made: dict[str, Namespace]) -> None:
    router, internet, router2 = made["router"], made["internet"], made["router2"]
    for each in (internet, router2):
        each.call(_prepare_router)
    _lay(made["client"], _CLIENT, CLIENT_SIDE, router, CLIENT_SIDE, gateway=True)
    _lay(router, _NAT1, _INTERNET[1], made["link"], TO_CLIENT, gateway=True)
    _lay(internet, _INTERNET[1], _NAT1, made["link"], TO_SERVER)
    _lay(router2, _NAT2, _INTERNET[4], internet, _INTERNET[4], gateway=True)
    _lay(made["server"], _BEHIND_NAT2, _NAT2_SIDE, router2, _NAT2_SIDE, gateway=True)
    _lay(made["rendezvous"], _RENDEZVOUS, _INTERNET[5], internet, _INTERNET[5], gateway=True)


def _prepare_link() -> None:
    # The link is a cable: it must not speak, and IPv6 would.
    _sysctl("ipv6/conf/default/disable_ipv6", 1)
    _sysctl("ipv6/conf/all/disable_ipv6", 1)
    with IPRoute() as route:
        route.link("set", index=1, state="up")


def _prepare_router() -> None:
    _sysctl("ipv4/ip_forward", 1)
    _sysctl("ipv6/conf/all/forwarding", 1)


def _lay(namespace: Namespace, near: End, far: End, other: Namespace, end: End | str, *, gateway: bool = False) -> None:
    """A veth from ``namespace`` to ``other``, whose end has either addresses too or a name only (it is the link's).

    ``far`` is the next hop over it, and, ``gateway``, the default one.
    """
    name = end if isinstance(end, str) else end.interface
    mac = None if isinstance(end, str) else end.mac
    namespace.call(_add_veth, near, name, mac, other.name)
    namespace.call(_configure, near, far, gateway)
    if isinstance(end, str):
        other.call(_raise_interface, end)
    else:
        other.call(_configure, end, near, False)
    for here, interface in ((namespace, near.interface), (other, name)):
        here.call(_until_it_sends, interface)


def _add_veth(near: End, name: str, mac: str | None, other: str) -> None:
    # No duplicate address detection: an address that is tentative for a second is no use to a test. No
    # router solicitations: nobody is there to answer.
    for key, value in (("accept_dad", 0), ("dad_transmits", 0), ("accept_ra", 0), ("router_solicitations", 0)):
        _sysctl(f"ipv6/conf/default/{key}", value)
    peer = {"ifname": name, "mtu": MTU, "net_ns_fd": other, **({} if mac is None else {"address": mac})}
    with IPRoute() as route:
        route.link("add", kind="veth", ifname=near.interface, address=near.mac, mtu=MTU, peer=peer)


def _configure(own: End, next_hop: End, gateway: bool) -> None:
    for key, value in (("accept_dad", 0), ("dad_transmits", 0)):
        _sysctl(f"ipv6/conf/{own.interface}/{key}", value)
    _offloads_off(own.interface)
    with IPRoute() as route:
        route.link("set", index=1, state="up")
        index = _index(route, own.interface)
        route.addr("add", index=index, address=own.address4, prefixlen=24)
        with _ipv6_or_nothing():
            route.addr("add", index=index, address=own.address6, prefixlen=64, flags=_NODAD)
        route.link("set", index=index, state="up")
        # Known neighbours: on a real network the next hop is near and known. Here it is the whole link away,
        # and an address resolution would cost the first packet a round trip, or be lost.
        route.neigh("add", dst=next_hop.address4, lladdr=next_hop.mac, ifindex=index, state="permanent")
        if gateway:
            route.route("add", dst="0.0.0.0/0", gateway=next_hop.address4, oif=index)
        with _ipv6_or_nothing():
            route.neigh("add", dst=next_hop.address6, lladdr=next_hop.mac, ifindex=index, state="permanent")
            if gateway:
                route.route("add", dst="::/0", gateway=next_hop.address6, oif=index)


def _raise_interface(name: str) -> None:
    _offloads_off(name)
    with IPRoute() as route:
        route.link("set", index=_index(route, name), state="up")


def _until_it_sends(name: str) -> None:
    """Until the kernel has taken note that the other end is up too: before that everything sent here is dropped.

    Elsewhere it does so in its own time, behind whoever changes any interface of this host (net/core/link_watch.c).
    """
    end = time.monotonic() + _LINK_SECONDS
    with IPRoute() as route:
        while route.get_links(_index(route, name))[0].get_attr("IFLA_QDISC") == "noop" and time.monotonic() < end:
            time.sleep(0.001)


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
    if pathlib.Path("/proc/net/if_inet6").exists():
        return contextlib.nullcontext()
    return contextlib.suppress(Exception)


def _sysctl(name: str, value: int) -> None:
    """Of the calling thread's namespace. Missing (no IPv6 in this kernel) is no error."""
    with contextlib.suppress(FileNotFoundError):
        pathlib.Path("/proc/sys/net", name).write_text(f"{value}\n")
