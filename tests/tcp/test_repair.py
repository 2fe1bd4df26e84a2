# SPDX-License-Identifier: Apache-2.0
"""Kernel connections that no SYN opened: on the wire and in TCP_INFO they are what a SYN would have made."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from scapy.layers.inet import IP

from accord.datapath import tcp_numbers
from accord.datapath.stream import SocketCarrier
from accord.datapath.tcp_repair import RepairEndpoint, TcpRepair
from accord.datapath.tcp_sockopt import NO_RTT_YET, STATE_ESTABLISHED
from accord.wire.constants import Reason
from accord.wire.errors import HostError
from accord.wire.tcp_header import TcpParameters, checksum_matches, decode, encode
from tests.tcp.conftest import Host, Tap, Wire, receive, reset_on_close

pytestmark = pytest.mark.root

SERVICE = 443


@pytest.fixture(autouse=True)
def _fresh_numbers() -> None:
    tcp_numbers.forget()


def reserve(here: Host, there: Host, family: int = 4, port: int | None = None) -> RepairEndpoint:
    with here.inside():
        return TcpRepair(here.address(family), there.address(family)).reserve(port)


@contextlib.contextmanager
def pair(
    wire: Wire, family: int = 4, change_a: dict[str, object] | None = None, change_b: dict[str, object] | None = None
) -> Iterator[tuple[RepairEndpoint, RepairEndpoint]]:
    """An initiator's endpoint at a and a responder's at b, installed; with parameters changed as if so proposed."""
    a = reserve(wire.a, wire.b, family)
    b = reserve(wire.b, wire.a, family, SERVICE)
    a._own = replace(a._own, **(change_a or {}))
    b._own = replace(b._own, **(change_b or {}))
    try:
        b.install(a.parameters)
        a.install(b.parameters)
        b.installed()
        a.installed()
        yield a, b
    finally:
        a.release()
        b.release()


def sockets(a: RepairEndpoint, b: RepairEndpoint) -> tuple[socket.socket, socket.socket]:
    return a._held(), b._held()


def exchange(one: socket.socket, other: socket.socket, data: bytes = b"x" * 3000) -> None:
    """``data`` from one to the other and back."""
    for sender, receiver in ((one, other), (other, one)):
        sender.settimeout(5)
        sending = threading.Thread(target=sender.sendall, args=(data,))
        sending.start()
        got = receive(receiver, len(data))
        sending.join()
        assert got == data


def kernel_syn(wire: Wire, family: int, port: int = 9999) -> tuple[bytes, str, str]:
    """The header of the SYN that a's kernel sends for a plain connect(), and its addresses."""
    tap = Tap(wire.a)
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    with wire.b.inside():
        listener = socket.create_server(("", port), family=kind)
    with wire.a.inside():
        plain = socket.create_connection((wire.b.address(family), port), timeout=5)
    syn = next(segment for segment in tap.segments() if segment.flags == "S")
    data, below = bytes(syn), syn.underlayer
    for end in (plain, listener):
        reset_on_close(end)
    tap.close()
    return data, below.src, below.dst


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"net/ipv4/tcp_timestamps": "0"},
        {"net/ipv4/tcp_sack": "0"},
        {"net/ipv4/tcp_window_scaling": "0"},
        {"net/ipv4/tcp_timestamps": "0", "net/ipv4/tcp_sack": "0", "net/ipv4/tcp_window_scaling": "0"},
        {"net/ipv4/tcp_rmem": "4096 20000 1000000"},
    ],
)
def test_the_proposed_numbers_are_those_of_the_kernels_own_syn(
    wire: Wire, family: int, settings: dict[str, str]
) -> None:
    before = dict.fromkeys(settings, "1") | (
        {"net/ipv4/tcp_rmem": "4096 131072 6291456"} if "net/ipv4/tcp_rmem" in settings else {}
    )
    for name, value in settings.items():
        wire.a.setting(name, value)
    try:
        data, _, _ = kernel_syn(wire, family)
        theirs = decode(data).sender
        ours = reserve(wire.a, wire.b, family)
        ours.release()
    finally:
        for name, value in before.items():
            wire.a.setting(name, value)
    assert (
        replace(
            ours.parameters,
            port=theirs.port,
            isn=theirs.isn,
            timestamp=None if ours.parameters.timestamp is None else theirs.timestamp,
        )
        == theirs
    )


@pytest.mark.parametrize("family", [4, 6])
def test_a_syn_of_the_kernel_is_read_and_written_back_byte_for_byte(wire: Wire, family: int) -> None:
    data, source, destination = kernel_syn(wire, family)
    header = decode(data)
    again = encode(header, source, destination)
    # A veth carries partial checksums: what the kernel wrote there is not yet one.
    assert again[:16] + again[18:] == data[:16] + data[18:]
    assert checksum_matches(again, source, destination)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("first", ["initiator", "responder"])
