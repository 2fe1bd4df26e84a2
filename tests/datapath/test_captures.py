# SPDX-License-Identifier: Apache-2.0
"""The TC program over single packets, from a socket of a marked cgroup, and what its ring and its table say of them."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pyroute2 import IPRoute
from scapy.compat import raw
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import Ether

from accord.datapath.captures import Captures, Fate, Say, decode
from accord.datapath.cgroup import own_cgroup
from accord.datapath.probe_scratch import in_scratch_namespace
from accord.wire.constants import Reason
from accord.wire.errors import AccordError
from accord.wire.tcp_header import TcpParameters

pytestmark = pytest.mark.root

UNSPEC, STOLEN, REDIRECT = -1, 4, 7
"""<linux/pkt_cls.h>: on to the next filter; gone; to another interface, or the same one's other side."""
MARK = 0x41434344
NEAR, FAR, PORT = "10.0.0.1", "10.0.0.2", 80
NEAR6, FAR6 = "2001:db8::1", "2001:db8::2"
LINUX = [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (7, 0)), ("NOP", None), ("WScale", 7)]
ETHERNET = Ether(dst="02:00:00:00:00:02", src="02:00:00:00:00:01")


def segment(
    flags: str = "S", *, isn: int = 1, to: str = FAR, port: int = PORT, data: bytes = b"", **more: Any
) -> bytes:
    ip = IPv6(src=NEAR6, dst=to) if ":" in to else IP(src=NEAR, dst=to, **more)
    return raw(ETHERNET / ip / TCP(sport=40000, dport=port, flags=flags, seq=isn, options=LINUX) / data)


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """One that this process is in meanwhile."""
    above = own_cgroup()
    made = above / f"accord-test-{os.getpid()}"
    made.mkdir()
    (made / "cgroup.procs").write_text(str(os.getpid()))
    try:
        yield made
    finally:
        (above / "cgroup.procs").write_text(str(os.getpid()))
        made.rmdir()


@contextlib.contextmanager
def veth() -> Iterator[int]:
    """The index of one end, up, in the namespace of the caller."""
    with IPRoute() as netlink:
        netlink.link("add", ifname="cap0", kind="veth", peer={"ifname": "cap1"})
        for name in ("cap0", "cap1"):
            netlink.link("set", index=netlink.link_lookup(ifname=name)[0], state="up")
        yield netlink.link_lookup(ifname="cap0")[0]


def on_captures(cgroup: Path | None, body: Callable[[Captures], None]) -> None:
    """``body`` with the program attached in a namespace of its own, ``cgroup`` marked."""

    def run() -> None:
        with veth() as interface, contextlib.closing(Captures(interface)) as opened:
            if cgroup is not None:
                directory = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
                assert opened.mark(directory) == cgroup.stat().st_ino
                os.close(directory)
            body(opened)

    in_scratch_namespace(run)


def counted(opened: Captures) -> dict[Fate, int]:
    return {fate: count for fate, count in opened.fates().items() if count}


def once(opened: Captures, frame: bytes, mark: int = 0) -> tuple[int, dict[Fate, int]]:
    """The verdict, and what was counted, while the daemon lives."""
    before = opened.fates()
    opened.heartbeat()
    verdict, _ = opened.test_run(frame, mark)
    return verdict, {fate: count - before[fate] for fate, count in opened.fates().items() if count != before[fate]}


LEFT: dict[str, tuple[bytes, dict[Fate, int]]] = {
    "a SYN-ACK that nobody has marked": (segment("SA"), {}),
    "an ACK": (segment("A"), {}),
    "a reset": (segment("R"), {}),
    "a SYN and FIN": (segment("SF"), {}),
    "a datagram": (raw(ETHERNET / IP(src=NEAR, dst=FAR) / UDP(sport=1, dport=PORT)), {}),
    "ARP": (raw(Ether(dst="ff:ff:ff:ff:ff:ff", type=0x0806) / (b"\0" * 46)), {}),
    "a fragment": (segment(frag=1), {}),
    "a SYN with data": (segment(data=b"GET /"), {Fate.WITH_DATA: 1}),
    "a SYN behind an IPv6 extension header": (
        raw(ETHERNET / IPv6(src=NEAR6, dst=FAR6) / IPv6ExtHdrDestOpt() / TCP(dport=PORT, flags="S")),
        {},
    ),
}


@pytest.mark.parametrize("what", LEFT)
def test_what_is_no_bare_syn_goes_on_to_the_next_filter(cgroup: Path, what: str) -> None:
    frame, expected = LEFT[what]

    def body(opened: Captures) -> None:
        for to in (FAR, FAR6):
            opened.say(to, PORT, Say.HOLD, 60)
        assert once(opened, frame) == (UNSPEC, expected)
        assert opened.take() is None

    on_captures(cgroup, body)


