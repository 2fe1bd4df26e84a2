# SPDX-License-Identifier: Apache-2.0
"""The bound on replays: at most once, only within the window, in a fixed size, and nothing right after a start."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from accord.protocols.sealed.replay import ReplayFilter

START, WINDOW = 1_800_000_000.0, 30.0


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


def started(limit: int = 100, after: float = WINDOW + 1) -> tuple[Clock, ReplayFilter]:
    clock = Clock()
    replay = ReplayFilter(clock, window=WINDOW, limit=limit)
    clock.now += after
    return clock, replay


def test_the_same_message_is_taken_once_however_often_it_comes() -> None:
    clock, replay = started()
    sealed_at = clock.now
    assert replay.admit(b"one", sealed_at)
    for _ in range(200):
        clock.now += 1
        assert not replay.admit(b"one", sealed_at)
    assert replay.admit(b"two", clock.now)


def test_a_message_from_outside_of_the_window_is_not_taken() -> None:
    clock, replay = started(after=10 * WINDOW)
    assert not replay.admit(b"old", clock.now - WINDOW - 1)
    assert not replay.admit(b"ahead", clock.now + WINDOW + 1)
    assert replay.admit(b"late", clock.now - WINDOW + 1)
    assert replay.admit(b"early", clock.now + WINDOW - 1)


def test_what_a_daemon_took_before_its_restart_it_does_not_take_again() -> None:
    """A sender's clock may be ahead by a window, so its message may say that it is from after the restart."""
    before, replay = started(after=10 * WINDOW)
    for ahead in (-WINDOW + 1, 0.0, WINDOW - 1):
        sealed_at = before.now + ahead
        assert replay.admit(f"{ahead}".encode(), sealed_at)
        clock = Clock()
        clock.now = before.now
        restarted = ReplayFilter(clock, window=WINDOW)
        for _ in range(100):
            assert not restarted.admit(f"{ahead}".encode(), sealed_at)
            clock.now += 1
        assert restarted.admit(b"new", clock.now)


def test_a_full_filter_takes_nothing_and_has_room_again_when_the_window_is_over() -> None:
    clock, replay = started(limit=5)
    assert all(replay.admit(bytes((n,)), clock.now) for n in range(5))
    assert not replay.admit(b"sixth", clock.now)
    assert len(replay) == 5
    clock.now += WINDOW + 1
    assert replay.admit(b"sixth", clock.now)
    assert len(replay) == 1


@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.floats(-2 * WINDOW, 2 * WINDOW), st.floats(0, WINDOW)),
        max_size=60,
    )
)
def test_no_message_is_ever_taken_twice_and_the_size_never_exceeded(
    comings: list[tuple[int, float, float]],
) -> None:
    """A message has one time of sealing, whenever and in whatever order it comes."""
    clock, replay = started(limit=4)
    sealed: dict[int, float] = {}
    taken: list[int] = []
    for name, offset, pause in comings:
        clock.now += pause
        sealed_at = sealed.setdefault(name, clock.now + offset)
        if replay.admit(bytes((name,)), sealed_at):
            taken.append(name)
        assert len(replay) <= 4
    assert len(taken) == len(set(taken))
