# SPDX-License-Identifier: Apache-2.0
"""Sockets born from the first segment, in the queue of a listener that knows nothing of it (docs/PROTOCOL.md, 9.2).

The peer is no kernel: each of its segments is written by scapy, and what host b answers is read by it. So it may say
what no kernel would.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from pyroute2 import NetNS
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from accord.datapath import tcp_sockopt
from accord.datapath.births import LIFETIME, Births, Fate
from accord.datapath.tcp_born import BornCarrier, BornEndpoint, BornTcp
from accord.wire.constants import Reason
from accord.wire.errors import AccordError
from accord.wire.tcp_header import TcpParameters
from tests.tcp.conftest import Host, Tap, Wire, receive, reset_on_close

pytestmark = pytest.mark.root

PORT = 8080
ADDRESS = {4: "10.99.0.9", 6: "fd99::9"}
"""The peer's: nobody's on the wire, so that no kernel answers in its place."""
_ports = itertools.count(20000)
_QUIET = 0.15
"""Seconds in which an answer of this kernel's would have come."""


def mac(host: Host) -> str:
    """Of its interface."""
    with host.inside(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as raw:
        raw.bind((host.interface, 0))
        return str(raw.getsockname()[4].hex(":"))


class Peer:
    """An initiator of one connection, with its own numbers."""

    def __init__(self, wire: Wire, tap: Tap, births: Births, family: int = 4, port: int = PORT) -> None:
        self.wire, self.tap, self.family = wire, tap, family
        self.own = TcpParameters(
            port=next(_ports), isn=0x01020304, mss=1400, window=60000, window_scale=5, sack=True, timestamp=1000
        )
        with wire.b.inside():
            self.endpoint: BornEndpoint = BornTcp(births, wire.b.address(family), ADDRESS[family]).reserve(port)
        self.theirs = self.endpoint.parameters
        with wire.a.inside():
            self._raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
            self._raw.bind(("acc0", 0))
        self._ether = Ether(src=mac(wire.a), dst=mac(wire.b))

    def expected(self) -> Peer:
        """Host b has been told of it."""
        with self.wire.b.inside():
            self.endpoint.install(self.own)
        return self

    def segment(self, data: bytes = b"", flags: str = "PA", **other: object) -> Ether:
        """The first one, but for what is ``other``: fields of the TCP header, ``options``, ``src`` and ``port``."""
        addresses = {"src": other.pop("src", ADDRESS[self.family]), "dst": self.wire.b.address(self.family)}
        echo = other.pop("echo", 0)
        options: list[tuple[str, object]] = []
        if self.own.timestamp is not None:
            options = [("NOP", None), ("NOP", None), ("Timestamp", (self.own.timestamp + 10, echo))]
        fields = {
            "sport": self.own.port,
            "dport": self.theirs.port,
            "seq": self.own.isn + 1,
            "ack": (self.theirs.isn + 1) & 0xFFFFFFFF,
            "window": 60000,
            "options": options,
            **other,
        }
        network = (IP if self.family == 4 else IPv6)(**addresses)
        frame = self._ether / network / TCP(flags=flags, **fields)
        return Ether(bytes(frame / Raw(data) if data else frame))

    def send(self, frame: Ether | bytes) -> None:
        """Onto the wire."""
        self._raw.send(bytes(frame))

    def answers(self, seconds: float = _QUIET) -> list[TCP]:
        """Host b's segments to this peer's port, or to whatever port it has, after so long."""
        time.sleep(seconds)
        return [each for each in self.tap.segments() if each.sport == self.theirs.port]

    def close(self) -> None:
        """Expected no more."""
        self._raw.close()
        self.endpoint.release()


class Scene:
    """A listener on host b, and as many peers as a test wants."""

    def __init__(self, wire: Wire, tap: Tap, births: Births) -> None:
        self.wire, self.tap, self.births = wire, tap, births
        self.stack = contextlib.ExitStack()

    def listener(self, address: str = "::", port: int = PORT) -> socket.socket:
        """A stock one; closed with the test."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with self.wire.b.inside():
            made = socket.create_server((address, port), family=family, dualstack_ipv6=address == "::")
        made.settimeout(_QUIET)
        return self.stack.enter_context(made)

    def one_of_several(self) -> socket.socket:
        """A listener that shares its port with others, as workers of a server do."""
        with self.wire.b.inside():
            made = socket.create_server(("", PORT), reuse_port=True)
        made.settimeout(_QUIET)
        return self.stack.enter_context(made)

    def peer(self, family: int = 4, port: int = PORT) -> Peer:
        """One more."""
        peer = Peer(self.wire, self.tap, self.births, family, port)
        self.stack.callback(peer.close)
        return peer

    def accepted(self, listener: socket.socket) -> socket.socket:
        """What the listener's program gets."""
        listener.settimeout(5)
        connection, _ = listener.accept()
        listener.settimeout(_QUIET)
        self.stack.callback(reset_on_close, connection)
        return connection


@pytest.fixture(scope="module")
def births(wire: Wire) -> Iterator[Births]:
    """The program on host b's interface; host b knows where the peer's address is."""
    with NetNS(wire.b.name) as there:
        index = there.link_lookup(ifname="acc0")[0]
        for address in ADDRESS.values():
            there.neigh("add", dst=address, lladdr=mac(wire.a), ifindex=index, state=0x80)  # NUD_PERMANENT
    with wire.b.inside():
        made = Births("acc0")
    with contextlib.closing(made):
        yield made


@pytest.fixture
def scene(wire: Wire, tap: Tap, births: Births) -> Iterator[Scene]:
    """Ends with the test."""
    made = Scene(wire, tap, births)
    with made.stack:
        yield made


def nobody(listener: socket.socket) -> bool:
    """No connection is there to be accepted."""
    try:
        listener.accept()[0].close()
    except TimeoutError:
        return True
    return False


def end(scene: Scene, peer: Peer) -> tuple[Fate | None, int]:
    """What became of a peer's connection."""
    with scene.wire.b.inside():
        carrier: BornCarrier = peer.endpoint.stream()
        return carrier.end()


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("address", ["::", "its own"])
def test_accept_returns_a_connection_of_the_peers_with_the_data_of_its_first_segment(
    scene: Scene, family: int, address: str
) -> None:
    listener = scene.listener(scene.wire.b.address(family) if address == "its own" else address)
    peer = scene.peer(family).expected()
    peer.send(peer.segment(b"first"))
    connection = scene.accepted(listener)
    assert connection.getpeername()[0].removeprefix("::ffff:") == ADDRESS[family]
    assert connection.getpeername()[1] == peer.own.port
    assert receive(connection, 5) == b"first"
    acknowledgement, *more = peer.answers()
    assert not more
    assert acknowledgement.ack == peer.own.isn + 1 + 5
    assert acknowledgement.seq == (peer.theirs.isn + 1) & 0xFFFFFFFF
    assert str(acknowledgement.flags) == "A"
    assert end(scene, peer) == (Fate.BORN, 0)
    connection.sendall(b"answer")
    assert bytes(peer.answers()[-1].payload) == b"answer"


@pytest.mark.parametrize("flags", ["A", "FA", "FPA"])
def test_a_bare_acknowledgement_or_an_end_may_come_first(scene: Scene, flags: str) -> None:
    listener, peer = scene.listener(), scene.peer().expected()
    data = b"all of it" if "P" in flags else b""
    peer.send(peer.segment(data, flags=flags))
    connection = scene.accepted(listener)
    if "F" in flags:
        assert receive(connection, 100) == data
    else:
        peer.send(peer.segment(b"then data"))
        assert receive(connection, 9) == b"then data"
    assert "R" not in scene.tap.flags()


def test_later_segments_that_come_before_the_first_are_as_lost_and_nobody_is_reset(scene: Scene) -> None:
    """One that was reordered, one whose predecessor was lost, a probe of what is acknowledged already."""
    listener, peer = scene.listener(), scene.peer().expected()
    for ahead in (5, 1400, 60000, -1):
        peer.send(peer.segment(b"later", seq=peer.own.isn + 1 + ahead))
    assert peer.answers() == []
    assert nobody(listener)
    peer.send(peer.segment(b"first"))
    connection = scene.accepted(listener)
    peer.send(peer.segment(b"later", seq=peer.own.isn + 6))
    assert receive(connection, 10) == b"firstlater"
    assert end(scene, peer) == (Fate.BORN, 4)
    assert "R" not in scene.tap.flags()


FOREIGN: dict[str, dict[str, Any]] = {
    "an acknowledgement one too low": {"ack": -1},
    "an acknowledgement one too high": {"ack": 1},
    "a guess": {"ack": 0x12345678},
    "another port of the peer's": {"sport": 19999},
    "a SYN": {"flags": "S"},
    "a SYN-ACK": {"flags": "SA"},
    "a reset": {"flags": "RA"},
    "no ACK": {"flags": "P"},
}


@pytest.mark.parametrize("family", [4, 6])
def test_what_does_not_prove_the_negotiated_number_makes_no_socket_and_costs_the_peer_nothing(
    scene: Scene, family: int
) -> None:
    listener, peer = scene.listener(), scene.peer(family).expected()
    for name, changes in FOREIGN.items():
        fields = dict(changes)
        if "ack" in fields:
            fields["ack"] = (peer.theirs.isn + 1 + int(fields["ack"])) & 0xFFFFFFFF
        peer.send(peer.segment(b"forged", **fields))
        assert nobody(listener), name
    # The SYN of a stranger that guesses the port would otherwise take the place of what is expected.
    assert not [each for each in peer.answers() if "S" in str(each.flags)]
    peer.send(peer.segment(b"true"))
    assert receive(scene.accepted(listener), 4) == b"true"


@pytest.mark.parametrize("family", [4, 6])
def test_a_segment_that_ends_within_its_headers_makes_no_socket(scene: Scene, family: int) -> None:
    listener, peer = scene.listener(), scene.peer(family).expected()
    whole = bytes(peer.segment())
    headers = 14 + (20 if family == 4 else 40) + 20
    for length in range(14, headers):
        peer.send(whole[:length])
    fragment = peer.segment(b"x")
    if family == 4:
        fragment[IP].flags, fragment[IP].chksum = "MF", None
        peer.send(Ether(bytes(fragment)))
    assert nobody(listener)
    assert end(scene, peer) == (Fate.WAITING, 0)


def test_the_options_are_those_that_were_agreed(scene: Scene) -> None:
    wanted = (
        {},
        {"sack": False},
        {"window_scale": None},
        {"timestamp": None},
        {"sack": False, "window_scale": None, "timestamp": None, "mss": 536},
    )
    listener = scene.listener()
    for changes in wanted:
        peer = scene.peer()
        peer.own = replace(peer.own, **changes)
        peer.expected().send(peer.segment(b"x"))
        connection = scene.accepted(listener)
        info = tcp_sockopt.info(connection)
        assert info.sack == peer.own.sack
        assert info.timestamps == (peer.own.timestamp is not None)
        scaled = peer.own.window_scale is not None
        assert info.window_scales == ((peer.own.window_scale, peer.theirs.window_scale) if scaled else None)
        assert info.send_mss == peer.own.mss - (12 if info.timestamps else 0)


def test_the_round_trip_is_the_time_since_the_answer_and_the_clock_goes_on_from_it(scene: Scene) -> None:
    """A peer that echoes the SYN-ACK's TSval, as one whose kernel has seen a SYN-ACK does."""
    listener, peer = scene.listener(), scene.peer().expected()
    assert peer.theirs.timestamp is not None
    time.sleep(0.2)
    peer.send(peer.segment(b"x", echo=peer.theirs.timestamp))
    connection = scene.accepted(listener)
    info = tcp_sockopt.info(connection)
    assert 190_000 <= info.rtt < 1_000_000
    assert 190_000 <= info.min_rtt < 1_000_000
    ((value, echoed),) = (value for name, value in peer.answers()[0].options if name == "Timestamp")
    assert 190 <= value - peer.theirs.timestamp & 0xFFFFFFFF < 1000
    assert echoed == (peer.own.timestamp or 0) + 10


def test_without_an_echo_the_round_trip_is_unknown_rather_than_none(scene: Scene) -> None:
    listener, peer = scene.listener(), scene.peer().expected()
    peer.send(peer.segment(b"x"))
    info = tcp_sockopt.info(scene.accepted(listener))
    assert info.rtt == 0
    assert info.min_rtt == tcp_sockopt.NO_RTT_YET


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("timestamps", [True, False])
def test_who_is_roused_gets_a_segment_that_it_has_already(scene: Scene, family: int, timestamps: bool) -> None:
    scene.listener()
    peer = scene.peer(family)
    if not timestamps:
        peer.own = replace(peer.own, timestamp=None)
    peer.expected()
    time.sleep(0.1)
    with scene.wire.b.inside():
        carrier = peer.endpoint.stream()
        assert carrier.end(patient=True, rouse=True) == (Fate.WAITING, 0)
        assert carrier.end(patient=True) == (Fate.WAITING, 0)
    (asked,) = peer.answers()
    assert (asked.dport, str(asked.flags), len(asked.payload)) == (peer.own.port, "A", 0)
    assert (asked.seq, asked.ack) == (peer.theirs.isn, peer.own.isn + 1)
    stamps = [value for name, value in asked.options if name == "Timestamp"]
    assert len(stamps) == timestamps
    if timestamps:
        assert 90 <= stamps[0][0] - (peer.theirs.timestamp or 0) & 0xFFFFFFFF < 1000
    network = asked.underlayer
    claimed = asked.chksum, network.len if family == 4 else network.plen
    del asked.chksum
    fresh = type(network)(bytes(network))
    assert (fresh[TCP].chksum, fresh.len if family == 4 else fresh.plen) == claimed


def test_one_expectation_serves_one_connection(scene: Scene) -> None:
    listener, peer = scene.listener(), scene.peer().expected()
    for _ in range(3):
        peer.send(peer.segment(b"first"))
    reset_on_close(scene.accepted(listener))
    assert nobody(listener)
    before = len(peer.answers())
    peer.send(peer.segment(b"first"))
    assert nobody(listener)
    assert [str(each.flags) for each in peer.answers()[before:]] == ["R"]


def test_what_is_released_or_too_old_is_answered_as_by_a_host_without_accord(scene: Scene) -> None:
    listener, released, old = scene.listener(), scene.peer().expected(), scene.peer().expected()
    with scene.wire.b.inside():
        released.endpoint.release()
    released.send(released.segment(b"x"))
    time.sleep(LIFETIME + 0.2)
    old.send(old.segment(b"x"))
    assert nobody(listener)
    assert {str(each.flags) for each in old.answers()} == {"R"}
    assert {each.dport for each in scene.tap.segments() if "R" in str(each.flags)} == {released.own.port, old.own.port}
    assert end(scene, old) == (Fate.WAITING, 0)


def test_a_listener_that_goes_in_between_leaves_a_reset_and_a_fate_that_says_so(scene: Scene) -> None:
    listener, peer = scene.listener(), scene.peer().expected()
    listener.close()
    peer.send(peer.segment(b"x"))
    assert [str(each.flags) for each in peer.answers()] == ["R"]
    assert end(scene, peer) == (Fate.DESERTED, 0)


def test_of_several_listeners_on_the_port_one_gets_each_connection(scene: Scene) -> None:
    listeners = [scene.one_of_several() for _ in range(3)]
    peers = [scene.peer().expected() for _ in range(12)]
    for peer in peers:
        peer.send(peer.segment(b"x"))
    got = []
    for listener in listeners:
        with contextlib.suppress(TimeoutError):
            while True:
                connection, address = listener.accept()
                scene.stack.callback(reset_on_close, connection)
                got.append(address[1])
    assert sorted(got) == [peer.own.port for peer in peers]
    assert "R" not in scene.tap.flags()


def refused(scene: Scene, port: int = PORT) -> AccordError:
    """What an expectation is refused with."""
    with pytest.raises(AccordError) as refusal:
        scene.peer(port=port).expected()
    return refusal.value


def test_nobody_who_listens_is_told_before_the_answer(scene: Scene) -> None:
    scene.listener("127.0.0.1")
    failure = refused(scene)
    assert failure.reason is Reason.BACKEND_FAILED
    assert f"nobody listens on TCP port {PORT}" in failure.detail
    with pytest.raises(AccordError, match="but on loopback"), scene.wire.b.inside():
        scene.births.listens(PORT)


def test_syn_cookies_that_are_switched_off_are_told_with_the_mend(scene: Scene) -> None:
    scene.listener()
    scene.wire.b.setting("net/ipv4/tcp_syncookies", "0")
    try:
        failure = refused(scene)
    finally:
        scene.wire.b.setting("net/ipv4/tcp_syncookies", "1")
    assert failure.reason is Reason.NO_KERNEL_SUPPORT
    assert "tcp_syncookies is 0" in failure.detail
    assert "sysctl -w net.ipv4.tcp_syncookies=1" in failure.mend


def test_a_connection_that_is_there_already_and_one_by_another_interface_are_refused(scene: Scene) -> None:
    listener, peer = scene.listener(), scene.peer().expected()
    peer.send(peer.segment(b"x"))
    scene.accepted(listener)
    again = scene.peer()
    again.own = replace(again.own, port=peer.own.port)
    with pytest.raises(AccordError, match="a connection between these ports"):
        again.expected()
    with scene.wire.b.inside():
        near = BornTcp(scene.births, scene.wire.b.ipv4, scene.wire.b.ipv4).reserve(PORT)
        with pytest.raises(AccordError, match="reached by interface 1"):
            near.install(replace(peer.own, port=next(_ports)))


def test_a_listener_of_multipath_tcp_is_told_at_once(scene: Scene) -> None:
    with scene.wire.b.inside():
        try:
            listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)  # IPPROTO_MPTCP
        except OSError:
            pytest.skip("a kernel without MPTCP")
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("0.0.0.0", PORT))
        listener.listen()
        failure = refused(scene)
        assert failure.reason is Reason.CANNOT_INSTALL
        assert "MPTCP" in failure.detail
        with pytest.raises(AccordError, match="MPTCP"), scene.wire.b.inside():
            scene.births.listens(PORT)


def test_a_program_that_is_closed_is_off_the_interface_and_hosts_without_accord_are_served_all_along(
    scene: Scene,
) -> None:
    listener, peer = scene.listener(), scene.peer().expected()

    def plain() -> None:
        with scene.wire.a.inside(), socket.create_connection((scene.wire.b.ipv4, PORT), 5) as connection:
            connection.sendall(b"plain")
            assert receive(scene.accepted(listener), 5) == b"plain"

    plain()
    with scene.wire.b.inside():
        second = Births("acc0")
    plain()
    second.close()
    peer.send(peer.segment(b"x"))
    assert receive(scene.accepted(listener), 1) == b"x"
    plain()


@pytest.mark.parametrize("interface", ["", "none0"])
def test_an_interface_that_is_none_is_told(interface: str) -> None:
    with pytest.raises(AccordError) as refusal:
        Births(interface)
    assert refusal.value.reason is Reason.NO_INTERFACE
