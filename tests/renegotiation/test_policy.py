# SPDX-License-Identifier: Apache-2.0
"""What a policy says of re-negotiation, and of stacks that it has not chosen itself."""

from __future__ import annotations

import pytest

from accord.controller.renegotiation.member import Standing, strict
from accord.controller.settings.policy import EffectivePolicy, Secure, parse_policy
from accord.wire.constants import Protocol, Reason
from accord.wire.errors import AccordError

TLS = (int(Protocol.TCP), int(Protocol.TLS13), int(Protocol.HTTP))
BARE = (int(Protocol.TCP), int(Protocol.HTTP))


def standing(protocols: tuple[int, ...], policy: EffectivePolicy) -> Standing:
    return Standing(protocols, Protocol.TLS13 in protocols, policy, [])


def test_a_timer_has_renegotiate_in_it_and_neither_is_the_default() -> None:
    assert not EffectivePolicy().lasting
    assert parse_policy("[default]\nrenegotiate = true").default.lasting
    assert parse_policy("[default]\nrenegotiate_s = 3600").default.lasting
    assert not parse_policy("[default]\nrenegotiate_s = 0").default.lasting


@pytest.mark.parametrize("value", ["-1", "2592001", '"1h"', "1.5", "true"])
def test_an_interval_that_is_none_is_refused_with_its_line(value: str) -> None:
    with pytest.raises(AccordError, match="renegotiate_s") as caught:
        parse_policy(f"[default]\nrenegotiate_s = {value}")
    assert caught.value.reason is Reason.BAD_CONFIG


def test_a_program_may_ask_for_either_whatever_the_file_says() -> None:
    file = parse_policy("[default]\nrenegotiate = false").default
    assert file.override({"renegotiate": True}).lasting
    assert file.override({"renegotiate_s": 60}).renegotiate_s == 60


def test_a_secure_stack_is_followed_by_secure_ones_only_and_an_insecure_one_by_any_that_the_policy_allows() -> None:
    careless = EffectivePolicy(secure=Secure.NO, prefer=((int(Protocol.TCP),),))
    bare, secure = standing(BARE, careless).candidate, standing(TLS, careless).candidate
    assert careless.order([bare, secure]) == [bare, secure]
    assert strict(careless, standing(TLS, careless)).order([bare, secure]) == [secure]
    assert strict(careless, standing(BARE, careless)).order([bare, secure]) == [bare, secure]
    assert ("tcp",) not in strict(careless, standing(TLS, careless)).stacks_wanted({"tcp", "tls", "quic"})
