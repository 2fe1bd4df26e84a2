# SPDX-License-Identifier: Apache-2.0
"""Python's numbers are the header's: every name, both ways, and nothing more."""

from __future__ import annotations

import enum
import re

import pytest

from accord import scapy_layer
from accord.wire import constants, node, tlv
from tests.wire import header

# Python's enum, the header's enum, what the header's names begin with, and names that stand outside of the enum.
MIRRORED: list[tuple[type[enum.IntEnum] | type[enum.IntFlag], str, str, dict[str, int]]] = [
    (constants.Packet, "packet_constant", "", {}),
    (constants.PacketFlag, "packet_flag", "FLAG_", {"FLAGS_KNOWN": constants.PACKET_FLAGS_KNOWN}),
    (constants.ChunkFlag, "chunk_flag", "CHUNK_", {"CHUNK_FLAGS_KNOWN": constants.CHUNK_FLAGS_KNOWN}),
    (constants.CookieKind, "cookie_kind", "COOKIE_", {}),
    (constants.NodeFlag, "node_flag", "NODE_", {"NODE_FLAGS_KNOWN": constants.NODE_FLAGS_KNOWN}),
    (constants.TlvType, "tlv_type", "TLV_", {"TLV_CRITICAL": constants.TLV_CRITICAL}),
    (constants.Protocol, "protocol", "PROTOCOL_", {}),
    (constants.Word, "word", "WORD_", {}),
    (constants.NodeId, "node_id", "NODE_", {}),
    (constants.Step, "step", "STEP_", {}),
    (constants.TcpOption, "tcp_option", "TCP_OPTION_", {}),
    (constants.Limit, "limit", "", {}),
    (constants.Party, "party", "PARTY_", {}),
    (constants.Reason, "reason", "REASON_", {"REASON_LIMIT": constants.REASON_LIMIT}),
]


@pytest.mark.parametrize(("mirror", "name", "prefix", "outside"), MIRRORED, ids=[row[1] for row in MIRRORED])
def test_every_enum_of_the_header_is_mirrored_name_by_name(
    mirror: type[enum.IntEnum] | type[enum.IntFlag], name: str, prefix: str, outside: dict[str, int]
) -> None:
    ours = {f"{prefix}{key}": member.value for key, member in mirror.__members__.items()}
    assert ours | outside == header.enum(name)


def test_every_enum_of_the_header_has_a_mirror() -> None:
    text = (header.ROOT / "include/accord/wire.h").read_text()
    assert set(re.findall(r"^enum accord_(\w+)", text, re.MULTILINE)) == {row[1] for row in MIRRORED}


def test_reasons_have_the_parties_and_texts_of_the_header() -> None:
    ours = {reason.name: (reason.value, reason.party, reason.text) for reason in constants.Reason}
    assert ours == header.reasons()


@pytest.mark.parametrize(
    ("struct", "bytes_of_it"),
    [
        ("header", constants.Packet.HEADER_BYTES),
        ("chunk", constants.Packet.CHUNK_HEADER_BYTES),
        ("descriptor", constants.DESCRIPTOR_HEADER_BYTES),
        ("tlv", constants.TLV_HEADER_BYTES),
    ],
)
def test_structs_have_the_sizes_that_python_counts_with(struct: str, bytes_of_it: int) -> None:
    assert header.size(struct) == bytes_of_it


@pytest.mark.parametrize(
    ("struct", "layer"),
    [
        ("header", scapy_layer.Accord()),
        ("chunk", scapy_layer.AccordChunk()),
        ("descriptor", scapy_layer.AccordNode()),
        ("tlv", scapy_layer.AccordTlv()),
    ],
)
def test_scapy_has_the_fields_of_the_structs_at_their_offsets(struct: str, layer: scapy_layer.Accord) -> None:
    offset = 0
    for field, (name, at, size) in zip(layer.fields_desc, header.fields(struct), strict=False):
        assert (field.name, offset, field.sz) == (name, at, size)
        offset += size
    assert offset == header.size(struct)


def test_scapy_knows_the_numbers_of_the_header() -> None:
    protocols = {value for name, value in header.enum("protocol").items() if not re.search("GREASE|PRIVATE", name)}
    assert set(scapy_layer.PROTOCOLS) == protocols
    types = {name.removeprefix("TLV_").lower(): value for name, value in header.enum("tlv_type").items()}
    assert {name: value for value, name in scapy_layer.TLV_TYPES.items()} == {
        name: value for name, value in types.items() if name != "critical"
    }
    steps = {name.removeprefix("STEP_").lower(): value for name, value in header.enum("step").items()}
    assert {name: value for value, name in scapy_layer.STEPS.items()} == steps


def test_every_known_tlv_type_has_a_form() -> None:
    for known in constants.TlvType:
        on_context = node.Node(0, 17, tlvs=(tlv.Tlv(known, b""),))
        elsewhere = node.Node(1, 6, tlvs=(tlv.Tlv(known, b""),))
        with pytest.raises(ValueError, match=known.name):
            node.encode_descriptor(on_context)
        with pytest.raises(ValueError, match=known.name):
            node.encode_descriptor(elsewhere)


def test_reserved_numbers_are_grease_and_no_known_number_is() -> None:
    assert all(constants.is_grease_protocol(value) for value in (0x0A0A0A0A, 0xFAEADA0A, 0x1A2A3A4A))
    assert not any(constants.is_grease_protocol(p) for p in constants.Protocol if p != constants.Protocol.GREASE)
    assert constants.is_grease_tlv(0x0A0A)
    assert constants.is_grease_tlv(0x3ADA)
    assert not any(constants.is_grease_tlv(known) for known in constants.TlvType)


def test_an_unknown_reason_number_is_no_reason() -> None:
    assert constants.reason_of(200) is None
    assert constants.reason_of(137) is constants.Reason.BAD_MAC
