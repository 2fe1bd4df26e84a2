# SPDX-License-Identifier: Apache-2.0
"""Invariant: a policy or configuration is read whole, or refused as the user's mistake with the line that is wrong;
what was read does what a policy is for without raising.

The input is a byte of what to read, and its text.
"""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

from accord.controller.settings.config import parse_config
from accord.controller.settings.policy import Policy, parse_policy
from accord.controller.settings.toml import Document
from accord.negotiation.choice import CandidateStack
from accord.wire.constants import Protocol, Reason
from accord.wire.errors import UserError

NAMES = ("tcp", "tls", "quic", "http", "compression", "framing", "inner")
STACKS = (
    CandidateStack((1, 2, 3), (Protocol.TCP, Protocol.TLS13, Protocol.HTTP), True, 3),
    CandidateStack((4, 5), (Protocol.QUIC, Protocol.HTTP), True, 0),
    CandidateStack((1, 6), (Protocol.TCP, Protocol.HTTP), False, 200),
    CandidateStack((1, 2, 7, 8), (Protocol.TCP, Protocol.TLS13, Protocol.COMPRESSION, Protocol.FRAMING), True, 9),
)


def _unread(path: Path) -> Document:
    """No other file is looked at, whatever a configuration names: as if it were empty."""
    return Document("", str(path))


def one(data: bytes) -> None:
    """See above."""
    text = data[1:].decode("utf-8", errors="replace")
    try:
        with patch.object(Document, "read", _unread):
            if data[:1] < b"\x80":
                _use(parse_policy(text, "fuzzed"))
            else:
                _use(parse_config(text, "fuzzed", Path("/nonexistent")).policy)
    except UserError as refusal:
        assert refusal.reason is Reason.BAD_CONFIG, refusal
        assert "fuzzed" in str(refusal), refusal


def _use(policy: Policy) -> None:
    for host, port, address in (("server.example", 443, None), ("192.0.2.1", 8443, "192.0.2.1"), ("::1", 1, "::1")):
        here = policy.for_destination(host, port, address)
        ordered = here.order(STACKS)
        assert {stack.ids for stack in ordered} <= {stack.ids for stack in STACKS}
        assert isinstance(here.explain(STACKS), str)
        if not ordered:
            assert isinstance(here.refusal(STACKS), Reason)
        try:
            here.stacks_wanted(NAMES)
            here.nested_wanted(NAMES)
        except UserError:
            pass
        assert here.plain is not None
        _ = here.plain_objection
