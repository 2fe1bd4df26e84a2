# SPDX-License-Identifier: Apache-2.0
"""The control socket: messages, file descriptors, and whatever a local program may send instead of them."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.controller.control import MAX_MESSAGE, Channel, call, failure_message, peer_credentials, raise_failure
from accord.daemon.operations import Operations
from accord.wire.constants import Reason
from accord.wire.errors import AccordError, UserError, error

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end; nothing here may hang."""

    async def bounded() -> T:
        async with asyncio.timeout(10):
            return await work

    return asyncio.run(bounded())


def pair() -> tuple[Channel, socket.socket]:
    """A channel and the raw socket at its other end."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Channel(ours), theirs


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)


@given(st.dictionaries(st.text(max_size=10), json_values, max_size=6))
def test_any_message_arrives_as_it_was_sent(message: dict[str, Any]) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    near, far = Channel(ours), Channel(theirs)

    async def there() -> Any:
        await near.send(message)
        return await far.receive()

    try:
        assert run(there()) == (message, [])
    finally:
        near.close()
        far.close()


@given(st.binary(min_size=1, max_size=300))
def test_bytes_that_are_no_object_are_the_callers_fault(data: bytes) -> None:
    channel, raw = pair()
    raw.send(data)
    try:
        valid = isinstance(json.loads(data), dict)
    except (ValueError, RecursionError):
        valid = False
    try:
        if valid:
            assert run(channel.receive()) is not None
        else:
            with pytest.raises(UserError) as caught:
                run(channel.receive())
            assert caught.value.reason is Reason.BAD_CONFIG
    finally:
        raw.close()
        channel.close()


def test_nesting_without_end_is_an_error_and_not_a_crash() -> None:
    channel, raw = pair()
    raw.send(b"[" * 60_000)
    with pytest.raises(UserError):
        run(channel.receive())
    raw.close()
    channel.close()


def test_descriptors_of_a_refused_message_are_closed() -> None:
    channel, raw = pair()
    before = len(os.listdir("/proc/self/fd"))
    reading, writing = os.pipe()
    socket.send_fds(raw, [b"not json"], [reading, writing])
    os.close(reading)
    os.close(writing)
    with pytest.raises(UserError):
        run(channel.receive())
    assert len(os.listdir("/proc/self/fd")) == before
    raw.close()
    channel.close()


def test_the_end_of_the_other_side_is_no_error() -> None:
    channel, raw = pair()
    raw.close()
    assert run(channel.receive()) is None
    channel.close()


def test_a_message_that_is_too_long_is_not_sent() -> None:
    channel, raw = pair()
    with pytest.raises(UserError, match="allowed"):
        run(channel.send({"early": "x" * MAX_MESSAGE}))
    raw.close()
    channel.close()


def test_the_kernel_says_who_is_calling() -> None:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    assert peer_credentials(one) == (os.getpid(), os.getuid(), os.getgid())
    one.close()
    other.close()


def test_no_daemon_is_told_with_the_command_that_starts_one(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        call(tmp_path / "nobody.sock")
    assert caught.value.reason is Reason.NO_DAEMON
    assert "accord daemon" in caught.value.mend


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason is not Reason.OK])
def test_an_error_crosses_the_socket_with_its_reason_and_party(reason: Reason) -> None:
    sent = error(reason, "what was seen", "what to do")
    with pytest.raises(AccordError) as caught:
        raise_failure(json.loads(json.dumps(failure_message(sent))))
    assert (caught.value.reason, caught.value.party) == (sent.reason, sent.party)
    assert str(caught.value) == str(sent)


class _NoController:
    """Fails the test when a malformed request gets as far as the controller."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"a malformed request reached controller.{name}")


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"op": "dance"},
        {"op": ["connect"]},
        {"op": "connect", "host": 7, "port": 443},
        {"op": "connect", "host": "a", "port": 0},
        {"op": "connect", "host": "a", "port": 65536},
        {"op": "connect", "host": "a", "port": True},
        {"op": "connect", "host": "a", "port": 443, "early": "not base64!"},
        {"op": "connect", "host": "a", "port": 443, "ca_file": 3},
        {"op": "listen", "port": "443"},
        {"op": "listen", "port": 443, "forward_to": ["127.0.0.1"]},
        {"op": "listen", "port": 443, "forward_to": ["127.0.0.1", 80], "secure": "sometimes"},
    ],
)
def test_a_malformed_request_is_refused_before_anything_is_done(message: dict[str, Any]) -> None:
    channel, raw = pair()
    with pytest.raises(UserError) as caught:
        run(Operations(_NoController()).handle(message, channel))  # type: ignore[arg-type]
    assert caught.value.reason is Reason.BAD_CONFIG
    raw.close()
    channel.close()
