# SPDX-License-Identifier: Apache-2.0
"""Each rung for real, between two namespaces: packets go in and out, by the way that the report says."""

from __future__ import annotations

import contextlib
import resource
import select
import socket
import time
from collections.abc import Callable, Iterator

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether

from accord.datapath import clock
from accord.datapath.engine import EventKind
from accord.datapath.path import NO_SOCKET, Path
from accord.datapath.port import Rung
from accord.wire.constants import Reason
from tests.datapath.netns import Host, receive_frame
from tests.datapath.sides import PATIENCE, PORT, Side, message, packet, transaction_id, until

pytestmark = pytest.mark.root

XDP = [Rung.XDP_NATIVE, Rung.XDP_GENERIC]
FRAMES = [*XDP, Rung.PACKET]
FAMILIES = [pytest.param(4, id="IPv4"), pytest.param(6, id="IPv6")]


def sent_by_sockets(host: Host, family: int) -> int:
    """UDP datagrams that this host's kernel sent for anybody."""
    return host.snmp("Udp", "OutDatagrams") if family == 4 else host.snmp6("Udp6OutDatagrams")


def waits_until(condition: Callable[[], bool]) -> None:
    """Without a poll, by which more would happen than is looked at."""
    give_up = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.001)


@pytest.mark.parametrize("rung", list(Rung), ids=lambda rung: rung.name)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_message_and_its_answer_travel_between_two_ports_of_a_rung(
    near: Host, far: Host, rung: Rung, family: int
) -> None:
    with Side(near, rung) as initiator, Side(far, rung) as responder:
        assert initiator.port.report.rung is responder.port.report.rung is rung
        ours = initiator.bind(family, 50000)
        theirs = responder.bind(family, PORT)
        path = Path.udp((near.address(family), 50000), (far.address(family), PORT), socket=ours)
        initiator.propose(path, b"p" * 5000)
        until(lambda: responder.of(EventKind.MESSAGE), [initiator, responder])
        opened = responder.of(EventKind.OPENED)[0]
        assert opened.path == Path.udp((far.address(family), PORT), (near.address(family), 50000), socket=theirs)
        responder.answer(opened, b"a" * 5000)
        until(lambda: initiator.of(EventKind.MESSAGE), [initiator, responder])
        assert responder.payloads() == [b"p" * 5000]
        assert initiator.payloads() == [b"a" * 5000]
        for side in (initiator, responder):
            assert side.port.counters()[Reason.STEERED] >= 5
            assert Reason.DUPLICATE not in side.engine.counters()
        if rung is Rung.UDP:
            assert sent_by_sockets(far, family) >= 5
        else:
            assert sent_by_sockets(far, family) == 0


@pytest.mark.parametrize("rung", FRAMES, ids=lambda rung: rung.name)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_plain_udp_socket_receives_what_a_rung_of_frames_answers(
    near: Host, far: Host, rung: Rung, family: int
) -> None:
    plain = near.udp(family)
    plain.setblocking(True)
    plain.settimeout(5)
    with Side(far, rung) as responder:
        responder.bind(family)
        plain.sendto(packet(transaction_id()), (far.address(family), PORT))
        until(lambda: responder.of(EventKind.MESSAGE), [responder])
        responder.answer(responder.of(EventKind.OPENED)[0], b"x" * 100)
        responder.pump()
        answer = plain.recv(2000)
        assert answer[1] == 1
        assert answer[4:8] == b"ACRD"
        assert answer.endswith(b"x" * 100)
        assert sent_by_sockets(far, family) == 0
    plain.close()


TAGS = {
    "802.1Q": Dot1Q(vlan=7, prio=5),
    "802.1ad around 802.1Q": Dot1AD(vlan=9) / Dot1Q(vlan=7),
}


