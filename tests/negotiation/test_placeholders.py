# SPDX-License-Identifier: Apache-2.0
"""Deferred elaboration and initiator choice (HotNets 2009, section 2.3), both sides against each other, in memory."""

from __future__ import annotations

import pytest

from accord.negotiation.events import Confirmed, Send
from accord.negotiation.interface import Answer, Refuse
from accord.wire.constants import Reason
from tests.negotiation.longer import (
    CRYPT,
    DCCP,
    DTLS,
    HIDDEN,
    KNOWN,
    NAMES,
    SUBGRAPH,
    choice_of,
    initiator,
    responder,
)
from tests.negotiation.peers import HTTP, TCP, TLS, UDP, FakeChooser, Side, agreed, run, sent

ANY = FakeChooser()
CRYPTED = f"http/0x{CRYPT:x}/tcp"
NAMED = f"http/0x{NAMES:x}/tcp"


def steps(one: Side, other: Side) -> list[int]:
    return sorted(int(message.step) for side in (one, other) for message in side.only(Send))


# ---- One node ----


def test_a_protocol_in_which_the_responder_speaks_first_takes_three_steps() -> None:
    one = initiator([(0, UDP, (1,), {}), (1, TCP, (2,), {}), (2, CRYPT, (3,), {}), (3, HTTP, (), {})], ANY)
    other = responder(ANY)
    run(one, other)
    assert agreed(one, other) == CRYPTED
    assert steps(one, other) == [0, 1, 2]
    assert sent(one, 0)[2].placeholder
    assert sent(other, 1)[2].payload == b"answer %x" % CRYPT
    assert one.session(2).log == ["advance", "exporter", "commit"]
    assert other.session(2).heard == {"respond": b"", "advance": b"finish %x" % CRYPT}


def test_a_placeholder_against_its_protocol_s_rule_is_pruned() -> None:
    one = initiator([(0, UDP, (1, 4), {}), (1, TCP, (3,), {}), (3, HTTP, (), {}), (4, CRYPT, (), {})], ANY)
    other = responder(ANY)
    one.session(4).elaboration = None  # type: ignore[attr-defined]
    run(one, other)
    assert agreed(one, other) == "http/tcp"
    one = initiator([(0, UDP, (1,), {}), (1, CRYPT, (), {})], ANY)
    other = responder(ANY)
    accept = other.machine._accept(None)  # type: ignore[attr-defined]
    opened = accept.open

    def explicit(node: int, protocol: int) -> object:
        made = opened(node, protocol)
        made.elaboration = None
        return made

    object.__setattr__(accept, "open", explicit)
    run(one, other)
    assert one.aborted is not None
    assert one.aborted.reason is Reason.BAD_ELABORATION


# ---- Initiator choice ----


@pytest.mark.parametrize(("prefer", "stack"), [((CRYPTED,), CRYPTED), ((NAMED,), NAMED), (("http/tcp",), "http/tcp")])
def test_the_initiator_chooses_and_its_message_is_the_commit(prefer: tuple[str, ...], stack: str) -> None:
    one, other = (
        initiator(choice_of(CRYPT, NAMES), FakeChooser(prefer=prefer)),
        responder(FakeChooser(prefer=(NAMED, CRYPTED)), [(NAMES,), (CRYPT,)]),
    )
    run(one, other)
    if stack == "http/tcp":  # explicit, and the responder liked others better: it was the responder's to take away
        assert agreed(one, other) == CRYPTED or agreed(one, other) == NAMED
        return
    assert agreed(one, other) == stack
    assert steps(one, other) == [0, 1, 2]
    offered = sent(other, 1)
    assert {node.protocol for node in offered.values() if node.elaborates == 2} == {CRYPT, NAMES}
    assert 2 not in offered
    assert 2 not in offered[0].pruned
    assert list(sent(one, 2)[0].pruned.values()) == [Reason.NOT_PREFERRED]
    assert len(one.only(Confirmed)) == 1


def test_what_is_offered_and_begun_by_the_initiator_takes_one_round_trip_more() -> None:
    one, other = (
        initiator(choice_of(TLS, CRYPT), FakeChooser(prefer=("http/tls/tcp",))),
        responder(FakeChooser(prefer=("http/tls/tcp", CRYPTED)), [(TLS,), (CRYPT,)]),
    )
    run(one, other)
    assert agreed(one, other) == "http/tls/tcp"
    assert steps(one, other) == [0, 1, 2, 3, 4]
    (offer,) = (node for node in sent(other, 1).values() if node.protocol == TLS)
    assert offer.placeholder
    assert sent(one, 2)[offer.id].payload == b"hello 304"
    assert sent(one, 2)[0].continues == {offer.id}
    assert sent(other, 3)[0].continues == frozenset()


