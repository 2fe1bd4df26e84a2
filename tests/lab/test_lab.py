# SPDX-License-Identifier: Apache-2.0
"""The link between two hosts does what it was asked to, measured from the hosts."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import random
import socket
import statistics
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from accord.lab import Lab
from accord.wire.constants import Reason
from accord.wire.errors import PathError, UserError

pytestmark = pytest.mark.root

MakeLab = Callable[..., Lab]
MakeUdp = Callable[..., socket.socket]
Drain = Callable[..., list[bytes]]


def send_numbers(sender: socket.socket, to: socket.socket, count: int) -> None:
    """Datagrams that carry their number and the time at which they were sent."""
    for number in range(count):
        sender.sendto(struct.pack("!Iq", number, time.time_ns()), to.getsockname())


def numbers(datagrams: list[bytes]) -> list[int]:
    return [struct.unpack_from("!I", data)[0] for data in datagrams]


def receive(receiver: socket.socket) -> tuple[bytes, int]:
    """A datagram, and when the kernel received it, nanoseconds: however late this process is let run."""
    data, ancillary, _, _ = receiver.recvmsg(2048, 64)
    seconds, nanoseconds = struct.unpack("=qq", ancillary[0][2])
    return data, seconds * 10**9 + nanoseconds


def one_way(sender: socket.socket, receiver: socket.socket, count: int = 15) -> float:
    """Median seconds from here to there: both ends share this machine's clock."""
    times = []
    for _ in range(count):
        send_numbers(sender, receiver, 1)
        data, came = receive(receiver)
        times.append((came - struct.unpack("!Iq", data)[1]) / 1e9)
    return statistics.median(times)


# ---- Delay -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [4, 6])
def test_the_measured_round_trip_is_the_one_that_was_asked_for(make_lab: MakeLab, family: int) -> None:
    rtt = make_lab(rtt=0.05).measure_rtt(count=15, family=family)
    assert 0.049 <= rtt.min <= rtt.median <= 0.060
    assert rtt.median <= rtt.max
    assert len(rtt.samples) == 15


@pytest.mark.parametrize(
    ("settings", "up", "down"), [({"rtt": 0.06, "up": 0.05}, 0.05, 0.03), ({"down": 0.04}, 0.025, 0.04)]
)
def test_each_direction_has_a_delay_of_its_own(
    make_lab: MakeLab, udp: MakeUdp, settings: dict[str, float], up: float, down: float
) -> None:
    lab = make_lab(**settings)
    client, server = udp(lab.client), udp(lab.server)
    assert up <= one_way(client, server) <= up + 0.005
    assert down <= one_way(server, client) <= down + 0.005


def test_the_first_packet_is_not_later_than_the_others(make_lab: MakeLab, udp: MakeUdp) -> None:
    """No address resolution and no duplicate address detection: they would cost round trips, or be lost."""
    lab = make_lab(rtt=0.2)
    for family in (4, 6):
        client, server = udp(lab.client, family), udp(lab.server, family)
        assert 0.1 <= one_way(client, server, count=1) < 0.15


def test_jitter_spreads_the_delay_around_its_middle(make_lab: MakeLab) -> None:
    lab = make_lab(rtt=0.02, jitter=0.005)
    samples = lab.measure_rtt(count=60).samples
    assert min(samples) >= 0.010
    assert min(samples) < 0.018
    assert max(samples) > 0.022
    assert 0.017 < statistics.median(samples) < 0.024


def test_a_change_is_in_force_for_the_next_packet_and_what_is_not_given_stays(make_lab: MakeLab) -> None:
    lab = make_lab(rtt=0.1, loss=0.0)
    assert lab.measure_rtt(count=2).min >= 0.1
    lab.change(rtt=0.02)
    assert 0.02 <= lab.measure_rtt(count=5).median < 0.03
    lab.change(loss=(1.0, 0.0))
    assert lab.settings.rtt == 0.02
    with pytest.raises(PathError, match="no echo") as raised:
        lab.measure_rtt(count=0)
    assert raised.value.reason is Reason.TIMEOUT
    with pytest.raises(UserError, match="jitter"):
        lab.change(jitter=1)
    assert lab.settings.up.jitter == 0


