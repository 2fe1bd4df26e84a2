# SPDX-License-Identifier: Apache-2.0
"""What a daemon counts: the families of ``accord stats``, each with its one line of help, and their samples.

Names, kinds and suffixes follow the conventions of Prometheus: a counter ends in ``_total``, a unit stands before
that, in base units. docs/OPERATIONS.md lists the families, made from ``FAMILIES``.
"""

from __future__ import annotations

import enum
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


class Kind(enum.StrEnum):
    """As Prometheus has them."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: ``labels`` are the names of what its samples differ in."""

    floor: str
    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str


STEERING = Family(
    "steering", "accord_steering_packets_total", Kind.COUNTER, ("reason",),
    "Frames and datagrams that came in, by what became of them: by the XDP program, or by the rung that has none.",
)  # fmt: skip
ENGINE = Family(
    "engine", "accord_engine_verdicts_total", Kind.COUNTER, ("reason",),
    "Packets taken (OK) or refused; negotiations given up (TIMEOUT, LIFETIME); chunks not stored (UNSUPPORTED).",
)  # fmt: skip
USED = Family(
    "engine", "accord_engine_used", Kind.GAUGE, ("what",),
    "Taken now of the engine's fixed memory: transactions, those of unproven peers, packet buffers, events, slots.",
)  # fmt: skip
LIMIT = Family("engine", "accord_engine_limit", Kind.GAUGE, ("what",), "How many of each there are.")
LEVEL = Family(
    "engine", "accord_load_level", Kind.GAUGE, (),
    "What a proposal from an unproven address gets: 0 state, 1 an answer that nothing is kept of, 2 a cookie.",
)  # fmt: skip
RAISED = Family(
    "engine", "accord_load_raised_total", Kind.COUNTER, ("level",), "How often that level came into force from below."
)
STRANGERS = Family(
    "engine", "accord_load_strangers_per_second", Kind.GAUGE, (),
    "Proposals from unproven addresses in the last whole second, those that the XDP program answered included.",
)  # fmt: skip
MEMORY = Family(
    "engine", "accord_engine_memory_bytes", Kind.GAUGE, (), "All memory of the engine, taken when the daemon started."
)
ANSWERS = Family(
    "negotiation", "accord_unkept_answers_total", Kind.COUNTER, ("kind",),
    "Answers to strangers for which no state was kept: slot (it awaits the commit), slotless (the commit brings all).",
)  # fmt: skip
UNKEPT_COMMITS = Family(
    "negotiation", "accord_unkept_commits_total", Kind.COUNTER, (), "Commits of such answers that were verified."
)
DEFERRED = Family(
    "negotiation", "accord_unkept_deferred_total", Kind.COUNTER, ("why",),
    "Strangers that were asked for a cookie in place of such an answer, and why.",
)  # fmt: skip
NEGOTIATIONS = Family(
    "negotiation", "accord_negotiations_total", Kind.COUNTER, ("role", "outcome", "reason"),
    "Negotiations that ended: committed, fell_back to the plain connection, or failed, and why.",
)  # fmt: skip
PROPOSALS = Family(
    "negotiation", "accord_proposals_total", Kind.COUNTER, ("order",),
    "Peers' proposals, by whether the SYN that left beside them came first; unknown below XDP, and where none came.",
)  # fmt: skip
STACKS = Family(
    "negotiation", "accord_stacks_total", Kind.COUNTER, ("role", "way", "stack"),
    "Associations that came up, by stack: negotiated, or plain as between hosts without Accord.",
)  # fmt: skip
OPEN = Family(
    "negotiation", "accord_associations_open", Kind.GAUGE, ("role",),
    "Associations whose bytes pass through the daemon now.",
)  # fmt: skip
RENEGOTIATIONS = Family(
    "negotiation", "accord_renegotiations_total", Kind.COUNTER, ("role", "outcome", "reason"),
    "Re-negotiations of running stacks: changed (the association goes on over another one) or failed, and why.",
)  # fmt: skip
HANDED_OVER = Family(
    "negotiation", "accord_associations_handed_over_total", Kind.COUNTER, ("role",),
    "Associations that were given to a program as the kernel's own socket: the daemon sees no more of them.",
)  # fmt: skip
ADOPTIONS = Family(
    "negotiation", "accord_adoptions_total", Kind.COUNTER, ("role", "result"),
    "Connections of parallel SYNs: adopted (by_syn, by_preface; initiator: marked, unmarked), fell_back, never_came.",
)  # fmt: skip
GIVEN = Family(
    "negotiation", "accord_given_total", Kind.COUNTER, ("port", "fate"),
    "Connections for a port's own program: born (it has them), deserted (nobody listened), refused, never_came.",
)  # fmt: skip
PLUGIN_CALLS = Family(
    "negotiation", "accord_plugin_calls_total", Kind.COUNTER, ("protocol", "call"),
    "Calls of protocol plug-ins by negotiations.",
)  # fmt: skip
PLUGIN_FAILURES = Family(
    "negotiation", "accord_plugin_failures_total", Kind.COUNTER, ("protocol", "call", "reason"),
    "Of these, those that ended as none should: with an error, rubbish, too late (PLUGIN_TIMEOUT), out of memory.",
)  # fmt: skip
PLUGIN_REFUSALS = Family(
    "negotiation", "accord_plugin_refusals_total", Kind.COUNTER, ("protocol", "call", "reason"),
    "Of these calls, those in which a plug-in refused its node by itself, and why.",
)  # fmt: skip
PLUGINS_OFF = Family(
    "negotiation", "accord_plugins_off", Kind.GAUGE, (), "Plug-ins that are switched off now, as they kept failing."
)
PREPARED = Family(
    "negotiation", "accord_prepared_proposals_total", Kind.COUNTER, ("result",),
    "Proposals made ahead: hit, missed (none was ready, so it was made on the spot), discarded unused.",
)  # fmt: skip
READY_NOW = Family(
    "negotiation", "accord_prepared_proposals_ready", Kind.GAUGE, (), "Proposals made ahead that are ready now."
)
PEERS = Family("peers", "accord_peers", Kind.GAUGE, (), "Peers (address and port) that something is remembered of.")
PEERS_ASKED = Family(
    "peers", "accord_peers_asked_total", Kind.COUNTER, ("result",),
    "Connections that asked what is remembered of their peer: hit, missed.",
)  # fmt: skip
PEERS_LEARNT = Family(
    "peers", "accord_peers_learnt_total", Kind.COUNTER, ("what",),
    "What connections have shown of their peer and of the path to it.",
)  # fmt: skip
PEERS_EVICTED = Family(
    "peers", "accord_peers_evicted_total", Kind.COUNTER, (), "Peers forgotten for want of room ([peers] limit)."
)
SYN_OPTIONS = Family(
    "negotiation", "accord_syn_options_total", Kind.COUNTER, ("result",),
    "SYNs that were to bear the option: written, or marked by the peer as well, no_room, unused (no SYN), displaced.",
)  # fmt: skip
SYN_SLOTS = Family(
    "negotiation", "accord_syn_slots_used", Kind.GAUGE, (), "Connections that are being opened by such a SYN now."
)
CAPTURED_SYNS = Family(
    "unmodified", "accord_captured_syns_total", Kind.COUNTER, ("fate",),
    "SYNs of programs under accord run, by what the TC program did: held, or left for a reason; answered: SYN-ACKs.",
)  # fmt: skip
HELD_SYNS = Family(
    "unmodified", "accord_captured_ended_total", Kind.COUNTER, ("reason",),
    "Those that the daemon was told of, by how it ended: OK is negotiated; the others went on as plain SYNs.",
)  # fmt: skip
PROGRAMS = Family("unmodified", "accord_programs", Kind.GAUGE, (), "Programs that run under accord run now.")
READY = Family(
    "negotiation", "accord_ready_seconds", Kind.HISTOGRAM, ("role", "way"),
    "Until the stack was ready: the initiator's from the call on, the responder's from the proposal's first packet.",
)  # fmt: skip
START = Family("daemon", "accord_start_time_seconds", Kind.GAUGE, (), "When the daemon started, Unix time.")
INFO = Family(
    "daemon", "accord_info", Kind.GAUGE, ("version", "interface", "back_end", "attach_mode"), "Always 1: what runs."
)

