# SPDX-License-Identifier: Apache-2.0
"""The man in the middle of simulated conversations: what he changes is found out, or else the mistake that hides it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest

from accord.controller.settings import ranking
from accord.controller.settings.policy import EffectivePolicy
from accord.controller.settings.values import Secure
from accord.negotiation import initiator, responder, transcript
from accord.wire.constants import Reason
from accord.wire.node import decode_descriptor
from sim.mitm import campaign, wire
from sim.mitm.conversations import CONVERSATIONS
from sim.mitm.corpus import corpus
from sim.mitm.edits import Edit, Kind, apply
from sim.mitm.run import Base, Outcome, Tampered, tampered, undisturbed
from sim.scenario import HostSpec
from sim.standin import Records
from tests.sim.test_simulator import command

Patch = pytest.MonkeyPatch
SEED = 1
BY_NAME = {conversation.name: conversation for conversation in CONVERSATIONS}


@cache
def base_of(name: str) -> Base:
    return undisturbed(BY_NAME[name], SEED)


def edits_of(name: str, *kinds: Kind) -> list[Edit]:
    """Those of a conversation, in the campaign's order."""
    found = corpus(base_of(name).record, SEED, streams=BY_NAME[name].real_tls)
    return [edit for edit in found if edit.kind in kinds]


def said(name: str, edit: Edit) -> list[str]:
    """What did not hold."""
    return tampered(BY_NAME[name], SEED, base_of(name), edit, base_of(name).record).said


# ---- a slice ----


def test_a_slice_of_all_edits_comes_to_the_same_stack_or_to_a_reason() -> None:
    report = campaign.campaign(range(0, 4000, 31), 1, lambda _: None)
    assert not report.failures
    assert report.struck > 115
    assert {"same", "fallback", "failed", "broken"} <= {name for kind in report.by_kind.values() for name in kind}


def test_a_stack_without_security_that_he_changes_with_all_hashes_repaired_is_counted_as_unclaimed() -> None:
    """What no transcript can give, said aloud: security was only preferred, and its node is gone."""
    name = "security preferred"
    proposal = base_of(name).record.messages[0, 0]
    (tls,) = (node.id for node in proposal if node.protocol == 0x304)
    edit = Edit(Kind.STRIP, 0, 0, tls, excuse=128)
    outcome = tampered(BY_NAME[name], SEED, base_of(name), edit, base_of(name).record)
    assert (outcome.result, outcome.said) == ("unclaimed", [])


@pytest.mark.parametrize("name", BY_NAME)
def test_each_conversation_has_every_strip_of_one_node_and_every_byte_among_its_edits(name: str) -> None:
    record = base_of(name).record
    edits = edits_of(name, Kind.STRIP, Kind.FLIP)
    strips = {(edit.session, edit.step, edit.node) for edit in edits if edit.kind is Kind.STRIP}
    assert strips == {(*place, node.id) for place, nodes in record.messages.items() for node in nodes if node.id}
    flips = {(edit.way, edit.step, edit.args[0]) for edit in edits if edit.kind is Kind.FLIP}
    assert len(flips) == sum(map(sum, record.packets))


def test_who_speaks_the_transport_himself_brings_back_the_cookie_that_his_packets_are_asked_for() -> None:
    name = "asked for a cookie"
    (order, *_) = edits_of(name, Kind.ORDER)
    outcome = tampered(BY_NAME[name], SEED, base_of(name), order, base_of(name).record)
    assert (outcome.result, outcome.struck, outcome.said) == ("same", True, [])


def test_nobody_who_forges_challenges_can_do_more_than_keep_two_hosts_apart() -> None:
    for name in ("three steps", "asked for a cookie", "peer to peer"):
        for edit in edits_of(name, Kind.CHALLENGE)[:4]:
            outcome = tampered(BY_NAME[name], SEED, base_of(name), edit, base_of(name).record)
            assert (outcome.result in ("same", "fallback", "failed"), outcome.said) == (True, []), (name, str(edit))


# ---- messages dropped ----


def kept_apart(name: str, **wishes: str) -> Outcome:
    """No packet of the initiator's arrives."""
    conversation = BY_NAME[name]
    changed = replace(conversation, wishes=tuple({**dict(conversation.wishes), **wishes}.items()))
    edit = Edit(Kind.DROP, 0, -1, args=(0,))
    return tampered(changed, SEED, base_of(name), edit, base_of(name).record)


def test_who_drops_all_proposals_is_found_out_on_the_plain_connection_by_both_ends() -> None:
    outcome = kept_apart("parallel SYN")
    assert (outcome.result, outcome.reason, outcome.said) == ("fallback", Reason.FORCED_FALLBACK.name, [])