def test_alternatives_of_several_nodes_share_their_beginning() -> None:
    one, other = (
        initiator(choice_of(NAMES, CRYPT), FakeChooser(prefer=(f"http/0x{CRYPT:x}/0x{NAMES:x}/tcp",))),
        responder(FakeChooser(prefer=(NAMED, f"http/0x{CRYPT:x}/0x{NAMES:x}/tcp")), [(NAMES,), (NAMES, CRYPT)]),
    )
    run(one, other)
    assert agreed(one, other) == f"http/0x{CRYPT:x}/0x{NAMES:x}/tcp"
    assert len(sent(other, 1)) == 5


def test_only_what_the_initiator_lists_is_offered_and_nothing_is_a_reason() -> None:
    one, other = initiator(choice_of(CRYPT), ANY), responder(FakeChooser(secure=True), [(NAMES,)])
    run(one, other)
    assert one.aborted is not None
    assert one.aborted.reason is Reason.INSECURE
    one, other = initiator(choice_of(CRYPT), ANY), responder(ANY, [(NAMES,)])
    run(one, other)
    assert agreed(one, other) == "http/tcp"
    assert sent(other, 1)[0].pruned == {2: Reason.UNFILLED}


def test_the_responder_s_policy_holds_for_what_it_offers() -> None:
    secure = FakeChooser(secure=True)
    one, other = (
        initiator(choice_of(CRYPT, NAMES), FakeChooser(prefer=(NAMED,))),
        responder(secure, [(NAMES,), (CRYPT,)]),
    )
    run(one, other)
    assert agreed(one, other) == CRYPTED


def test_what_stands_on_a_placeholder_may_be_of_a_protocol_that_the_responder_does_not_know() -> None:
    """The edge to it goes with it, from what is put into the placeholder too."""
    unknown = 0x0AAACA8A
    graph = [(node, protocol, (3, 9) if node == 2 else below, more) for node, protocol, below, more in choice_of(CRYPT)]
    one = initiator([*graph, (9, unknown, (), {})], FakeChooser(prefer=(CRYPTED,)))
    other = responder(FakeChooser(prefer=(CRYPTED,)), [(CRYPT,)])
    run(one, other)
    assert agreed(one, other) == CRYPTED
    assert sent(other, 1)[0].pruned == {9: Reason.UNSUPPORTED}


def test_an_initiator_that_likes_nothing_of_what_is_offered_says_so() -> None:
    one, other = (
        initiator(choice_of(NAMES), FakeChooser(secure=True)),
        responder(FakeChooser(prefer=(NAMED,)), [(NAMES,)]),
    )
    run(one, other)
    assert one.aborted is not None
    assert one.aborted.reason is Reason.INSECURE
    assert other.aborted is not None
    assert other.aborted.by_peer


# ---- Deferred elaboration ----


@pytest.mark.parametrize(
    ("prefer", "stack", "count"),
    [
        (("http/tls/tcp", "http/subgraph/tcp"), "http/tls/tcp", 5),
        (("http/tcp",), "http/tcp", 3),
        (("http/subgraph", f"http/0x{DTLS:x}/0x{DCCP:x}"), f"http/0x{DTLS:x}/0x{DCCP:x}", 5),
    ],
)
def test_what_is_not_revealed_is_filled_in_after_the_first_answer(
    prefer: tuple[str, ...], stack: str, count: int
) -> None:
    one, other = initiator(HIDDEN, ANY), responder(FakeChooser(prefer=prefer))
    run(one, other)
    assert agreed(one, other) == stack
    assert steps(one, other) == list(range(count))
    shown = {node.protocol for node in sent(one, 0).values()}
    assert shown == {UDP, TCP, HTTP, SUBGRAPH}
    assert all(not node.filling[1] for node in sent(one, 0).values() if node.placeholder)


def test_nobody_above_an_unfilled_subgraph_is_asked_before_it_is_clear_what_is_below() -> None:
    one, other = initiator(HIDDEN, ANY), responder(FakeChooser(prefer=("http/tls/tcp", "http/subgraph/tcp")))
    run(one, other)
    view = other.session(4).views["respond"]
    assert (view.step, [session.protocol for session in view.below]) == (2, [TLS, TCP])
    assert other.session(1).views["respond"].step == 0
    assert sent(other, 1)[4].filling == (True, frozenset())


def test_only_what_the_responder_knows_is_revealed() -> None:
    one, other = (
        initiator(HIDDEN, FakeChooser(secure=True)),
        responder(FakeChooser(secure=True), supported=KNOWN - {TLS}),
    )
    run(one, other)
    assert one.aborted is not None
    assert one.aborted.reason is Reason.NO_COMMON_STACK
    assert all(node.protocol != TLS for step in (0, 2) for node in sent(one, step).values())


