# SPDX-License-Identifier: Apache-2.0
"""Plug-ins that loop, sleep and eat memory are stopped, and those that keep failing are switched off for a time."""

from __future__ import annotations

import resource
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from accord.controller.plugin_guard import IN_A_ROW, OFF_SECONDS, PluginGuard, describe
from accord.controller.proposal import propose
from accord.controller.settings.policy import EffectivePolicy
from accord.daemon.memory import limit, limited
from accord.negotiation.interface import Answer, Refuse, Role
from accord.protocols.inner import InnerResponder
from accord.protocols.quic import QuicSession
from accord.protocols.services import CarrierSession, Plugin, Services
from accord.protocols.tls import TlsSession
from accord.wire.constants import Party, Protocol, Reason
from accord.wire.errors import AccordError, OurError, error
from tests.controller.test_proposal import PLUGINS, services
from tests.negotiation.peers import TLS, TLS_FIRST, FakeSession, agreed, initiator, responder, run, sent

BUDGET = 0.05
GIGABYTE = 1 << 30


def loop_for_ever(view: object) -> object:
    while True:
        pass


def loop_and_hold_on(view: object) -> object:
    while True:
        try:
            while True:
                pass
        except Exception:
            continue


def loop_and_hold_on_to_everything(view: object) -> object:
    for _ in range(3):
        try:
            while True:
                pass
        except BaseException:
            continue
    return Answer(b"at last")


def sleep_for_long(view: object) -> object:
    time.sleep(600)
    return Answer(b"good morning")


def fail_at_last(view: object) -> object:
    """Raises when it is stopped."""
    try:
        while True:
            pass
    finally:
        raise ValueError("on top of it")


def take_a_gigabyte(view: object) -> object:
    return Answer(bytes(GIGABYTE))


def take_it_bit_by_bit(view: object) -> object:
    taken = []
    while True:
        taken.append(bytearray(16 << 20))


@pytest.fixture
def guard() -> Iterator[PluginGuard]:
    """Watching, with a short patience."""
    made = PluginGuard(time.monotonic, BUDGET)
    with made.watching():
        yield made


LATE = [loop_for_ever, loop_and_hold_on, sleep_for_long]


@pytest.mark.parametrize("late", LATE)
@pytest.mark.parametrize("method", ["respond", "exporter"])
def test_a_call_that_does_not_come_back_costs_its_node(
    guard: PluginGuard, late: Callable[[object], object], method: str
) -> None:
    one, other = initiator(), responder(TLS_FIRST, script={2: {method: late}})
    other.machine.guard = guard
    run(one, other)
    assert agreed(one, other) == "http/quic"
    assert sent(other, 1)[0].pruned[2] == Reason.PLUGIN_TIMEOUT


@pytest.mark.parametrize("late", LATE)
def test_on_the_initiator_too(guard: PluginGuard, late: Callable[[object], object]) -> None:
    one, other = initiator(script={2: {"propose": late}}), responder(TLS_FIRST)
    one.machine.guard = guard
    run(one, other)
    assert agreed(one, other) == "http/quic"
    one, other = initiator(script={2: {"advance": late}}), responder(TLS_FIRST)
    one.machine.guard = guard
    run(one, other)
    assert one.aborted is not None
    assert one.aborted.reason is Reason.PLUGIN_TIMEOUT


def test_what_it_raises_while_it_is_stopped_is_its_failure(guard: PluginGuard) -> None:
    one, other = initiator(), responder(TLS_FIRST, script={2: {"respond": fail_at_last}})
    other.machine.guard = guard
    run(one, other)
    assert agreed(one, other) == "http/quic"
    assert sent(other, 1)[0].pruned[2] == Reason.PLUGIN_FAILED


def test_who_holds_on_to_the_interruption_is_interrupted_again(guard: PluginGuard) -> None:
    one, other = initiator(), responder(TLS_FIRST, script={2: {"respond": loop_and_hold_on_to_everything}})
    other.machine.guard = guard
    run(one, other)
    assert agreed(one, other) == "http/tls/tcp", "it came back after all, and was right"


def test_calls_that_come_back_are_not_stopped_however_many_there_are(guard: PluginGuard) -> None:
    until = time.monotonic() + 6 * BUDGET
    while time.monotonic() < until:
        one, other = initiator(), responder(TLS_FIRST)
        one.machine.guard = other.machine.guard = guard
        run(one, other)
        assert agreed(one, other) == "http/tls/tcp"
    assert not guard.failures


def test_between_calls_nobody_is_interrupted_and_the_timer_is_given_back(guard: PluginGuard) -> None:
    one, other = initiator(), responder()
    other.machine.guard = guard
    run(one, other)
    time.sleep(4 * BUDGET)
    guard.stop()
    assert signal.getsignal(signal.SIGALRM) != guard._tick
    with guard.watching():
        pass


