# SPDX-License-Identifier: Apache-2.0
"""accord-link by itself, under ASan and UBSan: raw frames between two veths, and hostile words on its socket."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from accord.lab import namespace
from accord.lab.namespace import Namespace

pytestmark = pytest.mark.root

ETHERTYPE = 0x88B5  # IEEE 802, local experimental
SO_RCVBUFFORCE = 33  # asm-generic/socket.h; Python does not name it
MACS = bytes.fromhex("02acc0000002") + bytes.fromhex("02acc0000001")
MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15


def frame(number: int, length: int = 60) -> bytes:
    """A frame that nobody but this test understands, with a number in it."""
    return (MACS + struct.pack("!HI", ETHERTYPE, number)).ljust(length, b"\x5a")


class Link:
    """accord-link in a namespace of its own, between the veth pairs a-near and b-far."""

    def __init__(self, space: Namespace, program: Path, directory: Path) -> None:
        self.space = space
        self.control = directory / "control"
        self._program = program
        self._processes: list[subprocess.Popen[bytes]] = []
        self.near, self.far = (self._socket(interface) for interface in ("near", "far"))

    def _socket(self, interface: str) -> socket.socket:
        made = self.space.call(socket.socket, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETHERTYPE))
        made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)
        made.bind((interface, ETHERTYPE))
        made.settimeout(5)
        return made

    def arguments(self, *more: str) -> list[str]:
        return [str(self._program), "--control", str(self.control), "--up", "a", "--down", "b", *more]

    def start(self, *more: str, **options: object) -> subprocess.Popen[bytes]:
        process = self.space.popen(self.arguments(*more), stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
        self._processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        return process

    def ask(self, request: bytes) -> str:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.settimeout(5)
            connection.connect(str(self.control))
            connection.send(request)
            return connection.recv(16384).decode()

    def counter(self, name: str) -> int:
        lines = dict(line.split("=") for line in self.ask(b"show").splitlines())
        return int(lines[name])

    def close(self) -> None:
        self.near.close()
        self.far.close()
        for process in self._processes:
            process.terminate()
            _, errors = process.communicate(timeout=20)
            # A sanitizer that found something, or a leak, says so and ends with another code.
            assert (process.returncode, errors) == (0, b"")


@pytest.fixture
def link(sanitized_link: Path, tmp_path: Path) -> Iterator[Link]:
    """near = a (link) b = far, all in one namespace without any address: nobody but the test sends anything."""
    name = f"accord-test-{secrets.token_hex(4)}"
    namespace.create(name)
    space = Namespace(name, "any")

    def build() -> None:
        for setting in ("default", "all"):
            with contextlib.suppress(FileNotFoundError):
                Path(f"/proc/sys/net/ipv6/conf/{setting}/disable_ipv6").write_text("1")
        with IPRoute() as route:
            for outer, inner in (("near", "a"), ("far", "b")):
                route.link("add", kind="veth", ifname=outer, peer={"ifname": inner})
                for interface in (outer, inner):
                    route.link("set", index=route.link_lookup(ifname=interface)[0], state="up")

    try:
        space.call(build)
        made = Link(space, sanitized_link, tmp_path)
        yield made
        made.close()
    finally:
        namespace.end_processes([name])
        namespace.remove(name)


def mix(value: int) -> int:
    """The output function of SplitMix64, written from the paper."""
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & MASK
    return value ^ (value >> 31)


def predicted_losses(seed: int, direction: int, count: int, loss: float) -> set[int]:
    """Which frames of a direction are lost: the first of eight draws of each."""
    stream = mix((mix((seed + GOLDEN) & MASK) + direction) & MASK)
    return {i for i in range(count) if (mix((stream + GOLDEN * (i * 8 + 1)) & MASK) >> 11) * 2.0**-53 < loss}


@pytest.mark.parametrize(("seed", "direction"), [(0, 0), (42, 0), (42, 1), (2**64 - 1, 1)])
def test_the_frames_that_are_lost_are_those_that_the_seed_says(
    link: Link, drain: Callable[..., list[bytes]], seed: int, direction: int
) -> None:
    link.start("--seed", str(seed), "up.loss=0.2", "down.loss=0.2")
    sender, receiver = (link.near, link.far) if direction == 0 else (link.far, link.near)
    for number in range(300):
        sender.send(frame(number))
    came = {struct.unpack_from("!I", data, 14)[0] for data in drain(receiver)}
    assert set(range(300)) - came == predicted_losses(seed, direction, 300, 0.2)


def test_frames_of_every_length_come_through_unchanged_and_in_order(
    link: Link, drain: Callable[..., list[bytes]]
) -> None:
    link.start("up.delay_ns=1000000")
    sent = [frame(length, length) for length in (18, 59, 60, 61, 64, 100, 576, 1000, 1513, 1514)]
    for data in sent:
        link.near.send(data)
    assert drain(link.far) == sent


def test_a_vlan_tag_comes_through(link: Link) -> None:
    link.start()
    tagged = MACS + struct.pack("!HHHI", 0x8100, 0x6007, ETHERTYPE, 1) + bytes(1496)
    everything = link.space.call(socket.socket, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    with everything:
        # The receiving kernel takes the tag out again: it is in the auxiliary data (packet(7), SOL_PACKET = 263).
        everything.setsockopt(263, 8, 1)
        everything.bind(("far", 3))
        everything.settimeout(5)
        link.near.send(tagged)
        data, ancillary, _, _ = everything.recvmsg(2048, 64)
    status, _, _, _, _, tci, tpid = struct.unpack("=IIIHHHH", ancillary[0][2])
    assert status & 0x10  # TP_STATUS_VLAN_VALID
    assert (tci, tpid) == (0x6007, 0x8100)
    assert data == MACS + tagged[16:]


def test_a_frame_longer_than_the_buffers_is_dropped_and_counted(link: Link, drain: Callable[..., list[bytes]]) -> None:
    def raise_mtu() -> None:
        with IPRoute() as route:
            for interface in ("near", "a"):
                route.link("set", index=route.link_lookup(ifname=interface)[0], mtu=9000)

    link.start()
    link.space.call(raise_mtu)
    link.near.send(frame(1, 9000))
    link.near.send(frame(2))
    assert drain(link.far) == [frame(2)]
    assert link.counter("up.oversize") == 1


def test_a_frame_over_the_mtu_vanishes_one_way_only(link: Link, drain: Callable[..., list[bytes]]) -> None:
    link.start("up.mtu=1280")
    for length in (1294, 1295, 1514):
        link.near.send(frame(length, length))
        link.far.send(frame(length, length))
    assert drain(link.far) == [frame(1294, 1294)]
    assert len(drain(link.near)) == 3
    assert (link.counter("up.too_long"), link.counter("down.too_long")) == (2, 0)


def test_more_frames_than_the_limit_are_dropped_and_counted(link: Link, drain: Callable[..., list[bytes]]) -> None:
    link.start("--frames", "64", "up.delay_ns=200000000", "up.limit=10")
    for number in range(50):
        link.near.send(frame(number))
    assert drain(link.far, quiet=0.6) == [frame(number) for number in range(10)]
    assert link.counter("up.overflowed") == 40


def test_fewer_buffers_than_the_limit_drop_and_count_too(link: Link, drain: Callable[..., list[bytes]]) -> None:
    link.start("--frames", "5", "up.delay_ns=200000000", "up.duplicate=1")
    for number in range(20):
        link.near.send(frame(number))
    came = drain(link.far, quiet=0.6)
    assert len(came) == 5
    assert link.counter("up.overflowed") == 35
    assert link.counter("up.queued") == 0


def test_frames_for_an_interface_that_is_down_are_counted_and_the_link_goes_on(
    link: Link, drain: Callable[..., list[bytes]]
) -> None:
    def far_end(state: str) -> None:
        with IPRoute() as route:
            route.link("set", index=route.link_lookup(ifname="b")[0], state=state)

    link.start()
    link.space.call(far_end, "down")
    link.near.send(frame(1))
    deadline = time.monotonic() + 5
    while not link.counter("up.refused") and time.monotonic() < deadline:
        time.sleep(0.01)
    assert link.counter("up.refused") == 1
    link.space.call(far_end, "up")
    link.far.close()
    link.far = link._socket("far")
    link.near.send(frame(2))
    assert drain(link.far) == [frame(2)]


NONSENSE = [
    "up",
    "up.loss",
    "up.loss=",
    "up.loss=2",
    "up.loss=-1",
    "up.loss=nan",
    "up.loss=0.1x",
    "sideways.loss=0",
    "up.speed=1",
    "up.delay_ns=-1",
    "up.delay_ns=1e9",
    "up.delay_ns=99999999999999999999",
    "up.limit=4294967296",
    "=.",
    ".=",
    "up.=1",
    "up.jitter_ns=1",
    "up.LOSS=0",
]


@pytest.mark.parametrize("word", [*NONSENSE, "up." + "x" * 500 + "=1"])
def test_a_setting_that_makes_no_sense_is_refused_at_the_start_and_later_and_changes_nothing(
    link: Link, word: str
) -> None:
    refused = link.space.run(link.arguments(word), capture_output=True, timeout=20)
    assert refused.returncode == 2
    assert b"usage:" in refused.stderr
    link.start()
    before = link.ask(b"show")
    assert link.ask(f"set down.loss=0.5 {word}".encode()) != "ok\n"
    assert link.ask(b"show") == before


def test_nonsense_on_the_control_socket_is_answered_and_does_no_harm(
    link: Link, drain: Callable[..., list[bytes]]
) -> None:
    link.start()
    for request in (b"\0", b"x" * 20000, b"set", b"SHOW", b"show me", b"\xff\xfe", os.urandom(4096)):
        assert link.ask(request).startswith("no such request")
    with contextlib.ExitStack() as stack:
        for _ in range(10):  # connected, silent, gone
            connection = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            connection.connect(str(link.control))
    assert "up.loss=0\n" in link.ask(b"show")
    link.near.send(frame(1))
    assert drain(link.far) == [frame(1)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--up", "nosuch", "--down", "b"], b"nosuch"),
        (["--up", "a", "--down", "x" * 40], b"interface name"),
        (["--up", "a"], b"--control, --up and --down are needed"),
        (["--up", "a", "--down", "b", "--frames", "0"], b"--frames"),
        (["--bogus"], b"usage:"),
    ],
)
def test_a_link_that_cannot_start_says_why(link: Link, arguments: list[str], said: bytes) -> None:
    command = [link.arguments()[0], "--control", str(link.control), *arguments]
    ended = link.space.run(command, capture_output=True, timeout=20)
    assert ended.returncode in (1, 2)
    assert said in ended.stderr
    assert ended.stdout == b""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_takes_its_socket_away(link: Link, number: signal.Signals) -> None:
    process = link.start()
    process.send_signal(number)
    assert process.wait(20) == 0
    assert not link.control.exists()


def test_it_ends_with_its_owner(link: Link) -> None:
    owner = subprocess.Popen(["sleep", "60"])
    pidfd = os.pidfd_open(owner.pid)
    try:
        process = link.start("--die-with", str(pidfd), pass_fds=(pidfd,))
    finally:
        os.close(pidfd)
    link.ask(b"show")
    assert process.poll() is None
    owner.kill()
    owner.wait()
    assert process.wait(20) == 0
