# SPDX-License-Identifier: Apache-2.0
"""Which connection belongs to which negotiation: every order of everything that can happen, tried."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest

from accord.controller.adoption.table import TABLE, UNFOUND, Do, Event, Registry, Result, State
from accord.wire.constants import Reason
from accord.wire.errors import AccordError

ID = bytes(range(12))
NEAR, FAR = "192.0.2.1", "203.0.113.9"
# Two connections whose SYN bore the ID and two that have but the preface, one each of the peer's address; and the
# peer's with but the ClientHello.
CONNECTIONS = {
    "a": (Event.SYN, NEAR), "b": (Event.SYN, FAR), "p": (Event.PREFACE, NEAR), "q": (Event.PREFACE, FAR),
    "h": (Event.HELLO, NEAR),
}  # fmt: skip
BROUGHT = (Event.SYN, Event.PREFACE, Event.HELLO)
SAYS = (Event.SAYS_PREFACE, Event.SAYS_HELLO, Event.SAYS_RECORD, Event.SAYS_END, Event.SAYS_PLAIN)
JOINS = {Do.JOIN_NEW, Do.JOIN_HELD}
JOINS_BEHIND = {Do.JOIN_NEW_BEHIND, Do.JOIN_HELD_BEHIND}
PLAIN = {Do.PLAIN_NEW, Do.PLAIN_HELD}
DROPS = {Do.DROP_NEW, Do.DROP_HELD}

Move = tuple[str, Event]


@dataclass(frozen=True)
class World:
    """What an onlooker knows, and the rules that he holds the registry to."""

    among: str = ""
    """The connections that there are in it."""
    arrived: frozenset[str] = frozenset()
    spared: frozenset[str] = frozenset()
    said: tuple[tuple[str, Event], ...] = ()
    fates: tuple[tuple[str, Do], ...] = ()
    gone: frozenset[str] = frozenset()
    negotiation: Event | None = None
    """None, EXPECT, the commit that was accepted, or END."""
    committed: bool = False
    stopped: bool = False
    outcome: Do | None = None

    def moves(self) -> Iterator[Move]:
        for name in self.among:
            how, _ = CONNECTIONS[name]
            if name not in self.arrived:
                yield name, how
            elif name not in dict(self.fates) and name not in self.gone:
                yield name, Event.GONE
                if how is Event.SYN and name not in dict(self.said):
                    yield from ((name, says) for says in SAYS)
        if self.negotiation is None:
            yield "", Event.EXPECT
        elif self.negotiation is not Event.END:
            yield "", Event.END
            yield "", Event.EXPIRE
            if self.negotiation is Event.EXPECT:
                yield "", Event.COMMIT_FIRST
                yield "", Event.COMMIT_BEHIND

    def preface(self, name: str) -> bool:
        return CONNECTIONS[name][0] is Event.PREFACE or dict(self.said).get(name) is Event.SAYS_PREFACE

    def hello(self, name: str) -> bool:
        return CONNECTIONS[name][0] is Event.HELLO or dict(self.said).get(name) is Event.SAYS_HELLO

    def check(self, do: Do, name: str | None) -> World:
        """One thing that is to be done, against the rules; the world after it."""
        if do is Do.STOP:
            assert self.negotiation is Event.EXPECT
            return replace(self, stopped=True)
        if do is Do.FAIL:
            assert self.committed
            assert self.outcome is None
            return replace(self, outcome=do)
        assert name is not None
        if do in (Do.HOLD_NEW, Do.SPARE_NEW):
            return replace(self, spared=self.spared ^ {name} if do is Do.SPARE_NEW else self.spared - {name})
        assert name not in dict(self.fates), f"{name} has a fate already"
        assert name not in self.gone
        world = replace(self, fates=tuple(sorted((*self.fates, (name, do)), key=lambda fate: fate[0])))
        if do in PLAIN:
            assert not self.preface(name), "a service would be given the preface"
            assert dict(self.said).get(name) is not Event.SAYS_RECORD, "a service would be given a stack's records"
        elif do in JOINS | JOINS_BEHIND:
            assert self.committed
            assert self.outcome is None, "two connections for one stack, or one that was given up"
            if do in JOINS:
                assert self.negotiation is Event.COMMIT_FIRST
                assert CONNECTIONS[name][0] is Event.SYN
                assert dict(self.said).get(name) in (None, Event.SAYS_RECORD, Event.SAYS_END)
            else:
                assert self.negotiation is Event.COMMIT_BEHIND
                assert self.preface(name) or self.hello(name)
            world = replace(world, outcome=do)
        else:
            assert do in DROPS
            record = dict(self.said).get(name) is Event.SAYS_RECORD
            assert self.preface(name) or record, "only what nobody could make sense of is reset"
        return world


@dataclass
class Run:
    """A registry and its world."""

    registry: Registry[str] = field(default_factory=lambda: Registry(4))
    world: World = field(default_factory=World)

    def key(self) -> object:
        entries = self.registry._entries
        entry = entries.get(ID)
        place = None
        if entry is not None:
            place = (entry.state, entry.held, entry.address, entry.held_address, tuple(entry.spares))
        return self.world, place

    def move(self, move: Move) -> None:
        name, event = move
        registry, world = self.registry, self.world
        before = registry.state(ID)
        entry = registry._entries.get(ID)
        held = None if entry is None else entry.held
        if entry is not None and name in entry.spares.values():
            registry.unspare(ID, name)
            world = replace(world, spared=world.spared - {name})
            if event is Event.GONE:
                self.world = replace(world, gone=world.gone | {name})
            else:  # it has no place, so it is what it says
                fates = (*world.fates, (name, Do.PLAIN_NEW))
                self.world = replace(world, fates=tuple(sorted(fates, key=lambda fate: fate[0])))
            return
        try:
            if event in BROUGHT:
                world = replace(world, arrived=world.arrived | {name})
                steps = registry.accepted(ID, event, name, CONNECTIONS[name][1])
            elif event in SAYS:
                world = replace(world, said=tuple(sorted((*world.said, (name, event)), key=lambda said: said[0])))
                steps = registry.said(ID, event, name)
            elif event is Event.GONE:
                steps = registry.said(ID, event, name)
                world = replace(world, gone=world.gone | {name})
            elif event is Event.EXPECT:
                steps = registry.expect(ID, NEAR)
                world = replace(world, negotiation=event)
            elif event in (Event.COMMIT_FIRST, Event.COMMIT_BEHIND):
                assert world.negotiation is Event.EXPECT
                steps = registry.commit(ID, behind_preface=event is Event.COMMIT_BEHIND)
                assert not world.stopped, "the commit came after the peer had fallen back"
                world = replace(world, negotiation=event, committed=True)
            else:
                steps = registry.end(ID, event)
        except AccordError as refusal:
            assert event in (Event.COMMIT_FIRST, Event.COMMIT_BEHIND)
            assert world.stopped
            assert refusal.reason is Reason.LEGACY_FIRST  # noqa: PT017 - one of many moves, most of which do not raise
            return
        own = held is not None and CONNECTIONS[held][1] == NEAR
        if event is Event.SAYS_PLAIN and held == name and before is State.SILENT and own:
            assert (Do.STOP, None) in [(do, None) for do, _ in steps]
        for do, whose in steps:
            world = world.check(do, whose)
        if event in (Event.END, Event.EXPIRE):
            world = replace(world, negotiation=Event.END)
        entry = registry._entries.get(ID)
        for spared in world.spared - set(entry.spares.values() if entry is not None else ()):
            fates = (*world.fates, (spared, Do.PLAIN_NEW))
            world = replace(world, spared=world.spared - {spared}, fates=tuple(sorted(fates, key=lambda fate: fate[0])))
        self.world = world
        self.check_the_peer_s_own_is_preferred(before, steps)
        self.check_a_stranger_does_not_end_it()

    def check_the_peer_s_own_is_preferred(self, before: State, steps: list[tuple[Do, str | None]]) -> None:
        """From elsewhere nobody is joined who had the place when the peer's own connection came."""
        for do, name in steps:
            if do is Do.JOIN_HELD and name == "b":
                assert "a" not in self.world.arrived or "a" in self.world.gone or "a" in dict(self.world.fates)

    def check_a_stranger_does_not_end_it(self) -> None:
        """Whatever is said from elsewhere, the peer's commit is taken until the peer's own connection was plain."""
        if self.world.stopped:
            assert any(CONNECTIONS[name][1] == NEAR for name, do in self.world.fates if do in PLAIN)

    def settle(self) -> None:
        """Everything ends: whoever waited is told, and nothing is left."""
        if self.world.negotiation not in (None, Event.END):
            self.move(("", Event.EXPIRE))
        for name in sorted(self.world.arrived - set(dict(self.world.fates)) - self.world.gone):
            entry = self.registry._entries[ID]
            assert name == entry.held or name in entry.spares.values(), f"{name} is forgotten"
            self.move((name, Event.GONE))
        assert len(self.registry) == 0
        assert self.registry._negotiating == 0
        assert (self.world.outcome is not None) == self.world.committed


