# SPDX-License-Identifier: Apache-2.0
"""Registered sockets: whose datagram is whose, errors by ICMP, and ports that are steered while they are used."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, UDP, IPerror
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6
from scapy.layers.l2 import Ether

from accord.datapath import clock
from accord.datapath.engine import Engine, EventKind
from accord.datapath.path import Path
from accord.datapath.port import Port, Rung
from accord.wire.constants import Reason
from accord.wire.errors import OurError, UserError
from tests.datapath.netns import Host
from tests.datapath.sides import PORT, Side, packet, transaction_id, until


@pytest.fixture
def port() -> Iterator[Port]:
    """A port with nothing but its registered sockets, on the loopback interface."""
    with Port.open() as opened:
        yield opened


@pytest.fixture
def engine() -> Engine:
    """An engine that stores no protocol."""
    return Engine()


def loopback(family: int = 4) -> socket.socket:
    """A bound UDP socket."""
    kind, address = (socket.AF_INET, "127.0.0.1") if family == 4 else (socket.AF_INET6, "::1")
    sock = socket.socket(kind, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    sock.bind((address, 0))
    return sock


@pytest.mark.parametrize("family", [4, 6])
def test_datagrams_of_others_are_handed_out_once_in_order_with_their_path(
    port: Port, engine: Engine, family: int
) -> None:
    with loopback(family) as ours, loopback(family) as theirs:
        index = port.add_socket(ours)
        for number in range(5):
            theirs.sendto(b"not ours %d" % number, ours.getsockname()[:2])
        assert port.poll(engine, clock.now_us()) == 5
        path = Path.udp(ours.getsockname()[:2], theirs.getsockname()[:2], socket=index)
        assert port.datagrams() == [(path, b"not ours %d" % number) for number in range(5)]
        assert port.datagrams() == []


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_a_datagram_that_came_before_its_socket_was_registered_bears_our_address(
    port: Port, engine: Engine, address: str
) -> None:
    """The kernel has noted no address to answer from: nobody had asked for it when the datagram came."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours, loopback() as theirs:
        ours.bind((address, 0))
        number = ours.getsockname()[1]
        theirs.sendto(b"early", ("127.0.0.1", number))
        index = port.add_socket(ours)
        port.poll(engine, clock.now_us())
        path = Path.udp(("127.0.0.1", number), theirs.getsockname(), socket=index)
        assert port.datagrams() == [(path, b"early")]


def test_one_poll_reads_a_socket_empty_although_icmp_errors_wait_in_it(port: Port, engine: Engine) -> None:
    """More of them than are read at a time: one is left to fail the call that reads."""
    with loopback() as ours, loopback() as theirs, loopback() as gone:
        port.add_socket(ours)
        nobody = gone.getsockname()
        gone.close()
        theirs.sendto(b"behind the error", ours.getsockname())
        for _ in range(40):
            with contextlib.suppress(ConnectionRefusedError):  # loopback answers at once
                ours.sendto(b"to nobody", nobody)
        assert port.poll(engine, clock.now_us()) == 1
        assert [data for _, data in port.datagrams()] == [b"behind the error"]


@pytest.mark.parametrize("left", ["another socket of the port", "another port's socket under its index", "none"])
def test_what_a_removed_socket_had_begun_is_answered_from_its_port_or_not_at_all(
    port: Port, engine: Engine, left: str
) -> None:
    with loopback() as first, loopback() as stranger, loopback() as peer:
        first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as second:
            second.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            second.bind(first.getsockname())
            index = port.add_socket(second)  # bound last: the kernel prefers it
            if left == "another socket of the port":
                port.add_socket(first)
            peer.sendto(packet(transaction_id()), first.getsockname())
            assert port.poll(engine, clock.now_us())
            port.remove_socket(index)
        if left == "another port's socket under its index":
            assert port.add_socket(stranger) == index
        port.poll(engine, clock.now_us() + 1_000_000)  # the acknowledgement is due
        if left == "another socket of the port":
            _, sender = peer.recvfrom(1500)
            assert sender == first.getsockname()
        else:
            with pytest.raises(BlockingIOError):
                peer.recv(1500)
            assert port.counters()[Reason.NO_SOCKET] == 1


def test_datagrams_wait_over_polls_until_they_are_asked_for(port: Port, engine: Engine) -> None:
    with loopback() as ours, loopback() as theirs:
        port.add_socket(ours)
        for number in range(3):
            theirs.sendto(b"%d" % number, ours.getsockname())
            assert port.poll(engine, clock.now_us()) == 1
        assert [data for _, data in port.datagrams()] == [b"0", b"1", b"2"]


def test_when_nobody_asks_for_datagrams_they_stay_in_the_kernel_and_none_is_lost(port: Port, engine: Engine) -> None:
    with loopback() as ours, loopback() as theirs:
        port.add_socket(ours)
        for number in range(500):  # 256 fit the ring, the rest a socket's default buffer
            theirs.sendto(b"%d" % number, ours.getsockname())
            if number % 50 == 0:
                port.poll(engine, clock.now_us())
        while port.poll(engine, clock.now_us()):
            pass
        got = [data for _, data in port.datagrams()]
        assert len(got) < 500
        while port.poll(engine, clock.now_us()):
            got += [data for _, data in port.datagrams()]
        assert got == [b"%d" % number for number in range(500)]


