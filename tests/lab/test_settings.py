# SPDX-License-Identifier: Apache-2.0
"""What a link can be asked to do, and how it is told: to netem in netlink, to our own in words."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.lab import forwarder, netem
from accord.lab.settings import Direction, LinkSettings
from accord.wire.constants import Reason
from accord.wire.errors import UserError

DIRECTIONS = st.builds(
    lambda delay, share, **rest: Direction(delay=delay, jitter=delay * share, **rest),
    delay=st.floats(0, 60),
    share=st.floats(0, 1),
    loss=st.floats(0, 1),
    duplicate=st.floats(0, 1),
    reorder=st.floats(0, 1),
    rate=st.none() | st.integers(8, 30 * 10**9),
    mtu=st.none() | st.integers(576, 65535),
    limit=st.none() | st.integers(1, 10**6),
)


@pytest.mark.parametrize(
    "wrong",
    [
        {"rtt": -1},
        {"rtt": 1000},
        {"rtt": float("nan")},
        {"rtt": 0.01, "jitter": 0.006},
        {"loss": 1.01},
        {"loss": (0, -0.1)},
        {"duplicate": float("nan")},
        {"reorder": 2},
        {"rate": 7},
        {"rate": 10**12},
        {"mtu": 575},
        {"mtu": (1500, 65536)},
        {"limit": 0},
        {"speed": 1},
    ],
)
def test_a_link_that_makes_no_sense_is_the_users_fault_and_says_what_is_allowed(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="allowed:") as raised:
        LinkSettings().changed(**wrong)
    assert raised.value.reason is Reason.BAD_CONFIG


def test_a_round_trip_is_shared_and_a_direction_of_its_own_wins() -> None:
    assert LinkSettings().changed(rtt=0.05) == LinkSettings(Direction(0.025), Direction(0.025))
    assert LinkSettings().changed(rtt=0.05, up=0.04) == LinkSettings(Direction(0.04), Direction(0.025))
    assert LinkSettings().changed(up=0, down=0.1).rtt == 0.1


def test_one_value_is_for_both_directions_and_a_pair_is_up_and_down() -> None:
    settings = LinkSettings().changed(rtt=0.1, loss=0.1, duplicate=(0.2, 0.3), rate=(None, 10**6))
    assert settings.up == Direction(0.05, loss=0.1, duplicate=0.2)
    assert settings.down == Direction(0.05, loss=0.1, duplicate=0.3, rate=10**6)


def test_what_is_not_given_stays() -> None:
    settings = LinkSettings().changed(rtt=0.1, loss=0.1, jitter=0.01)
    assert settings.changed(loss=0) == LinkSettings().changed(rtt=0.1, jitter=0.01)


def test_a_link_with_a_rate_queues_no_more_than_a_router_would() -> None:
    full_frames = 10**8 * (0.05 + 0.1) / (1514 * 8)
    assert Direction(0.05, rate=10**8).packets == pytest.approx(full_frames, rel=0.01)
    assert Direction(0, rate=8).packets == 64
    assert Direction(0.05, rate=10**8, limit=7).packets == 7


@given(DIRECTIONS, DIRECTIONS)
def test_settings_survive_the_state_file(up: Direction, down: Direction) -> None:
    settings = LinkSettings(up, down)
    assert LinkSettings.from_json(json.loads(json.dumps(settings.to_json()))) == settings


@given(DIRECTIONS, DIRECTIONS)
def test_the_forwarder_is_told_every_setting_of_both_directions_exactly(up: Direction, down: Direction) -> None:
    told = dict(word.split("=") for word in forwarder.words(LinkSettings(up, down)))
    for name, direction in (("up", up), ("down", down)):
        assert int(told[f"{name}.delay_ns"]) == pytest.approx(direction.delay * 1e9, abs=1)
        assert int(told[f"{name}.jitter_ns"]) <= int(told[f"{name}.delay_ns"])
        assert float(told[f"{name}.loss"]) == direction.loss
        assert float(told[f"{name}.duplicate"]) == direction.duplicate
        assert float(told[f"{name}.reorder"]) == direction.reorder
        assert int(told[f"{name}.rate_bps"]) == (direction.rate or 0)
        assert int(told[f"{name}.mtu"]) == (direction.mtu or 0)
    assert len(told) == 16


def _attributes(data: bytes) -> dict[int, bytes]:
    found = {}
    while data:
        length, kind = struct.unpack_from("=HH", data)
        found[kind] = data[4:length]
        data = data[(length + 3) & ~3 :]
    return found


def test_netem_is_told_what_linux_pkt_sched_h_says() -> None:
    direction = Direction(0.025, 0.002, 0.01, 0.02, 0.03, rate=10**8, limit=777)
    message = netem.request(5, direction, 0x600)
    length, kind, flags, _, _ = struct.unpack_from("=IHHII", message)
    assert (length, kind, flags) == (len(message), 36, 0x605)  # RTM_NEWQDISC; request, acknowledge, create, exclusive
    _, index, handle, parent, _ = struct.unpack_from("=BxxxiIII", message, 16)
    assert (index, handle, parent) == (5, 0x10000, 0xFFFFFFFF)
    outer = _attributes(message[36:])
    assert outer.keys() == {1, 2}  # TCA_KIND, TCA_OPTIONS and nothing else
    assert outer[1] == b"netem\0"
    # struct tc_netem_qopt: latency, limit, loss, gap, duplicate, jitter. A tick is 64 ns.
    latency, limit, loss, gap, duplicate, jitter = struct.unpack_from("=6I", outer[2])
    assert (latency * 64, jitter * 64, limit, gap) == (25_000_000, 2_000_000, 777, 1)
    assert loss / 2**32 == pytest.approx(0.01)
    assert duplicate / 2**32 == pytest.approx(0.02)
    inner = _attributes(outer[2][24:])
    assert struct.unpack("=II", inner[3])[0] / 2**32 == pytest.approx(0.03)  # TCA_NETEM_REORDER
    assert struct.unpack("=IiIi", inner[6])[0] == 10**8 // 8  # TCA_NETEM_RATE, bytes per second