def test_a_plug_in_that_wants_a_gigabyte_gets_a_memory_error_and_the_rest_negotiates() -> None:
    guard = PluginGuard(time.monotonic, 0)
    for greedy in (take_a_gigabyte, take_it_bit_by_bit):
        with limited(256):
            one, other = initiator(), responder(TLS_FIRST, script={2: {"respond": greedy}})
            other.machine.guard = guard
            run(one, other)
        assert agreed(one, other) == "http/quic"
        assert sent(other, 1)[0].pruned[2] == Reason.PLUGIN_MEMORY
    assert guard.failures[TLS, "respond", Reason.PLUGIN_MEMORY] == 2


def test_the_limit_is_above_what_is_taken_and_is_given_back() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with limited(64):
        assert limit() > 64 << 20
        with pytest.raises(MemoryError):
            bytearray(GIGABYTE)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    with limited(0):
        assert resource.getrlimit(resource.RLIMIT_DATA) == before


# ---- those that keep failing ----


class Clock:
    """Moved by hand."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def fail(guard: PluginGuard, method: str, reason: Reason, times: int = 1) -> None:
    for _ in range(times):
        guard.failed(TLS, method, Refuse(reason, f"{method}: it did"))


def work(guard: PluginGuard, method: str = "respond") -> None:
    session = FakeSession(TLS, Role.RESPONDER)
    assert isinstance(guard.ask(session, method, lambda: Answer(b"x")), Answer)


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("respond", Reason.PLUGIN_TIMEOUT),
        ("advance", Reason.PLUGIN_MEMORY),
        ("propose", Reason.PLUGIN_FAILED),
    ],
)
def test_a_plug_in_that_fails_so_often_in_a_row_is_off_for_a_time_that_doubles(method: str, reason: Reason) -> None:
    clock = Clock()
    guard = PluginGuard(clock, 0)
    fail(guard, method, reason, IN_A_ROW - 1)
    assert set(guard.usable(PLUGINS)) == set(PLUGINS)
    fail(guard, method, reason)
    assert set(PLUGINS) - set(guard.usable(PLUGINS)) == {"tls"}
    with pytest.raises(OurError) as refused:
        guard.open(PLUGINS["tls"], Role.RESPONDER, services())
    assert "switched off" in refused.value.detail
    clock.now += OFF_SECONDS
    assert set(guard.usable(PLUGINS)) == set(PLUGINS)
    fail(guard, method, reason)
    clock.now += OFF_SECONDS
    assert set(PLUGINS) - set(guard.usable(PLUGINS)) == {"tls"}, "the second time for twice as long"
    clock.now += OFF_SECONDS
    assert set(guard.usable(PLUGINS)) == set(PLUGINS)
    work(guard)
    fail(guard, method, reason, IN_A_ROW - 1)
    assert set(guard.usable(PLUGINS)) == set(PLUGINS), "once it works all is forgotten"


def test_failures_with_a_success_between_them_are_not_in_a_row() -> None:
    guard = PluginGuard(Clock(), 0)
    for _ in range(5):
        fail(guard, "respond", Reason.PLUGIN_TIMEOUT, IN_A_ROW - 1)
        work(guard)
    assert not guard.off()


@pytest.mark.parametrize("method", ["respond", "advance", "resume", "exporter"])
def test_a_peer_whose_bytes_make_a_plug_in_raise_switches_it_off_for_nobody_else(method: str) -> None:
    guard = PluginGuard(Clock(), 0)
    fail(guard, method, Reason.PLUGIN_FAILED, 100)
    assert not guard.off()
    assert guard.failures[TLS, method, Reason.PLUGIN_FAILED] == 100


def test_a_failure_is_said_once_and_counted_each_time(caplog: pytest.LogCaptureFixture) -> None:
    guard = PluginGuard(Clock(), 0)
    fail(guard, "respond", Reason.PLUGIN_FAILED, 50)
    fail(guard, "advance", Reason.PLUGIN_FAILED, 50)
    assert len(caplog.records) == 2
    (row,) = describe(guard)
    assert row["failures"] == {"advance PLUGIN_FAILED": 50, "respond PLUGIN_FAILED": 50}
    assert row["off_for_s"] == 0


def refuse(guard: PluginGuard, reason: Reason, detail: str, times: int = 1) -> None:
    session = FakeSession(TLS, Role.RESPONDER)
    for _ in range(times):
        assert guard.ask(session, "respond", lambda: Refuse(reason, detail)) == Refuse(reason, detail)


def raise_refusal(guard: PluginGuard, reason: Reason, detail: str, times: int = 1) -> None:
    session = FakeSession(TLS, Role.RESPONDER)

    def commit() -> None:
        raise error(reason, detail)

    for _ in range(times):
        assert guard.tell(session, "respond", commit) == Refuse(reason, detail)


@pytest.mark.parametrize("way", [refuse, raise_refusal])
def test_a_refusal_by_a_fault_of_this_host_is_said_once_a_minute_with_its_detail_and_counted_each_time(
    way: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    guard = PluginGuard(clock, 0)
    way(guard, Reason.CANNOT_INSTALL, "connect(192.0.2.1, port 4) from port 80: No memory (ENOMEM)", 50)
    (said,) = caplog.records
    assert said.levelname == "WARNING"
    assert (
        said.getMessage()
    ) == "tls refused (respond): CANNOT_INSTALL: connect(192.0.2.1, port 4) from port 80: No memory (ENOMEM)"
    clock.now += 61
    way(guard, Reason.CANNOT_INSTALL, "connect(): another one", 2)
    assert "another one; 49 more" in caplog.records[1].getMessage()
    assert len(caplog.records) == 2
    assert guard.refusals == {(TLS, "respond", Reason.CANNOT_INSTALL): 52}
    assert not guard.failures
    assert not guard.off(), "a refusal is a session's right"


def test_a_refusal_by_another_one_s_fault_is_counted_and_not_said(caplog: pytest.LogCaptureFixture) -> None:
    guard = PluginGuard(Clock(), 0)
    quiet = [reason for reason in Reason if reason.party in (Party.PEER, Party.PATH, Party.USER, Party.NONE)]
    for reason in quiet:
        if reason is not Reason.OK:
            refuse(guard, reason, "as peers cause it")
    assert not caplog.records
    assert guard.refusals.total() == len(quiet) - 1 > 5


def test_what_is_switched_off_is_shown_with_the_time_that_is_left_and_the_reason() -> None:
    clock = Clock()
    guard = PluginGuard(clock, 0)
    fail(guard, "respond", Reason.PLUGIN_TIMEOUT, IN_A_ROW)
    clock.now += 4
    (row,) = describe(guard)
    assert (row["protocol"], row["off_for_s"]) == ("tls", OFF_SECONDS - 4)
    assert "PLUGIN_TIMEOUT" in row["why_off"]


# ---- sessions that cannot be had ----


class Odd:
    """The plug-in of TLS, but for what it opens."""

    name, protocol = "tls", int(Protocol.TLS13)

    def __init__(self, opens: Callable[[], object]) -> None:
        self._opens = opens

    def open(self, role: Role, services: Services) -> CarrierSession:
        return self._opens()  # type: ignore[return-value]


def raising(error: BaseException) -> object:
    raise error


@pytest.mark.parametrize(
    "opens",
    [
        partial(raising, ValueError("x")),
        partial(raising, SystemExit(1)),
        partial(raising, MemoryError()),
        lambda: None,
        lambda: FakeSession(Protocol.TCP, Role.INITIATOR),
        lambda: FakeSession(Protocol.TLS13, Role.INITIATOR, secure="very"),  # type: ignore[arg-type]
    ],
)
def test_a_plug_in_that_opens_nothing_usable_is_not_proposed_and_the_others_are(opens: Callable[[], object]) -> None:
    guard = PluginGuard(Clock(), 0)
    plugins: dict[str, Plugin] = {**PLUGINS, "tls": Odd(opens)}
    nodes = propose(plugins, EffectivePolicy(), services(), open_session=guard.open)
    protocols = {node.protocol for node in nodes}
    assert Protocol.TLS13 not in protocols
    assert Protocol.QUIC in protocols
    assert sum(guard.failures.values()) > 0


def test_without_anything_else_to_propose_the_plug_in_is_named() -> None:
    guard = PluginGuard(Clock(), 0)
    plugins: dict[str, Plugin] = {**PLUGINS, "tls": Odd(partial(raising, ValueError("broken")))}
    del plugins["quic"]
    with pytest.raises(AccordError) as failed:
        propose(plugins, EffectivePolicy(), services(), open_session=guard.open)
    assert failed.value.reason is Reason.PLUGIN_FAILED
    assert "broken" in failed.value.detail


def test_what_a_plug_in_is_given_of_the_host_cannot_be_changed_for_the_others() -> None:
    with pytest.raises(AttributeError):
        services().tcp = None  # type: ignore[misc]


@pytest.mark.parametrize("session", [TlsSession, QuicSession, InnerResponder])
def test_whatever_computes_a_signature_or_a_decapsulation_says_that_it_is_costly(session: type) -> None:
    """So that few of them are begun for one message: tests/negotiation/test_guard.py."""
    assert session.costly is True  # type: ignore[attr-defined]