# ---- Chance ------------------------------------------------------------------------------------------


def test_about_as_many_packets_are_lost_as_were_asked_for_each_way(
    make_lab: MakeLab, udp: MakeUdp, drain: Drain
) -> None:
    lab = make_lab(rtt=0.002, loss=(0.1, 0.3), seed=1)
    client, server = udp(lab.client), udp(lab.server)
    for sender, receiver, loss in ((client, server, 0.1), (server, client, 0.3)):
        send_numbers(sender, receiver, 2000)
        lost = 2000 - len(drain(receiver))
        spread = (2000 * loss * (1 - loss)) ** 0.5
        assert abs(lost - 2000 * loss) < 6 * spread
    counters = lab.counters()
    assert counters.up.lost >= 100
    assert counters.down.lost >= 400
    # A packet of the kernels' own, such as a report of multicast listeners, may be under way.
    assert counters.up.received == counters.up.delivered + counters.up.lost + counters.up.queued


def test_duplicated_packets_come_twice(make_lab: MakeLab, udp: MakeUdp, drain: Drain) -> None:
    lab = make_lab(rtt=0.002, duplicate=(1.0, 0.0))
    client, server = udp(lab.client), udp(lab.server)
    send_numbers(client, server, 100)
    send_numbers(server, client, 100)
    assert sorted(numbers(drain(server))) == sorted([*range(100), *range(100)])
    assert numbers(drain(client)) == list(range(100))
    assert lab.counters().up.duplicated >= 100


def test_without_jitter_and_reordering_packets_stay_in_order(make_lab: MakeLab, udp: MakeUdp, drain: Drain) -> None:
    lab = make_lab(rtt=0.01)
    client, server = udp(lab.client), udp(lab.server)
    # A veth keeps the order of one CPU only: a sender that is moved to another overtakes itself.
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        send_numbers(client, server, 3000)
    finally:
        os.sched_setaffinity(0, allowed)
    assert numbers(drain(server)) == list(range(3000))


def test_reordered_packets_overtake_those_before_them(make_lab: MakeLab, udp: MakeUdp, drain: Drain) -> None:
    lab = make_lab(rtt=0.4, reorder=0.3)
    client, server = udp(lab.client), udp(lab.server)
    send_numbers(client, server, 300)
    came = numbers(drain(server, quiet=1.5))  # the delay, and what a busy machine keeps the link from running
    assert sorted(came) == list(range(300))
    # Those that skip the delay come first, in their order; then the others in theirs.
    steps_back = [place for place, (a, b) in enumerate(itertools.pairwise(came), 1) if b < a]
    assert len(steps_back) == 1
    assert 30 < steps_back[0] < 150


# ---- Rate and volume ---------------------------------------------------------------------------------


def test_a_rate_is_kept_and_its_queue_is_bounded(make_lab: MakeLab, udp: MakeUdp) -> None:
    lab = make_lab(rtt=0.002, rate=(16_000_000, None))
    client, server = udp(lab.client), udp(lab.server)
    before = time.monotonic()
    for _ in range(200):
        client.sendto(bytes(958), server.getsockname())  # 1000 bytes with Ethernet, IP and UDP headers: 0.5 ms
    meanwhile = (time.monotonic() - before) * 2000
    arrivals = []
    server.settimeout(0.5)
    with contextlib.suppress(TimeoutError):
        while True:
            arrivals.append(receive(server)[1])
    queue = lab.settings.up.packets
    assert queue == 134  # what is sent in a millisecond, and a router's 100 more, in full frames
    assert queue - 5 <= len(arrivals) <= queue + meanwhile + 5  # beside them a packet or two of the kernels' own
    rate = (len(arrivals) - 1) * 8000 / ((arrivals[-1] - arrivals[0]) / 1e9)
    assert 0.7 * 16_000_000 < rate < 1.3 * 16_000_000  # 67 ms of packets; the first or last may be some ms late
    assert 0 <= lab.counters().up.overflowed - (200 - len(arrivals)) <= 5


