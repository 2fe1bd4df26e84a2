# SPDX-License-Identifier: Apache-2.0
"""The parts of a meeting by themselves: PEER on the wire, one reservation for two SYNs, the rules, the introducer."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accord.controller.crossing import CrossingTcp
from accord.lab.introducer import Introducer
from accord.protocols.http import HttpPlugin
from accord.protocols.quic import QuicPlugin
from accord.protocols.simultaneous import Simultaneous, rule_of
from accord.protocols.tcp import TcpPlugin
from accord.protocols.tls import TlsPlugin
from accord.wire import tlv
from accord.wire.constants import Protocol, Reason, TlvType
from accord.wire.errors import AccordError
from accord.wire.node import Node, decode_descriptor, encode_descriptor
from accord.wire.tlv import Tlv

# ---- PEER ----


@given(st.binary(min_size=32, max_size=32))
def test_peer_is_32_bytes_on_the_context_and_comes_back_as_it_was_sent(value: bytes) -> None:
    data = encode_descriptor(Node(0, Protocol.UDP, (), (tlv.peer(value),)))
    assert decode_descriptor(0, Protocol.UDP, data).tlv(TlvType.PEER) == value


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_peer_of_another_length_is_refused(size: int) -> None:
    area = TlvType.PEER.to_bytes(2, "big") + size.to_bytes(2, "big") + bytes(size)
    data = b"\0\0" + len(area).to_bytes(2, "big") + area
    with pytest.raises(AccordError) as refusal:
        decode_descriptor(0, Protocol.UDP, data)
    assert refusal.value.reason is Reason.BAD_TLV


def test_peer_on_another_node_than_the_context_is_refused() -> None:
    with pytest.raises(ValueError, match="context"):
        encode_descriptor(Node(1, Protocol.TCP, (), (Tlv(TlvType.PEER, bytes(32)),)))


# ---- one TCP connection for two sessions ----


@dataclass
class Kernel:
    """``TcpService`` that counts."""

    reserved: list[int | None] = field(default_factory=list)
    released: int = 0
    installed: list[Any] = field(default_factory=list)

    def reserve(self, port: int | None = None) -> Any:
        self.reserved.append(port)
        return Endpoint(self, len(self.reserved))


@dataclass
class Endpoint:
    kernel: Kernel
    parameters: Any

    def install(self, peer: Any) -> None:
        self.kernel.installed.append((self.parameters, peer))

    def installed(self) -> None:
        return None

    def release(self) -> None:
        self.kernel.released += 1

    def stream(self) -> Any:
        return f"stream {self.parameters}"


def test_both_sessions_of_a_side_have_one_reservation_on_the_meeting_s_port() -> None:
    kernel = Kernel()
    crossing = CrossingTcp(kernel, 4000)
    proposes, responds = crossing.reserve(None), crossing.reserve(443)
    assert proposes.parameters == responds.parameters
    assert kernel.reserved == [4000]


def test_it_goes_when_the_meeting_is_over_and_nobody_uses_it() -> None:
    kernel = Kernel()
    crossing = CrossingTcp(kernel, 4000)
    proposes, responds = crossing.reserve(), crossing.reserve()
    for use in (proposes, proposes, responds):
        use.release()
    assert kernel.released == 0, "the peer may still lead, and the numbers are announced"
    crossing.close()
    assert kernel.released == 1


def test_a_stack_that_has_taken_it_keeps_it() -> None:
    kernel = Kernel()
    crossing = CrossingTcp(kernel, 4000)
    proposes, responds = crossing.reserve(), crossing.reserve()
    responds.install("the peer's")
    assert responds.stream() == "stream 1"
    proposes.release()
    crossing.close()
    assert (kernel.released, kernel.installed) == (0, [(1, "the peer's")])
    with pytest.raises(AccordError) as refusal:
        crossing.reserve()
    assert refusal.value.reason is Reason.CANNOT_INSTALL


def test_what_was_installed_for_nothing_is_not_used_again() -> None:
    kernel = Kernel()
    crossing = CrossingTcp(kernel, 4000)
    first = crossing.reserve()
    first.install("a stack that came to nothing")
    first.release()
    assert kernel.released == 1
    assert crossing.reserve().parameters == 2


# ---- rules ----


def test_each_protocol_states_its_rule() -> None:
    rules = {plugin.name: rule_of(plugin) for plugin in (TcpPlugin(), TlsPlugin(), QuicPlugin(), HttpPlugin())}
    roles = dict.fromkeys(("tls", "quic", "http"), Simultaneous.ROLES)
    assert rules == {"tcp": Simultaneous.BOTH, **roles}


@pytest.mark.parametrize("said", [object(), "both", None])
def test_a_plug_in_that_says_nothing_sensible_has_roles(said: object) -> None:
    class Plugin:
        simultaneous = said

    assert rule_of(Plugin()) is Simultaneous.ROLES
    assert rule_of(object()) is Simultaneous.ROLES


# ---- the introducer ----

ADA, BOB, EVE = ("192.0.2.1", 1), ("192.0.2.2", 2), ("192.0.2.3", 3)


def test_two_that_ask_for_one_meeting_are_told_of_each_other() -> None:
    introducer = Introducer()
    assert introducer.ask(b"tea", ADA) == introducer.ask(b"tea", ADA) == []
    assert introducer.ask(b"coffee", EVE) == []
    told = dict(introducer.ask(b"tea", BOB))
    assert {to: tuple(json.loads(answer)["peer"]) for to, answer in told.items()} == {ADA: BOB, BOB: ADA}


def test_who_comes_back_from_another_port_takes_the_place_of_the_oldest() -> None:
    introducer = Introducer()
    for who in (ADA, BOB):
        introducer.ask(b"tea", who)
    assert {to for to, _ in introducer.ask(b"tea", EVE)} == {BOB, EVE}


@settings(max_examples=20)
@given(st.lists(st.binary(max_size=300), max_size=30))
def test_the_introducer_keeps_a_bounded_number_of_meetings(names: list[bytes]) -> None:
    introducer = Introducer()
    for number in range(2000):
        introducer.ask(str(number).encode(), ADA)
    for name in names:
        introducer.ask(name, ADA)
    assert len(introducer._meetings) <= 1024
    assert all(0 < len(name) <= 200 for name in introducer._meetings)
