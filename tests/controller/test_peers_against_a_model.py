# SPDX-License-Identifier: Apache-2.0
"""The memory of peers against a model that keeps every event and works out its beliefs from the whole story anew."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from accord.controller.peers.memory import Knowledge, Learnt, Peers

HOUR, DAY = 3600.0, 86400.0
LIMIT = 4
ADDRESSES = ("192.0.2.1", "192.0.2.2", "2001:db8::1")
SOURCES = ("", "10.0.0.1", "10.0.0.2")
GOOD = {
    "answers": {
        Learnt.ANSWERED, Learnt.REFUSED, Learnt.LATE_ANSWER,
        Learnt.NO_SYN_WORKED, Learnt.ADOPTED_MARKED, Learnt.ADOPTED_UNMARKED,
    },
    "no_syn": {Learnt.NO_SYN_WORKED},
    "option": {Learnt.OPTION_PASSED, Learnt.ADOPTED_MARKED},
}  # fmt: skip
BAD = {"answers": Learnt.SILENT, "no_syn": Learnt.NO_SYN_STALLED, "option": Learnt.OPTION_SYN_LOST}

SPOKEN = {*GOOD["answers"], Learnt.FORCED_FALLBACK}
TELLING = {what for some in GOOD.values() for what in some} | set(BAD.values()) | SPOKEN
"""What leaves something to remember, whatever was known before."""

Event = tuple[float, Learnt, tuple[int, ...]]


@dataclass
class Story:
    """Of one peer: everything that was learnt, and of the path since it is this one."""

    events: list[Event] = field(default_factory=list)
    path: list[Event] = field(default_factory=list)
    source: str = ""


def spoke(events: Iterable[Event], now: float) -> bool:
    return any(what in SPOKEN and now - when < DAY for when, what, _ in events)


def belief(events: list[Event], way: str, now: float) -> bool | None:
    """Works, black hole, or nobody knows, TELLING from all that happened since the last success."""
    good = [number for number, (_, what, _) in enumerate(events) if what in GOOD[way]]
    since = events[good[-1] + 1 :] if good else events
    worked = events[good[-1]][0] if good else None
    holes: list[tuple[float, float]] = []
    row: list[float] = []
    counted = None
    for when, what, _ in since:
        if what is not BAD[way] or (holes and when < holes[-1][1]) or (counted is not None and when - counted < 1):
            continue
        counted = when
        row.append(when)
        lately = worked is not None and when - worked < DAY
        if len(row) >= (1 if holes else 5 if lately else 2):
            holes.append((when, when + min(DAY, HOUR * 2 ** len(holes))))
            row = []
    if holes and now < holes[-1][1]:
        return False
    doubt = {BAD[way], *([Learnt.WAITED_IN_VAIN] if way == "answers" else [])}
    return (
        True if worked is not None and now - worked < DAY and not any(what in doubt for _, what, _ in since) else None
    )


class Remembering(RuleBasedStateMachine):
    """Less than a day passes in all: what is dropped when it is over is ``test_peers.py``'s business."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.peers = Peers(lambda: self.now, limit=LIMIT)
        self.stories: dict[tuple[str, int], Story] = {}  # least recently used first

    def use(self, key: tuple[str, int]) -> None:
        self.stories[key] = self.stories.pop(key)

    @precondition(lambda self: self.now < DAY - 3 * HOUR)
    @rule(seconds=st.sampled_from([0.4, 1.0, 60.0, HOUR - 1, HOUR, 2 * HOUR]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(
        address=st.sampled_from(ADDRESSES),
        port=st.sampled_from([80, 443]),
        what=st.sampled_from(Learnt),
        source=st.sampled_from(SOURCES),
        protocols=st.lists(st.integers(1, 9), max_size=2).map(tuple),
        times=st.integers(1, 3),
        apart=st.sampled_from([0.4, 1.0, 20.0]),
    )
    def learn(
        self,
        address: str,
        port: int,
        what: Learnt,
        source: str,
        protocols: tuple[int, ...],
        times: int,
        apart: float,
    ) -> None:
        for _ in range(times):
            self.peers.learn(address, port, what, protocols=protocols, source=source)
            story = self.stories.setdefault((address, port), Story())
            if source and story.source and source != story.source:
                story.path.clear()
            story.source = source or story.source
            story.events.append((self.now, what, protocols))
            story.path.append((self.now, what, protocols))
            self.use((address, port))
            if not any(what in TELLING for _, what, _ in story.path) and not spoke(story.events, self.now):
                del self.stories[address, port]
            while len(self.stories) > LIMIT:
                del self.stories[next(iter(self.stories))]
            self.now += apart

    @rule(way=st.sampled_from(list(BAD)), times=st.integers(1, 5), hours=st.sampled_from([0.1, 1.0, 2.0]))
    def fail(self, way: str, times: int, hours: float) -> None:
        """One peer whose path is bad for long, so that beliefs are made, end and are renewed."""
        if self.now < DAY - 3 * HOUR:
            self.learn(ADDRESSES[0], 80, BAD[way], "", (), times, 1.0)
            self.now += hours * HOUR

    @rule(address=st.sampled_from(ADDRESSES), port=st.sampled_from([80, 443]), source=st.sampled_from(SOURCES))
    def ask(self, address: str, port: int, source: str) -> None:
        assert self.peers.knows(address, port, source) == self.expected((address, port), source)
        if (address, port) in self.stories:
            self.use((address, port))

    @precondition(lambda self: self.stories)
    @rule(data=st.data())
    def flush(self, data: st.DataObject) -> None:
        address, port = data.draw(st.sampled_from(sorted(self.stories)))
        whole = data.draw(st.booleans())
        gone = [key for key in self.stories if key[0] == address and (whole or key[1] == port)]
        assert self.peers.flush(address, None if whole else port) == len(gone)
        for key in gone:
            del self.stories[key]

    @rule()
    def move(self) -> None:
        self.peers.network_changed()
        for key, story in list(self.stories.items()):
            story.path.clear()
            if not spoke(story.events, self.now):
                del self.stories[key]

    def expected(self, key: tuple[str, int], source: str) -> Knowledge:
        story = self.stories.get(key)
        if story is None:
            return Knowledge()
        speaks = spoke(story.events, self.now)
        # Where the answers named protocols and are not forgotten, the last ones.
        named = [each for _, what, each in story.events if what in GOOD["answers"] and each]
        there = not (source and story.source and source != story.source)
        answers, no_syn, option = (belief(story.path, way, self.now) if there else None for way in GOOD)
        return Knowledge(
            accord=False if answers is False else True if speaks else None,
            protocols=named[-1] if speaks and named else (),
            no_syn=no_syn,
            option=option is not False,
            propose=answers is not False,
            answers_late=answers is True,
        )

    @invariant()
    def it_is_never_larger_than_its_limit(self) -> None:
        assert len(self.peers) <= LIMIT

    @invariant()
    def it_believes_what_the_story_says(self) -> None:
        for key, entry in self.peers.entries():
            assert self.peers.about(entry) == self.expected(key, "")


TestRemembering = Remembering.TestCase
TestRemembering.settings = settings(max_examples=100, stateful_step_count=25, deadline=None)
