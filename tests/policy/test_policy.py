# SPDX-License-Identifier: Apache-2.0
"""What a policy file means: which stacks are allowed, in which order, for whom, and what its errors say."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.controller.settings import policy as policy_module
from accord.controller.settings.policy import (
    Context,
    Early,
    EffectivePolicy,
    Fallback,
    Policy,
    Secure,
    TcpOpen,
    load_policy,
    parse_policy,
)
from accord.controller.settings.stacks import PROTOCOLS, SECURE, USUAL, format_stack, parse_stack
from accord.negotiation.choice import CandidateStack, Chooser
from accord.wire.constants import Protocol, Reason
from accord.wire.errors import UserError

FILE = """
[default]
secure = "required"
prefer = ["tls/tcp", "quic", "tcp"]
fallback = "never"

[[destination]]
match = ["10.0.0.0/8", "*.example.net:443"]
secure = "no"
early = "idempotent"
packets_min = 3

[[destination]]
match = ["[fd00::]/8", "10.1.0.0/16"]
prefer = ["quic"]
only = true
context = "direct"
"""

HTTP, TLS, TCP, QUIC = (int(p) for p in (Protocol.HTTP, Protocol.TLS13, Protocol.TCP, Protocol.QUIC))


def candidate(name: str, preference: int = 0, first_id: int = 1) -> CandidateStack:
    protocols = parse_stack(name)
    return CandidateStack(
        ids=tuple(range(first_id, first_id + len(protocols))),
        protocols=protocols,
        secure=any(number in SECURE for number in protocols),
        preference=preference,
    )


def names(stacks: Sequence[CandidateStack]) -> list[str]:
    return [stack.name for stack in stacks]


ALL = [candidate(name) for name in ("tcp", "http/tcp", "quic", "tls/tcp", "http/tls/tcp", "http/quic")]


def test_the_first_destination_that_matches_rules_and_inherits_the_default() -> None:
    policy = parse_policy(FILE)
    default = policy.for_destination("192.0.2.1", 443)
    assert (default.secure, default.fallback, default.early) == (Secure.REQUIRED, Fallback.NEVER, Early.NEVER)
    inside = policy.for_destination("10.1.2.3", 80)
    assert (inside.secure, inside.fallback, inside.packets_min) == (Secure.NO, Fallback.NEVER, 3)
    assert inside.prefer == default.prefer
    assert policy.for_destination("www.example.net", 80) == default
    assert policy.for_destination("www.example.net", 443) == inside
    assert policy.for_destination("www.example.net", 80, "10.9.9.9") == inside
    private = policy.for_destination("fd00::1", 443)
    assert (private.only, private.context, private.prefer) == (True, Context.DIRECT, ((QUIC,),))


def test_a_host_without_a_policy_file_demands_security_and_falls_back_in_parallel() -> None:
    policy = Policy().for_destination("example.net", 443)
    assert policy == parse_policy("").for_destination("example.net", 443)
    assert (policy.secure, policy.fallback, policy.early) == (Secure.REQUIRED, Fallback.PARALLEL, Early.NEVER)


def test_how_a_connection_is_opened_is_left_to_what_is_known_of_the_peer_unless_a_destination_says_so() -> None:
    policy = parse_policy("[[destination]]\nmatch = ['10.0.0.0/8']\ntcp = 'no-syn'")
    assert policy.for_destination("192.0.2.1", 443).tcp is TcpOpen.AUTO
    assert policy.for_destination("10.0.0.1", 443).tcp is TcpOpen.NO_SYN


def test_the_policy_is_a_chooser_of_the_negotiation() -> None:
    assert isinstance(EffectivePolicy(), Chooser)


def test_required_security_forbids_stacks_without_it() -> None:
    policy = EffectivePolicy(secure=Secure.REQUIRED)
    assert names(policy.order(ALL)) == ["tls/tcp", "http/tls/tcp", "quic", "http/quic"]
    assert policy.refusal([candidate("tcp")]) is Reason.INSECURE


def test_preferred_security_comes_before_any_other_preference() -> None:
    policy = EffectivePolicy(secure=Secure.PREFERRED, prefer=(parse_stack("tcp"), parse_stack("quic")))
    assert names(policy.order(ALL)) == ["quic", "http/quic", "tls/tcp", "http/tls/tcp", "tcp", "http/tcp"]


def test_without_a_wish_for_security_the_list_rules() -> None:
    policy = EffectivePolicy(secure=Secure.NO, prefer=(parse_stack("tcp"), parse_stack("http/quic")))
    assert names(policy.order(ALL))[:3] == ["tcp", "http/tcp", "http/quic"]


def test_only_forbids_what_is_not_listed() -> None:
    policy = EffectivePolicy(secure=Secure.NO, prefer=(parse_stack("tcp"),), only=True)
    assert names(policy.order(ALL)) == ["tcp", "http/tcp"]
    assert policy.refusal([candidate("quic")]) is Reason.POLICY
    assert policy.refusal([]) is Reason.NO_COMMON_STACK


def test_the_peers_preference_decides_only_where_ours_does_not() -> None:
    policy = EffectivePolicy(prefer=(parse_stack("tls/tcp"),))
    private = candidate("0x7e000001/quic", preference=3)
    assert names(policy.order([candidate("quic", 9), private, candidate("tls/tcp", 0)])) == [
        "tls/tcp",
        "quic",
        "0x7e000001/quic",
    ]
    assert policy.order([candidate("quic", 2), private])[0] is private


candidates = st.builds(
    lambda protocols, first, secure, preference: CandidateStack(
        tuple(range(first, first + len(protocols))), tuple(protocols), secure, preference
    ),
    st.lists(st.sampled_from([TCP, TLS, QUIC, HTTP, 0x7E000001]), min_size=1, max_size=4, unique=True),
    st.integers(1, 40),
    st.booleans(),
    st.integers(0, 4),
)
policies = st.builds(
    EffectivePolicy,
    secure=st.sampled_from(Secure),
    prefer=st.lists(st.sampled_from([*USUAL, (TCP, TLS, HTTP)]), unique=True).map(tuple),
    only=st.booleans(),
)


@given(policies, st.lists(candidates, max_size=6, unique_by=lambda stack: (stack.ids, stack.protocols)), st.randoms())
def test_the_order_is_total_so_the_order_of_arrival_never_matters(policy, stacks, random) -> None:  # type: ignore[no-untyped-def]
    ordered = list(policy.order(stacks))
    shuffled = list(stacks)
    random.shuffle(shuffled)
    assert list(policy.order(shuffled)) == ordered
    for one, other in itertools.combinations(ordered, 2):
        assert list(policy.order([other, one])) == [one, other]


@given(policies, st.lists(candidates, max_size=6))
def test_what_is_forbidden_is_never_chosen_and_a_refusal_says_why(policy, stacks) -> None:  # type: ignore[no-untyped-def]
    allowed = policy.order(stacks)
    assert all(stack.secure for stack in allowed) or policy.secure is not Secure.REQUIRED
    if not allowed:
        assert policy.refusal(stacks) in {Reason.INSECURE, Reason.POLICY, Reason.NO_COMMON_STACK}


def test_the_stacks_to_propose_are_the_preferred_ones_first_and_only_those_that_work_here() -> None:
    assert EffectivePolicy().stacks_wanted({"tcp", "tls", "quic", "http"}) == [("tcp", "tls"), ("quic",)]
    quic = EffectivePolicy(secure=Secure.NO, prefer=(parse_stack("http/quic"),))
    assert quic.stacks_wanted({"tcp", "tls", "quic", "http"}) == [("quic",), ("tcp", "tls"), ("tcp",)]
    assert quic.stacks_wanted({"tcp", "http"}) == [("tcp",)]
    plain = EffectivePolicy(secure=Secure.NO, prefer=(parse_stack("tcp"),), only=True)
    assert plain.stacks_wanted({"tcp", "tls", "quic"}) == [("tcp",)]
    preferred = EffectivePolicy(secure=Secure.PREFERRED, prefer=(parse_stack("tcp"),))
    assert preferred.stacks_wanted({"tcp", "tls", "quic"}) == [("tcp", "tls"), ("quic",), ("tcp",)]
    assert EffectivePolicy().stacks_wanted({"tcp"}) == []


@given(st.lists(st.sampled_from([TCP, TLS, QUIC, HTTP, 0x7E000001]), min_size=1, max_size=5, unique=True).map(tuple))
def test_a_stack_is_written_as_it_is_read(stack: tuple[int, ...]) -> None:
    assert parse_stack(format_stack(stack)) == stack


def test_an_early_request_goes_in_clear_only_where_no_security_is_asked_for() -> None:
    assert EffectivePolicy(secure=Secure.NO, early=Early.IDEMPOTENT).early_in_clear
    assert not EffectivePolicy(secure=Secure.PREFERRED, early=Early.IDEMPOTENT).early_in_clear
    assert not EffectivePolicy(secure=Secure.NO).early_in_clear


def test_an_application_may_choose_freely_what_the_file_leaves_open() -> None:
    wished = EffectivePolicy().override({"secure": "no", "prefer": ["tcp"], "only": True, "early": "idempotent"})
    assert (wished.secure, wished.prefer, wished.only, wished.early_in_clear) == (Secure.NO, ((TCP,),), True, True)
    assert EffectivePolicy().override({}) == EffectivePolicy()


def test_a_wish_is_judged_by_the_policy_that_it_is_made_to_whatever_an_equal_one_has_said_of_it() -> None:
    free, wish = EffectivePolicy(), {"secure": "no", "prefer": ["tcp"]}
    for _ in range(2):
        assert free.override(wish).secure is Secure.NO
        with pytest.raises(UserError) as caught:
            replace(free, fixed=frozenset({"secure"})).override(wish)
        assert caught.value.reason is Reason.POLICY
        other = replace(free, protocols={**PROTOCOLS, "tcp": 0x7E000001})
        assert other.override(wish).prefer == ((0x7E000001,),)
        assert free.override({**wish, "prefer": ["quic"]}).prefer != free.override(wish).prefer


def test_wishes_that_are_remembered_are_bounded_in_number_and_length() -> None:
    for number in range(200):
        EffectivePolicy().override({"prefer": [f"0x{0x7E000000 + place:08x}" for place in range(number + 1)]})
        EffectivePolicy().override({"prefer": [f"0x{0x7F000000 + number:08x}"]})
    assert len(policy_module._overridden) <= 64
    assert max(len(words) for *_, words in policy_module._overridden) <= 1024


@pytest.mark.parametrize(
    ("file", "wishes"),
    [
        ("secure = 'required'", {"secure": "preferred"}),
        ("secure = 'preferred'", {"secure": "no"}),
        ("only = true\nprefer = ['quic']", {"only": False}),
        ("only = true\nprefer = ['quic']", {"prefer": ["tls/tcp"]}),
        ("fallback = 'never'", {"fallback": "parallel"}),
        ("early = 'never'", {"early": "idempotent"}),
        ("tcp = 'parallel-syn'", {"tcp": "no-syn"}),
        ("tcp = 'parallel-syn'", {"tcp": "auto"}),
    ],
)
def test_an_application_cannot_take_back_what_the_file_says(file: str, wishes: dict[str, object]) -> None:
    policy = parse_policy(f"[default]\n{file}").for_destination("a.example", 1)
    with pytest.raises(UserError) as caught:
        policy.override(wishes)
    assert caught.value.reason is Reason.POLICY


@pytest.mark.parametrize(
    ("file", "wishes"),
    [
        ("secure = 'no'", {"secure": "required"}),
        ("only = true\nprefer = ['quic', 'tls/tcp']", {"prefer": ["tls/tcp"]}),
        ("prefer = ['quic']", {"prefer": ["tls/tcp"]}),
        ("fallback = 'parallel'", {"fallback": "never"}),
        ("tcp = 'no-syn'", {"tcp": "parallel-syn"}),
        ("tcp = 'auto'", {"tcp": "no-syn"}),
    ],
)
def test_an_application_may_ask_for_more_than_the_file_demands(file: str, wishes: dict[str, object]) -> None:
    policy = parse_policy(f"[default]\n{file}").for_destination("a.example", 1)
    assert policy.override(wishes) != policy


@pytest.mark.parametrize("wishes", [{"secure": 1}, {"secured": "no"}, {"prefer": "tcp"}, {"packets_min": 99}])
def test_a_wish_that_cannot_be_read_is_a_user_error(wishes: dict[str, object]) -> None:
    with pytest.raises(UserError) as caught:
        EffectivePolicy().override(wishes)
    assert caught.value.reason is Reason.BAD_CONFIG
    assert next(iter(wishes)) in caught.value.detail


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("secure = 'requierd'", "did you mean required?); allowed: no, preferred, required"),
        ("secure = true", "True is not known; allowed: no"),
        ("prefer = 'tls/tcp'", "is no list"),
        ("prefer = ['tsl/tcp']", "element 1: 'tsl' in 'tsl/tcp' is no protocol; allowed: tcp, tls, quic, http"),
        ("prefer = ['tcp', 7]", "element 2: 7 is no text"),
        ("prefer = ['tcp/tcp']", "names a protocol twice"),
        ("prefer = ['']", "is no protocol"),
        ("prefer = ['0x/tcp']", "is no protocol"),
        ("prefer = ['tcp', 'tcp']", "listed twice"),
        ("prefer = []\nonly = true", "no stack would be allowed"),
        ("only = 'yes'", "neither true nor false"),
        ("packets_min = 11", "allowed: 0..10"),
        ("packets_min = true", "allowed: 0..10"),
        ("fallback = 'sometimes'", "allowed: parallel, delayed, never"),
        ("tcp = 'syn'", "allowed: auto, no-syn, parallel-syn"),
        ("context = 'tcp'", "allowed: udp, direct"),
        ("perfer = ['tcp']", "did you mean prefer?"),
        ("via = 'elsewhere'", "is no address"),
        ("via = '10.0.0.1'\ntcp = 'no-syn'", 'is not to be had with tcp = "no-syn"'),
        ("via = 'fd00::1'\ncontext = 'direct'", 'is not to be had with context = "direct"'),
    ],
)
def test_an_error_names_file_line_and_key_and_what_is_allowed(line: str, wrong: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_policy(f"# policy\n\n[default]\n{line}\n", "/etc/accord/policy.toml")
    assert caught.value.reason is Reason.BAD_CONFIG
    assert caught.value.detail.startswith(f"/etc/accord/policy.toml:4: default.{line.split(' ')[0]}: ")
    assert wrong in caught.value.detail


def test_a_destination_without_match_is_an_error_at_its_own_line() -> None:
    with pytest.raises(UserError, match=r"p:4: destination\[2\]\.match: is missing"):
        parse_policy('[[destination]]\nmatch = ["*"]\n\n[[destination]]\nsecure = "no"\n', "p")


def test_a_table_where_an_array_of_tables_belongs_is_explained() -> None:
    with pytest.raises(UserError, match=r"write \[\[destination\]\], with two brackets"):
        parse_policy('[destination]\nmatch = ["*"]\n', "p")


def test_a_plug_ins_protocol_is_known_by_its_name_when_it_is_installed(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text('[default]\nprefer = ["noise/tcp"]\n')
    with pytest.raises(UserError, match="is no protocol"):
        load_policy(path)
    policy = load_policy(path, {"tcp": TCP, "noise": 0x7E000001}).for_destination("a", 1)
    assert policy.prefer == ((TCP, 0x7E000001),)
    assert policy.stacks_wanted({"tcp", "noise"}, {0x7E000001}) == [("tcp", "noise")]


@given(st.data())
def test_a_mutated_or_truncated_file_is_read_or_is_a_user_error_with_a_line(data: st.DataObject) -> None:
    text = FILE
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = min(len(text), start + data.draw(st.sampled_from([0, 1, 5, len(text)])))
        text = text[:start] + data.draw(st.text(alphabet="[]{}\"'=,#\n ab0-9.:/*", max_size=3)) + text[end:]
    try:
        policy = parse_policy(text, "f")
    except UserError as wrong:
        for line in wrong.detail.splitlines():
            number = int(line.split(":")[1])
            if not 1 <= number <= text.count("\n") + 1:
                raise AssertionError(line) from wrong
    else:
        policy.for_destination("10.0.0.1", 443).order(ALL)