@pytest.mark.parametrize("to", [FAR, FAR6])
def test_a_syn_is_held_where_that_was_said_and_its_repetition_is_not(cgroup: Path, to: str) -> None:
    def body(opened: Captures) -> None:
        assert once(opened, segment(isn=1, to=to)) == (UNSPEC, {Fate.ASKED: 1})
        taken = opened.take()
        assert taken is not None
        assert taken[:2] == (segment(isn=1, to=to), False)
        opened.say(to, PORT, Say.HOLD, 60)
        assert once(opened, segment(isn=1, to=to)) == (UNSPEC, {Fate.REPEATED: 1}), "the first one left already"
        assert once(opened, segment(isn=2, to=to)) == (STOLEN, {Fate.HELD: 1})
        taken = opened.take()
        assert taken is not None
        assert taken[:2] == (segment(isn=2, to=to), True)
        assert once(opened, segment(isn=2, to=to)) == (UNSPEC, {Fate.REPEATED: 1})
        assert once(opened, segment("SEC", isn=3, to=to)) == (STOLEN, {Fate.HELD: 1}), "one that offers ECN is one"
        opened.take()
        assert once(opened, segment(isn=4, to=to, port=PORT + 1)) == (UNSPEC, {Fate.ASKED: 1}), "another port's"
        opened.take()
        opened.say(to, PORT, Say.LEAVE, 60)
        assert once(opened, segment(isn=5, to=to)) == (UNSPEC, {Fate.LEFT_ALONE: 1})
        opened.say(to, PORT, Say.ASK)
        assert once(opened, segment(isn=6, to=to)) == (UNSPEC, {Fate.ASKED: 1})
        opened.take()
        opened.say(to, PORT, Say.HOLD, 0)
        assert once(opened, segment(isn=7, to=to)) == (UNSPEC, {Fate.ASKED: 1}), "what was said is over"

    on_captures(cgroup, body)


def test_without_a_heartbeat_every_syn_leaves(cgroup: Path) -> None:
    def body(opened: Captures) -> None:
        opened.say(FAR, PORT, Say.HOLD, 60)
        opened.quiet()
        assert opened.test_run(segment(isn=1))[0] == UNSPEC
        assert counted(opened) == {Fate.STALE: 1}
        assert once(opened, segment(isn=1)) == (STOLEN, {Fate.HELD: 1})

    on_captures(cgroup, body)


def test_sockets_of_other_cgroups_are_not_even_counted(cgroup: Path) -> None:
    def body(opened: Captures) -> None:
        opened.say(FAR, PORT, Say.HOLD, 60)
        assert once(opened, segment()) == (UNSPEC, {})

    on_captures(None, body)


def test_a_full_ring_lets_syns_go_and_loses_none_that_is_in_it(cgroup: Path) -> None:
    def body(opened: Captures) -> None:
        opened.say(FAR, PORT, Say.HOLD, 60)
        held = 0
        for isn in range(1, 4000):
            verdict, fates = once(opened, segment(isn=isn))
            if verdict == UNSPEC:
                assert fates == {Fate.RING_FULL: 1}
                break
            held += 1
        assert held > 1000
        numbers = []
        while (taken := opened.take()) is not None:
            numbers.append(int.from_bytes(taken[0][38:42], "big"))
        assert numbers == list(range(1, held + 1))
        assert once(opened, segment(isn=5000)) == (STOLEN, {Fate.HELD: 1}), "there is room again"

    on_captures(cgroup, body)


def test_a_syn_cut_anywhere_is_never_held(cgroup: Path) -> None:
    def body(opened: Captures) -> None:
        opened.say(FAR, PORT, Say.HOLD, 60)
        opened.say(FAR6, PORT, Say.HOLD, 60)
        for to in (FAR, FAR6):
            whole = segment(isn=9, to=to)
            for length in range(14, len(whole)):
                opened.heartbeat()
                with contextlib.suppress(AccordError):  # the kernel itself runs none without an IP header
                    assert opened.test_run(whole[:length])[0] == UNSPEC
        assert set(counted(opened)) <= {Fate.UNREADABLE}
        assert opened.take() is None
        for offset in range(16):  # data offsets that the header does not have, or that point into data
            frame = bytearray(segment(isn=100 + offset))
            frame[46] = offset << 4
            verdict, _ = once(opened, bytes(frame))
            assert (verdict == STOLEN) == (offset == 10)

    on_captures(cgroup, body)


def test_a_syn_ack_with_the_mark_is_turned_inward_and_nothing_else_is(cgroup: Path) -> None:
    def body(opened: Captures) -> None:
        assert once(opened, segment("SA"), MARK) == (REDIRECT, {Fate.ANSWERED: 1})
        assert once(opened, segment("A"), MARK) == (UNSPEC, {})
        assert once(opened, segment("S", isn=3), MARK)[0] == UNSPEC
        assert once(opened, segment("SA"), MARK + 1) == (UNSPEC, {})

    on_captures(cgroup, body)


