# SPDX-License-Identifier: Apache-2.0
"""What a policy file may wish of the insides of protocols, and what its errors say."""

from __future__ import annotations

import pytest

from accord.controller.settings.policy import EffectivePolicy, Fallback, parse_policy
from accord.protocols.wishes import NONE, CompressionWishes, TcpWishes, Wishes
from accord.wire.constants import Protocol, Reason, Word
from accord.wire.errors import UserError


def policy(text: str) -> EffectivePolicy:
    return parse_policy(f"[default]\n{text}").for_destination("a.example", 1)


def test_a_policy_that_says_nothing_wishes_nothing() -> None:
    assert policy("").inside == NONE == EffectivePolicy().inside
    assert not NONE.tcp.told
    assert NONE.tcp.leaves_kernels


def test_every_key_becomes_a_wish() -> None:
    assert policy(
        "alpn = ['h2', 'http/1.1']\nmessage_limit = 4096\ntls_versions = ['1.3']\n"
        "tcp_options = {sack = 'required', timestamps = 'avoid', mss = 1200, congestion = {bbr = 'preferred'}}\n"
        "compression = {level = 9, window = 10}"
    ).inside == Wishes(
        tcp=TcpWishes(sack=Word.REQUIRED, timestamps=Word.AVOID, mss=1200, congestion=(("bbr", Word.PREFERRED),)),
        alpn=("h2", "http/1.1"),
        compression=CompressionWishes(level=9, window=10),
        message_limit=4096,
    )


def test_a_destination_changes_what_it_mentions_and_keeps_the_rest() -> None:
    both = parse_policy(
        "[default.tcp_options]\nsack = 'required'\ncongestion = {bbr = 'preferred'}\n"
        "[[destination]]\nmatch = ['10.0.0.0/8']\ntcp_options = {mss = 600, congestion = {reno = 'forbidden'}}"
    )
    assert both.for_destination("10.0.0.1", 1).inside.tcp == TcpWishes(
        sack=Word.REQUIRED, mss=600, congestion=(("bbr", Word.PREFERRED), ("reno", Word.FORBIDDEN))
    )
    assert both.for_destination("a", 1).inside.tcp.mss is None


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("tcp_options = {sack = 'on'}", "allowed: forbidden, avoid, neutral, preferred, required"),
        ("tcp_options = {sac = 'avoid'}", "tcp_options.sac: is no key of this table (did you mean sack?)"),
        ("tcp_options = {mss = 87}", "allowed: 88..65535"),
        ("tcp_options = {congestion = {'BBR!' = 'avoid'}}", "is no name of an algorithm"),
        ("tcp_options = {congestion = {bbr = 'best'}}", "tcp_options.congestion.bbr: 'best' is not known"),
        ("tcp_options = {congestion = {bbr = 'required', reno = 'required'}}", "requires two algorithms at once"),
        ("tls_versions = ['1.2']", "TLS 1.2 needs a round trip more, and is not negotiated; allowed: 1.3"),
        ("tls_versions = ['ssl3']", "is no version of TLS"),
        ("tls_versions = []", "no TLS would be left"),
        ("alpn = ['']", "is no ALPN name"),
        ("alpn = ['h2', 'h2']", "names a protocol twice"),
        ("message_limit = 1023", "allowed: 1024..16777216"),
        ("compression = {level = 0}", "allowed: 1..9"),
        ("compression = {window = 8}", "allowed: 9..15"),
    ],
)
def test_a_wish_that_cannot_be_is_explained(text: str, wrong: str) -> None:
    with pytest.raises(UserError) as caught:
        policy(text)
    assert caught.value.reason is Reason.BAD_CONFIG
    assert wrong in caught.value.detail


@pytest.mark.parametrize(
    ("file", "wish", "may"),
    [
        ("tcp_options = {sack = 'required'}", {"sack": "avoid"}, False),
        ("tcp_options = {congestion = {bbr = 'forbidden'}}", {"congestion": {"bbr": "preferred"}}, False),
        ("tcp_options = {sack = 'preferred'}", {"sack": "forbidden"}, True),
        ("tcp_options = {sack = 'required'}", {"timestamps": "forbidden"}, True),
        ("", {"sack": "required"}, True),
    ],
)
def test_an_application_takes_back_no_required_and_no_forbidden(file: str, wish: dict[str, object], may: bool) -> None:
    if may:
        assert policy(file).override({"tcp_options": wish}).inside != policy(file).inside
        return
    with pytest.raises(UserError) as caught:
        policy(file).override({"tcp_options": wish})
    assert caught.value.reason is Reason.POLICY


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("tcp_options = {sack = 'required'}", Fallback.NEVER),
        ("tcp_options = {congestion = {bbr = 'required'}}", Fallback.NEVER),
        ("tcp_options = {sack = 'avoid', mss = 900}", Fallback.PARALLEL),
    ],
)
def test_a_plain_connection_has_no_options_that_a_policy_could_require(text: str, plain: Fallback) -> None:
    assert policy(text).plain is plain


def test_a_program_with_messages_needs_framing_and_does_it_itself() -> None:
    made = policy("early = 'idempotent'\nsecure = 'no'").for_messages()
    assert made.word_of(Protocol.FRAMING) is Word.REQUIRED
    assert made.inside.program_frames
    assert made.plain is Fallback.NEVER
    assert not made.early_in_clear
    with pytest.raises(UserError) as caught:
        policy("preferences = {framing = 'forbidden'}").for_messages()
    assert caught.value.reason is Reason.POLICY
