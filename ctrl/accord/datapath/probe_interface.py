# SPDX-License-Identifier: Apache-2.0
"""What one network interface offers. It is asked, through netlink and ethtool, and never touched."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink import NLM_F_REQUEST, genlmsg
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.generic import GenericNetlinkSocket

from accord.datapath.ethtool import driver, receive_queues
from accord.datapath.probe_finding import Finding, kernel_error
from accord.wire.errors import AccordError

# enum netdev_xdp_act of <linux/netdev.h>, Linux 6.3.
XDP_BASIC = 0x01
XDP_REDIRECT = 0x02
_XDP_XSK_ZEROCOPY = 0x08
_NETDEV_CMD_DEV_GET = 1

# A frame has to lie in one page, beside what the kernel keeps there: 4096 less headroom, shared info and Ethernet.
_XDP_MTU = 3498
_MAX_QUEUES = 64  # ACCORD_MAX_QUEUES

NOT_TOLD = "the kernel does not tell (Linux 6.3 does)"
"""The reason of a finding that only a trial could decide, on the interface itself, which others use."""

_IFF_UP = 0x1
_INSTALL = "install Accord again: pip install ."


class _NetdevMessage(genlmsg):  # type: ignore[misc]  # pyroute2 has no types
    """Generic netlink family ``netdev``, attributes of a device (Documentation/netlink/specs/netdev.yaml)."""

    prefix = "NETDEV_A_DEV_"
    nla_map = (
        ("NETDEV_A_DEV_UNSPEC", "none"),
        ("NETDEV_A_DEV_IFINDEX", "uint32"),
        ("NETDEV_A_DEV_PAD", "none"),
        ("NETDEV_A_DEV_XDP_FEATURES", "uint64"),
    )


def interface(name: str) -> Iterator[Finding]:
    """Findings about one interface by name."""
    group = f"interface {name}"
    try:
        with IPRoute() as netlink:
            link: Any = netlink.link("get", ifname=name)[0]
    except (NetlinkError, OSError, IndexError) as error:
        code = getattr(error, "code", None) or errno.ENODEV
        reason = kernel_error(OSError(code, ""))
        yield Finding(group, "link", "everything", False, reason, "ip -brief link lists what there is")
        return
    mtu = int(link.get_attr("IFLA_MTU"))
    up = bool(link["flags"] & _IFF_UP)
    adapter = driver(name)
    state = f"{'up' if up else 'down'}, MTU {mtu}, driver {adapter}"
    yield Finding(group, "link", "everything", up, state, "" if up else f"ip link set {name} up")
    yield _slot(group, int(link["index"]))
    yield _attach_mode(group, name)
    yield _queues(group, name, link)
    features = xdp_features(int(link["index"]))
    yield _native(group, features, mtu, adapter)
    yield _zero_copy(group, features, adapter)


def xdp_features(index: int) -> int | None:
    """Bits of enum netdev_xdp_act that the driver declares; None where the kernel (before 6.3) does not tell."""
    try:
        with GenericNetlinkSocket() as netlink:
            netlink.bind("netdev", _NetdevMessage)
            message = _NetdevMessage()
            message["cmd"] = _NETDEV_CMD_DEV_GET
            message["version"] = 1
            message["attrs"] = [("NETDEV_A_DEV_IFINDEX", index)]
            for answer in netlink.nlm_request(message, msg_type=netlink.prid, msg_flags=NLM_F_REQUEST):
                value = answer.get_attr("NETDEV_A_DEV_XDP_FEATURES")
                return None if value is None else int(value)
    except (NetlinkError, OSError):
        pass
    return None


def _slot(group: str, index: int) -> Finding:
    """Another XDP program is never replaced, so with one there the ladder goes on at AF_PACKET."""
    name, purpose = "XDP slot", "XDP, which a NIC runs one of"
    try:
        from accord.datapath.attached import PROGRAM_NAME, attached

        found = attached(index)
    except ImportError as failure:
        return Finding(group, name, purpose, False, f"the C core does not load: {failure}", _INSTALL)
    except AccordError as failure:
        return Finding(group, name, purpose, False, str(failure), "sudo accord doctor")
    if found is None:
        return Finding(group, name, purpose, True, "free")
    reason = f"{found}; {found.whose()}"
    if found.name == PROGRAM_NAME:
        return Finding(group, name, purpose, True, f"Accord's own: {reason}")
    mend = f"stop what holds it, or detach it (bpftool net; bpftool prog show id {found.program})"
    return Finding(group, name, purpose, False, reason, mend)


def _attach_mode(group: str, name: str) -> Finding:
    mode, purpose = "attach mode", "what --attach auto comes to"
    try:
        from accord.datapath.attach import plan
    except ImportError as failure:
        return Finding(group, mode, purpose, False, f"the C core does not load: {failure}", _INSTALL)
    return Finding(group, mode, purpose, True, f"auto: {plan('auto', 'auto', name).why}")


def _queues(group: str, name: str, link: Any) -> Finding:
    purpose = "one AF_XDP socket for each"
    found = receive_queues(name) or int(link.get_attr("IFLA_NUM_RX_QUEUES") or 1)
    if found <= _MAX_QUEUES:
        return Finding(group, "receive queues", purpose, True, str(found))
    mend = f"ethtool -L {name} combined {_MAX_QUEUES}"
    reason = f"{found}, of which Accord serves {_MAX_QUEUES}: packets on the others pass to the kernel"
    return Finding(group, "receive queues", purpose, False, reason, mend)


def _native(group: str, features: int | None, mtu: int, driver: str) -> Finding:
    name, purpose = "native XDP", "packets taken in the driver"
    if mtu > _XDP_MTU:
        reason = f"an MTU of {mtu} is more than a page holds for XDP"
        return Finding(group, name, purpose, False, reason, f"an MTU of at most {_XDP_MTU}; or generic XDP")
    if features is None:
        mend = "the daemon tries it where its attach mode allows: accord status says which rung was reached"
        return Finding(group, name, purpose, False, NOT_TOLD, mend)
    needed = XDP_BASIC | XDP_REDIRECT
    if features & needed != needed:
        reason = f"driver {driver} declares {'no XDP' if not features & XDP_BASIC else 'XDP without redirect'}"
        return Finding(group, name, purpose, False, reason, "generic XDP serves on any interface; or another NIC")
    return Finding(group, name, purpose, True, "the driver declares XDP and redirect")


def _zero_copy(group: str, features: int | None, driver: str) -> Finding:
    name, purpose = "zero-copy AF_XDP", "speed only: copying works too"
    if features is None:
        return Finding(group, name, purpose, False, NOT_TOLD, "nothing to do: it is used where it is there")
    if features & _XDP_XSK_ZEROCOPY:
        return Finding(group, name, purpose, True, "the driver declares it")
    return Finding(
        group,
        name,
        purpose,
        False,
        f"driver {driver} does not declare it",
        "another NIC, if copying turns out too slow",
    )
