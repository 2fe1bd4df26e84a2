# SPDX-License-Identifier: Apache-2.0
"""``inner`` and ``key``: what they imply, what they propose, and that an application cannot take them back."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest

from accord.controller.recursion import InnerChooser
from accord.controller.settings.policy import EffectivePolicy, Fallback, Inner, Secure, parse_policy
from accord.negotiation.choice import CandidateStack
from accord.protocols.sealed.configuration import Aead, Kem, KeyConfiguration
from accord.wire.constants import Protocol, Reason
from accord.wire.errors import UserError

KEY = KeyConfiguration(Kem.X25519, Aead.AES_128_GCM, bytes(range(32)), 1_900_000_000)
PIN = base64.b64encode(KEY.encode()).decode()
HIDING = parse_policy('[default]\ninner = "required"\n').default
AVAILABLE = {"tcp", "tls", "quic", "compression", "framing"}
TCP, TLS, QUIC, HTTP, INNER = Protocol.TCP, Protocol.TLS13, Protocol.QUIC, Protocol.HTTP, Protocol.INNER


def candidate(*protocols: int, secure: bool) -> CandidateStack:
    return CandidateStack(tuple(range(1, 1 + len(protocols))), protocols, secure)


def test_hiding_allows_only_secure_stacks_with_the_inner_node_whatever_secure_says() -> None:
    for secure in Secure:
        policy = replace(HIDING, secure=secure)
        allowed = [candidate(TCP, TLS, INNER, secure=True), candidate(QUIC, INNER, secure=True)]
        others = [candidate(TCP, TLS, HTTP, secure=True), candidate(TCP, HTTP, secure=False)]
        assert sorted(stack.name for stack in policy.order(allowed + others)) == ["inner/quic", "inner/tls/tcp"]
        assert policy.refusal([others[0]]) is Reason.POLICY
        assert policy.refusal([candidate(TCP, INNER, secure=False)]) is Reason.INSECURE
        assert policy.stacks_wanted(AVAILABLE) == [("tcp", "tls"), ("quic",)]
        assert policy.plain is Fallback.NEVER
        assert not replace(policy, early=parse_policy('[default]\nearly = "idempotent"').default.early).early_in_clear


def test_without_hiding_nothing_is_different_and_an_inner_node_counts_as_the_applications() -> None:
    policy = EffectivePolicy(only=True, prefer=((TCP, TLS),))
    assert policy.order([candidate(TCP, TLS, INNER, secure=True)]) != []
    assert policy.order([candidate(QUIC, INNER, secure=True)]) == []
    assert policy.plain is Fallback.PARALLEL


def test_what_rides_on_security_is_negotiated_inside_and_not_shown() -> None:
    text = (
        '[default]\ninner = "required"\ncompress_encrypted = true\n[default.preferences]\ncompression = "preferred"\n'
    )
    policy = parse_policy(text).default
    assert policy.stacks_wanted(AVAILABLE) == [("tcp", "tls"), ("quic",)]
    assert policy.nested_wanted(AVAILABLE) == [("compression",), ()]
    assert HIDING.nested_wanted(AVAILABLE) == [()]
    inside = candidate(Protocol.COMPRESSION, HTTP, secure=True)
    assert InnerChooser(policy).order([candidate(HTTP, secure=True), inside])[0] == inside
    assert InnerChooser(HIDING).order([inside]) == []
    assert InnerChooser(HIDING).refusal([inside]) is Reason.POLICY


def test_a_required_layer_is_asked_for_inside_and_not_outside() -> None:
    text = '[default]\ninner = "required"\n[default.preferences]\nframing = "required"\n'
    policy = parse_policy(text).default
    assert policy.order([candidate(TCP, TLS, INNER, secure=True)]) != []
    assert InnerChooser(policy).order([candidate(HTTP, secure=True)]) == []
    assert InnerChooser(policy).refusal([candidate(HTTP, secure=True)]) is Reason.REQUIRED_MISSING
    assert InnerChooser(policy).order([candidate(Protocol.FRAMING, HTTP, secure=True)]) != []


def test_a_pinned_key_is_read_from_its_base64_and_nonsense_is_refused_with_the_line() -> None:
    assert parse_policy(f'[default]\nkey = "{PIN}"').default.keys == (KEY,)
    unknown = base64.b64encode(replace(KEY, kem=0x0010).encode()).decode()
    for wrong in ("%", PIN[:-8], "", unknown):
        with pytest.raises(UserError, match=r":2: default\.key: ") as refused:
            parse_policy(f'[default]\nkey = "{wrong}"', "f")
        assert refused.value.reason is Reason.BAD_CONFIG


def test_an_application_may_hide_more_and_not_less_and_not_exchange_the_key() -> None:
    fixed = parse_policy(f'[default]\ninner = "required"\nkey = "{PIN}"').default
    assert fixed.override({}).inner is Inner.REQUIRED
    assert EffectivePolicy().override({"inner": "required", "key": PIN}).keys == (KEY,)
    other = base64.b64encode(replace(KEY, not_after=KEY.not_after + 1).encode()).decode()
    for wish in ({"inner": "no"}, {"key": other}):
        with pytest.raises(UserError) as refused:
            fixed.override(wish)
        assert refused.value.reason is Reason.POLICY
