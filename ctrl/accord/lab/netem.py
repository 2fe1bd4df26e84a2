# SPDX-License-Identifier: Apache-2.0
"""The link on kernels with ``tc netem``: a bridge in the middle, and netem where packets leave it."""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink import NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST
from pyroute2.netlink.rtnl import RTM_NEWQDISC, TC_H_ROOT
from pyroute2.netlink.rtnl.tcmsg import sched_netem, tcmsg

from accord.lab.forwarder import Counters, DirectionCounters
from accord.lab.namespace import Namespace
from accord.lab.settings import Direction, LinkSettings
from accord.lab.topology import TO_CLIENT, TO_SERVER

_BRIDGE = "link"
_HANDLE = 0x10000  # 1:
# What a kernel without sch_netem answers, by version.
_ABSENT = (errno.ENOENT, errno.EOPNOTSUPP)


def request(index: int, direction: Direction, flags: int) -> bytes:
    """The netlink message (rtnetlink(7), RTM_NEWQDISC) that puts netem with these settings at an interface's root.

    Made here and not by ``IPRoute.tc``, which sends a netem ``rate`` a second time, as TCA_RATE, where it
    means something else.
    """
    message = tcmsg()
    message["header"]["type"] = RTM_NEWQDISC
    message["header"]["flags"] = NLM_F_REQUEST | NLM_F_ACK | flags
    message["index"] = index
    message["parent"] = TC_H_ROOT
    message["handle"] = _HANDLE
    # Microseconds, percent, bytes per second.
    parameters = {
        "delay": round(direction.delay * 1e6),
        "jitter": round(direction.jitter * 1e6),
        "loss": direction.loss * 100,
        "duplicate": direction.duplicate * 100,
        "prob_reorder": direction.reorder * 100,
        "rate": None if direction.rate is None else direction.rate // 8,
        "limit": direction.packets,
    }
    message["attrs"] = [("TCA_KIND", "netem"), ("TCA_OPTIONS", sched_netem.get_parameters(parameters))]
    message.encode()
    return bytes(message.data)


def _send(message: bytes) -> None:
    """Raises ``OSError`` with what the kernel answers."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        netlink.send(message)
        # struct nlmsghdr, 16 bytes, then the acknowledgement's negative errno, or 0 (netlink(7)).
        (code,) = struct.unpack_from("=i", netlink.recv(65536), 16)
    if code:
        raise OSError(-code, f"netem: {os.strerror(-code)}")


def start(link: Namespace, settings: LinkSettings) -> bool:
    """Make the bridge and its qdiscs. False, and nothing changed, if this kernel has no netem."""
    return link.call(_start, settings)


def _start(settings: LinkSettings) -> bool:
    with IPRoute() as route:
        try:
            _apply(route, settings, NLM_F_CREATE | NLM_F_EXCL)
        except OSError as error:
            if error.errno not in _ABSENT:
                raise
            return False
    _bridge_of_this_namespace()
    return True


def _bridge_of_this_namespace() -> None:
    # No spanning tree (it would block the ports for half a minute) and no multicast snooping: a cable.
    with IPRoute() as route:
        route.link("add", kind="bridge", ifname=_BRIDGE, br_stp_state=0, br_forward_delay=0, br_mcast_snooping=0)
        (bridge,) = route.link_lookup(ifname=_BRIDGE)
        for name in (TO_CLIENT, TO_SERVER):
            route.link("set", index=route.link_lookup(ifname=name)[0], master=bridge)
        route.link("set", index=bridge, state="up")


def _apply(route: Any, settings: LinkSettings, flags: int) -> None:
    """Up leaves the bridge at the server's side, down at the client's."""
    for name, direction in ((TO_SERVER, settings.up), (TO_CLIENT, settings.down)):
        (index,) = route.link_lookup(ifname=name)
        _send(request(index, direction, flags))


def change(link: Namespace, settings: LinkSettings) -> None:
    """Give a running link new settings."""

    def body() -> None:
        with IPRoute() as route:
            _apply(route, settings, 0)

    link.call(body)


def counters(link: Namespace) -> Counters:
    """From the qdiscs and interfaces; see ``DirectionCounters`` for what netem does not tell."""
    return link.call(_counters)


def _counters() -> Counters:
    with IPRoute() as route:
        links = {name: route.get_links(ifname=name)[0] for name in (TO_CLIENT, TO_SERVER)}
        queues = {name: _queue(route, links[name]["index"]) for name in links}

    def direction(source: str, target: str) -> DirectionCounters:
        came = links[source].get_attr("IFLA_STATS64")
        return DirectionCounters(
            received=came["rx_packets"],
            received_bytes=came["rx_bytes"],
            delivered=queues[target]["packets"],
            delivered_bytes=queues[target]["bytes"],
            lost=queues[target]["drop"],
            queued=queues[target]["qlen"],
        )

    return Counters(direction(TO_CLIENT, TO_SERVER), direction(TO_SERVER, TO_CLIENT))


def _queue(route: Any, index: int) -> dict[str, int]:
    for message in route.get_qdiscs(index=index):
        if message.get_attr("TCA_KIND") == "netem":
            statistics = message.get_attr("TCA_STATS2")
            basic, queue = statistics.get_attr("TCA_STATS_BASIC"), statistics.get_attr("TCA_STATS_QUEUE")
            return {
                "packets": basic["packets"],
                "bytes": basic["bytes"],
                "drop": queue["drops"],
                "qlen": queue["qlen"],
            }
    return {"packets": 0, "bytes": 0, "drop": 0, "qlen": 0}