@given(st.lists(st.one_of(st.binary(max_size=80), st.just("ours")), max_size=150))
def test_any_mixture_of_ours_and_others_is_told_apart_without_loss(items: list[bytes | str]) -> None:
    engine = Engine(transactions=256, unproven=256)
    with Port.open() as port, loopback() as ours, loopback() as theirs:
        port.add_socket(ours)
        for item in items:
            theirs.sendto(item if isinstance(item, bytes) else packet(transaction_id()), ours.getsockname())
        got: list[bytes] = []
        while port.poll(engine, clock.now_us()):
            got += [data for _, data in port.datagrams()]
            engine.events()
        assert got == [item for item in items if isinstance(item, bytes)]
        assert engine.transactions == items.count("ours")


@pytest.mark.parametrize("size", [0, 31, 32, 65_507])
def test_datagrams_of_every_size_come_whole(port: Port, engine: Engine, size: int) -> None:
    with loopback() as ours, loopback() as theirs:
        port.add_socket(ours)
        theirs.sendto(b"\xff" * size, ours.getsockname())
        port.poll(engine, clock.now_us())
        assert [data for _, data in port.datagrams()] == [b"\xff" * size]


@pytest.mark.parametrize(
    ("family", "kind"),
    [(socket.AF_INET, socket.SOCK_STREAM), (socket.AF_UNIX, socket.SOCK_DGRAM), (socket.AF_INET, socket.SOCK_DGRAM)],
    ids=["TCP", "Unix datagrams", "UDP, but not bound"],
)
def test_what_is_no_bound_udp_socket_is_refused(port: Port, family: int, kind: int) -> None:
    with socket.socket(family, kind) as sock, pytest.raises(UserError) as raised:
        port.add_socket(sock)
    assert raised.value.reason is Reason.BAD_CONFIG


def test_a_socket_is_registered_once_and_again_after_its_removal(port: Port) -> None:
    with loopback() as ours:
        index = port.add_socket(ours)
        with pytest.raises(UserError):
            port.add_socket(ours)
        port.remove_socket(index)
        with pytest.raises(OurError):
            port.remove_socket(index)
        assert port.add_socket(ours) == index


@pytest.mark.parametrize("index", [-1, 0, 4095, 4096, 2**31 - 1])
def test_the_index_of_no_socket_is_refused(port: Port, index: int) -> None:
    with pytest.raises(OurError):
        port.remove_socket(index)


def test_a_removed_socket_is_its_owners_again(port: Port, engine: Engine) -> None:
    with loopback() as ours, loopback() as theirs:
        port.remove_socket(port.add_socket(ours))
        theirs.sendto(b"mine", ours.getsockname())
        assert port.poll(engine, clock.now_us()) == 0
        assert ours.recv(10) == b"mine"


def test_removal_after_its_owner_closed_it_spares_the_next_socket_of_that_number(port: Port, engine: Engine) -> None:
    first = loopback()
    number = first.fileno()
    index = port.add_socket(first)
    first.close()
    with loopback() as second, loopback() as theirs:
        assert second.fileno() == number
        other = port.add_socket(second)
        assert other != index
        port.remove_socket(index)
        theirs.sendto(b"still here", second.getsockname())
        assert port.poll(engine, clock.now_us()) == 1
        assert [(path.socket, data) for path, data in port.datagrams()] == [(other, b"still here")]


def test_ipv4_on_a_socket_for_both_families_is_ipv4(port: Port) -> None:
    engine = Engine()
    engine.support([17, 6])
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as ours, loopback() as theirs:
        ours.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        ours.bind(("::", 0))
        index = port.add_socket(ours)
        number = ours.getsockname()[1]
        theirs.sendto(packet(transaction_id()), ("127.0.0.1", number))
        port.poll(engine, clock.now_us())
        event = next(event for event in engine.events() if event.kind is EventKind.OPENED)
        assert event.path == Path.udp(("127.0.0.1", number), theirs.getsockname(), socket=index)
        engine.send(clock.now_us(), event.handle, 1, [(0, 17, bytes(4))])
        port.poll(engine, clock.now_us())
        theirs.setblocking(True)
        theirs.settimeout(5)
        answer, sender = theirs.recvfrom(2000)
        assert answer[1] == 1
        assert sender == ("127.0.0.1", number)


