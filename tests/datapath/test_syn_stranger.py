# SPDX-License-Identifier: Apache-2.0
"""The option before a responder that no kernel plays: answers that no Linux gives, or that come late or never."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from accord.datapath.syn_option import ExId, SynFate, SynOptions
from tests.datapath.netns import Host, receive_frame
from tests.datapath.syns import ACK, FAMILIES, PORT, SYN, borne, flags, stream

pytestmark = pytest.mark.root

ID = b"0123456789ab"
ADOPT, FALLBACK = b"\xfe\x10\xac\xc1", b"\xfe\x10\xac\xc0"
ADDRESS = {4: "192.0.2.9", 6: "2001:db8::9"}
TCP_FASTOPEN_CONNECT = 30  # <linux/tcp.h>


class Stranger:
    """At an address on far's side of the wire that far's kernel does not answer for."""

    def __init__(self, near: Host, far: Host, family: int) -> None:
        self.family, self.near, self.far = family, near, far
        near.command("ip", "neigh", "add", ADDRESS[family], "lladdr", far.mac, "dev", near.interface)
        self.wire = far.raw()

    def hear(self, wanted: int | None = None, of: int | None = None) -> TCP:
        """The next segment for it, with these of SYN and ACK, of the connection with this port.

        Others, such as the ends of connections before, are passed over. Raises ``TimeoutError``.
        """
        while True:
            frame = Ether(receive_frame(self.wire))
            if TCP not in frame or frame[IP if self.family == 4 else IPv6].dst != ADDRESS[self.family]:
                continue
            if wanted in (None, flags(frame[TCP])) and of in (None, frame[TCP].sport):
                return frame[TCP]

    def answer(self, syn: TCP, options: bytes = b"") -> None:
        """A SYN-ACK with these."""
        options += bytes(-len(options) % 4)
        network = (IP if self.family == 4 else IPv6)(src=ADDRESS[self.family], dst=self.near.address(self.family))
        tcp = TCP(sport=PORT, dport=syn.sport, flags="SA", seq=1000, ack=syn.seq + 1, window=1000)
        tcp.dataofs = 5 + len(options) // 4
        self.wire.send(bytes(Ether(src=self.far.mac, dst=self.near.mac) / network / tcp / Raw(options)))


@pytest.fixture
def options() -> Iterator[SynOptions]:
    """Of the initiator."""
    with contextlib.closing(SynOptions()) as found:
        yield found


def connecting(near: Host, options: SynOptions, family: int, kind: ExId) -> socket.socket:
    """A socket whose SYN has left."""
    sock = stream(near, family)
    options.write(sock, ID, kind)
    sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        sock.connect((ADDRESS[family], PORT))
    sock.settimeout(5)
    return sock


MARKS = {
    "the same ID": (ADOPT + ID, True),
    "the same ID, behind 20 NOPs": (bytes([1] * 20) + ADOPT + ID, True),
    "no option": (b"", False),
    "another ID": (ADOPT + ID[::-1], False),
    "the ID but for its last bit": (ADOPT + ID[:-1] + bytes([ID[-1] ^ 1]), False),
    "another ID first": (ADOPT + ID[::-1] + ADOPT + ID, False),
    "FALLBACK": (FALLBACK + ID, False),
    "one byte short": (b"\xfe\x0f\xac\xc1" + ID[:11], False),
    "one byte long": (b"\xfe\x11\xac\xc1" + ID + b"x", False),
    "behind the end of the list": (bytes(4) + ADOPT + ID, False),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_mark_is_adopt_with_the_id_of_the_syn_and_nothing_else(
    near: Host, far: Host, options: SynOptions, family: int
) -> None:
    stranger = Stranger(near, far, family)
    for name, (mark, marked) in MARKS.items():
        for kind in ExId:
            with connecting(near, options, family, kind) as sock:
                syn = stranger.hear(SYN)
                assert borne(syn) == [(kind, ID)]
                stranger.answer(syn, mark)
                stranger.hear(ACK, syn.sport)
                expected = SynFate(written=True, no_room=False, syns=1, marked=marked and kind is ExId.ADOPT)
                assert options.fate(sock) == expected, (name, kind)
                options.forget(sock)


def test_data_that_is_sent_again_is_no_syn(near: Host, far: Host, options: SynOptions) -> None:
    stranger = Stranger(near, far, 4)
    with connecting(near, options, 4, ExId.FALLBACK) as sock:
        stranger.answer(stranger.hear())
        assert flags(stranger.hear()) == ACK
        sock.sendall(b"lost")
        copies = [stranger.hear() for _ in range(3)]
        assert {bytes(copy.payload) for copy in copies} == {b"lost"}
        assert options.fate(sock).syns == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_a_syn_that_nobody_answers_is_counted_each_time_and_bears_it_once(
    near: Host, far: Host, options: SynOptions, family: int
) -> None:
    """tcp(7): the second follows the first after a second."""
    stranger = Stranger(near, far, family)
    with connecting(near, options, family, ExId.ADOPT) as sock:
        seen = [borne(stranger.hear()) for _ in range(2)]
        assert options.fate(sock) == SynFate(written=True, no_room=False, syns=2, marked=False)
        options.forget(sock)
        assert options.counts()["written"] == 1
    assert seen == [[(ExId.ADOPT, ID)], []]


def test_a_syn_without_any_room_is_told_and_its_repetition_which_has_room_goes_without(
    near: Host, far: Host, options: SynOptions
) -> None:
    """RFC 7413, section 4.1.1: a cookie of 16 bytes fills the SYN, and a SYN that is sent again has none."""
    stranger = Stranger(near, far, 4)

    def opened(data: bytes) -> socket.socket:
        sock = stream(near)
        sock.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
        options.write(sock, ID, ExId.ADOPT)
        sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            sock.connect((ADDRESS[4], PORT))
            sock.send(data)
        return sock

    with opened(b"first") as sock:
        syn = stranger.hear(SYN)
        stranger.answer(syn, b"\x22\x12" + b"cookie of 16 byt")
        stranger.hear(ACK, syn.sport)
        assert options.fate(sock).written
        options.forget(sock)
    with opened(b"second") as sock:
        syns = [stranger.hear(SYN) for _ in range(2)]
        assert options.fate(sock) == SynFate(written=False, no_room=True, syns=2, marked=False)
        options.forget(sock)
    assert [(bytes(syn.payload), syn.dataofs) for syn in syns] == [(b"second", 15), (b"", 10)]
    assert not any(map(borne, syns))