def transfer(lab: Lab, data: bytes, family: int) -> bytes:
    """Send over kernel TCP from client to server and back again."""
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    address = lab.server.address4 if family == 4 else lab.server.address6
    back = bytearray()
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(lab.server.call(socket.socket, kind, socket.SOCK_STREAM))
        listener.bind((address, 0))
        listener.listen()

        def echo() -> None:
            accepted, _ = listener.accept()
            with accepted:
                while piece := accepted.recv(65536):
                    accepted.sendall(piece)

        threading.Thread(target=echo, daemon=True).start()
        client = stack.enter_context(lab.client.call(socket.socket, kind, socket.SOCK_STREAM))
        client.settimeout(60)
        client.connect(listener.getsockname()[:2])

        def send() -> None:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)

        threading.Thread(target=send, daemon=True).start()
        while piece := client.recv(65536):
            back += piece
    return bytes(back)


@pytest.mark.parametrize("family", [4, 6])
def test_tcp_carries_the_right_bytes_over_every_evil_at_once(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(rtt=0.004, jitter=0.001, loss=0.02, duplicate=0.02, reorder=0.02, seed=3)
    data = random.Random(family).randbytes(400_000)
    assert hashlib.sha256(transfer(lab, data, family)).digest() == hashlib.sha256(data).digest()
    counters = lab.counters()
    assert counters.up.lost
    assert counters.up.duplicated
    assert counters.up.reordered


def test_bulk_tcp_meets_no_offload_and_no_hidden_loss(make_lab: MakeLab) -> None:
    lab = make_lab(rtt=0.002)
    data = random.Random(0).randbytes(20_000_000)
    assert transfer(lab, data, 4) == data
    counters = lab.counters()
    for way in (counters.up, counters.down):
        assert (way.oversize, way.unfinished, way.refused, way.lost, way.kernel_dropped) == (0, 0, 0, 0, 0)


def test_every_packet_on_the_link_has_a_complete_checksum(make_lab: MakeLab, udp: MakeUdp, tmp_path: Path) -> None:
    lab = make_lab(rtt=0.002)
    with lab.capture(tmp_path / "link.pcap", "link") as path:
        assert transfer(lab, b"x" * 50_000, 4) == b"x" * 50_000
        assert transfer(lab, b"x" * 50_000, 6) == b"x" * 50_000
        one_way(udp(lab.client), udp(lab.server))
    options = [f"{protocol}.check_checksum:TRUE" for protocol in ("ip", "tcp", "udp")]
    command = ["tshark", "-r", str(path), *[word for option in options for word in ("-o", option)]]
    command += ["-T", "fields", "-e", "tcp.checksum.status", "-e", "udp.checksum.status", "-e", "ip.checksum.status"]
    seen = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    statuses = seen.split()
    assert len(statuses) > 100
    assert set(statuses) == {"1"}  # Good; 0 is bad, 2 unverified


# ---- Captures ----------------------------------------------------------------------------------------


def captured(path: Path) -> list[int]:
    """The numbers in the datagrams of a capture, as tshark reads them."""
    command = ["tshark", "-r", str(path), "-Y", "udp", "-T", "fields", "-e", "udp.payload"]
    seen = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    return [int(line[:8], 16) for line in seen.split()]


@pytest.mark.parametrize("where", ["client", "link", "server"])
def test_a_capture_holds_every_packet_from_its_first_moment_to_its_last(
    make_lab: MakeLab, udp: MakeUdp, tmp_path: Path, where: str
) -> None:
    lab = make_lab(rtt=0)
    client, server = udp(lab.client), udp(lab.server)
    send_numbers(client, server, 1)
    server.recv(100)
    with lab.capture(tmp_path / "all.pcap", where, "udp") as path:
        send_numbers(client, server, 500)
        for _ in range(500):
            server.recv(100)
    send_numbers(client, server, 1)
    assert captured(path) == list(range(500))


def test_a_capture_at_the_link_shows_lost_packets_too_and_each_once(
    make_lab: MakeLab, udp: MakeUdp, drain: Drain, tmp_path: Path
) -> None:
    lab = make_lab(rtt=0, loss=(1.0, 0.0), duplicate=(0.0, 1.0))
    client, server = udp(lab.client), udp(lab.server)
    with lab.capture(tmp_path / "link.pcap", "link", "udp") as path:
        send_numbers(client, server, 20)
        send_numbers(server, client, 10)
        assert len(drain(client)) == 20
        assert drain(server) == []
    assert captured(path) == [*range(20), *range(10)]


# ---- Inside ------------------------------------------------------------------------------------------


def test_a_thread_that_enters_is_inside_alone_and_comes_back(make_lab: MakeLab) -> None:
    lab = make_lab(rtt=0)
    outside = os.readlink("/proc/thread-self/ns/net")
    seen: dict[str, Any] = {}

    def look() -> None:
        seen["other"] = os.readlink("/proc/thread-self/ns/net")

    with lab.server.enter():
        inside = os.readlink("/proc/thread-self/ns/net")
        with lab.client.enter():
            assert os.readlink("/proc/thread-self/ns/net") not in (inside, outside)
        assert os.readlink("/proc/thread-self/ns/net") == inside
        assert lab.client.call(os.readlink, "/proc/thread-self/ns/net") not in (inside, outside)
    other = threading.Thread(target=look)
    other.start()
    other.join()
    assert inside != outside
    assert os.readlink("/proc/thread-self/ns/net") == outside == seen["other"]


def test_what_fails_inside_fails_outside_with_the_same_error_and_the_thread_is_back(make_lab: MakeLab) -> None:
    lab = make_lab(rtt=0)
    outside = os.readlink("/proc/thread-self/ns/net")
    with pytest.raises(ZeroDivisionError):
        lab.client.call(lambda: 1 / 0)
    with pytest.raises(FileNotFoundError):
        lab.client.run(["/no/such/program"])
    with pytest.raises(subprocess.CalledProcessError):
        lab.client.run(["false"], check=True)
    assert os.readlink("/proc/thread-self/ns/net") == outside


def test_the_two_hosts_have_control_sockets_of_their_own(make_lab: MakeLab, name: str) -> None:
    lab = make_lab(rtt=0)
    told = [
        host.run(["sh", "-c", "echo $ACCORD_CONTROL"], capture_output=True, text=True).stdout.strip()
        for host in (lab.client, lab.server)
    ]
    assert told == [f"/run/accord/lab-{name}-client.sock", f"/run/accord/lab-{name}-server.sock"]


def test_the_bpf_file_system_is_the_same_inside_and_outside(make_lab: MakeLab) -> None:
    lab = make_lab(rtt=0)
    command = ["stat", "-f", "-c", "%T", "/sys/fs/bpf"]
    outside = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert lab.client.run(command, capture_output=True, text=True).stdout == outside
    assert (
        lab.client.run(["readlink", "/proc/self/ns/mnt"], capture_output=True).stdout
        == subprocess.run(["readlink", "/proc/self/ns/mnt"], capture_output=True, check=True).stdout
    )


def test_a_quiet_lab_sends_nothing_that_a_measurement_would_count(make_lab: MakeLab, tmp_path: Path) -> None:
    lab = make_lab(rtt=0)
    with lab.capture(tmp_path / "quiet.pcap", "link") as path:
        time.sleep(1.2)
    command = ["tshark", "-r", str(path), "-Y", "tcp or udp or arp or icmp or icmpv6.type < 143"]
    assert subprocess.run(command, check=True, capture_output=True, timeout=60).stdout == b""
