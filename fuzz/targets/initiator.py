# SPDX-License-Identifier: Apache-2.0
"""Invariant: whatever is done to the packets that come to the initiator of a negotiation, both sides come to an end in
time, with the stack that would have been or none, and one transcript; nothing of a negotiation that came to nothing is
left, in the engines' memory or on the hosts.

The input is a graph and edits of packets (``fuzz.conversation``).
"""

from __future__ import annotations

from accord.negotiation.interface import Role
from fuzz import conversation


def one(data: bytes) -> None:
    """See above."""
    conversation.run(data, Role.INITIATOR)
