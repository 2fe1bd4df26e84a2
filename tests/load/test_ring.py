# SPDX-License-Identifier: Apache-2.0
"""The ring of cookie keys, on a clock of its own; and the file that it outlives a daemon in."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.controller.load.keeper import CookieKeeper
from accord.controller.load.ring import COOKIE_SECONDS, KeptKey, KeyRing, format_keys, parse, slot_of
from accord.controller.load.watch import QUIET_SECONDS, LevelLog
from accord.controller.peers.state_file import StateFile
from accord.datapath.cookies import MAX_KEYS, CookieKey, ring_of
from accord.datapath.engine import Engine, Level, Load
from accord.datapath.path import Path as Way
from accord.scapy_layer import INITIATOR, Accord, AccordChunk, AccordNode, first_tsn
from accord.wire.constants import Reason

PERIOD = 100.0
ID = bytes(range(12))
WAY = Way(4, 17, "192.0.2.2", 443, "192.0.2.1", 40000)


def proposal(cookie: bytes = b"") -> bytes:
    """A whole proposal in one packet."""
    chunk = AccordChunk(node=0, protocol=17, data=bytes(AccordNode()) + bytes(30))
    tsn = first_tsn(ID, initiator=True)
    flags = INITIATOR | 4 | (16 if cookie else 0)
    return bytes(Accord(step=0, flags=flags, transaction=ID, tsn=tsn, cookie=cookie, chunks=[chunk]))


class Host:
    """An engine that asks everybody for a cookie."""

    def __init__(self) -> None:
        self.engine = Engine()
        self.engine.level(0, Level.COOKIE)

    def use(self, keys: Sequence[CookieKey], slot: int) -> None:
        self.engine.cookies(ring_of(keys, slot))

    def challenge(self) -> bytes:
        """The cookie that a stranger gets."""
        assert self.engine.input(1, WAY, proposal()) is Reason.CHALLENGED
        ((_, packet),) = self.engine.output(1)
        return packet[32:]


def numbers() -> KeyRing:
    """Keys are 0, 1, 2, ... repeated."""
    count = itertools.count()
    return KeyRing(PERIOD, 2 * PERIOD, lambda length: bytes([next(count) & 0xFF]) * length)


@given(st.lists(st.floats(0.1, 500), max_size=60))
def test_a_key_is_the_present_one_for_a_period_and_known_for_its_lifetime(steps: list[float]) -> None:
    ring, now = numbers(), 1e9
    made: dict[bytes, float] = {}
    for step in [0.0, *steps]:
        now += step
        ring.turn(now)
        for key in ring.keys:
            made.setdefault(key.key, now)
        assert now - made[ring.keys[0].key] < PERIOD
        assert all(now - made[key.key] < 2 * PERIOD for key in ring.keys)
        assert len({key.id for key in ring.keys}) == len(ring.keys) <= MAX_KEYS
        ring_of(ring.keys, slot_of(now))


def test_a_cookie_is_good_over_one_rotation_and_a_restart_and_dead_after_two() -> None:
    ring = numbers()
    host, now = Host(), 1e9
    ring.turn(now)
    host.use(ring.keys, 7)
    cookie = host.challenge()
    assert ring.turn(now + PERIOD)
    again = numbers()
    again.restore(parse(ring.text()))  # a restart
    other = Host()
    other.use(again.keys, 8)
    assert other.engine.input(2, WAY, proposal(cookie)) is Reason.OK
    assert again.turn(now + 2 * PERIOD)
    late = Host()
    late.use(again.keys, 8)
    assert late.engine.input(2, WAY, proposal(cookie)) is Reason.CHALLENGED
    assert late.engine.transactions == 0


def test_a_host_takes_the_cookie_of_another_one_with_the_same_keys() -> None:
    keys = [CookieKey(3, os.urandom(16)), CookieKey(2, os.urandom(16))]
    one, other, stranger = Host(), Host(), Host()
    one.use(keys, 100)
    other.use(keys[::-1], 101)  # another key is the present one there, and another slot
    stranger.use([CookieKey(3, bytes(16))], 100)
    cookie = one.challenge()
    assert other.engine.input(1, WAY, proposal(cookie)) is Reason.OK
    assert stranger.engine.input(1, WAY, proposal(cookie)) is Reason.BAD_COOKIE


def test_a_clock_that_was_set_back_makes_a_new_key_and_nothing_else() -> None:
    ring = numbers()
    ring.turn(1e9)
    (before,) = ring.keys
    assert ring.turn(1e9 - 1000)
    assert len(ring.keys) == 1
    assert ring.keys[0] != before


@given(st.floats(1e9, 2e9), st.floats(0, COOKIE_SECONDS))
def test_a_key_is_kept_over_a_restart_at_any_fraction_of_a_second(made: float, later: float) -> None:
    ring, again = numbers(), numbers()
    ring.turn(made)
    again.restore(parse(ring.text()))
    assert not again.turn(made + later)
    assert again.keys == ring.keys


@given(
    st.lists(
        st.builds(
            KeptKey,
            st.builds(CookieKey, st.integers(0, 255), st.binary(min_size=16, max_size=16)),
            st.none() | st.integers(0, 2**40).map(float),
        ),
        max_size=MAX_KEYS,
        unique_by=lambda kept: kept.key.id,
    )
)
def test_a_ring_is_read_as_it_was_written(kept: list[KeptKey]) -> None:
    assert parse(format_keys(kept)) == kept


@pytest.mark.parametrize(
    "text",
    ["1", "1 00", "1 " + "0" * 31, "x " + "0" * 32, "256 " + "0" * 32, "-1 " + "0" * 32, "1 " + "0" * 32 + " then",
     "1 " + "0" * 32 + " 1 2", "1 " + "0" * 32 + " 9e999", "1 " + "0" * 32 + " nan",
     ("1 " + "0" * 32 + "\n") * 2, "\n".join(f"{n} {'0' * 32}" for n in range(5)),
     "#" * 5000],
)  # fmt: skip
def test_what_is_no_ring_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"line \d|keys|characters"):
        parse(text)


@given(st.text(max_size=200))
def test_no_text_makes_the_reader_raise_anything_else(text: str) -> None:
    with contextlib.suppress(ValueError):
        parse(text)


class Clock:
    """Unix time as the keeper sees it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1e9
        monkeypatch.setattr("accord.controller.load.keeper.time.time", lambda: self.now)


