# SPDX-License-Identifier: Apache-2.0
"""What one network interface offers. It is asked, through netlink and ethtool, and never touched."""

from __future__ import annotations

import array
import errno
import fcntl
import socket
import struct
from collections.abc import Iterator
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink import NLM_F_REQUEST, genlmsg
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.generic import GenericNetlinkSocket

from accord.datapath.probe_finding import Finding, kernel_error

# enum netdev_xdp_act of <linux/netdev.h>, Linux 6.3.
_XDP_BASIC = 0x01
_XDP_REDIRECT = 0x02
_XDP_XSK_ZEROCOPY = 0x08
_NETDEV_CMD_DEV_GET = 1

# A frame has to lie in one page, beside what the kernel keeps there: 4096 less headroom, shared info and Ethernet.
_XDP_MTU = 3498
_MAX_QUEUES = 64  # ACCORD_MAX_QUEUES

_IFF_UP = 0x1
# <linux/sockios.h>, <linux/ethtool.h>.
_SIOCETHTOOL = 0x8946
_ETHTOOL_GDRVINFO = 0x3
_ETHTOOL_GCHANNELS = 0x3C
# XDP_ATTACHED_* of <linux/if_link.h>, in pyroute2's words.
_ATTACHED = {
    "xdp": "in the driver",
    "xdpgeneric": "in generic mode",
    "xdpoffload": "in the NIC",
    "xdpmulti": "in several modes",
}


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
    driver = _driver(name)
    state = f"{'up' if up else 'down'}, MTU {mtu}, driver {driver}"
    yield Finding(group, "link", "everything", up, state, "" if up else f"ip link set {name} up")
    yield _foreign_program(group, link)
    yield _queues(group, name, link)
    features = xdp_features(int(link["index"]))
    yield _native(group, features, mtu, driver)
    yield _zero_copy(group, features, driver)


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


def _ethtool(name: str, request: bytes) -> bytes | None:
    """One ETHTOOL_* question by its structure; None where the driver has no answer.

    Rather than /sys, which goes on showing the namespace that it was mounted in.
    """
    asked = array.array("B", request)
    ifreq = struct.pack("16sP16x", name.encode(), asked.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        try:
            fcntl.ioctl(control, _SIOCETHTOOL, ifreq)
        except OSError:
            return None
    return asked.tobytes()


def _driver(name: str) -> str:
    """``struct ethtool_drvinfo``: the command, then 32 bytes of driver name, of 196 in all."""
    answer = _ethtool(name, struct.pack("=I192x", _ETHTOOL_GDRVINFO))
    driver = b"" if answer is None else answer[4:36].rstrip(b"\0")
    return driver.decode("ascii", "replace") or "unknown"


def _queue_count(name: str, link: Any) -> int:
    """``struct ethtool_channels``: command, four maxima, then receive, transmit, other, combined."""
    if (answer := _ethtool(name, struct.pack("=I32x", _ETHTOOL_GCHANNELS))) is not None:
        channels = struct.unpack("=9I", answer)
        if count := channels[5] + channels[8]:
            return int(count)
    return int(link.get_attr("IFLA_NUM_RX_QUEUES") or 1)


def _foreign_program(group: str, link: Any) -> Finding:
    """Another XDP program is never replaced, so with one there the ladder goes on at AF_PACKET."""
    purpose = "XDP, which a NIC runs one of"
    attributes = link.get_attr("IFLA_XDP")
    attached = attributes.get_attr("IFLA_XDP_ATTACHED") if attributes is not None else None
    if not attached:
        return Finding(group, "XDP slot", purpose, True, "free")
    program = attributes.get_attr("IFLA_XDP_PROG_ID")
    reason = f"program {program} is attached {_ATTACHED.get(attached, attached)}"
    mend = f"stop what attached it (bpftool prog show id {program}); our own daemon shows up here too"
    return Finding(group, "XDP slot", purpose, False, reason, mend)


def _queues(group: str, name: str, link: Any) -> Finding:
    purpose = "one AF_XDP socket for each"
    found = _queue_count(name, link)
    if found <= _MAX_QUEUES:
        return Finding(group, "receive queues", purpose, True, str(found))
    mend = f"ethtool -L {name} combined {_MAX_QUEUES}"
    reason = f"{found}, of which Accord serves {_MAX_QUEUES}: packets on the others pass to the kernel"
    return Finding(group, "receive queues", purpose, False, reason, mend)


def _native(group: str, features: int | None, mtu: int, driver: str) -> Finding:
    name, purpose = "native XDP", "packets taken in the driver"
    if features is None:
        reason = "the kernel does not tell (Linux 6.3 does)"
        mend = "the daemon tries it: accord status says which rung was reached"
        return Finding(group, name, purpose, False, reason, mend)
    needed = _XDP_BASIC | _XDP_REDIRECT
    if features & needed != needed:
        reason = f"driver {driver} declares {'no XDP' if not features & _XDP_BASIC else 'XDP without redirect'}"
        return Finding(group, name, purpose, False, reason, "generic XDP serves on any interface; or another NIC")
    if mtu > _XDP_MTU:
        reason = f"an MTU of {mtu} is more than a page holds for XDP"
        return Finding(group, name, purpose, False, reason, f"an MTU of at most {_XDP_MTU}; or generic XDP")
    return Finding(group, name, purpose, True, "the driver declares XDP and redirect")


def _zero_copy(group: str, features: int | None, driver: str) -> Finding:
    name, purpose = "zero-copy AF_XDP", "speed only: copying works too"
    if features is None:
        reason, mend = "the kernel does not tell (Linux 6.3 does)", "nothing to do: it is used where it is there"
        return Finding(group, name, purpose, False, reason, mend)
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