_RING = "By receive queue: "
RINGS: Mapping[str, Family] = {
    attribute: Family("rings", f"accord_ring_{name}", kind, ("queue",), _RING + text)
    for attribute, name, kind, text in (
        ("size", "descriptors", Kind.GAUGE, "descriptors of the ring, each way."),
        ("received", "received_frames_total", Kind.COUNTER, "frames handed to us."),
        ("sent", "sent_frames_total", Kind.COUNTER, "frames handed to the kernel."),
        ("receive_wakeups", "receive_wakeups_total", Kind.COUNTER, "system calls to have the driver receive."),
        ("send_wakeups", "send_wakeups_total", Kind.COUNTER, "system calls to have the driver send."),
        ("receive_dropped", "receive_dropped_frames_total", Kind.COUNTER, "frames that the kernel had no room for."),
        ("receive_ring_full", "receive_ring_full_frames_total", Kind.COUNTER, "frames lost: we took them too slowly."),
        ("fill_ring_empty", "fill_ring_empty_total", Kind.COUNTER, "times that no frame was free to receive into."),
        ("receive_bad_address", "receive_bad_address_total", Kind.COUNTER, "our fill entries that the kernel refused."),
        ("send_bad_address", "send_bad_address_total", Kind.COUNTER, "our transmit entries that the kernel refused."),
        ("send_ring_empty", "send_ring_empty_total", Kind.COUNTER, "times that there was nothing to send."),
    )
}
"""By the field of ``RingStatistics`` that holds the value."""

