# SPDX-License-Identifier: Apache-2.0
"""What two proposals come to that were made at once (HotNets 2009, section 2.3, "Peer-to-Peer Negotiation").

A pure function of both that treats them alike: whoever computes it, in whatever order they came, gets the same. It
looks at nothing but what both sides see of both proposals, that is at the nodes whose protocols are in both (what a
side proposes it supports, so it stores those), and at the two identities.

The order of the stacks that both offer, each rule for those that the rules before leave equal:

1. the lower sum of both ranks: a stack's rank is how many of the common stacks its side prefers to it;
2. the lower of the two worse ranks: nobody gets its last choice where both could have a middle one;
3. secure before insecure;
4. fewer nodes;
5. lower protocol IDs from the bottom: arbitrary, but the same on both hosts.

Who leads, and is the initiator where a protocol has two roles, follows from a hash of both identities, which are random
and fresh. Whoever sees the other's before it chooses its own can grind for the role, and for nothing else: the stacks
do not depend on it.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from accord.negotiation.graph import Graph
from accord.wire.constants import Reason
from accord.wire.errors import error

IDENTITY_BYTES: Final = 16

Protocols = tuple[int, ...]
"""A stack by its protocol IDs, bottom to top."""

_LEADER_LABEL: Final = b"accord peers 1 leader"
_MERGED_LABEL: Final = b"accord peers 1 merged"


@dataclass(frozen=True, slots=True)
class Proposal:
    """One side's, as either side sees it."""

    identity: bytes
    """16 random bytes, the same in all proposals that a side makes for one meeting."""
    graph: Graph


@dataclass(frozen=True, slots=True)
class Merged:
    """What two proposals come to."""

    leader: bytes
    """The identity of the side whose negotiation goes on."""
    stacks: tuple[Protocols, ...]
    """Those that both offer, best first."""
    digest: bytes
    """32 bytes over all that this follows from: equal on both sides exactly when they merged the same."""


def leader(one: bytes, other: bytes) -> bytes:
    """Of two identities the one that leads."""
    lower, higher = sorted((one, other))
    odd = hashlib.sha256(_LEADER_LABEL + lower + higher).digest()[0] & 1
    return higher if odd else lower


def merge(one: Proposal, other: Proposal, secure: Collection[int]) -> Merged:
    """What both come to. ``secure``: IDs of the protocols that authenticate the peer and encrypt.

    ``stacks`` is empty where nothing is in common. Raises ``PeerError`` (NOT_MERGED) for two proposals of one identity.
    """
    if one.identity == other.identity:
        raise error(Reason.NOT_MERGED, "the other proposal bears our own identity")
    shared = _protocols(one.graph) & _protocols(other.graph)
    offers = {side.identity: _offers(side.graph, shared) for side in (one, other)}
    common = offers[one.identity].keys() & offers[other.identity].keys()
    ranks = {identity: _ranks(offered, common) for identity, offered in offers.items()}

    def place(stack: Protocols) -> tuple[int, int, bool, int, Protocols]:
        both = [ranked[stack] for ranked in ranks.values()]
        return sum(both), max(both), not any(protocol in secure for protocol in stack), len(stack), stack

    return Merged(
        leader(one.identity, other.identity), tuple(sorted(common, key=place)), _digest(ranks, tuple(sorted(common)))
    )


def _protocols(graph: Graph) -> set[int]:
    return {*graph.skipped.values(), *(node.protocol for node in graph.nodes.values())}


def _offers(graph: Graph, shared: Collection[int]) -> dict[Protocols, int]:
    """The stacks of shared protocols, and how much their side likes them: PREFERENCE, the highest where two have the
    same protocols. Only nodes that both sides see are walked: there is a limit to how many paths are looked at."""
    seen = graph.prune([node.id for node in graph.nodes.values() if node.protocol not in shared])
    offers: dict[Protocols, int] = {}
    for stack in seen.stacks():
        protocols = seen.protocols(stack)
        liking = next((seen.nodes[node].preference for node in reversed(stack) if seen.nodes[node].preference), 0)
        offers[protocols] = max(liking, offers.get(protocols, 0))
    return offers


def _ranks(offers: dict[Protocols, int], common: Collection[Protocols]) -> dict[Protocols, int]:
    likings = [offers[stack] for stack in common]
    return {stack: sum(liking > offers[stack] for liking in likings) for stack in common}


def _digest(ranks: dict[bytes, dict[Protocols, int]], stacks: tuple[Protocols, ...]) -> bytes:
    """
    SHA-256(label || for each side, by identity: identity || u16 stacks || for each stack, ascending:
            u8 nodes || u32 protocol ID of each, from the bottom || u16 rank)
    """
    pieces = [_MERGED_LABEL]
    for identity in sorted(ranks):
        pieces += (identity, struct.pack(">H", len(stacks)))
        pieces += (struct.pack(f">B{len(s)}IH", len(s), *s, ranks[identity][s]) for s in stacks)
    return hashlib.sha256(b"".join(pieces)).digest()
