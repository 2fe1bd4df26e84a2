# SPDX-License-Identifier: Apache-2.0
"""Every counter of a running controller, of each floor: what ``accord stats`` shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from accord.controller import metrics
from accord.controller.metrics import Family, Samples, snapshot
from accord.datapath import clock
from accord.datapath.births import Fate
from accord.datapath.engine import Level
from accord.datapath.syn_option import SynOptions
from accord.wire.constants import Reason, protocol_name

if TYPE_CHECKING:
    from accord.controller.controller import Controller


def collect(controller: Controller, version: str) -> list[dict[str, Any]]:
    """All families with their samples of this moment, for JSON (``metrics.snapshot``)."""
    endpoint, stock, peers = controller.endpoint, controller.proposals, controller.peers
    strangers = controller.strangers
    usage, guard, load = endpoint.engine.usage(), controller.guard, endpoint.engine.load(clock.now_us())
    return snapshot(
        {
            metrics.INFO: {
                (version, controller.config.interface or "", controller.back_end, controller.attach_mode): 1
            },
            metrics.STEERING: _by_reason(endpoint.port.counters()),
            metrics.ENGINE: _by_reason(endpoint.engine.counters()),
            metrics.USED: {
                ("transactions",): usage.transactions,
                ("unproven",): usage.unproven,
                ("buffers",): usage.buffers,
                ("events",): usage.events,
                ("slots",): usage.slots,
            },
            metrics.LIMIT: {
                ("transactions",): usage.transactions_limit,
                ("unproven",): usage.unproven_limit,
                ("buffers",): usage.buffers_limit,
                ("events",): usage.events_limit,
                ("slots",): usage.slots_limit,
            },
            metrics.MEMORY: {(): usage.bytes},
            metrics.PLUGIN_CALLS: {
                (protocol_name(protocol), method): count for (protocol, method), count in guard.calls.items()
            },
            metrics.PLUGIN_FAILURES: {
                (protocol_name(protocol), method, reason.name): count
                for (protocol, method, reason), count in guard.failures.items()
            },
            metrics.PLUGIN_REFUSALS: {
                (protocol_name(protocol), method, reason.name): count
                for (protocol, method, reason), count in guard.refusals.items()
            },
            metrics.PLUGINS_OFF: {(): len(guard.off())},
            metrics.LEVEL: {(): load.level},
            metrics.RAISED: {(str(level.value),): load.raised[level] for level in Level if level},
            metrics.STRANGERS: {(): load.strangers},
            metrics.ANSWERS: {("slot",): strangers.answers - strangers.slotless, ("slotless",): strangers.slotless},
            metrics.UNKEPT_COMMITS: {(): strangers.commits},
            metrics.DEFERRED: {(why,): count for why, count in strangers.deferred.items()},
            metrics.PREPARED: {
                ("hit",): stock.hits,
                ("missed",): stock.misses,
                ("discarded",): stock.discarded,
            },
            metrics.READY_NOW: {(): len(stock)},
            metrics.PEERS: {(): len(peers)},
            metrics.PEERS_ASKED: {("hit",): peers.hits, ("missed",): peers.misses},
            metrics.PEERS_LEARNT: {(what.value,): count for what, count in peers.learnt.items()},
            metrics.PEERS_EVICTED: {(): peers.evicted},
            metrics.GIVEN: {
                (str(exposed.port), fate): exposed.given.fates[fate]
                for exposed in controller.exposed.values()
                if exposed.given is not None
                for fate in Fate
            },
            metrics.CAPTURED_SYNS: {(fate.name.lower(),): count for fate, count in controller.clients.fates().items()},
            metrics.HELD_SYNS: {(reason,): count for reason, count in controller.clients.ended.items()},
            metrics.PROGRAMS: {(): controller.clients.running},
            **controller.counts.samples(),
            **_rings(controller),
            **_syn_options(controller.syn_options),
        }
    )


def _by_reason(counters: Mapping[Reason, int]) -> Samples:
    return {(reason.name,): count for reason, count in counters.items()}


def _rings(controller: Controller) -> Mapping[Family, Samples]:
    rings = controller.endpoint.port.ring_statistics()
    return {
        family: {(str(ring.queue),): getattr(ring, attribute) for ring in rings}
        for attribute, family in metrics.RINGS.items()
    }


def _syn_options(options: SynOptions | None) -> Mapping[Family, Samples]:
    if options is None:
        return {}
    return {
        metrics.SYN_OPTIONS: {(result,): count for result, count in options.counts().items()},
        metrics.SYN_SLOTS: {(): options.in_use},
    }
