# SPDX-License-Identifier: Apache-2.0
"""The memory of peers: what it believes, for how long, and what makes it change its mind."""

from __future__ import annotations

import pytest

from accord.controller.peers.memory import DAY, GAP_SECONDS, HOUR, MISSES_LATELY, NOTHING, Knowledge, Learnt, Peers, Way
from accord.wire.constants import Protocol

PEER = ("192.0.2.1", 443)
TLS_TCP = (int(Protocol.TLS13), int(Protocol.TCP))


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def peers(clock: Clock) -> Peers:
    return Peers(clock)


def silent(peers: Peers, clock: Clock, times: int = 2) -> None:
    for _ in range(times):
        clock.now += GAP_SECONDS
        peers.learn(*PEER, Learnt.SILENT)


def test_a_peer_that_is_not_known_is_asked_with_the_option_and_not_waited_for(peers: Peers) -> None:
    known = peers.knows(*PEER)
    assert known == Knowledge(None, (), None, option=True, propose=True, answers_late=False)
    assert len(peers) == 0, "asking is not learning"


def test_an_answer_is_remembered_with_its_protocols_for_a_day(peers: Peers, clock: Clock) -> None:
    peers.learn(*PEER, Learnt.ANSWERED, protocols=TLS_TCP)
    clock.now += DAY - 1
    assert peers.knows(*PEER) == Knowledge(True, TLS_TCP, propose=True, answers_late=True)
    clock.now += 1
    assert peers.knows(*PEER) == NOTHING


def test_a_new_answer_takes_the_place_of_an_old_one(peers: Peers) -> None:
    peers.learn(*PEER, Learnt.ANSWERED, protocols=TLS_TCP)
    peers.learn(*PEER, Learnt.ANSWERED, protocols=(int(Protocol.QUIC),))
    assert peers.knows(*PEER).protocols == (int(Protocol.QUIC),)


def test_another_port_of_the_address_is_another_peer(peers: Peers) -> None:
    peers.learn(*PEER, Learnt.ANSWERED, protocols=TLS_TCP)
    assert peers.knows(PEER[0], 444) == NOTHING


@pytest.mark.parametrize(
    ("one", "other"),
    [("2001:DB8::1", "2001:db8:0::1"), ("::ffff:192.0.2.1", "192.0.2.1"), ("fe80::1%a", "fe80:0::1%a")],
)
def test_two_spellings_of_an_address_are_one_peer(peers: Peers, one: str, other: str) -> None:
    peers.learn(one, 443, Learnt.REFUSED)
    assert peers.knows(other, 443).accord is True


def test_a_link_local_address_on_another_link_is_another_peer(peers: Peers) -> None:
    peers.learn("fe80::1%a", 443, Learnt.REFUSED)
    assert peers.knows("fe80::1%b", 443) == NOTHING


def test_a_name_that_is_no_address_is_nobody(peers: Peers) -> None:
    peers.learn("\0", 70000, Learnt.SILENT)
    assert peers.knows("", -1) == NOTHING


def test_silence_is_believed_the_second_time_for_an_hour(peers: Peers, clock: Clock) -> None:
    silent(peers, clock, 1)
    assert peers.knows(*PEER).propose
    silent(peers, clock, 1)
    assert peers.knows(*PEER) == Knowledge(False, propose=False)
    clock.now += HOUR - 1
    assert not peers.knows(*PEER).propose
    clock.now += 1
    assert peers.knows(*PEER) == NOTHING


def test_after_the_belief_one_failure_renews_it_for_twice_as_long_up_to_a_day(peers: Peers, clock: Clock) -> None:
    silent(peers, clock)
    for hours in (1, 2, 4, 8, 16, 24, 24, 24):
        assert not peers.knows(*PEER).propose
        clock.now += hours * HOUR - GAP_SECONDS
        assert not peers.knows(*PEER).propose
        clock.now += GAP_SECONDS
        assert peers.knows(*PEER).propose
        peers.learn(*PEER, Learnt.SILENT)


def test_a_belief_that_nobody_renewed_for_a_day_begins_with_an_hour_again(peers: Peers, clock: Clock) -> None:
    silent(peers, clock)
    clock.now += HOUR + DAY
    silent(peers, clock, 1)
    assert peers.knows(*PEER).propose
    silent(peers, clock, 1)
    clock.now += HOUR
    assert peers.knows(*PEER).propose


@pytest.mark.parametrize("what", [Learnt.ANSWERED, Learnt.REFUSED, Learnt.LATE_ANSWER])
def test_any_sign_of_accord_ends_the_belief_in_silence(peers: Peers, clock: Clock, what: Learnt) -> None:
    silent(peers, clock)
    peers.learn(*PEER, what)
    assert peers.knows(*PEER) == Knowledge(True, propose=True, answers_late=True)


def test_failures_with_a_success_between_them_are_not_in_a_row(peers: Peers, clock: Clock) -> None:
    for _ in range(10):
        clock.now += 100
        peers.learn(*PEER, Learnt.OPTION_SYN_LOST)
        assert peers.knows(*PEER).option
        peers.learn(*PEER, Learnt.OPTION_PASSED)


def test_connections_that_fail_at_once_are_one_failure(peers: Peers, clock: Clock) -> None:
    clock.now += 10
    for _ in range(100):
        peers.learn(*PEER, Learnt.OPTION_SYN_LOST)
        clock.now += GAP_SECONDS / 200
    assert peers.knows(*PEER).option