@pytest.fixture
def unix_time(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_a_daemon_that_was_killed_takes_the_cookies_that_it_made(unix_time: Clock, tmp_path: Path) -> None:
    file = tmp_path / "state" / "cookies.keys"
    first, second = Host(), Host()
    CookieKeeper(KeyRing(PERIOD, 2 * PERIOD, os.urandom), first.use, StateFile(file)).load()
    assert file.stat().st_mode & 0o777 == 0o600
    cookie = first.challenge()  # and no more is heard of it: nothing was closed
    unix_time.now += COOKIE_SECONDS - 4
    CookieKeeper(KeyRing(PERIOD, 2 * PERIOD, os.urandom), second.use, StateFile(file)).load()
    assert second.engine.input(1, WAY, proposal(cookie)) is Reason.OK


def test_a_file_that_is_broken_costs_new_keys_and_one_line(
    unix_time: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "cookies.keys"
    file.write_bytes(b"\xff\xfe nonsense")
    host = Host()
    with caplog.at_level(logging.WARNING):
        CookieKeeper(KeyRing(PERIOD, 2 * PERIOD, os.urandom), host.use, StateFile(file)).load()
    assert len(host.challenge()) == 16
    assert [record.message for record in caplog.records if "begin anew" in record.message]
    assert len(parse(file.read_text())) == 1


def test_a_shared_file_is_followed_and_a_broken_one_leaves_the_keys(
    unix_time: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "shared"
    keys = [CookieKey(1, bytes(16)), CookieKey(2, b"k" * 16)]
    seen: list[list[CookieKey]] = []
    file.write_text(format_keys([KeptKey(keys[0], None)]))
    keeper = CookieKeeper(
        KeyRing(PERIOD, 2 * PERIOD, os.urandom), lambda found, _: seen.append(list(found)), None, file
    )
    keeper.load()
    assert seen[-1] == keys[:1]
    for text, expected in (
        (format_keys([KeptKey(key, None) for key in reversed(keys)]), keys[::-1]),
        ("nonsense", keys[::-1]),
        ("", keys[::-1]),
        (format_keys([KeptKey(keys[1], None)]), keys[1:]),
    ):
        file.write_text(text)
        unix_time.now += 6
        keeper.turn()
        assert seen[-1] == expected
    assert len([record for record in caplog.records if "the keys stay" in record.message]) == 1
    unix_time.now += 10 * PERIOD
    keeper.turn()
    assert seen[-1] == keys[1:]  # these are somebody else's to replace


def test_a_level_that_flaps_is_said_once_in_ten_seconds(caplog: pytest.LogCaptureFixture) -> None:
    watch = LevelLog()
    with caplog.at_level(logging.WARNING):
        for tick in range(200):
            watch.look(Load(Level.COOKIE if tick % 3 else Level.STATE, 0, 5, (0, 0, 0)), tick * 0.1)
    assert 2 <= len(caplog.records) <= 1 + 20 / QUIET_SECONDS
    assert "load level 2: strangers are asked for a cookie" in caplog.records[0].message