FAMILIES: tuple[Family, ...] = (
    INFO, START, STEERING, *RINGS.values(), ENGINE, USED, LIMIT, MEMORY, LEVEL, RAISED, STRANGERS, ANSWERS,
    UNKEPT_COMMITS, DEFERRED, PROPOSALS, NEGOTIATIONS, STACKS, READY, OPEN, HANDED_OVER, RENEGOTIATIONS, ADOPTIONS,
    GIVEN, PLUGIN_CALLS, PLUGIN_FAILURES, PLUGIN_REFUSALS, PLUGINS_OFF, PREPARED, READY_NOW, PEERS, PEERS_ASKED,
    PEERS_LEARNT, PEERS_EVICTED, SYN_OPTIONS, SYN_SLOTS, CAPTURED_SYNS, HELD_SYNS, PROGRAMS,
)  # fmt: skip
"""All of them, in the order in which they are shown."""

# Half a millisecond (a LAN) to the lifetime of a negotiation and the plain connection's patience behind it.
READY_BOUNDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Upper bounds of the histogram's buckets, seconds."""


@dataclass(slots=True)
class Histogram:
    """Observations by bucket; ``counts`` has one more element than ``bounds``, for what is above them all."""

    bounds: Sequence[float] = READY_BOUNDS
    counts: list[int] = field(default_factory=list)
    sum: float = 0.0

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        """Count it in the first bucket whose bound it does not exceed."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def as_dict(self) -> dict[str, Any]:
        """For JSON: ``buckets`` are (upper bound, observations up to it) as Prometheus has them, without +Inf."""
        total, buckets = 0, []
        for bound, count in zip(self.bounds, self.counts, strict=False):
            total += count
            buckets.append([bound, total])
        return {"buckets": buckets, "count": total + self.counts[-1], "sum": self.sum}


Labels = tuple[str, ...]
Samples = Mapping[Labels, float | Histogram]


def snapshot(values: Mapping[Family, Samples]) -> list[dict[str, Any]]:
    """All families for JSON, in their order, with or without samples. Raises ``ValueError`` for labels that a
    family does not have."""
    unknown = set(values) - set(FAMILIES)
    if unknown:
        raise ValueError(f"not in FAMILIES: {sorted(family.name for family in unknown)}")
    return [
        {
            "floor": family.floor,
            "name": family.name,
            "kind": family.kind.value,
            "help": family.help,
            "samples": list(_samples(family, values.get(family, {}))),
        }
        for family in FAMILIES
    ]


def _samples(family: Family, samples: Samples) -> Iterable[dict[str, Any]]:
    for labels, value in sorted(samples.items()):
        named = dict(zip(family.labels, labels, strict=True))
        yield {"labels": named, **(value.as_dict() if isinstance(value, Histogram) else {"value": value})}