def test_data_flows_both_ways_whoever_speaks_first_and_no_syn_is_on_the_wire(
    wire: Wire, tap: Tap, family: int, first: str
) -> None:
    with pair(wire, family) as ends:
        one, other = sockets(*ends)
        exchange(*((one, other) if first == "initiator" else (other, one)))
        assert not tap.flags() & {"S", "R", "F"}


@pytest.mark.parametrize("family", [4, 6])
def test_installing_and_releasing_puts_nothing_on_the_wire(wire: Wire, tap: Tap, family: int) -> None:
    with pair(wire, family) as (a, b):
        assert (a.info.state, b.info.state) == (STATE_ESTABLISHED, STATE_ESTABLISHED)
    time.sleep(0.05)
    assert tap.segments() == []


@pytest.mark.parametrize("family", [4, 6])
def test_whoever_was_acknowledged_data_that_nobody_will_read_is_reset_on_release(
    wire: Wire, tap: Tap, family: int
) -> None:
    with pair(wire, family) as (a, b):
        a._held().sendall(b"never read")
        b._held().settimeout(5)
        assert b._held().recv(1, socket.MSG_PEEK) == b"n"
        b.release()
        a._held().settimeout(5)
        with pytest.raises(ConnectionResetError):
            a._held().recv(1)
        assert not tap.flags() & {"S", "F"}


@pytest.mark.parametrize("family", [4, 6])
def test_every_option_took_effect_and_segments_have_the_size_of_a_normal_connections(wire: Wire, family: int) -> None:
    with pair(wire, family) as (a, b):
        for own, peer in ((a, b), (b, a)):
            info = own.info
            assert info.timestamps
            assert info.sack
            assert info.window_scales == (peer.parameters.window_scale, own.parameters.window_scale)
            assert info.send_window == peer.parameters.window
            # 12 bytes of timestamps in every segment.
            assert info.send_mss == peer.parameters.mss - 12 == (1448 if family == 4 else 1428)


@pytest.mark.parametrize("scale_a", [0, 1, 7, 14])
@pytest.mark.parametrize("scale_b", [0, 3, 14])
def test_every_window_scale_works_in_both_directions(wire: Wire, tap: Tap, scale_a: int, scale_b: int) -> None:
    with pair(wire, 4, {"window_scale": scale_a}, {"window_scale": scale_b}) as (a, b):
        assert a.info.window_scales == (scale_b, scale_a)
        assert b.info.window_scales == (scale_a, scale_b)
        exchange(*sockets(a, b), data=bytes(range(256)) * 800)
        # What the wire says times the scale is what the other side believes.
        last = [s for s in tap.segments() if s.sport == SERVICE][-1]
        time.sleep(0.01)
        assert a.info.send_window >= last.window << scale_b


@pytest.mark.parametrize(
    ("without_a", "without_b"),
    [
        ({"timestamp": None}, {}),
        ({}, {"timestamp": None}),
        ({"sack": False}, {}),
        ({}, {"sack": False}),
        ({"window_scale": None}, {}),
        ({}, {"window_scale": None}),
        ({"timestamp": None, "sack": False, "window_scale": None}, {}),
    ],
)
def test_an_option_that_one_side_lacks_is_off_on_both(
    wire: Wire, tap: Tap, without_a: dict[str, object], without_b: dict[str, object]
) -> None:
    missing = without_a.keys() | without_b.keys()
    with pair(wire, 4, without_a, without_b) as (a, b):
        for end in (a, b):
            info = end.info
            assert info.timestamps == ("timestamp" not in missing)
            assert info.sack == ("sack" not in missing)
            assert (info.window_scales == (0, 0)) == ("window_scale" in missing)
        exchange(*sockets(a, b), data=b"z" * 100_000)
        stamped = [any(name == "Timestamp" for name, _ in s.options) for s in tap.segments()]
        assert stamped
        assert set(stamped) == {"timestamp" not in missing}


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("mss", [88, 200, 900, 1300])
def test_no_segment_is_larger_than_the_peers_mss(wire: Wire, tap: Tap, family: int, mss: int) -> None:
    with pair(wire, family, {"mss": mss}) as (a, b):
        assert b.info.send_mss == mss - 12
        one, other = sockets(a, b)
        # Segments of one write are one frame on a veth (TSO); writes below that are not.
        one.sendall(b"go")
        receive(other, 2)
        other.sendall(b"q" * (mss * 3))
        assert receive(one, mss * 3) == b"q" * (mss * 3)
        assert b.info.send_mss == mss - 12


