# SPDX-License-Identifier: Apache-2.0
"""WireGuard interfaces: what may be asked for, what netlink is told and in which order, and what is left behind."""

from __future__ import annotations

import base64
import ipaddress
import os
from typing import Any, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.daemon.tunnels import Tunnels
from accord.datapath import wireguard
from accord.datapath.wireguard import Setup, attributes, inside_addresses
from accord.wire.constants import Reason
from accord.wire.errors import AccordError

KEYS = st.binary(min_size=32, max_size=32)
PORTS = st.integers(1, 65535)
OUTSIDE = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6).filter(lambda found: found.ipv4_mapped is None))


def setup(**changes: Any) -> Setup:
    inside, peer_inside = inside_addresses(b"\x01" * 32, b"\x02" * 32)
    values: dict[str, Any] = {
        "private_key": b"\x03" * 32,
        "peer_key": b"\x02" * 32,
        "port": 51001,
        "peer_port": 51002,
        "peer_address": "192.0.2.2",
        "inside": inside,
        "peer_inside": peer_inside,
        "keepalive": 25,
    }
    return Setup(**{**values, **changes})


@given(KEYS, KEYS)
def test_both_ends_see_the_same_two_addresses_of_one_network_of_their_own(one: bytes, other: bytes) -> None:
    mine, yours = inside_addresses(one, other)
    if one != other:
        assert inside_addresses(other, one) == (yours, mine)
    network = ipaddress.ip_network("fd00::/8")
    assert all(ipaddress.ip_address(each) in network for each in (mine, yours))
    assert ipaddress.ip_network(f"{mine}/64", strict=False) == ipaddress.ip_network(f"{yours}/64", strict=False)
    assert mine != yours


@given(KEYS, KEYS, PORTS, PORTS, OUTSIDE, st.integers(0, 25))
def test_what_is_asked_for_is_what_is_heard(
    private: bytes, peer: bytes, port: int, peer_port: int, outside: Any, keepalive: int
) -> None:
    wanted = setup(
        private_key=private,
        peer_key=peer,
        port=port,
        peer_port=peer_port,
        peer_address=str(outside),
        keepalive=keepalive,
    )
    assert Setup.decode(wanted.encode()) == wanted


@given(st.binary(max_size=200))
def test_no_bytes_make_a_tunnel_outside_of_the_networks_for_tunnels(data: bytes) -> None:
    try:
        found = Setup.decode(data)
    except ValueError:
        return
    assert ipaddress.ip_address(found.inside) in ipaddress.ip_network("fd00::/8")


@pytest.mark.parametrize(
    "changes",
    [
        {"port": 0},
        {"peer_port": 0},
        {"inside": "2001:db8::1", "peer_inside": "2001:db8::2"},
        {"inside": "fd00:1::1", "peer_inside": "fd00:2::1"},
        {"inside": "fd00::1", "peer_inside": "fd00::1"},
        {"keepalive": 26},
    ],
)
def test_a_request_that_no_tunnel_of_ours_has_is_refused_by_the_privileged_process(changes: dict[str, Any]) -> None:
    with pytest.raises(AccordError) as refused:
        Tunnels(allowed=True).add(setup(**changes).encode())
    assert refused.value.reason is Reason.NO_PRIVILEGE


def test_a_request_that_is_cut_off_is_refused() -> None:
    with pytest.raises(AccordError, match="as nobody asks"):
        Tunnels(allowed=True).add(setup().encode()[:-1])


def test_the_kernel_is_told_keys_port_and_one_peer_with_one_address() -> None:
    assert attributes(setup()) == {
        "private_key": base64.b64encode(b"\x03" * 32).decode(),
        "listen_port": 51001,
        "peer": {
            "public_key": base64.b64encode(b"\x02" * 32).decode(),
            "endpoint_addr": "192.0.2.2",
            "endpoint_port": 51002,
            "allowed_ips": [f"{setup().peer_inside}/128"],
            "persistent_keepalive": 25,
        },
    }
    assert "persistent_keepalive" not in attributes(setup(keepalive=0))["peer"]


