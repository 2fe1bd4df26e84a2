# SPDX-License-Identifier: Apache-2.0
"""How many packets a message takes, and how many of the longest ones a direction has TSNs for (PROTOCOL.md, 4.4)."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from accord.datapath.engine import Engine
from accord.datapath.path import Path
from accord.wire.constants import Limit, Protocol, Reason
from accord.wire.errors import AccordError

HERE = Path(4, Protocol.UDP, "127.0.0.1", 4000, "127.0.0.2", 5000)
ID = bytes(range(12))
PACKETS_OF_A_LONG_MESSAGE = 58


def sent(lengths: list[int], times: int = 1) -> Engine:
    """An engine that has a message with nodes so long to send, as its steps 0, 2, 4..."""
    engine = Engine(transactions=1, buffers=600, events=512)
    handle = engine.open(1, ID, HERE)
    nodes = [(node, 6 if node else 17, bytes(length)) for node, length in enumerate(lengths)]
    for step in range(0, 2 * times, 2):
        engine.send(1, handle, step, nodes)
    return engine


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, Limit.MAX_MESSAGE_BYTES - 256), max_size=63))
@example([1024 * node for node in range(1, 64)])
@example([])
def test_the_longest_message_takes_58_packets_at_most_however_it_is_divided_into_nodes(cuts: list[int]) -> None:
    spare = Limit.MAX_MESSAGE_BYTES - 4 * (len(cuts) + 1)
    ends = [*sorted(min(cut, spare) for cut in cuts), spare]
    lengths = [4 + end - begin for begin, end in zip([0, *ends], ends, strict=False)]
    assert sum(lengths) == Limit.MAX_MESSAGE_BYTES
    assert sent(lengths).usage().buffers <= PACKETS_OF_A_LONG_MESSAGE


def test_four_of_the_longest_messages_fit_into_the_tsns_of_a_direction_and_a_fifth_is_refused_here() -> None:
    longest = [1024] * 64
    assert sent(longest, times=4).usage().buffers <= Limit.MAX_PACKETS
    with pytest.raises(AccordError) as refused:
        sent(longest, times=5)
    assert refused.value.reason is Reason.MESSAGE_TOO_LONG