def test_where_the_policy_refuses_such_a_connection_there_is_none_and_a_reason() -> None:
    outcome = kept_apart("parallel SYN", on_forced_fallback="refuse")
    assert (outcome.result, outcome.reason, outcome.said) == ("failed", Reason.FORCED_FALLBACK.name, [])


def test_a_peer_without_accord_is_none_that_was_kept_apart() -> None:
    name = "parallel SYN"
    conversation = replace(BY_NAME[name], responder=HostSpec(accord=False), stack="tls/tcp")
    world = Tampered(conversation, SEED)
    world.run_quietly()
    (called,) = world.records.calls
    assert (called.association, called.said_back) == ("tls/tcp", True)
    assert called.reason in (Reason.LEGACY_FIRST.name, Reason.LEGACY_PEER.name)


# ---- that it finds mistakes ----


def _nothing(*_: object, **__: object) -> None:
    return None


def no_mac(patch: Patch) -> None:
    for module in (initiator, responder):
        patch.setattr(module, "check_mac", _nothing)


class _Believing:
    """A module whose ``equal`` says yes."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def equal(self, one: bytes, other: bytes) -> bool:
        return True


def any_transcript(patch: Patch) -> None:
    patch.setattr(responder, "transcript", _Believing(transcript))


def no_choice_again(patch: Patch) -> None:
    patch.setattr(initiator.Initiator, "_check_choice", _nothing)


def nobody_says_so(patch: Patch) -> None:
    patch.setattr(Records, "both_speak_accord", property(lambda self: False, _nothing), raising=False)


def no_floor(patch: Patch) -> None:
    real = ranking.objection

    def lenient(policy: EffectivePolicy, *arguments: Any) -> Any:
        return real(replace(policy, secure=Secure.NO), *arguments)

    patch.setattr(ranking, "objection", lenient)


@dataclass(frozen=True)
class Mutation:
    """A mistake, and where he profits from it within so many edits."""

    name: str
    make: Callable[[Patch], None]
    conversation: str
    kinds: tuple[Kind, ...]
    within: int = 40


MUTATIONS = (
    Mutation("no MAC is checked", no_mac, "alternatives", (Kind.PRUNE,)),
    Mutation("any transcript is believed", any_transcript, "no security", (Kind.COOKIE,)),
    Mutation("the initiator does not choose again", no_choice_again, "initiator choice", (Kind.PRUNE,)),
    Mutation("nobody says over TLS that it speaks Accord", nobody_says_so, "parallel SYN", (Kind.DROP,)),
    Mutation("the policy has no floor", no_floor, "initiator choice", (Kind.PRUNE,)),
)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mistake_lets_him_tilt_the_choice_and_is_found(mutation: Mutation, monkeypatch: Patch) -> None:
    tried = edits_of(mutation.conversation, *mutation.kinds)[: mutation.within]
    mutation.make(monkeypatch)
    assert any(said(mutation.conversation, edit) for edit in tried), f"not in {mutation.within} edits"


@pytest.mark.parametrize("place", sorted({(each.conversation, each.kinds) for each in MUTATIONS}))
def test_without_the_mistake_the_same_edits_are_found_out(place: tuple[str, tuple[Kind, ...]]) -> None:
    name, kinds = place
    assert not [edit for edit in itertools.islice(edits_of(name, *kinds), 40) if said(name, edit)]


# ---- his tools, held against the product's ----


@pytest.mark.parametrize("name", BY_NAME)
def test_what_he_reads_and_writes_is_what_the_hosts_have_sent(name: str) -> None:
    for (_, step), nodes in base_of(name).record.messages.items():
        decoded = [decode_descriptor(node.id, node.protocol, node.encode()) for node in nodes]
        assert [(node.children, node.payload) for node in decoded] == [(n.children, n.payload) for n in nodes]
        assert wire.extend(bytes(32), step, nodes) == transcript.extend(bytes(32), step, transcript.entries(decoded))
        packets = [wire.parse(data) for data in wire.cut(bytes(12), step % 2, step, 0, nodes, 1)]
        assert wire.joined(packets) == nodes


def test_an_edit_of_tls_leaves_a_record_of_true_length() -> None:
    messages = base_of("OpenSSL").record.messages
    for edit in edits_of("OpenSSL", Kind.TLS):
        changed = next(node.payload for node in apply(edit, messages[0, edit.step], None) if node.id == edit.node)
        assert changed[0] == 22
        assert int.from_bytes(changed[3:5], "big") == int.from_bytes(changed[6:9], "big") + 4


def test_the_command_says_what_held_and_replays_an_edit() -> None:
    done = command("--mitm", "--edits", "20", "--jobs", "1", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["edits"], found["undetected_differences"], found["weaker_than_policy"]) == (20, 0, 0)
    one = command("--mitm", "--seed", "3", "--trace")
    assert one.returncode == 0, one.stderr
    assert "proposal 0" in one.stdout