def test_no_round_trip_was_recorded_before_data_was_acknowledged(wire: Wire) -> None:
    with pair(wire) as (a, b):
        time.sleep(0.3)
        for end in (a, b):
            assert (end.info.rtt, end.info.min_rtt) == (0, NO_RTT_YET)
        exchange(*sockets(a, b))
        time.sleep(0.05)
        for end in (a, b):
            # Had the wait been counted as a round trip it would be 300 ms.
            assert 0 < end.info.min_rtt < 250_000
            assert end.info.retransmitted == 0


def test_timestamps_run_on_from_the_announced_ones_and_are_even(wire: Wire, tap: Tap) -> None:
    a = reserve(wire.a, wire.b)
    b = reserve(wire.b, wire.a, port=SERVICE)
    time.sleep(0.1)
    b.install(a.parameters)
    a.install(b.parameters)
    exchange(*sockets(a, b))
    announced = {a.parameters.port: a.parameters.timestamp, SERVICE: b.parameters.timestamp}
    segments = tap.segments()
    for segment in segments:
        value, echo = dict(segment.options)["Timestamp"]
        start = announced[segment.sport]
        assert start is not None
        assert start % 2 == 0
        assert 90 <= (value - start) & 0xFFFFFFFF < 60_000
        assert echo == 0 or (echo - (announced[segment.dport] or 0)) & 0xFFFFFFFF < 60_000
    assert dict(segments[0].options)["Timestamp"][1] == 0
    assert all(dict(s.options)["Timestamp"][1] for s in segments[1:])
    a.release()
    b.release()


@pytest.mark.parametrize("start", [0, 0xFFFFFFFE, 0x7FFFFFFE, 0x80000000])
def test_timestamps_and_sequence_numbers_wrap_without_loss(wire: Wire, start: int) -> None:
    changed = {"timestamp": start & ~1, "isn": 0xFFFFFFFF - 500}
    with pair(wire, 4, changed, {**changed, "isn": 0xFFFFFFFF}) as ends:
        exchange(*sockets(*ends), data=b"w" * 50_000)
        time.sleep(0.02)
        exchange(*sockets(*ends), data=b"v" * 50_000)


@pytest.mark.parametrize(("age_ms", "arrives"), [(0, True), (3_600_000, False)])
def test_an_old_duplicate_is_rejected_by_its_timestamp_and_only_by_that(wire: Wire, age_ms: int, arrives: bool) -> None:
    """PAWS (RFC 7323, section 5): b has a's clock from the first segment on."""
    with pair(wire) as (a, b):
        exchange(*sockets(a, b))
        # The same endpoint goes on where it was, with its clock set back.
        known = a.parameters
        a.release()
        again = reserve(wire.a, wire.b)
        again._own = replace(
            again.parameters,
            port=known.port,
            isn=(known.isn + 3000) & 0xFFFFFFFF,
            timestamp=((known.timestamp or 0) + 1000 - age_ms) & 0xFFFFFFFE,
        )
        again._held().close()
        with wire.a.inside():
            again = RepairEndpoint(socket.socket(), again._local, again._remote, again.parameters, is_service=True)
        again.install(replace(b.parameters, isn=(b.parameters.isn + 3000) & 0xFFFFFFFF))
        again.installed()
        again._held().send(b"next")
        other = b._held()
        other.settimeout(5 if arrives else 0.2)
        if arrives:
            assert other.recv(10) == b"next"
        else:
            with pytest.raises(TimeoutError):
                other.recv(10)
        again.release()


def test_a_normal_close_is_fin_and_fin_and_nothing_else(wire: Wire, tap: Tap) -> None:
    with pair(wire) as (a, b):
        one, other = (end.stream().detach() for end in (a, b))
        exchange(one, other)
        one.shutdown(socket.SHUT_WR)
        assert receive(other, 1) == b""
        other.sendall(b"half closed")
        assert receive(one, 11) == b"half closed"
        other.close()
        assert receive(one, 1) == b""
        one.close()
        flags = [str(segment.flags) for segment in tap.segments()]
        assert sum("F" in text for text in flags) == 2
        assert not any("R" in text or "S" in text for text in flags)


def test_an_abort_is_a_reset_that_the_peer_sees(wire: Wire, tap: Tap) -> None:
    with pair(wire) as (a, b):
        stream, other = a.stream(), b.stream().detach()
        stream.abort()
        with pytest.raises(ConnectionResetError):
            receive(other, 1)
        other.close()
        assert "R" in tap.flags()


def test_data_to_an_endpoint_that_was_released_is_answered_by_a_reset(wire: Wire) -> None:
    with pair(wire) as (a, b):
        b.release()
        one = a._held()
        one.send(b"to nobody")
        with pytest.raises(ConnectionResetError):
            receive(one, 1)


