# SPDX-License-Identifier: Apache-2.0
"""Which peers a pattern means."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.controller.settings.destination import parse_pattern


@pytest.mark.parametrize(
    ("pattern", "host", "port"),
    [
        ("10.0.0.0/8", "10.255.0.1", 1),
        ("10.0.0.0/8", "::ffff:10.1.1.1", 1),
        ("10.0.0.0/8:443", "10.0.0.1", 443),
        ("10.1.2.3", "10.1.2.3", 80),
        ("fd00::/8", "fd12::1", 80),
        ("fe80::/10", "fe80::1%eth0", 80),
        ("[fd00::/8]:443", "fd12::1", 443),
        ("[fd00::]/8:443", "[fd12::1]", 443),
        ("[fd00::]/8", "fd12::1", 443),
        ("[::1]:443", "::1", 443),
        ("::1", "0:0::1", 443),
        ("Example.NET", "example.net.", 80),
        ("*.example.net", "a.b.example.net", 80),
        ("*.example.net:443", "A.example.net", 443),
        ("bücher.example", "xn--bcher-kva.example", 80),
        ("*", "anything", 1),
        ("*:443", "::1", 443),
    ],
)
def test_a_pattern_matches_the_peers_that_it_means(pattern: str, host: str, port: int) -> None:
    assert parse_pattern(pattern).matches(host, port)


@pytest.mark.parametrize(
    ("pattern", "host", "port"),
    [
        ("10.0.0.0/8", "11.0.0.1", 1),
        ("10.0.0.0/8", "fd00::1", 1),
        ("10.0.0.0/8", "10.example.net", 1),
        ("10.0.0.0/8:443", "10.0.0.1", 444),
        ("::/0", "10.0.0.1", 1),
        ("*.example.net", "example.net", 80),
        ("*.example.net", "badexample.net", 80),
        ("example.net", "a.example.net", 80),
        ("example.net:443", "example.net", 80),
        ("*:443", "example.net", 80),
    ],
)
def test_a_pattern_does_not_match_other_peers(pattern: str, host: str, port: int) -> None:
    assert not parse_pattern(pattern).matches(host, port)


def test_a_network_matches_a_name_by_what_it_resolved_to() -> None:
    pattern = parse_pattern("10.0.0.0/8")
    assert pattern.matches("db.example.net", 1, "10.2.3.4")
    assert not pattern.matches("db.example.net", 1, "192.0.2.1")


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "10.0.0.1/8",
        "10.0.0.0/33",
        "300.1.1.1",
        "10.0.0.0/8:0",
        "a:b:c",
        "a:65536",
        "a:",
        "a:+1",
        "*.",
        "*.*.net",
        "a..b",
        "-a.net",
        "[::1",
        "[::1]443",
        "[::1]:x",
        "[fd00::/8]/8",
        "a b",
        "*x",
        "a/b",
        "x" * 64,
        "a:" + "9" * 20,
    ],
)
def test_what_is_no_pattern_is_refused_with_the_forms_that_are(pattern: str) -> None:
    with pytest.raises(ValueError, match="allowed: a network"):
        parse_pattern(pattern)


@given(st.text(alphabet="0123456789abcdef:./[]*%-xyz ", max_size=40))
def test_any_text_is_a_pattern_or_a_value_error(text: str) -> None:
    try:
        pattern = parse_pattern(text)
    except ValueError:
        return
    pattern.matches(text, 443, text)


@given(st.ip_addresses(), st.integers(0, 128), st.integers(1, 65535), st.ip_addresses())
def test_networks_agree_with_the_standard_library(
    base: ipaddress.IPv4Address | ipaddress.IPv6Address,
    bits: int,
    port: int,
    peer: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    network = ipaddress.ip_network((base, min(bits, base.max_prefixlen)), strict=False)
    text = f"[{network}]:{port}" if network.version == 6 else f"{network}:{port}"
    mapped = getattr(peer, "ipv4_mapped", None) or peer
    assert parse_pattern(text).matches(str(peer), port) == (mapped in network)