@pytest.mark.root
@pytest.mark.parametrize("family", [4, 6])
def test_an_answer_leaves_from_the_address_that_was_asked(near: Host, far: Host, family: int) -> None:
    second = "192.0.2.77" if family == 4 else "2001:db8::77"
    length = "24" if family == 4 else "64"
    far.command("ip", "addr", "add", f"{second}/{length}", "dev", far.interface, *(["nodad"] if family == 6 else []))
    with Side(far, Rung.UDP) as side, near.udp(family) as plain:
        side.bind(family, PORT, "0.0.0.0" if family == 4 else "::")
        plain.sendto(packet(transaction_id()), (second, PORT))
        until(lambda: side.of(EventKind.MESSAGE), [side])
        side.answer(side.of(EventKind.OPENED)[0])
        side.pump()
        plain.setblocking(True)
        plain.settimeout(5)
        assert plain.recvfrom(2000)[1][:2] == (second, PORT)


@pytest.mark.root
@pytest.mark.parametrize("rung", [Rung.UDP, Rung.XDP_NATIVE], ids=lambda rung: rung.name)
@pytest.mark.parametrize("family", [4, 6])
def test_a_closed_port_of_the_peer_is_reported_with_the_path_of_its_packet(
    near: Host, far: Host, family: int, rung: Rung
) -> None:
    with Side(near, rung) as side:
        index = side.bind(family, 50000)
        for number in (7001, 7002):
            path = Path.udp((near.address(family), 50000), (far.address(family), number), socket=index)
            side.propose(path)
        until(lambda: len(side.errors) >= 2, [side])
        assert {(error.remote, error.remote_port, error.local_port, error.socket) for error in side.errors} == {
            (far.address(family), number, 50000, index) for number in (7001, 7002)
        }


@pytest.mark.root
def test_no_route_to_the_peer_is_reported(near: Host) -> None:
    with Side(near, Rung.UDP) as side:
        index = side.bind(4, 50000, "0.0.0.0")
        path = Path.udp(("", 50000), ("198.51.100.1", PORT), socket=index)
        side.propose(path)
        until(lambda: side.errors, [side])
        assert side.errors[0].remote == "198.51.100.1"


@pytest.mark.root
def test_icmp_about_the_size_of_a_packet_is_no_error_of_the_peer(near: Host, far: Host) -> None:
    with Side(near, Rung.UDP) as side, far.udp(4, PORT), far.udp(6, PORT), far.raw() as wire:
        for family in (4, 6):
            index = side.bind(family, 50000)
            side.propose(Path.udp((near.address(family), 50000), (far.address(family), PORT), socket=index))
        side.pump()
        quoted = bytes(IP(src=near.address4, dst=far.address4) / UDP(sport=50000, dport=PORT) / bytes(64))
        icmp = IP(src=far.address4, dst=near.address4) / ICMP(type=3, code=4, nexthopmtu=1300) / IPerror(quoted)
        wire.send(bytes(Ether(src=far.mac, dst=near.mac) / icmp))
        quoted = bytes(IPv6(src=near.address6, dst=far.address6) / UDP(sport=50000, dport=PORT) / bytes(64))
        icmp6 = IPv6(src=far.address6, dst=near.address6) / ICMPv6PacketTooBig(mtu=1300) / quoted
        wire.send(bytes(Ether(src=far.mac, dst=near.mac) / icmp6))
        # A refusal sent behind them comes after them, and is the only one.
        quoted = bytes(IP(src=near.address4, dst=far.address4) / UDP(sport=50000, dport=PORT) / bytes(64))
        refusal = IP(src=far.address4, dst=near.address4) / ICMP(type=3, code=3) / IPerror(quoted)
        wire.send(bytes(Ether(src=far.mac, dst=near.mac) / refusal))
        until(lambda: side.errors, [side])
        assert [(error.remote, error.remote_port) for error in side.errors] == [(far.address4, PORT)]
        assert near.snmp("Icmp", "InDestUnreachs") == 2
        assert near.snmp6("Icmp6InPktTooBigs") == 1


@pytest.mark.root
def test_a_port_is_steered_as_long_as_one_of_its_sockets_is_registered(near: Host, far: Host) -> None:
    with Side(far, Rung.XDP_NATIVE) as side, near.udp(4) as plain:

        def send_and_count(reason: Reason) -> None:
            before = side.port.counters().get(reason, 0)
            plain.sendto(packet(transaction_id()), (far.address4, PORT))
            until(lambda: side.port.counters().get(reason, 0) == before + 1, [side])

        send_and_count(Reason.NOT_OURS_PORT)
        indices = [side.bind(4), side.bind(6)]
        send_and_count(Reason.STEERED)
        side.port.remove_socket(indices[0])
        send_and_count(Reason.STEERED)
        side.port.remove_socket(indices[1])
        send_and_count(Reason.NOT_OURS_PORT)


@pytest.mark.root
def test_a_packet_on_another_interface_of_the_packet_rung_comes_by_the_socket(far: Host) -> None:
    with Side(far, Rung.PACKET) as side, far.udp(4, 0, "127.0.0.1") as plain:
        side.bind(4, PORT, "0.0.0.0")
        plain.sendto(packet(transaction_id()), ("127.0.0.1", PORT))
        until(lambda: side.of(EventKind.OPENED), [side])
        assert Reason.STEERED not in side.port.counters()
