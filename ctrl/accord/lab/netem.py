# SPDX-License-Identifier: Apache-2.0
"""The link on kernels with ``tc netem``: a bridge in the middle, and netem where packets leave it."""

from __future__ import annotations

import errno
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from accord.lab.forwarder import Counters, DirectionCounters
from accord.lab.namespace import Namespace
from accord.lab.settings import Direction, LinkSettings
from accord.lab.topology import TO_CLIENT, TO_SERVER

_BRIDGE = "link"
_ROOT = "1:"
# What a kernel without sch_netem answers, by version.
_ABSENT = (errno.ENOENT, errno.EOPNOTSUPP, errno.EINVAL)


def parameters(direction: Direction) -> dict[str, Any]:
    """One direction as pyroute2's netem takes it: microseconds, percent, bytes per second."""
    return {
        "delay": round(direction.delay * 1e6),
        "jitter": round(direction.jitter * 1e6),
        "loss": direction.loss * 100,
        "duplicate": direction.duplicate * 100,
        "prob_reorder": direction.reorder * 100,
        "rate": None if direction.rate is None else direction.rate // 8,
        "limit": direction.packets,
    }


def start(link: Namespace, settings: LinkSettings) -> bool:
    """Make the bridge and its qdiscs. False, and nothing changed, if this kernel has no netem."""
    return link.call(_start, settings)


def _start(settings: LinkSettings) -> bool:
    with IPRoute() as route:
        try:
            _apply(route, "add", settings)
        except NetlinkError as error:
            if error.code not in _ABSENT:
                raise
            return False
        _bridge(route)
    return True


def _bridge(route: Any) -> None:
    # No spanning tree (it would block the ports for half a minute) and no multicast snooping: a cable.
    route.link("add", kind="bridge", ifname=_BRIDGE, br_stp_state=0, br_forward_delay=0, br_mcast_snooping=0)
    (bridge,) = route.link_lookup(ifname=_BRIDGE)
    for name in (TO_CLIENT, TO_SERVER):
        route.link("set", index=route.link_lookup(ifname=name)[0], master=bridge)
    route.link("set", index=bridge, state="up")


def _apply(route: Any, command: str, settings: LinkSettings) -> None:
    """Up leaves the bridge at the server's side, down at the client's."""
    for name, direction in ((TO_SERVER, settings.up), (TO_CLIENT, settings.down)):
        (index,) = route.link_lookup(ifname=name)
        route.tc(command, "netem", index, _ROOT, **parameters(direction))


def change(link: Namespace, settings: LinkSettings) -> None:
    """Give a running link new settings."""

    def body() -> None:
        with IPRoute() as route:
            _apply(route, "change", settings)

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
