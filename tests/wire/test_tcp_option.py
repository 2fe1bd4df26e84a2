# SPDX-License-Identifier: Apache-2.0
"""The option's 16 bytes, against scapy's TCP."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import TCP

from accord.wire.constants import TcpOption
from accord.wire.tcp_option import decode, encode

EX_IDS = st.sampled_from([TcpOption.EXID, TcpOption.EXID_ADOPT])
IDS = st.binary(min_size=12, max_size=12)


@given(EX_IDS, IDS)
def test_scapy_reads_the_option_out_of_a_syn_as_it_was_written(ex_id: TcpOption, transaction: bytes) -> None:
    value = int(ex_id).to_bytes(2, "big") + transaction
    data = encode(ex_id, transaction)
    assert data == bytes(TCP(options=[(254, value)]))[20:]
    assert TCP(bytes(TCP(options=[]))[:12] + b"\x90" + bytes(TCP())[13:20] + data).options == [(254, value)]
    assert decode(data) == (ex_id, transaction)


@given(st.binary(max_size=40))
def test_what_decodes_is_the_one_encoding_of_it(data: bytes) -> None:
    found = decode(data)
    assert found is None or encode(*found) == data


@given(EX_IDS, IDS, st.integers(0, 15))
def test_a_truncated_option_or_one_of_another_kind_length_or_ex_id_is_none(
    ex_id: TcpOption, transaction: bytes, length: int
) -> None:
    data = encode(ex_id, transaction)
    assert decode(data[:length]) is None
    assert decode(data + b"\0") is None
    for at in range(3):
        assert decode(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]) is None


def test_an_id_of_another_length_or_a_number_that_is_no_ex_id_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="11 bytes"):
        encode(TcpOption.EXID, bytes(11))
    with pytest.raises(ValueError, match="0x00fe"):
        encode(TcpOption.KIND, bytes(12))
