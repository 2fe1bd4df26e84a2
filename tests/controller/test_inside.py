# SPDX-License-Identifier: Apache-2.0
"""Two controllers whose policies say something of the insides of protocols, and of the protocols themselves."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import pytest

from accord.controller.settings.policy import parse_policy
from accord.wire.constants import Reason
from accord.wire.errors import AccordError
from tests.controller.pairs import QUIC, Pair, pair, run

CRIME = {**QUIC, "prefer": ["framing/compression/quic"], "compress_encrypted": True}


def serving(hosts: Pair, text: str) -> None:
    """The server reads this policy."""
    hosts.server.reload(dataclasses.replace(hosts.server.config, policy=parse_policy(f"[default]\n{text}")))


def test_what_was_agreed_inside_each_node_is_in_both_reports(tmp_path: Path) -> None:
    async def play() -> None:
        async with pair(tmp_path) as hosts:
            serving(hosts, "compress_encrypted = true\nmessage_limit = 5000\ncompression = {window = 10, level = 1}")
            one = await hosts.client.connect("127.0.0.1", hosts.relay.port, overrides=CRIME, security=hosts.security)
            other = await hosts.accept()
            assert one.report.stack == other.report.stack == ["http", "framing", "compression", "quic"]
            assert one.report.inside["framing"] == {"longest_sent": 5000, "longest_received": 1 << 20}
            assert other.report.inside["framing"] == {"longest_sent": 1 << 20, "longest_received": 5000}
            agreed = {"algorithm": "deflate", "window": 1024, "dictionary": 1}
            assert one.report.inside["compression"] == {**agreed, "level": 6}
            assert other.report.inside["compression"] == {**agreed, "level": 1}
            await one.carrier.write(b"word" * 5000)
            got = b""
            while len(got) < 20000:
                got += await other.carrier.read()
            assert got == b"word" * 5000

    run(play())


def test_a_stack_with_layers_is_re_negotiated_like_any_other(tmp_path: Path) -> None:
    async def play() -> None:
        async with pair(tmp_path) as hosts:
            serving(hosts, "compress_encrypted = true")
            one = await hosts.client.connect("127.0.0.1", hosts.relay.port, overrides=CRIME, security=hosts.security)
            other = await hosts.accept()
            reading = [asyncio.create_task(each.carrier.read()) for each in (one, other)]
            await hosts.client.associations.get(one.report.association).renegotiate()
            await one.carrier.write(b"to")
            await other.carrier.write(b"fro")
            assert [await task for task in reading] == [b"fro", b"to"]

    run(play())


def test_a_server_whose_policy_forbids_what_the_client_requires_tells_it(tmp_path: Path) -> None:
    async def play() -> None:
        async with pair(tmp_path) as hosts:
            serving(hosts, "preferences = {framing = 'forbidden'}")
            wish = {**QUIC, "preferences": {"framing": "required"}}
            with pytest.raises(AccordError) as caught:
                await hosts.client.connect("127.0.0.1", hosts.relay.port, overrides=wish, security=hosts.security)
            assert caught.value.reason is Reason.POLICY
            told = [str(entry) for entry in caught.value.trace]
            assert any("the peer pruned " in line and "(POLICY)" in line for line in told), told

    run(play())


def test_a_server_that_requires_what_is_not_proposed_says_so_by_its_reason(tmp_path: Path) -> None:
    async def play() -> None:
        async with pair(tmp_path) as hosts:
            serving(hosts, "preferences = {framing = 'required'}")
            with pytest.raises(AccordError) as caught:
                await hosts.client.connect("127.0.0.1", hosts.relay.port, overrides=QUIC, security=hosts.security)
            assert caught.value.reason is Reason.REQUIRED_MISSING

    run(play())


def test_a_program_that_frames_messages_gets_the_stream_below_and_keeps_its_stack(tmp_path: Path) -> None:
    async def play() -> None:
        async with pair(tmp_path) as hosts:
            one = await hosts.client.connect(
                "127.0.0.1", hosts.relay.port, overrides=QUIC, security=hosts.security, messages=True
            )
            other = await hosts.accept()
            assert one.report.stack == ["http", "framing", "quic"]
            assert one.report.association == "", "its frames are those of this stack"
            await one.carrier.write(b"\0\0\0\x05whole")
            assert await other.carrier.read() == b"whole", "the server's program asked for no messages"

    run(play())


@pytest.mark.parametrize("key", ["defer", "choose"])
@pytest.mark.parametrize("layer", ["framing", "compression"])
def test_a_layer_may_be_held_back_or_left_to_the_peer(tmp_path: Path, key: str, layer: str) -> None:
    async def play() -> None:
        async with pair(tmp_path) as hosts:
            words = "preferences = {framing = 'preferred', compression = 'preferred'}"
            serving(hosts, f"compress_encrypted = true\n{words}")
            wish = {**CRIME, key: [layer]}
            one = await hosts.client.connect("127.0.0.1", hosts.relay.port, overrides=wish, security=hosts.security)
            other = await hosts.accept()
            assert one.report.stack == ["http", "framing", "compression", "quic"]
            assert set(one.report.inside) == {"http", "framing", "compression", "quic"}
            await one.carrier.write(b"word")
            assert await other.carrier.read() == b"word"

    run(play())