@pytest.mark.parametrize("rung", FRAMES, ids=lambda rung: rung.name)
@pytest.mark.parametrize("tags", TAGS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_answer_to_a_tagged_frame_bears_the_same_tags(
    near: Host, far: Host, rung: Rung, tags: str, family: int
) -> None:
    network = IP(src=near.address4, dst=far.address4) if family == 4 else IPv6(src=near.address6, dst=far.address6)
    sent = Ether(src=near.mac, dst=far.mac) / TAGS[tags] / network / UDP(sport=50000, dport=PORT)
    with Side(far, rung, any_port=True) as responder, near.raw() as wire:
        wire.send(bytes(sent / packet(transaction_id())))
        until(lambda: responder.of(EventKind.MESSAGE), [responder])
        responder.answer(responder.of(EventKind.OPENED)[0])
        responder.pump()
        frame = next(frame for frame in iter(lambda: receive_frame(wire), b"") if b"ACRD" in frame)
    answer = Ether(frame)
    assert (answer.src, answer.dst) == (far.mac, near.mac)
    header = len(Ether()) + len(TAGS[tags])
    assert frame[12:header] == bytes(sent)[12:header]
    assert answer[UDP].dport == 50000
    # scapy computes the checksums anew and has to come to the same frame.
    again = answer.copy()
    del again[UDP].chksum
    if family == 4:
        del again[IP].chksum
    assert bytes(again) == frame


@pytest.mark.parametrize("rung", FRAMES, ids=lambda rung: rung.name)
@pytest.mark.parametrize("family", FAMILIES)
def test_ip_protocol_253_is_answered_over_itself_and_never_by_icmp(
    near: Host, far: Host, rung: Rung, family: int
) -> None:
    network = (
        IP(src=near.address4, dst=far.address4, proto=253)
        if family == 4
        else IPv6(src=near.address6, dst=far.address6, nh=253)
    )
    with Side(far, rung) as responder, near.raw() as wire:
        wire.send(bytes(Ether(src=near.mac, dst=far.mac) / network / packet(transaction_id())))
        until(lambda: responder.of(EventKind.MESSAGE), [responder])
        opened = responder.of(EventKind.OPENED)[0]
        assert opened.path == Path(family, 253, far.address(family), 0, near.address(family), 0, NO_SOCKET)
        responder.answer(opened)
        responder.pump()
        frame = next(frame for frame in iter(lambda: receive_frame(wire), b"") if b"ACRD" in frame)
    answer = Ether(frame)
    assert (answer[IP].proto if family == 4 else answer[IPv6].nh) == 253
    assert far.snmp("Icmp", "OutDestUnreachs") + far.snmp6("Icmp6OutDestUnreachs") == 0


def sent_by_kernel(host: Host, family: int) -> int:
    """IP packets, neighbour discovery left out."""
    if family == 4:
        return host.snmp("Ip", "OutRequests")
    return host.snmp6("Ip6OutRequests", less="Icmp6OutMsgs")


def direct(near: Host, far: Host, family: int) -> Path:
    """From near to far, over IP protocol 253."""
    return Path(family, 253, near.address(family), 0, far.address(family), 0)


@pytest.mark.parametrize("rung", FRAMES, ids=lambda rung: rung.name)
@pytest.mark.parametrize("family", FAMILIES)
def test_an_initiator_opens_over_ip_protocol_253_and_learns_its_link_from_the_answer(
    near: Host, far: Host, rung: Rung, family: int
) -> None:
    with Side(near, rung) as initiator, Side(far, rung) as responder:
        initiator.propose(direct(near, far, family), b"p" * 5000)
        until(lambda: responder.of(EventKind.MESSAGE), [initiator, responder])
        by_kernel = sent_by_kernel(near, family)
        responder.answer(responder.of(EventKind.OPENED)[0], b"a" * 5000)
        until(lambda: initiator.of(EventKind.MESSAGE), [initiator, responder])
        initiator.engine.send(clock.now_us(), initiator.events[0].handle, 2, message(b"c" * 3000))
        until(lambda: len(responder.of(EventKind.MESSAGE)) == 2, [initiator, responder])
        assert responder.payloads() == [b"p" * 5000, b"c" * 3000]
        assert initiator.payloads() == [b"a" * 5000]
        # The raw socket had the first packets; once the link is known all leave by the ring.
        assert sent_by_kernel(near, family) == by_kernel
        assert initiator.port.ring_statistics()[0].sent >= 3
        for host in (near, far):
            assert host.snmp("Icmp", "OutDestUnreachs") + host.snmp6("Icmp6OutParmProblems") == 0


@pytest.mark.parametrize("rung", XDP, ids=lambda rung: rung.name)
@pytest.mark.parametrize("family", FAMILIES)
def test_what_xdp_passes_of_ip_protocol_253_still_arrives_by_the_raw_socket(
    near: Host, far: Host, rung: Rung, family: int
) -> None:
    with Side(near, rung) as initiator, Side(far, rung) as responder:
        for side in (initiator, responder):
            side.port.quiet()
        initiator.propose(direct(near, far, family), b"p" * 5000)
        for _ in range(2000):
            initiator.pump()
            responder.pump()
            if responder.of(EventKind.MESSAGE):
                break
            time.sleep(0.001)
        assert responder.payloads() == [b"p" * 5000]
        assert Reason.STEERED not in responder.port.counters()
        assert responder.port.counters()[Reason.STALE_HEARTBEAT] >= 5
        opened = responder.of(EventKind.OPENED)[0]
        assert opened.path == direct(far, near, family)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_peer_that_does_not_know_ip_protocol_253_is_reported_unreachable(near: Host, far: Host, family: int) -> None:
    with Side(near, Rung.PACKET) as initiator:
        path = direct(near, far, family)
        initiator.propose(path)
        until(lambda: initiator.errors, [initiator])
        assert (initiator.errors[0].context, initiator.errors[0].remote) == (253, far.address(family))


def test_the_udp_rung_cannot_send_over_ip_protocol_253_and_says_so(near: Host, far: Host) -> None:
    with Side(near, Rung.UDP) as initiator:
        initiator.propose(direct(near, far, 4))
        initiator.pump()
        assert initiator.port.counters()[Reason.NO_SOCKET] == 1


@pytest.mark.parametrize("rung", FRAMES, ids=lambda rung: rung.name)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_udp_checksum_that_may_be_partial_is_not_looked_at_and_the_packets_own_is(
    near: Host, far: Host, rung: Rung, family: int
) -> None:
    network = IP(src=near.address4, dst=far.address4) if family == 4 else IPv6(src=near.address6, dst=far.address6)
    damaged = bytearray(packet(transaction_id()))
    damaged[30] ^= 1
    mine = transaction_id()
    with Side(far, rung, any_port=True) as responder, near.raw() as wire:
        for payload in (bytes(damaged), packet(mine)):
            udp = UDP(sport=50000, dport=PORT, chksum=0xDEAD)
            wire.send(bytes(Ether(src=near.mac, dst=far.mac) / network / udp / payload))
        until(lambda: responder.of(EventKind.MESSAGE), [responder])
        assert [event.transaction for event in responder.of(EventKind.OPENED)] == [mine]
        assert responder.engine.counters()[Reason.BAD_CHECKSUM] == 1


@pytest.mark.parametrize("rung", FRAMES, ids=lambda rung: rung.name)
def test_a_packet_that_the_host_would_forward_is_left_to_it(near: Host, far: Host, rung: Rung) -> None:
    far.set("ipv4/conf/all/forwarding", "1")
    far.set("ipv6/conf/all/forwarding", "1")
    with Side(far, rung, any_port=True) as router, near.raw() as wire:
        far.command("ip", "route", "add", "198.51.100.0/24", "via", near.address4)
        far.command("ip", "route", "add", "2001:db8:1::/64", "via", near.address6)
        frames = [
            Ether(src=near.mac, dst=far.mac) / network / UDP(sport=50000, dport=PORT) / packet(transaction_id())
            for network in (
                IP(src=near.address4, dst="198.51.100.9"),
                IPv6(src="2001:db8::1", dst="2001:db8:1::9"),
                IP(src=near.address4, dst=far.address4),
                IPv6(src="2001:db8::1", dst="2001:db8::2"),
            )
        ]
        for frame in frames:
            wire.send(bytes(frame))
        until(lambda: len(router.of(EventKind.OPENED)) == 2, [router])
        until(lambda: router.port.counters().get(Reason.NOT_LOCAL) == 2, [router])
        assert {event.path.local for event in router.events if event.path} == {far.address4, far.address6}
        # The two come back: our own namespace is the next hop.
        forwarded = set()
        while len(forwarded) < 2:
            answer = Ether(receive_frame(wire))
            if UDP in answer and answer[UDP].dport == PORT:
                forwarded.add((answer[IP] if IP in answer else answer[IPv6]).dst)
    assert forwarded == {"198.51.100.9", "2001:db8:1::9"}


@pytest.mark.parametrize("rung", FRAMES, ids=lambda rung: rung.name)
def test_a_frame_for_another_ethernet_address_is_not_taken(near: Host, far: Host, rung: Rung) -> None:
    far.command("ip", "link", "set", far.interface, "promisc", "on")
    network = IP(src=near.address4, dst=far.address4) / UDP(sport=50000, dport=PORT)
    with Side(far, rung, any_port=True) as responder, near.raw() as wire:
        wire.send(bytes(Ether(src=near.mac, dst="02:00:00:00:00:77") / network / packet(transaction_id())))
        mine = transaction_id()
        wire.send(bytes(Ether(src=near.mac, dst=far.mac) / network / packet(mine)))
        until(lambda: responder.of(EventKind.OPENED), [responder])
        assert [event.transaction for event in responder.of(EventKind.OPENED)] == [mine]


@contextlib.contextmanager
def no_more_descriptors() -> Iterator[None]:
    """Nobody in this process can open anything."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("rung", FRAMES, ids=lambda rung: rung.name)
def test_a_changed_ethernet_address_counts_from_the_next_heartbeat(near: Host, far: Host, rung: Rung) -> None:
    with Side(far, rung, any_port=True) as responder, near.raw() as wire:
        far.command("ip", "link", "set", far.interface, "address", "02:00:00:00:00:55")
        with no_more_descriptors():
            responder.port.heartbeat()  # nor does it matter whose namespace this thread is in
        responder.hold()
        network = IP(src=near.address4, dst=far.address4) / UDP(sport=50000, dport=PORT)
        wire.send(bytes(Ether(src=near.mac, dst="02:00:00:00:00:55") / network / packet(transaction_id())))
        until(lambda: responder.of(EventKind.OPENED), [responder])


@pytest.mark.parametrize("rung", XDP, ids=lambda rung: rung.name)
def test_a_quiet_port_reads_its_rings_empty_and_the_rest_comes_by_the_socket(near: Host, far: Host, rung: Rung) -> None:
    """So that rings can be closed without a packet in them."""
    plain = near.udp(4)
    with Side(far, rung) as responder:
        responder.bind(4)
        responder.beat()
        for _ in range(5):
            plain.sendto(packet(transaction_id()), (far.address4, PORT))
        waits_until(lambda: responder.port.counters()[Reason.STEERED] == 5)
        responder.port.quiet()
        for _ in range(5):
            plain.sendto(packet(transaction_id()), (far.address4, PORT))
        waits_until(lambda: responder.port.counters()[Reason.STALE_HEARTBEAT] == 5)
        while responder.pump():
            pass
        assert len(responder.of(EventKind.OPENED)) == 10
        assert responder.port.counters()[Reason.STEERED] == 5
        responder.beat()
        plain.sendto(packet(transaction_id()), (far.address4, PORT))
        waits_until(lambda: responder.port.counters()[Reason.STEERED] == 6)


@pytest.mark.parametrize("rung", XDP, ids=lambda rung: rung.name)
def test_rings_of_128_frames_carry_2000_packets_in_and_their_answers_out(near: Host, far: Host, rung: Rung) -> None:
    plain = near.udp(4)
    with Side(far, rung, frames=128) as responder:
        responder.bind(4)
        answered = 0
        for sent in range(1, 2001):
            plain.sendto(packet(transaction_id()), (far.address4, PORT))
            until(lambda sent=sent: len(responder.of(EventKind.OPENED)) == sent, [responder])
            event = responder.of(EventKind.OPENED)[-1]
            responder.answer(event)
            responder.pump()
            responder.engine.close(0, event.handle)
            while True:
                try:
                    answered += plain.recv(2000)[1] == 1
                except BlockingIOError:
                    break
        counters = responder.port.counters()
        assert counters[Reason.STEERED] == 2000
        assert Reason.NO_MEMORY not in counters
        assert sent_by_sockets(far, 4) == 0
        plain.setblocking(True)
        plain.settimeout(5)
        while answered < 2000:
            answered += plain.recv(2000)[1] == 1
    plain.close()


def test_what_xdp_passes_still_arrives_by_the_socket(near: Host, far: Host) -> None:
    plain = near.udp(4)
    with Side(far, Rung.XDP_NATIVE) as responder:
        responder.bind(4)
        whole = bytes(
            IP(src=near.address4, dst=far.address4)
            / UDP(sport=plain.getsockname()[1], dport=PORT)
            / packet(transaction_id(), bytes(900))
        )
        with near.raw() as wire:
            for fragment in IP(whole).fragment(fragsize=400):
                wire.send(bytes(Ether(src=near.mac, dst=far.mac) / fragment))
            until(lambda: responder.of(EventKind.MESSAGE), [responder])
        assert responder.payloads() == [bytes(900)]
        assert responder.port.counters()[Reason.FRAGMENT] == 3
        assert Reason.STEERED not in responder.port.counters()
    plain.close()


@pytest.mark.parametrize("rung", FRAMES, ids=lambda rung: rung.name)
def test_file_descriptors_to_wait_on_become_readable_when_a_packet_is_there(near: Host, far: Host, rung: Rung) -> None:
    plain = near.udp(6)
    with Side(far, rung) as responder:
        responder.bind(6)
        responder.pump()
        plain.sendto(packet(transaction_id()), (far.address6, PORT))
        readable, _, _ = select.select(responder.port.fds(), [], [], 5)
        assert len(readable) == responder.port.report.queues == 1
        assert responder.pump()
        assert responder.of(EventKind.OPENED)
    plain.close()


def test_link_local_ipv6_addresses_are_answered_on_their_own_link(near: Host, far: Host) -> None:
    for host in (near, far):
        host.command("ip", "addr", "add", "fe80::1:1" if host is near else "fe80::1:2", "dev", host.interface, "nodad")
    plain = near.run(lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
    plain.settimeout(5)
    plain.bind(("fe80::1:1", 0, 0, near.index))
    for rung in (Rung.XDP_NATIVE, Rung.UDP):
        with Side(far, rung) as responder:
            responder.bind(6, address="::")
            plain.sendto(packet(transaction_id()), ("fe80::1:2", PORT, 0, near.index))
            until(lambda: responder.of(EventKind.MESSAGE), [responder])
            opened = responder.of(EventKind.OPENED)[0]
            assert opened.path is not None
            assert opened.path.scope == far.index
            responder.answer(opened, b"linked")
            responder.pump()
            assert plain.recv(2000).endswith(b"linked")
            for sock in responder.sockets:
                sock.close()
    plain.close()
