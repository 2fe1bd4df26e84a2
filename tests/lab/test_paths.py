# SPDX-License-Identifier: Apache-2.0
"""Each kind of path does to packets what it says, and nothing else.

scapy makes the packets and a packet socket of the other host sees what became of them: one packet of each kind that a
middlebox of ours knows how to hurt. So what is *not* in a path's row below got through it untouched.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import statistics
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet, Raw

from accord.lab import Lab
from accord.lab.namespace import Namespace
from accord.lab.paths import PATHS

pytestmark = pytest.mark.root

MakeLab = Callable[..., Lab]
RTT = 0.004
QUIET = 0.15
"""Seconds without a packet after which nothing more is expected."""
OPTION = (254, bytes.fromhex("acc0") + b"twelve bytes")
OPTIONS = [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (7, 0)), ("NOP", None), ("WScale", 7)]


def marked(name: str) -> bytes:
    return f"<{name}>".encode()


PORTS = {"syn": 1001, "syn with option": 1002, "segment without syn": 1003}


def probes(version: int) -> dict[str, Packet]:
    """The packets to send, by name, above the IP header; the payload or the source port tells them apart."""
    return {
        "syn": TCP(sport=1001, dport=9, flags="S", seq=1, options=OPTIONS),
        "syn with option": TCP(sport=1002, dport=9, flags="S", seq=1, options=[*OPTIONS[:3], OPTION]),
        "segment without syn": TCP(sport=1003, dport=9, flags="PA", seq=9, ack=9) / Raw(b"data"),
        "short datagram": UDP(sport=1005, dport=9) / Raw(marked("short datagram")),
        # IP packets of 600 and of 601 bytes, in IPv4.
        "600 bytes": UDP(sport=1006, dport=9) / Raw(marked("600 bytes").ljust(600 - 28 - 20 * (version == 6))),
        "601 bytes": UDP(sport=1007, dport=9) / Raw(marked("601 bytes").ljust(601 - 28 - 20 * (version == 6))),
        "1248 bytes": UDP(sport=1008, dport=9) / Raw(marked("1248 bytes").ljust(1200)),
        "1500 bytes": UDP(sport=1009, dport=9) / Raw(marked("1500 bytes").ljust(1500 - 28 - 20 * (version == 6))),
        "protocol 253": Raw(marked("protocol 253")),
    }


ALL = frozenset(probes(4))


@dataclass
class Seen:
    """What the other host saw of the probes."""

    arrived: set[str] = field(default_factory=set)
    sources: set[str] = field(default_factory=set)
    options: list[Any] = field(default_factory=list)
    """Of the SYN that bore the option."""
    icmp: int = 0
    """Words from the path to the sender."""


def family(version: int) -> tuple[type[Packet], int, str]:
    return (IP, 0x0800, "address4") if version == 4 else (IPv6, 0x86DD, "address6")


@contextlib.contextmanager
def watching(host: Namespace, version: int) -> Iterator[socket.socket]:
    """A packet socket at a host's interface: what comes in, whatever its kernel does with it."""
    ether = family(version)[1]
    sock = host.call(socket.socket, socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ether))
    with sock:
        sock.bind((host.interface, ether))
        sock.settimeout(QUIET)
        yield sock


def incoming(sock: socket.socket, version: int) -> Iterator[Packet]:
    """Packets that came in, until it has been quiet for a while."""
    with contextlib.suppress(TimeoutError):
        while True:
            data, address = sock.recvfrom(4096)
            if address[2] != socket.PACKET_OUTGOING:
                yield family(version)[0](data)