def test_of_several_that_are_revealed_the_responder_chooses() -> None:
    shape = [
        (0, UDP, (1,), {}),
        (1, TCP, (2, 3), {}),
        (2, TLS, (5,), {"within": 4}),
        (3, NAMES, (5,), {"within": 4}),
        (4, SUBGRAPH, (), {}),
        (5, HTTP, (), {}),
    ]
    for prefer, stack in (((NAMED, "http/tls/tcp"), NAMED), (("http/tls/tcp", NAMED), "http/tls/tcp")):
        one, other = initiator(shape, ANY), responder(FakeChooser(prefer=prefer))
        run(one, other)
        assert agreed(one, other) == stack
        assert steps(one, other) == [0, 1, 2, 3, 4]
        assert {node.protocol for node in sent(one, 2).values()} == {UDP, TCP, TLS, NAMES, HTTP}
        assert len(sent(other, 3)[0].pruned) == 1


def test_a_hidden_stack_that_turns_out_insecure_is_refused_by_who_requires_more() -> None:
    shape = [
        (0, UDP, (1,), {}),
        (1, TCP, (2,), {}),
        (2, DCCP, (4,), {"within": 3}),
        (3, SUBGRAPH, (), {}),
        (4, HTTP, (), {}),
    ]
    one, other = initiator(shape, ANY), responder(FakeChooser(secure=True))
    run(one, other)
    assert other.aborted is not None
    assert other.aborted.reason is Reason.INSECURE
    assert one.aborted is not None


# ---- More rounds ----


def test_a_handshake_of_two_round_trips_holds_back_what_is_above_it() -> None:
    one = initiator([(0, UDP, (1,), {}), (1, TCP, (2,), {}), (2, TLS, (3,), {}), (3, HTTP, (), {})], ANY)
    other = responder(ANY, rounds={TLS: 1})
    run(one, other)
    assert agreed(one, other) == "http/tls/tcp"
    assert steps(one, other) == [0, 1, 2, 3, 4]
    assert sent(other, 1)[0].continues == sent(one, 2)[0].continues == {2}
    assert one.session(3).views["advance"].step == 3
    assert one.session(1).views["advance"].step == 1
    assert sent(one, 2)[1].payload == b""
    assert sent(one, 4)[1].payload == b"finish 6"


# ---- What callers may not propose ----


@pytest.mark.parametrize(
    "wrong",
    [
        [(0, UDP, (1,), {}), (1, SUBGRAPH, (), {})],
        [(0, UDP, (1,), {}), (1, TCP, (), {"within": 2})],
        [(0, UDP, (1,), {}), (1, TCP, (), {"within": 2}), (2, SUBGRAPH, (), {})],
        [
            (0, UDP, (1,), {}),
            (1, SUBGRAPH, (), {}),
            (2, SUBGRAPH, (3,), {"choices": (CRYPT,)}),
            (3, HTTP, (), {}),
            (4, TLS, (2,), {"within": 1}),
        ],
        [(0, UDP, (1,), {}), (1, TLS, (), {"within": 2}), (2, SUBGRAPH, (), {"choices": (CRYPT,)})],
    ],
)
def test_what_nobody_could_fill_is_the_caller_s_mistake(
    wrong: list[tuple[int, int, tuple[int, ...], dict[str, object]]],
) -> None:
    with pytest.raises(ValueError, match=r"placeholder|explicit"):
        initiator(wrong, ANY)


# ---- A session refuses what was chosen ----


def refusing(one: Side, *protocols: int) -> None:
    """The initiator's sessions for these, in whatever node the responder puts them, refuse the answer."""
    opened = one.machine._open  # type: ignore[attr-defined]

    def refuses(node_id: int, protocol: int) -> object:
        made = opened(node_id, protocol)
        if protocol in protocols:
            made.script["advance"] = Refuse(Reason.HANDSHAKE_FAILED, f"no {protocol:x} today")
        return made

    one.machine._open = refuses  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("prefer", "refused", "stack"),
    [
        ((NAMED, CRYPTED), {NAMES}, CRYPTED),
        ((CRYPTED, f"http/0x{DTLS:x}/tcp"), {CRYPT}, f"http/0x{DTLS:x}/tcp"),
        ((NAMED, CRYPTED, f"http/0x{DTLS:x}/tcp"), {NAMES, CRYPT}, f"http/0x{DTLS:x}/tcp"),
    ],
)
def test_when_a_session_refuses_one_of_several_the_initiator_takes_the_next(
    prefer: tuple[str, ...], refused: set[int], stack: str
) -> None:
    one = initiator(choice_of(CRYPT, NAMES, DTLS), FakeChooser(prefer=prefer))
    other = responder(FakeChooser(prefer=prefer), [(NAMES,), (CRYPT,), (DTLS,)])
    refusing(one, *refused)
    run(one, other)
    assert agreed(one, other) == stack
    gone = {
        protocol
        for node, protocol in ((node.id, node.protocol) for node in sent(other, 1).values())
        if sent(one, 2)[0].pruned.get(node) == Reason.HANDSHAKE_FAILED
    }
    assert gone == refused
    assert one.session(1).log.count("advance") == 1  # what is below is not told twice
    assert all(
        each.ended for node in sent(other, 1).values() if node.protocol in refused for each in one.sessions[node.id]
    )


