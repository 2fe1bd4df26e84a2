# SPDX-License-Identifier: Apache-2.0
"""SYNs with options in any order, whole and broken: what a reader of RFC 9293 makes of them, the program does too."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.packet import Packet

from accord.datapath.xdp_test import Program, Verdict
from accord.wire.constants import Reason
from tests.xdp.craft import ALIVE_MS, ETHER, ID, PORT, ip4, ip6
from tests.xdp.packets_syn import ADOPT, FALLBACK, LINUX, option, proposal, segment

pytestmark = pytest.mark.root

ROOM = 40


def read(options: bytes) -> list[tuple[int, bytes]] | None:
    """RFC 9293 section 3.1: kind and data of each option up to the end of the list; None when they do not parse."""
    found = []
    while options and options[0] != 0:
        if options[0] == 1:
            options = options[1:]
            continue
        if len(options) < 2 or not 2 <= options[1] <= len(options):
            return None
        found.append((options[0], options[2 : options[1]]))
        options = options[options[1] :]
    return found


def expected(options: bytes) -> Reason:
    """What the program has to say of a SYN with them whose proposal came first. ``options``: whole words."""
    if len(options) < 16:
        return Reason.NOT_OURS_PROTOCOL
    if (found := read(options)) is None:
        return Reason.BAD_TCP_OPTION
    kinds = [FALLBACK.to_bytes(2, "big"), ADOPT.to_bytes(2, "big")]
    ours = [data for kind, data in found if kind == 254 and len(data) == 14 and data[:2] in kinds]
    if not ours:
        return Reason.NOT_OURS_PROTOCOL
    if len(ours) > 1:
        return Reason.BAD_TCP_OPTION
    if ours[0][:2] == kinds[1]:
        return Reason.SYN_ADOPT
    return Reason.SYN_SUPPRESSED if ours[0][2:] == ID else Reason.SYN_FIRST


def others() -> st.SearchStrategy[bytes]:
    """One option, good or bad: ours, padding, anybody's."""
    return st.one_of(
        st.sampled_from([b"\1", b"\1", b"\0", b"\2\4\5\xb4", b"\4\2", b"\3\3\7", b"\x08\x0a12345678"]),
        st.sampled_from(
            [option(), option(ADOPT), option(kind=253), option(0xACC2), option(transaction=b"another one.")]
        ),
        st.binary(min_size=0, max_size=20).map(lambda data: bytes((30, len(data) + 2)) + data),
        st.builds(lambda kind, length: bytes((kind, length)), st.integers(2, 255), st.integers(0, 255)),
        st.builds(lambda length: option(length=length), st.integers(0, 40)),
    )


def lists() -> st.SearchStrategy[bytes]:
    """Option lists of up to 40 bytes, padded to whole words with what may be no padding."""
    some = st.lists(others(), max_size=8).map(b"".join)
    random = st.binary(max_size=ROOM)
    near_linux = st.builds(
        lambda at, value: (LINUX + option())[:at] + bytes((value,)) + (LINUX + option())[at + 1 :],
        st.integers(0, 35),
        st.integers(0, 255),
    )
    whole = st.one_of(some, some, random, near_linux)
    return st.builds(
        lambda options, pad: options[:ROOM] + bytes((pad,)) * (-len(options[:ROOM]) % 4),
        whole,
        st.sampled_from([0, 1, 30]),
    )


@settings(max_examples=600)
@given(options=lists(), family=st.sampled_from([4, 6]))
def test_the_option_is_found_where_a_reader_of_the_rfc_finds_it_and_nowhere_else(
    loaded: Program, options: bytes, family: int
) -> None:
    network = {4: ip4, 6: ip6}[family]
    loaded.configure()
    loaded.steer(PORT)
    loaded.join()
    loaded.heartbeat(ALIVE_MS)
    for _, data in [*(read(options) or ()), (254, bytes(2) + ID)]:
        if len(data) == 14:
            loaded.forget(data[2:])
    loaded.run(bytes(proposal(network())))
    upper: Packet = ip4(proto=6) if family == 4 else ip6(nh=6)
    frame = bytes(ETHER / upper / segment(options))
    result = loaded.run(frame)
    wanted = expected(options)
    assert result.reason is wanted
    assert result.verdict is (Verdict.DROP if wanted is Reason.SYN_SUPPRESSED else Verdict.PASS)
    assert result.output == frame