class Link(dict[str, Any]):
    """A link as IPRoute tells of it."""

    def get_attr(self, name: str) -> Any:
        return self.get(name)


class Netlink:
    """IPRoute and WireGuard in one, with a list of what they were told. ``refuses``: at which word."""

    told: list[str]
    links: list[Link]
    refuses = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def _tell(self, words: str) -> None:
        self.told.append(words)
        if self.refuses and words.startswith(self.refuses):
            raise OSError(95, "Operation not supported")

    def get_links(self) -> list[Link]:
        return self.links

    def link(self, verb: str, **what: Any) -> None:
        self._tell(f"link {verb} {' '.join(sorted(what))}")

    def link_lookup(self, ifname: str) -> list[int]:
        return [77]

    def addr(self, verb: str, **what: Any) -> None:
        self._tell(f"addr {verb} {what['address']}/{what['prefixlen']}")

    def route(self, verb: str, **what: Any) -> None:
        self._tell(f"route {verb} {what['dst']}")

    def set(self, name: str, **what: Any) -> None:
        self._tell(f"wireguard {name} {' '.join(sorted(what))}")


@pytest.fixture
def netlink(monkeypatch: pytest.MonkeyPatch) -> type[Netlink]:
    Netlink.told, Netlink.links, Netlink.refuses = [], [], ""
    monkeypatch.setattr("pyroute2.IPRoute", Netlink)
    monkeypatch.setattr("pyroute2.WireGuard", Netlink)
    return Netlink


def test_an_interface_has_its_keys_before_it_is_up_and_its_route_last(netlink: type[Netlink]) -> None:
    netlink.links = [Link(IFLA_IFNAME="lo"), Link(IFLA_IFNAME="accwg0")]
    inside, peer_inside = setup().inside, setup().peer_inside
    wireguard.create(setup())
    assert netlink.told == [
        "link add ifname kind",
        "link set ifalias index",
        "wireguard accwg51001 listen_port peer private_key",
        f"addr add {inside}/128",
        "link set index state",
        f"route add {peer_inside}/128",
    ]


@pytest.mark.parametrize("word", ["wireguard", "addr", "link set index state", "route"])
def test_an_interface_that_cannot_be_finished_is_removed_again(netlink: type[Netlink], word: str) -> None:
    netlink.refuses = word
    with pytest.raises(AccordError, match="Operation not supported") as refused:
        wireguard.create(setup())
    assert refused.value.reason is Reason.CANNOT_INSTALL
    assert netlink.told[-1] == "link del index"


def test_more_tunnels_than_the_limit_are_refused(netlink: type[Netlink]) -> None:
    netlink.links = [Link(IFLA_IFNAME=f"accwg{number}") for number in range(wireguard.LIMIT)]
    with pytest.raises(AccordError, match="No space left"):
        wireguard.create(setup())
    assert netlink.told == []


def test_what_a_maker_left_that_is_no_more_is_swept_and_nothing_else(netlink: type[Netlink]) -> None:
    living = wireguard._maker()
    netlink.links = [
        Link(IFLA_IFNAME="accwg0", IFLA_IFALIAS=living, index=1),
        Link(IFLA_IFNAME="accwg1", IFLA_IFALIAS=f"accord {os.getpid()} 1", index=2),
        Link(IFLA_IFNAME="accwg2", IFLA_IFALIAS="somebody else's", index=3),
        Link(IFLA_IFNAME="wg0", IFLA_IFALIAS="accord 1 1", index=4),
    ]
    assert wireguard.sweep() == 1
    assert netlink.told == ["link del index"]


def test_the_privileged_process_removes_only_what_it_has_made_and_all_of_that_at_its_end(
    netlink: type[Netlink],
) -> None:
    tunnels = Tunnels(allowed=True)
    assert not tunnels.remove(51001)
    tunnels.add(setup().encode())
    with pytest.raises(AccordError, match="has a tunnel"):
        tunnels.add(setup().encode())
    assert not tunnels.remove(51002)
    tunnels.close()
    assert netlink.told[-1] == "link del index"
    assert not tunnels.remove(51001)
