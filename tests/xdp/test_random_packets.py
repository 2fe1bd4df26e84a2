# SPDX-License-Identifier: Apache-2.0
"""What no table can list: random frames, and frames of the table cut short or changed.

The oracle is the C core's parser of frames, which is another program for the same rules.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from accord.datapath.xdp_test import Program, Verdict
from accord.wire.constants import Reason
from tests.datapath.frames import parse
from tests.xdp.craft import ALIVE_MS, OURS, PORT, THEIRS
from tests.xdp.mutants import VERDICTS
from tests.xdp.packets import TABLE

pytestmark = pytest.mark.root

Steer = Callable[[bytes], Reason]

# Reasons that both parsers give for the frame itself, and those that only steering knows.
PARSING = {
    Reason.NOT_IP,
    Reason.NOT_OURS_PROTOCOL,
    Reason.FRAGMENT,
    Reason.MALFORMED_FRAME,
    Reason.TOO_MANY_EXTENSIONS,
}
# And what only the program has to say, of SYNs with our option; to the core they are TCP like any other.
SYNS = {
    Reason.SYN_SUPPRESSED,
    Reason.SYN_FIRST,
    Reason.SYN_REPEATED,
    Reason.SYN_ADOPT,
    Reason.SYN_LATE,
    Reason.SYN_ELSEWHERE,
    Reason.BAD_TCP_OPTION,
}


@pytest.fixture(scope="module")
def steer(loaded: Program) -> Steer:
    """Runs one frame on a host that is well; returns its reason after the checks that hold for every frame."""
    loaded.configure()
    loaded.steer(PORT)
    loaded.join()

    def run(frame: bytes) -> Reason:
        loaded.heartbeat(ALIVE_MS)
        result = loaded.run(frame)
        assert result.output == frame
        assert result.reason is not None
        assert result.verdict is VERDICTS.get(result.reason, Verdict.PASS)
        return result.reason

    return run


@given(frame=st.binary(min_size=14, max_size=1500))
def test_random_bytes_pass_untouched(steer: Steer, frame: bytes) -> None:
    assert steer(frame) is not Reason.STEERED


@given(payload=st.binary(max_size=1400), port=st.integers(0, 65535))
def test_random_datagrams_pass_untouched(steer: Steer, payload: bytes, port: int) -> None:
    assume(payload[4:8] != b"ACRD")
    frame = Ether(dst=OURS, src=THEIRS) / IP(src="192.0.2.1", dst="192.0.2.2") / UDP(dport=port) / payload
    assert steer(bytes(frame)) is Reason.NOT_OURS_MAGIC


@settings(max_examples=500)
@given(frame=st.sampled_from([row.frame for row in TABLE]), data=st.data())
def test_a_changed_frame_is_to_the_core_what_it_is_to_the_program(
    steer: Steer, frame: bytes, data: st.DataObject
) -> None:
    changed = bytearray(frame)
    for _ in range(data.draw(st.integers(0, 2))):
        changed[data.draw(st.integers(12, len(frame) - 1))] = data.draw(st.integers(0, 255))
    changed = changed[: data.draw(st.integers(14, len(frame)))] if data.draw(st.booleans()) else changed
    reason, parsed = steer(bytes(changed)), parse(bytes(changed))
    if parsed.reason is Reason.MALFORMED_FRAME:
        return  # the core also looks at the IPv4 checksum and the source, so may say so where the program does not
    if reason in SYNS:
        assert parsed.reason is Reason.NOT_OURS_PROTOCOL
    elif reason in PARSING:
        assert parsed.reason is reason
    elif reason is Reason.NOT_LOCAL:  # by its Ethernet address, or by its routing header; or a SYN
        assert parsed.reason in {Reason.OK, Reason.NOT_LOCAL, Reason.NOT_OURS_PROTOCOL}
    elif parsed.reason is Reason.NOT_OURS_PROTOCOL:
        assert reason is Reason.NOT_OURS_PORT  # a SYN to another one
    else:
        assert parsed.reason is Reason.OK
        ours = len(parsed.packet) >= 32 and 4 <= parsed.packet[0] <= 15 and parsed.packet[4:8] == b"ACRD"
        assert ours == (reason is not Reason.NOT_OURS_MAGIC)