def send(host: Namespace, target: str, version: int, packet: Packet, protocol: int | None = None) -> None:
    """A packet as it is, by way of the host's routes; ``protocol``: of the IP header, if not the packet's own."""
    layer, _, attribute = family(version)
    header = layer(src=getattr(host, attribute), dst=target)
    if protocol is not None:
        setattr(header, "proto" if version == 4 else "nh", protocol)
    kind = socket.AF_INET if version == 4 else socket.AF_INET6
    with host.call(socket.socket, kind, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        sock.sendto(bytes(header / packet), (target, 0))


def name_of(packet: Packet) -> str | None:
    """Which probe it is."""
    if TCP in packet:
        tcp = packet[TCP]
        found = {port: name for name, port in PORTS.items()}.get(tcp.sport)
        return found if tcp.dport == 9 else None
    data = bytes(packet)
    return next((name for name in ALL if marked(name) in data), None)


def probe(lab: Lab, version: int) -> Seen:
    """Send each once, from the client to the server."""
    near = lab.client
    target = getattr(lab.server, family(version)[2])
    seen = Seen()
    with watching(lab.server, version) as there, watching(near, version) as here:
        for name, packet in probes(version).items():
            send(near, target, version, packet, 253 if name == "protocol 253" else None)
        for packet in incoming(there, version):
            if (which := name_of(packet)) is None:
                continue
            seen.arrived.add(which)
            seen.sources.add(packet.src)
            if which == "syn with option":
                seen.options = [kind for kind, _ in packet[TCP].options]
        for packet in incoming(here, version):
            # Port unreachable is the server's own word; anything else is the path's.
            data = bytes(packet)
            protocol = data[9] if version == 4 else data[6]
            code = (data[20], data[21]) if version == 4 else (data[40], data[41])
            if protocol in (1, 58) and code in ((3, 4), (2, 0), (3, 13), (1, 1), (11, 0), (3, 0)):
                seen.icmp += 1
    return seen


UDP_NAMES = {"short datagram", "600 bytes", "601 bytes", "1248 bytes", "1500 bytes"}
LOST = {
    "router": set(),
    "nat": set(),
    "nat-two": set(),
    "strict": {"segment without syn"},
    "new-needs-syn": {"segment without syn"},
    "option-stripped": set(),
    "option-dropped": {"syn with option"},
    "udp-dropped": UDP_NAMES,
    "udp-600": {"601 bytes", "1248 bytes", "1500 bytes"},
    "direct-dropped": {"protocol 253"},
    # The proxy answers the SYNs itself, and so to speak never saw the others' begin.
    "synproxy": {"syn", "syn with option", "segment without syn"},
    "mtu-hole": {"1500 bytes"},
}


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("path", LOST)
def test_a_path_loses_exactly_what_it_says(make_lab: MakeLab, path: str, version: int) -> None:
    lab = make_lab(rtt=RTT, path=path)
    seen = probe(lab, version)
    assert ALL - seen.arrived == LOST[path]
    assert seen.icmp == 0, "the path does not tell"
    own = getattr(lab.client, family(version)[2])
    assert (own in seen.sources) == (path not in ("nat", "nat-two"))
    if "syn with option" in seen.arrived:
        kept = [kind for kind in seen.options if kind != "NOP"]
        assert kept == ["MSS", "SAckOK", "Timestamp", *([] if path == "option-stripped" else [254])]
        assert seen.options.count("NOP") == (16 if path == "option-stripped" else 0), "overwritten, not taken out"


def test_every_path_has_a_row_or_a_test_of_its_own() -> None:
    assert set(LOST) | {"loss", "reorder"} == set(PATHS)


def echo(lab: Lab, host: Namespace, port: int) -> tuple[str, bytes]:
    """A plain TCP connection of stock sockets: the client as the server sees it, and 100,000 bytes that came back."""
    with lab.server.call(socket.create_server, (lab.server.address4, port)) as listener:
        sock = host.call(socket.socket)
        with sock:
            sock.settimeout(10)
            sock.connect((lab.server.address4, port))
            accepted, peer = listener.accept()
            with accepted:
                sock.sendall(bytes(range(256)) * 4)
                received = b""
                while len(received) < 1024:
                    received += accepted.recv(4096)
                accepted.sendall(received)
                back = b""
                while len(back) < 1024:
                    back += sock.recv(4096)
    return f"{peer[0]}:{peer[1]}", back


@pytest.mark.parametrize("path", [name for name in PATHS if name != "loss"])
def test_plain_tcp_works_on_every_path(make_lab: MakeLab, path: str) -> None:
    lab = make_lab(rtt=RTT, path=path)
    peer, back = echo(lab, lab.client, 8080)
    assert back == bytes(range(256)) * 4
    assert peer.startswith("10.83.1.254:" if PATHS[path].near == "client" else "10.83.0.1:")


def test_two_clients_behind_one_nat_have_one_address_and_ports_of_their_own(make_lab: MakeLab) -> None:
    lab = make_lab(rtt=RTT, path="nat-two")
    seen = []
    for host in (lab.client, lab.client2):
        with lab.server.call(socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as there:
            there.bind((lab.server.address4, 7000))
            there.settimeout(5)
            with host.call(socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as here:
                here.bind((host.address4, 6000))
                here.sendto(b"whoever", (lab.server.address4, 7000))
                _, source = there.recvfrom(100)
                there.sendto(b"answer", source)
                here.settimeout(5)
                assert here.recv(100) == b"answer"
        seen.append(source)
    assert {address for address, _ in seen} == {"10.83.1.254"}
    assert seen[0] != seen[1], "both have sent from port 6000"


def test_a_stripped_option_is_stripped_from_the_answer_to_a_syn_too(make_lab: MakeLab) -> None:
    lab = make_lab(rtt=RTT, path="option-stripped")
    answer = TCP(sport=1002, dport=9, flags="SA", seq=1, ack=1, options=[*OPTIONS[:3], OPTION])
    with watching(lab.client, 4) as sock:
        send(lab.server, lab.client.address4, 4, answer)
        (packet,) = (each for each in incoming(sock, 4) if TCP in each)
    assert [kind for kind, _ in packet[TCP].options if kind != "NOP"] == ["MSS", "SAckOK", "Timestamp"]


def test_a_syn_proxy_answers_before_the_server_has_heard_anything(make_lab: MakeLab) -> None:
    lab = make_lab(rtt=RTT, path="synproxy")
    with watching(lab.server, 4) as server, watching(lab.client, 4) as client:
        send(lab.client, lab.server.address4, 4, probes(4)["syn with option"])
        answers = [each for each in incoming(client, 4) if TCP in each]
        heard = [each for each in incoming(server, 4) if TCP in each]
    assert [answer[TCP].flags for answer in answers][:1] == ["SA"]
    assert 254 not in [kind for kind, _ in answers[0][TCP].options]
    assert heard == []


def test_a_port_that_comes_again_passes_the_syn_proxy_again(make_lab: MakeLab) -> None:
    lab = make_lab(rtt=RTT, path="synproxy")
    with lab.server.call(socket.create_server, (lab.server.address4, 7000)) as listening:
        for _ in range(2):
            with lab.client.call(socket.socket, socket.AF_INET, socket.SOCK_STREAM) as here:
                here.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                here.settimeout(QUIET + 2)
                here.bind((lab.client.address4, 6000))
                here.connect((lab.server.address4, 7000))
                here.sendall(b"?")  # the proxy has answered, the server not yet
                accepted, _ = listening.accept()
                with accepted:
                    accepted.settimeout(QUIET + 2)
                    assert accepted.recv(1) == b"?"
                assert here.recv(1) == b"", "whoever ends first has TIME-WAIT, and the port is free at the other's"
            time.sleep(1.5)


def test_the_lossy_path_loses_one_datagram_in_20_either_way(make_lab: MakeLab) -> None:
    lab = make_lab(rtt=RTT, path="loss", seed=3)
    count = 2000
    for source, target in ((lab.client, lab.server), (lab.server, lab.client)):
        with (
            target.call(socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as there,
            source.call(socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as here,
        ):
            there.setsockopt(socket.SOL_SOCKET, 33, 1 << 22)  # SO_RCVBUFFORCE
            there.bind((target.address4, 7000))
            there.settimeout(QUIET)
            for number in range(count):
                here.sendto(struct.pack("!I", number), (target.address4, 7000))
            arrived = 0
            with contextlib.suppress(TimeoutError):
                while there.recv(100):
                    arrived += 1
        # Binomial, 2000 times 0.05: the mean is 100, the standard deviation 9.7.
        assert 50 < count - arrived < 150


def test_packets_overtake_each_other_on_the_reordering_path_and_none_is_lost(make_lab: MakeLab) -> None:
    lab = make_lab(rtt=0.02, path="reorder", seed=3)
    numbers = []
    with (
        lab.server.call(socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as there,
        lab.client.call(socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as here,
    ):
        there.bind((lab.server.address4, 7000))
        there.settimeout(QUIET)
        for number in range(200):
            here.sendto(struct.pack("!I", number), (lab.server.address4, 7000))
            time.sleep(0.0005)
        with contextlib.suppress(TimeoutError):
            while data := there.recv(100):
                numbers.append(struct.unpack("!I", data)[0])
    assert sorted(numbers) == list(range(200))
    overtaken = sum(later < earlier for earlier, later in itertools.pairwise(numbers))
    assert overtaken > 20
    distances = [abs(number - place) for place, number in enumerate(numbers)]
    assert statistics.mean(distances) > 1


def test_settings_of_the_path_yield_to_those_that_are_asked_for(make_lab: MakeLab) -> None:
    lab = make_lab(rtt=RTT, path="loss", loss=0.0, mtu=1300)
    assert (lab.settings.up.loss, lab.settings.down.loss, lab.settings.up.mtu) == (0.0, 0.0, 1300)
    again = Lab.attach(lab.name)
    assert again.path == "loss"
    assert again.server.address4 == "10.83.1.2"
    assert again.router.run(["true"]).returncode == 0