@pytest.fixture
def other(tmp_path: Path) -> list[str]:
    """A filter of somebody else's, as arguments of ``tc filter add``."""
    source, built = tmp_path / "other.bpf.c", tmp_path / "other.bpf.o"
    source.write_text(
        "#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\n"
        'SEC("tc") int other(struct __sk_buff *skb) { return -1; }'
        '\nchar _license[] SEC("license") = "GPL";\n'
    )
    multiarch = subprocess.run(["gcc", "-print-multiarch"], capture_output=True, text=True, check=True).stdout.strip()
    command = [
        "clang",
        "-O2",
        "-g",
        "-target",
        "bpf",
        f"-I/usr/include/{multiarch}",
        "-c",
        str(source),
        "-o",
        str(built),
    ]
    subprocess.run(command, check=True)
    return ["bpf", "da", "obj", str(built), "sec", "tc"]


def add_filter(filter: list[str], *place: str) -> None:
    subprocess.run(["tc", "qdisc", "add", "dev", "cap0", "clsact"], check=True)
    subprocess.run(["tc", "filter", "add", "dev", "cap0", "egress", *place, *filter], check=True)


def test_what_others_have_at_the_same_place_stays_and_ours_goes_alone(other: list[str]) -> None:
    def filters() -> str:
        return subprocess.run(
            ["tc", "filter", "show", "dev", "cap0", "egress"], capture_output=True, text=True, check=True
        ).stdout

    def run() -> None:
        with veth() as interface:
            add_filter(other, "prio", "7")
            before = filters()
            first = Captures(interface)
            assert "accord_capture" in filters()
            second = Captures(interface)  # of a daemon that takes over, or comes after one that was killed
            assert filters().count("name accord_capture") == 1
            first.close()
            assert filters().count("name accord_capture") == 1, "it is the second one's by now"
            second.close()
            assert filters() == before

    in_scratch_namespace(run)


def test_a_program_of_somebody_else_in_our_place_stays(other: list[str]) -> None:
    def run() -> None:
        with veth() as interface:
            add_filter(other, "prio", str(0xACC0), "handle", "1", "protocol", "all")
            with pytest.raises(AccordError) as refused:
                Captures(interface)
            assert refused.value.reason is Reason.FOREIGN_PROGRAM

    in_scratch_namespace(run)


def test_a_directory_that_is_no_cgroup_cannot_be_marked(tmp_path: Path) -> None:
    def body(opened: Captures) -> None:
        directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with pytest.raises(AccordError) as refused:
                opened.mark(directory)
        finally:
            os.close(directory)
        assert refused.value.reason is Reason.BAD_CONFIG

    on_captures(None, body)


def test_a_syn_ack_that_is_handed_in_opens_the_connection_and_a_released_syn_leaves_as_it_was(cgroup: Path) -> None:
    """A real connect(): its SYN held, seen at the other end when it is released, and answered from here."""

    def body(opened: Captures) -> None:
        for command in ("addr add 10.9.0.1/24 dev cap0", "neigh add 10.9.0.2 lladdr 02:00:00:00:00:09 dev cap0"):
            subprocess.run(["ip", *command.split()], check=True)
        other = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
        other.bind(("cap1", 0x0003))
        other.settimeout(2)
        opened.say("10.9.0.2", PORT, Say.HOLD, 60)
        opened.heartbeat()
        ours = socket.socket()
        ours.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            ours.connect(("10.9.0.2", PORT))
        taken = opened.take()
        assert taken is not None
        frame, held, _ = taken
        assert held
        syn = decode(frame)
        opened.release(syn.frame)
        while Ether(seen := other.recv(2048)).type != 0x0800:
            pass
        assert seen == syn.frame
        assert seen[:50] == frame[:50], "but for the checksum, which the kernel leaves to the NIC"
        assert IP(seen[14:])[TCP].chksum == IP(raw(_without_checksum(seen)))[TCP].chksum
        peer = TcpParameters(PORT, 12345, 1400, 60000, 7, True, 99)
        opened.hand_in(syn.answer(peer))
        ack = IP(other.recv(2048)[14:])
        while TCP not in ack:
            ack = IP(other.recv(2048)[14:])
        assert (str(ack[TCP].flags), ack[TCP].ack) == ("A", 12346), "established, and said so"
        assert dict(ack[TCP].options)["Timestamp"][1] == 99
        assert ours.getpeername() == ("10.9.0.2", PORT)
        other.close()
        ours.close()

    on_captures(cgroup, body)


def _without_checksum(frame: bytes) -> Any:
    packet = IP(frame[14:])
    del packet[TCP].chksum
    return packet


def test_a_syn_ack_that_nothing_turns_inward_is_told_to_whoever_handed_it_in() -> None:
    def body(opened: Captures) -> None:
        frame = segment("SA")
        opened.hand_in(frame)
        subprocess.run(["tc", "qdisc", "del", "dev", "cap0", "clsact"], check=True)
        with pytest.raises(AccordError) as refused:
            opened.hand_in(frame)
        assert refused.value.reason is Reason.CANNOT_INSTALL

    on_captures(None, body)