def test_after_a_secure_one_no_insecure_one_is_taken_whatever_the_policy_allows() -> None:
    one = initiator(choice_of(CRYPT, NAMES), FakeChooser(prefer=(CRYPTED, NAMED)))
    other = responder(FakeChooser(prefer=(CRYPTED, NAMED)), [(NAMES,), (CRYPT,)])
    refusing(one, CRYPT)
    run(one, other)
    assert one.committed is other.committed is None
    assert one.aborted is not None
    assert one.aborted.reason is Reason.HANDSHAKE_FAILED


def test_when_all_are_refused_the_negotiation_ends_with_a_session_s_reason() -> None:
    one = initiator(choice_of(CRYPT, NAMES, DTLS), ANY)
    other = responder(FakeChooser(prefer=(CRYPTED, NAMED)), [(NAMES,), (CRYPT,)])
    refusing(one, CRYPT, NAMES)
    run(one, other)
    assert one.committed is other.committed is None
    assert one.aborted is not None
    assert one.aborted.reason is Reason.HANDSHAKE_FAILED
    assert other.aborted is not None


def test_who_makes_a_session_refuse_by_changing_its_bytes_is_found_out_by_the_next_one_s_mac() -> None:
    one = initiator(choice_of(CRYPT, NAMES), FakeChooser(prefer=(NAMED, CRYPTED)))
    other = responder(FakeChooser(prefer=(NAMED, CRYPTED)), [(NAMES,), (CRYPT,)])
    opened = one.machine._open  # type: ignore[attr-defined]

    def careful(node_id: int, protocol: int) -> object:
        made = opened(node_id, protocol)
        if protocol == NAMES:
            good = b"answer %x" % NAMES
            made.script["advance"] = lambda view: (
                Answer() if made.heard["advance"] == good else Refuse(Reason.HANDSHAKE_FAILED)
            )
        return made

    one.machine._open = careful  # type: ignore[attr-defined]

    def tamper(step: int, nodes: list[tuple[int, int, bytes]]) -> list[tuple[int, int, bytes]]:
        return [(n, p, d[:-1] + b"!") if p == NAMES and step == 1 else (n, p, d) for n, p, d in nodes]

    run(one, other, tamper)
    assert one.committed is other.committed is None
    assert one.aborted is not None
    assert one.aborted.reason is Reason.BAD_MAC


def test_two_choices_one_on_the_other_are_one_choice_of_both() -> None:
    crypt_on_names = f"http/0x{CRYPT:x}/0x{NAMES:x}/tcp"
    nodes: list[tuple[int, int, tuple[int, ...], dict[str, object]]] = [
        (0, UDP, (1,), {}),
        (1, TCP, (2,), {}),
        (2, SUBGRAPH, (3,), {"choices": (NAMES, DCCP)}),
        (3, SUBGRAPH, (4,), {"choices": (CRYPT, DTLS)}),
        (4, HTTP, (), {}),
    ]
    one = initiator(nodes, FakeChooser(prefer=(crypt_on_names,)))
    other = responder(FakeChooser(secure=True), [(NAMES,), (DCCP,), (CRYPT,), (DTLS,)])
    run(one, other)
    assert agreed(one, other) == crypt_on_names
    assert len(list(sent(other, 1))) == 1 + 1 + 2 + 2 + 1


def test_two_choices_beside_each_other_are_each_chosen_from_where_they_stand() -> None:
    nodes: list[tuple[int, int, tuple[int, ...], dict[str, object]]] = [
        (0, UDP, (1, 5), {}),
        (1, TCP, (2,), {}),
        (2, SUBGRAPH, (4,), {"choices": (CRYPT, NAMES)}),
        (4, HTTP, (), {}),
        (5, DCCP, (6,), {}),
        (6, SUBGRAPH, (4,), {"choices": (CRYPT, NAMES)}),
    ]
    crypt_on_dccp = f"http/0x{CRYPT:x}/0x{DCCP:x}"
    one = initiator(nodes, FakeChooser(prefer=(crypt_on_dccp,)))
    other = responder(FakeChooser(prefer=(f"http/0x{NAMES:x}/0x{DCCP:x}",)), [(NAMES,), (CRYPT,)])
    run(one, other)
    assert agreed(one, other) == crypt_on_dccp