def test_every_order_of_two_syns_two_prefaces_first_bytes_commit_abort_and_expiry_keeps_the_rules() -> None:
    seen: dict[object, None] = {}
    waiting = [Run(world=World(among)) for among in ("abp", "abh", "apq", "pqh")]
    taken: set[tuple[State, Event]] = set()
    while waiting:
        run = waiting.pop()
        if run.key() in seen:
            continue
        seen[run.key()] = None
        copy.deepcopy(run).settle()
        for move in run.world.moves():
            after = copy.deepcopy(run)
            entry = after.registry._entries.get(ID)
            if move[1] not in (*SAYS, Event.GONE) or (entry is not None and entry.held == move[0]):
                taken.add((after.registry.state(ID), move[1]))
            after.move(move)
            waiting.append(after)
    assert len(seen) > 5000
    possible = {(state, event) for state, row in TABLE.items() for event, (after, todo) in row.items() if after or todo}
    # What is left is a second negotiation with the ID of a live one, and a commit that nobody was asked for.
    assert {event for _, event in possible - taken} <= {Event.EXPECT, Event.COMMIT_FIRST, Event.COMMIT_BEHIND}


def test_the_table_says_something_about_every_event_in_every_state() -> None:
    for state in State:
        assert set(TABLE[state]) == set(Event), state


