# SPDX-License-Identifier: Apache-2.0
"""How the XDP program is to be attached, and what that costs the others on the interface.

| attach  | rungs tried, with back end auto          | others' traffic                                            |
|---------|------------------------------------------|------------------------------------------------------------|
| native  | native, AF_PACKET, UDP sockets           | depends on the driver: ``PRICES``                          |
| generic | generic, AF_PACKET, UDP sockets          | LRO, hardware GRO off; bulk TCP 4 % slower on veth         |
| auto    | native where no price is known, generic, | as of the one that is reached                              |
|         | AF_PACKET, UDP sockets                   |                                                            |
| none    | AF_PACKET, UDP sockets                   | none                                                       |

A mode that was asked for by name is not replaced by the other one: where it cannot be had, nothing is attached. Who
would rather not start at all says so by the back end: ``af_xdp`` has no rung below XDP.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from accord.datapath.ethtool import driver
from accord.datapath.netdev import interface_index
from accord.datapath.port import Rung
from accord.wire.constants import Reason
from accord.wire.errors import error

_VETH = (
    "a veth with a native program takes segmentation offload (TSO) from its peer: bulk TCP fell from 17 to 4.7 Gbit/s "
    "where it was measured"
)
_VIRTIO = (
    "virtio_net then does without receive offloads, and may give up receive queues for its XDP transmit queues: bulk "
    "TCP becomes slower"
)
_RESET = (
    "driver {} resets its queues when a native program comes or goes: the link can be down for seconds each time that "
    "the daemon starts, stops or dies"
)
_RESETTING = (
    "atlantic bnxt_en dpaa2-eth ena fec fsl_dpaa2_eth i40e ice igb igc ixgbe ixgbevf mlx4_en mlx5_core mvneta mvpp2 "
    "nfp nicvf qede st_gmac st_xgmac stmmac tsnep vmxnet3"
)

PRICES: dict[str, str] = {
    "veth": _VETH,
    "virtio_net": _VIRTIO,
    **{name: _RESET.format(name) for name in _RESETTING.split()},
}
"""What a native program costs others, by driver. veth was measured. Of those that reset their queues, ena, igc and
stmmac were read (.ndo_bpf in Linux 6.x), ixgbe and mlx5 have public reports, the others have the name of it; one that
is here without need only gets the gentler mode from ``auto``."""

_UNKNOWN = "no price of native XDP is known for driver {}; watch its link when the daemon starts and stops"
_GENERIC = (
    "every frame meets the program once the kernel has made a buffer of it, and LRO and hardware GRO go off: bulk TCP "
    "was 4 % slower on veth"
)
_NOTHING = "nothing is attached, others' traffic goes its usual way"

# (back end, attach) -> first and last rung, and whether one in between is left out.
_RUNGS = {
    ("auto", "auto"): (Rung.XDP_NATIVE, Rung.UDP),
    ("auto", "native"): (Rung.XDP_NATIVE, Rung.UDP),
    ("auto", "generic"): (Rung.XDP_GENERIC, Rung.UDP),
    ("auto", "none"): (Rung.PACKET, Rung.UDP),
    ("af_xdp", "auto"): (Rung.XDP_NATIVE, Rung.XDP_GENERIC),
    ("af_xdp", "native"): (Rung.XDP_NATIVE, Rung.XDP_NATIVE),
    ("af_xdp", "generic"): (Rung.XDP_GENERIC, Rung.XDP_GENERIC),
    ("af_packet", "auto"): (Rung.PACKET, Rung.PACKET),
    ("af_packet", "none"): (Rung.PACKET, Rung.PACKET),
    ("udp", "auto"): (Rung.UDP, Rung.UDP),
    ("udp", "none"): (Rung.UDP, Rung.UDP),
}


@dataclass(frozen=True, slots=True)
class Plan:
    """The rungs to try, best first, on an interface whose driver is ``driver``; ``why`` is a sentence for people."""

    rungs: tuple[Rung, ...]
    driver: str
    why: str

    @property
    def skipped(self) -> set[Rung]:
        """Those between the first and the last that are left out."""
        return set(Rung) - set(self.rungs)


def allowed_rungs(back_end: str, attach: str) -> set[Rung]:
    """All that a configuration may come to, on whatever interface; the lowest when it contradicts itself."""
    first, last = _RUNGS.get((back_end, attach), (Rung.UDP, Rung.UDP))
    return {rung for rung in Rung if first <= rung <= last and not (attach == "native" and rung is Rung.XDP_GENERIC)}


def plan(back_end: str, attach: str, interface: str | None) -> Plan:
    """What the configuration's ``back_end`` and ``attach`` come to on this interface, which is looked at only.

    Raises ``UserError``: ``BAD_CONFIG`` for two that contradict each other, ``NO_INTERFACE`` for a name that is none;
    ``HostError`` (``NO_KERNEL_SUPPORT``) where native XDP alone is wanted and the driver declares that it has none.
    """
    if (ends := _RUNGS.get((back_end, attach))) is None:
        raise error(
            Reason.BAD_CONFIG,
            f"back end {back_end} with attach mode {attach}",
            "af_xdp attaches native or generic; af_packet and udp attach nothing",
        )
    name = "unknown"
    if interface is not None:
        interface_index(interface)
        name = driver(interface)
    rungs = [rung for rung in Rung if ends[0] <= rung <= ends[1]]
    if attach == "native" and Rung.XDP_GENERIC in rungs:
        rungs.remove(Rung.XDP_GENERIC)
    if rungs[0] is Rung.XDP_NATIVE and attach == "auto" and name in PRICES:
        why = f"generic, not native: {PRICES[name]}; --attach native has it so all the same"
        return Plan(tuple(rungs[1:]), name, why)
    if rungs[0] is Rung.XDP_NATIVE and interface is not None and (lack := _lack(interface, name)):
        del rungs[0]
        if not rungs:
            raise error(Reason.NO_KERNEL_SUPPORT, lack, "--attach generic, or another NIC")
        return Plan(tuple(rungs), name, f"no native, as {lack}; {consequence(rungs[0], name)}")
    if rungs[0] is Rung.XDP_NATIVE and attach == "auto":
        return Plan(tuple(rungs), name, f"native, else generic: {_UNKNOWN.format(name)}")
    return Plan(tuple(rungs), name, f"as configured; {consequence(rungs[0], name)}")


def _lack(interface: str, driver: str) -> str:
    """What the driver says that it lacks for us; empty when nothing, or when the kernel (before 6.3) does not tell.

    A driver that runs programs but knows no redirect would take a program, and drop what that redirects.
    """
    # Its netlink library runs an event loop of its own, which a thread has only one of.
    from accord.datapath.probe_interface import XDP_BASIC, XDP_REDIRECT, xdp_features

    with ThreadPoolExecutor(1) as thread:
        features = thread.submit(xdp_features, interface_index(interface)).result()
    if features is None or (features & XDP_BASIC and features & XDP_REDIRECT):
        return ""
    return f"driver {driver} declares {'XDP without redirect' if features & XDP_BASIC else 'no XDP'}"


def consequence(rung: Rung, driver: str) -> str:
    """What this rung costs the others on an interface with such a driver."""
    if rung is Rung.XDP_NATIVE:
        return PRICES.get(driver) or _UNKNOWN.format(driver)
    return _GENERIC if rung is Rung.XDP_GENERIC else _NOTHING