def test_a_service_port_is_shared_with_its_listener_before_and_after(wire: Wire) -> None:
    with wire.b.inside():
        listener = socket.create_server(("", SERVICE))
    with pair(wire) as (a, b):
        exchange(*sockets(a, b))
        with wire.a.inside():
            plain = socket.create_connection((wire.b.ipv4, SERVICE), timeout=5)
        accepted, _ = listener.accept()
        exchange(plain, accepted)
        listener.close()
        reset_on_close(accepted)
        reset_on_close(plain)
        # The service starts anew while the negotiated connection lives on.
        with wire.b.inside():
            socket.create_server(("", SERVICE)).close()
        exchange(*sockets(a, b))


def test_many_connections_share_one_service_port(wire: Wire) -> None:
    with contextlib.ExitStack() as stack:
        ends = [stack.enter_context(pair(wire)) for _ in range(50)]
        assert len({a.parameters.port for a, _ in ends}) == 50
        for number, (a, b) in enumerate(ends):
            exchange(*sockets(a, b), data=b"%03d" % number)


def test_an_ephemeral_port_is_nobody_elses_while_it_is_reserved(wire: Wire) -> None:
    end = reserve(wire.a, wire.b)
    with wire.a.inside(), socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use"):
            other.bind((wire.a.ipv4, end.parameters.port))
        end.release()
        other.bind((wire.a.ipv4, end.parameters.port))


def test_the_same_four_tuple_twice_is_refused_and_says_why(wire: Wire) -> None:
    with pair(wire) as (a, b):
        again = reserve(wire.b, wire.a, port=SERVICE)
        again.install(a.parameters)
        with pytest.raises(
            HostError, match=r"connect\(.*wait until the older connection|connect\(.*pair of ports"
        ) as caught:
            again.installed()
        assert caught.value.reason is Reason.CANNOT_INSTALL
        exchange(*sockets(a, b))


def test_a_peer_without_a_route_is_refused_before_anything_is_proposed(wire: Wire) -> None:
    with wire.a.inside(), pytest.raises(HostError, match="add a route") as caught:
        TcpRepair(wire.a.ipv4, "198.51.100.1").reserve()
    assert caught.value.reason is Reason.CANNOT_INSTALL


def test_an_address_that_is_not_this_hosts_is_refused_by_name(wire: Wire) -> None:
    with wire.a.inside(), pytest.raises(HostError, match=r"bind\(10\.99\.0\.77") as caught:
        TcpRepair("10.99.0.77", wire.b.ipv4).reserve()
    assert caught.value.reason is Reason.CANNOT_INSTALL


def test_without_the_privilege_the_error_names_it(wire: Wire) -> None:
    os.seteuid(65534)  # takes the effective capabilities with it
    try:
        with pytest.raises(HostError, match=r"TCP_REPAIR on.*CAP_NET_ADMIN") as caught:
            TcpRepair("127.0.0.1", "127.0.0.1").reserve()
    finally:
        os.seteuid(0)
    assert caught.value.reason is Reason.NO_PRIVILEGE


def test_using_an_endpoint_out_of_order_is_the_callers_mistake(wire: Wire) -> None:
    end = reserve(wire.a, wire.b)
    with pytest.raises(RuntimeError, match="not installed"):
        end.stream()
    end.release()
    end.release()
    for use in (end.stream, lambda: end.install(TcpParameters(1, 1, 1460, 1000))):
        with pytest.raises(RuntimeError, match="released"):
            use()
    with pytest.raises(ValueError, match="one family"):
        TcpRepair("127.0.0.1", "::1")
    with pytest.raises(ValueError, match="no IP address"):
        TcpRepair("localhost", "::1")


def test_what_was_handed_over_is_not_released(wire: Wire) -> None:
    with pair(wire) as (a, b):
        streams = a.stream(), b.stream()
        assert all(isinstance(stream, SocketCarrier) for stream in streams)
        a.release()
        b.release()
        exchange(*(stream.detach() for stream in streams))


def test_the_kernels_addresses_and_ports_are_the_negotiated_ones(wire: Wire, tap: Tap) -> None:
    with pair(wire) as (a, b):
        one, other = sockets(a, b)
        assert one.getpeername() == other.getsockname() == (wire.b.ipv4, SERVICE)
        one.sendall(b"hello")
        receive(other, 5)
        first = tap.segments()[0]
        assert (first.seq, first.ack) == ((a.parameters.isn + 1) & 0xFFFFFFFF, (b.parameters.isn + 1) & 0xFFFFFFFF)
        assert isinstance(first.underlayer, IP)
