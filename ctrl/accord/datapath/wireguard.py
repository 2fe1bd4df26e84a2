# SPDX-License-Identifier: Apache-2.0
"""WireGuard interfaces, one for each tunnel: one peer, one address at each end, made and removed by netlink.

``Setup`` is all that there is to say of one, and what an unprivileged process asks the privileged one for. An
interface that its maker did not live to remove is removed by the next one (``sweep``): it has a name of ours and an
alias with the process ID and start time of its maker.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import ipaddress
import os
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from accord.wire.constants import Reason
from accord.wire.errors import HostError, error

KEY_BYTES: Final = 32
PREFIX: Final = "accwg"
LIMIT: Final = 64
"""Tunnels of one host at a time."""
KEEPALIVE_S: Final = 25
_SETUP: Final = struct.Struct("!32s32sHH16s16s16sH")
_NETWORK_BYTES: Final = 8

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Setup:
    """One end of a tunnel. Addresses are textual; those inside are of one /64 (RFC 4193)."""

    private_key: bytes
    peer_key: bytes
    port: int
    peer_port: int
    peer_address: str
    """Outside."""
    inside: str
    peer_inside: str
    keepalive: int
    """Seconds; 0: none. Not 0 makes this end begin WireGuard's own handshake at once."""

    def encode(self) -> bytes:
        """For the process that may make it; ``decode`` is the inverse."""
        outside = ipaddress.ip_address(self.peer_address)
        mapped = outside if outside.version == 6 else ipaddress.IPv6Address(f"::ffff:{outside}")
        inside = (ipaddress.IPv6Address(each).packed for each in (self.inside, self.peer_inside))
        return _SETUP.pack(
            self.private_key, self.peer_key, self.port, self.peer_port, mapped.packed, *inside, self.keepalive
        )

    @classmethod
    def decode(cls, data: bytes) -> Setup:
        """Raises ``ValueError`` for what no ``Setup`` of ours can be."""
        if len(data) != _SETUP.size:
            raise ValueError(f"{len(data)} bytes")
        private, peer, port, peer_port, outside, inside, peer_inside, keepalive = _SETUP.unpack(data)
        if not port or not peer_port or keepalive > KEEPALIVE_S:
            raise ValueError("a port or an interval that no tunnel has")
        if inside[0] != 0xFD or inside[:_NETWORK_BYTES] != peer_inside[:_NETWORK_BYTES] or inside == peer_inside:
            raise ValueError("addresses inside that are not of one network of the tunnel's own")
        address = ipaddress.IPv6Address(outside)
        textual = str(address.ipv4_mapped or address)
        return cls(
            private,
            peer,
            port,
            peer_port,
            textual,
            str(ipaddress.IPv6Address(inside)),
            str(ipaddress.IPv6Address(peer_inside)),
            keepalive,
        )


def inside_addresses(one: bytes, other: bytes) -> tuple[str, str]:
    """The addresses inside of the ends with these public keys, both ends' view of it the same.

    A network of 64 bits under fd00::/8 from a hash of both keys (RFC 4193, section 3.2.2), ::1 for the lower key.
    """
    low, high = sorted((one, other))
    network = b"\xfd" + hashlib.sha256(b"accord wireguard" + low + high).digest()[: _NETWORK_BYTES - 1]
    first, second = (str(ipaddress.IPv6Address(network + bytes(7) + bytes((number,)))) for number in (1, 2))
    return (first, second) if one == low else (second, first)


def load() -> None:
    """Have at hand what ``create`` needs, which takes a while."""
    importlib.import_module("pyroute2")


def create(setup: Setup) -> None:
    """Make the interface. Raises ``HostError`` (CANNOT_INSTALL), and leaves nothing then."""
    _in_thread(lambda: _create(setup))


def remove(port: int) -> None:
    """Remove the interface that receives on this port; one that is gone, or never was, is no error."""
    with contextlib.suppress(HostError):
        _in_thread(lambda: _remove(port))


def name_of(port: int) -> str:
    """What the interface is called: a port of the host's is one tunnel's at a time."""
    return f"{PREFIX}{port}"


def sweep() -> int:
    """Remove what makers that are no more have left; how many."""
    with contextlib.suppress(HostError):
        return _in_thread(_sweep)
    return 0


def _in_thread(function: Callable[[], T]) -> T:
    """pyroute2 runs an event loop of its own, which a thread has only one of."""
    from pyroute2.netlink.exceptions import NetlinkError

    with ThreadPoolExecutor(1) as thread:
        try:
            return thread.submit(function).result()
        except (NetlinkError, OSError) as failed:
            code = int((failed.code if isinstance(failed, NetlinkError) else failed.errno) or 0)
            raise error(
                Reason.CANNOT_INSTALL, f"WireGuard interface: {os.strerror(code)}", "modprobe wireguard; accord doctor"
            ) from failed


def _create(setup: Setup) -> None:
    from pyroute2 import IPRoute, WireGuard

    with IPRoute() as netlink:
        taken = {str(link.get_attr("IFLA_IFNAME")) for link in netlink.get_links()}
        ours = sum(name.startswith(PREFIX) for name in taken)
        if ours >= LIMIT:
            raise OSError(28, "")  # ENOSPC
        name = name_of(setup.port)
        netlink.link("add", ifname=name, kind="wireguard")
        index = int(netlink.link_lookup(ifname=name)[0])
        try:
            netlink.link("set", index=index, ifalias=_maker())
            with WireGuard() as wireguard:
                wireguard.set(name, **attributes(setup))
            # IFA_F_NODAD: nobody else is on the link.
            netlink.addr("add", index=index, address=setup.inside, prefixlen=128, flags=0x02)
            netlink.link("set", index=index, state="up")
            netlink.route("add", dst=f"{setup.peer_inside}/128", oif=index)
        except BaseException:
            netlink.link("del", index=index)
            raise


def attributes(setup: Setup) -> dict[str, Any]:
    """Of WG_CMD_SET_DEVICE, as pyroute2 calls them."""
    from base64 import b64encode

    peer: dict[str, Any] = {
        "public_key": b64encode(setup.peer_key).decode(),
        "endpoint_addr": setup.peer_address,
        "endpoint_port": setup.peer_port,
        "allowed_ips": [f"{setup.peer_inside}/128"],
    }
    if setup.keepalive:
        peer["persistent_keepalive"] = setup.keepalive
    return {"private_key": b64encode(setup.private_key).decode(), "listen_port": setup.port, "peer": peer}


def _remove(port: int) -> None:
    from pyroute2 import IPRoute

    with IPRoute() as netlink:
        for index in netlink.link_lookup(ifname=name_of(port)):
            netlink.link("del", index=int(index))


def _sweep() -> int:
    from pyroute2 import IPRoute

    removed = 0
    with IPRoute() as netlink:
        for link in netlink.get_links():
            alias = str(link.get_attr("IFLA_IFALIAS") or "")
            name = str(link.get_attr("IFLA_IFNAME"))
            if name.startswith(PREFIX) and alias.startswith("accord ") and not _lives(alias):
                netlink.link("del", index=int(link["index"]))
                removed += 1
    return removed


def _maker() -> str:
    return f"accord {os.getpid()} {_started(os.getpid())}"


def _lives(alias: str) -> bool:
    _, pid, since = (*alias.split(), "", "")[:3]
    return pid.isdecimal() and _started(int(pid)) == since


def _started(pid: int) -> str:
    """When a process started, in ticks (proc(5), stat, field 22); empty: there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
