# SPDX-License-Identifier: Apache-2.0
"""docs/PROTOCOL.md says what the header, the code and scapy say."""

from __future__ import annotations

import re

import pytest

from accord.negotiation import transcript
from accord.negotiation.events import Send
from accord.negotiation.inbox import _ALLOWED, _ALLOWED_IN_ABORT
from accord.negotiation.initiator import Initiator, Proposed
from accord.negotiation.interface import Answer, Role, Session
from accord.negotiation.responder import MAX_ATTEMPTS, Accepted, Responder
from accord.scapy_layer import Accord, descriptors
from accord.wire.constants import Limit, Step, TlvType
from tests.negotiation.peers import FakeChooser, FakeSession, Side, deliver
from tests.wire import document, example

TEXT = document.DOCUMENT.read_text()


def test_every_table_and_the_example_are_as_the_sources_have_them() -> None:
    assert document.render(TEXT) == TEXT, "stale: PYTHONPATH=ctrl python -m tests.wire.document"


def test_every_part_that_can_be_made_is_in_the_document_once() -> None:
    assert sorted(part[2] for part in document.PART.finditer(TEXT)) == sorted(document.PARTS)


def test_every_must_has_a_number_of_its_own() -> None:
    numbers = [int(number) for number in re.findall(r"\[MUST-(\d+)\]", TEXT)]
    assert len(set(numbers)) == len(numbers) > 100
    preamble = re.compile(r"^The key words MUST.*?\n\n", re.DOTALL | re.MULTILINE)
    rules = document.PART.sub("", preamble.sub("", TEXT))
    for paragraph in rules.split("\n\n"):
        first = re.search(r"MUST(?!-)", paragraph)
        assert first is None or "[MUST-" in paragraph[: first.start()], paragraph


def test_the_table_of_tlvs_allows_what_the_code_allows() -> None:
    table = TEXT[TEXT.index("| TLV | value | on |") :].partition("\n\n")[0]
    rows = re.findall(
        r"^\| ([A-Z_]{4,}|MAC) \| [^|\n]* \| [^|\n]* \|([^|\n]*)\|([^|\n]*)\|([^|\n]*)\|([^|\n]*)\|([^|\n]*)\|$",
        table,
        re.M,
    )
    by_step = (_ALLOWED[Step.PROPOSAL], _ALLOWED[Step.ANSWER], _ALLOWED[3], _ALLOWED[Step.COMMIT])
    assert all(_ALLOWED[step] == _ALLOWED[2 + step % 2] for step in range(2, Limit.MAX_STEPS))
    columns = (*by_step, _ALLOWED_IN_ABORT)
    assert {row[0] for row in rows} == {known.name for known in TlvType}
    for name, *cells in rows:
        for cell, allowed in zip(cells, columns, strict=True):
            assert bool(cell.strip()) == (TlvType[name] in allowed), (name, cell)


def test_numbers_in_the_prose_are_the_code_s() -> None:
    assert f"({MAX_ATTEMPTS} in this implementation)" in " ".join(TEXT.split())
    for label in (transcript._LABEL, *transcript._MAC_LABEL.values()):
        assert f'"{label.decode()}"' in TEXT


@pytest.mark.parametrize("built", [example.build(), example.figure()], ids=["example", "figure"])
def test_scapy_finds_the_examples_packets_sound(built: example.Example) -> None:
    for data in (built.proposal, built.answer, built.commit):
        packet = Accord(data)
        assert packet.checksum_ok
        fields = {name: getattr(packet, name) for name in ("step", "flags", "transaction", "tsn", "chunks")}
        assert bytes(Accord(ack_tsn=packet.ack_tsn, ack_count=packet.ack_count, **fields)) == data


# Node IDs: protocol and children; then what each session says, on either side.
SCENES: dict[
    str, tuple[example.Example, dict[int, tuple[int, tuple[int, ...]]], dict[Role, dict[int, list[bytes]]]]
] = {
    "example": (
        example.build(),
        {
            0: (example.UDP, (1, 4)),
            1: (example.TCP, (2, 3)),
            2: (example.TLS, (3,)),
            3: (example.HTTP, ()),
            4: (example.UNSUPPORTED, ()),
        },
        {
            Role.INITIATOR: {1: [b"SYN", b""], 2: [b"ClientHello", b"Finished"], 3: [b"names", b""], 4: [b"?", b""]},
            Role.RESPONDER: {1: [b"SYN-ACK"], 2: [b"ServerHello..Finished"], 3: [b"name"]},
        },
    ),
    "figure": (
        example.figure(),
        {
            0: (example.UDP, (1, 3)),
            1: (example.TCP, (2, 5)),
            2: (example.TLS, (5,)),
            3: (example.DCCP, (4,)),
            4: (example.DTLS, (5,)),
            5: (example.HTTP, ()),
        },
        {
            Role.INITIATOR: {
                1: [b"SYN: SACK, timestamps", b""],
                2: [b"ClientHello: AES, 3DES", b"Finished"],
                3: [b"Request: CCID 2, CCID 3", b""],
                4: [b"ClientHello: AES, 3DES", b""],
                5: [b"names", b""],
            },
            Role.RESPONDER: {
                1: [b"SYN-ACK: SACK"],
                2: [b"ServerHello: AES..Finished"],
                3: [b""],
                4: [b""],
                5: [b"name"],
            },
        },
    ),
}


@pytest.mark.parametrize("scene", SCENES)
def test_the_state_machines_say_the_examples_byte_for_byte(scene: str) -> None:
    built, graph, words = SCENES[scene]

    def session(role: Role, node: int, protocol: int) -> Session:
        first, *second = words[role][node]
        script: dict[str, object] = {"propose": Answer(first), "respond": Answer(first), "exporter": example.EXPORTER}
        secure = protocol in (example.TLS, example.DTLS)
        return FakeSession(protocol, role, secure, script | {"advance": Answer(b"".join(second))})

    chooser = FakeChooser(prefer=("http/tls/tcp",))
    proposed = [
        Proposed(
            node,
            protocol,
            session(Role.INITIATOR, node, protocol) if node else None,
            children,
            5 if (scene, node) == ("example", 2) else None,
        )
        for node, (protocol, children) in graph.items()
    ]
    one = Side(Initiator(example.TRANSACTION, proposed, chooser), {}, frozenset())
    accepted = Accepted(chooser, lambda node, protocol: session(Role.RESPONDER, node, protocol))
    other = Side(Responder(example.TRANSACTION, lambda service: accepted, example.COOKIE), {}, frozenset())
    one.supported = frozenset(protocol for protocol, _ in graph.values())
    other.supported = one.supported - {example.UNSUPPORTED}

    (proposal,) = one.start()
    (answer,) = deliver(proposal, other)
    (commit,) = deliver(answer, one)
    assert deliver(commit, other) == []
    assert one.stack == other.stack == "http/tls/tcp"
    for message, data in ((proposal, built.proposal), (answer, built.answer), (commit, built.commit)):
        assert isinstance(message, Send)
        ours = sorted((int(node), int(protocol), descriptor) for node, protocol, descriptor in message.nodes)
        assert ours == descriptors([Accord(data)])
