# SPDX-License-Identifier: Apache-2.0
"""What a negotiation asks of the policy: which stacks are allowed, and which is best.

The policy implements ``Chooser`` elsewhere; the negotiation only enumerates and obeys. Both sides ask:
the responder to pick (HotNets 2009, section 2.2), the initiator to check afterwards that what was picked
is what its own policy allows over the graph that the peer says it could have had.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from accord.wire.constants import Reason, protocol_name


@dataclass(frozen=True, slots=True)
class CandidateStack:
    """One path of the graph from the context, which it leaves out, to a top. Tuples run bottom to top."""

    ids: tuple[int, ...]
    """Node IDs."""
    protocols: tuple[int, ...]
    """Protocol IDs, one for each node ID."""
    secure: bool
    """At least one of its sessions authenticates the peer and encrypts what is above it."""
    preference: int = 0
    """The initiator's PREFERENCE of the topmost node that bears one, 0 without any; higher is preferred. Not a sum:
    stacks share their lower nodes, and no values would put one stack above another that only adds to it."""

    words: tuple[int, ...] = ()
    """What the peer's policy says of each protocol (``Word``); empty: nothing, all are neutral to it."""

    @property
    def name(self) -> str:
        """Top first, as people write it: ``http/tls/tcp``."""
        return "/".join(protocol_name(protocol) for protocol in reversed(self.protocols))


def explain(chooser: Chooser, stacks: Sequence[CandidateStack]) -> str:
    """Whose word excludes each of ``stacks``, as far as this side knows; empty where a chooser cannot tell."""
    told = getattr(chooser, "explain", None)
    return str(told(stacks)) if told is not None else ""


def forbidden(chooser: Chooser, protocols: Mapping[int, int]) -> list[int]:
    """Those of the nodes, ID to protocol, that a chooser allows in no stack, as far as it tells."""
    forbids = getattr(chooser, "forbids", None)
    return [] if forbids is None else [node for node, protocol in protocols.items() if forbids(protocol)]


@runtime_checkable
class Chooser(Protocol):
    """A policy, as one negotiation sees it. Pure: the same stacks give the same order."""

    def order(self, stacks: Sequence[CandidateStack]) -> Sequence[CandidateStack]:
        """The allowed ones of ``stacks``, best first. A total order: no tie is left to arrival or hashing."""

    def refusal(self, stacks: Sequence[CandidateStack]) -> Reason:
        """Why ``order`` allows none of ``stacks``: INSECURE, POLICY, or NO_COMMON_STACK when there were none."""