def test_what_worked_lately_takes_more_failures_to_be_given_up(peers: Peers, clock: Clock) -> None:
    peers.learn(*PEER, Learnt.ANSWERED, protocols=TLS_TCP)
    silent(peers, clock, MISSES_LATELY - 1)
    assert peers.knows(*PEER) == Knowledge(True, TLS_TCP, propose=True, answers_late=False)
    silent(peers, clock, 1)
    assert peers.knows(*PEER) == Knowledge(False, TLS_TCP, propose=False)


def test_failures_while_it_is_believed_do_not_lengthen_the_belief(peers: Peers, clock: Clock) -> None:
    silent(peers, clock)
    for _ in range(59):
        clock.now += 60
        peers.learn(*PEER, Learnt.SILENT)
    clock.now += 60
    assert peers.knows(*PEER).propose


def test_one_vain_wait_ends_the_waiting_and_nothing_else(peers: Peers) -> None:
    peers.learn(*PEER, Learnt.ANSWERED, protocols=TLS_TCP)
    peers.learn(*PEER, Learnt.WAITED_IN_VAIN)
    assert peers.knows(*PEER) == Knowledge(True, TLS_TCP, propose=True, answers_late=False)
    peers.learn(*PEER, Learnt.LATE_ANSWER)
    assert peers.knows(*PEER).answers_late
    assert peers.knows(*PEER).protocols == TLS_TCP


def test_one_stalled_connection_ends_the_trust_in_tcp_without_a_syn(peers: Peers, clock: Clock) -> None:
    peers.learn(*PEER, Learnt.NO_SYN_WORKED)
    assert peers.knows(*PEER).no_syn is True
    clock.now += GAP_SECONDS
    peers.learn(*PEER, Learnt.NO_SYN_STALLED)
    assert peers.knows(*PEER).no_syn is None


@pytest.mark.parametrize("mark", [Learnt.ADOPTED_MARKED, Learnt.ADOPTED_UNMARKED])
def test_an_adopted_connection_says_whether_the_mark_comes_back(peers: Peers, mark: Learnt) -> None:
    peers.learn(*PEER, mark)
    ((_, entry),) = peers.entries()
    assert entry.marked is (mark is Learnt.ADOPTED_MARKED)
    assert (Way.OPTION in entry.ways) is (mark is Learnt.ADOPTED_MARKED), "an option that was stripped is no answer"


def test_another_network_forgets_the_paths_and_keeps_what_the_peers_are(peers: Peers, clock: Clock) -> None:
    peers.learn(*PEER, Learnt.ANSWERED, protocols=TLS_TCP)
    peers.learn(*PEER, Learnt.NO_SYN_WORKED)
    peers.learn("192.0.2.2", 80, Learnt.OPTION_PASSED)
    peers.network_changed()
    assert peers.knows(*PEER) == Knowledge(True, TLS_TCP)
    assert len(peers) == 1


def test_what_was_learnt_from_one_own_address_is_not_believed_from_another(peers: Peers, clock: Clock) -> None:
    for _ in range(2):
        clock.now += GAP_SECONDS
        peers.learn(*PEER, Learnt.SILENT, source="10.0.0.1")
    assert not peers.knows(*PEER, "10.0.0.1").propose
    assert peers.knows(*PEER, "10.9.9.9") == NOTHING
    assert not peers.knows(*PEER, "10.0.0.1").propose, "asking forgets nothing"
    peers.learn(*PEER, Learnt.SILENT, source="10.9.9.9")
    assert peers.knows(*PEER, "10.0.0.1").propose


def test_the_peer_that_was_not_used_for_the_longest_makes_room(clock: Clock) -> None:
    peers = Peers(clock, limit=3)
    for host in "abc":
        peers.learn(host, 1, Learnt.REFUSED)
    peers.knows("a", 1)
    peers.learn("d", 1, Learnt.REFUSED)
    assert {host: peers.knows(host, 1).accord for host in "abcd"} == {"a": True, "b": None, "c": True, "d": True}
    assert peers.evicted == 1


def test_flushing_takes_everything_or_an_address_or_one_port(peers: Peers) -> None:
    for key in (("2001:db8::1", 1), ("2001:db8::1", 2), ("192.0.2.1", 1), ("192.0.2.2", 1)):
        peers.learn(*key, Learnt.REFUSED)
    assert peers.flush("192.0.2.9") == 0
    assert peers.flush("2001:DB8::1", 2) == 1
    assert peers.flush("2001:db8:0::1") == 1
    assert peers.flush() == 2
    assert len(peers) == 0


def test_it_counts_its_answers_and_what_it_learns(peers: Peers, clock: Clock) -> None:
    peers.knows(*PEER)
    peers.learn(*PEER, Learnt.ANSWERED)
    peers.knows(*PEER)
    silent(peers, clock)
    assert (peers.hits, peers.misses) == (1, 1)
    assert peers.learnt == {Learnt.ANSWERED: 1, Learnt.SILENT: 2}


def test_the_length_of_the_last_answer_is_remembered_of_who_is_known_until_it_is_flushed(peers: Peers) -> None:
    peers.measure("192.0.2.7", 443, 9000)
    assert peers.answer_bytes("192.0.2.7", 443) == 0, "of a peer that is not known"
    peers.learn("192.0.2.7", 443, Learnt.ANSWERED, protocols=(6,))
    peers.measure("192.0.2.7", 443, 9000)
    peers.measure("192.0.2.7", 443, 7000)
    assert peers.answer_bytes("::ffff:192.0.2.7", 443) == 7000
    assert peers.answer_bytes("192.0.2.7", 80) == 0
    peers.network_changed()
    assert peers.answer_bytes("192.0.2.7", 443) == 7000, "it is the peer's, not the path's"
    peers.flush("192.0.2.7")
    assert peers.answer_bytes("192.0.2.7", 443) == 0