def test_a_second_negotiation_with_the_id_of_a_live_one_is_refused() -> None:
    registry: Registry[str] = Registry(4)
    registry.expect(ID, NEAR)
    for prepare in (lambda: None, lambda: registry.commit(ID, behind_preface=True)):
        prepare()
        with pytest.raises(AccordError) as refused:
            registry.expect(ID, FAR)
        assert refused.value.reason is Reason.CONTRADICTION
    with pytest.raises(AccordError) as refused:
        registry.commit(ID, behind_preface=False)
    assert refused.value.reason is Reason.CONTRADICTION


def test_a_commit_for_which_nobody_waits_any_more_is_refused_as_late() -> None:
    registry: Registry[str] = Registry(4)
    with pytest.raises(AccordError) as late:
        registry.commit(ID, behind_preface=False)
    assert late.value.reason is Reason.TIMEOUT


def test_the_registry_never_holds_more_than_its_limit_and_unknown_ids_beyond_it_are_plain_at_once() -> None:
    registry: Registry[int] = Registry(100)
    numbers = iter(range(1 << 20))
    held = [registry.accepted(number.to_bytes(12, "big"), Event.SYN, number, FAR) for number in range(5000)]
    assert sum(steps[0][0] is Do.HOLD_NEW for steps in held) == len(registry) == 200
    assert all(steps[0][0] is Do.PLAIN_NEW for steps in held[200:])
    for _ in range(5000):  # prefaces of unknown transactions leave nothing at all
        steps = registry.accepted(next(numbers).to_bytes(13, "big")[1:] + b"", Event.PREFACE, 0, FAR)
        assert steps == [(Do.DROP_NEW, 0)]
    assert len(registry) == 200
    for number in range(300, 400):  # honest ones find room beside them
        registry.expect(number.to_bytes(12, "big"), NEAR)
    with pytest.raises(AccordError) as full:
        registry.expect(ID, NEAR)
    assert full.value.reason is Reason.NO_MEMORY
    assert len(registry.unfound()) == 100


def test_results_tell_how_the_connection_was_found_and_what_became_of_it() -> None:
    registry: Registry[str] = Registry(4)
    for commit, event in ((False, Event.SYN), (True, Event.PREFACE)):
        registry.expect(ID, NEAR)
        registry.commit(ID, behind_preface=commit)
        registry.accepted(ID, event, "a", NEAR)
    registry.expect(ID, NEAR)
    registry.accepted(ID, Event.SYN, "a", NEAR)
    registry.said(ID, Event.SAYS_PLAIN, "a")
    registry.end(ID)
    registry.expect(ID, NEAR)
    registry.commit(ID, behind_preface=False)
    registry.end(ID, Event.EXPIRE)
    assert registry.results == {
        Result.BY_SYN: 1, Result.BY_PREFACE: 1, Result.FELL_BACK: 1, Result.NEVER_CAME: 1
    }  # fmt: skip
    assert len(registry) == 0


def test_whoever_still_waits_is_known_so_that_an_upgrade_can_wait_for_it() -> None:
    registry: Registry[str] = Registry(4)
    assert registry.unfound() == []
    registry.expect(ID, NEAR)
    assert registry.unfound() == [ID]
    registry.accepted(ID, Event.SYN, "a", NEAR)
    assert registry.unfound() == []
    assert State.SILENT not in UNFOUND


def test_a_preface_from_elsewhere_does_not_put_the_peer_s_own_connection_out_of_its_place() -> None:
    registry: Registry[str] = Registry(4)
    registry.expect(ID, NEAR)
    registry.accepted(ID, Event.SYN, "own", NEAR)
    registry.commit(ID, behind_preface=True)
    assert registry.accepted(ID, Event.PREFACE, "stranger", FAR) == [(Do.DROP_NEW, "stranger")]
    assert registry.said(ID, Event.SAYS_PREFACE, "own") == [(Do.JOIN_HELD_BEHIND, "own")]
