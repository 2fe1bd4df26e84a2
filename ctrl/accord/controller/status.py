# SPDX-License-Identifier: Apache-2.0
"""What a running controller has and does, for people and programs: ``accord status``, and the daemon's first lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from accord.controller import plugin_guard
from accord.datapath import clock
from accord.datapath.attach import consequence
from accord.datapath.engine import Level

if TYPE_CHECKING:
    from accord.controller.controller import Controller
    from accord.controller.exposed import Exposed

_ASSOCIATIONS_SHOWN = 200
"""As many as fit into a message of the control socket beside the rest."""


def status(controller: Controller) -> dict[str, Any]:
    """Everything that ``accord status`` shows."""
    endpoint, strangers, clients = controller.endpoint, controller.strangers, controller.clients
    report = endpoint.port.report
    return {
        "interface": controller.config.interface if controller.link is None else controller.link.name,
        "interface_changes": 0 if controller.link is None else controller.link.changes,
        "back_end": controller.back_end,
        "attach_mode": controller.attach_mode,
        "attached": endpoint.port.attached,
        "attach_reason": endpoint.plan.why,
        "attach_consequence": _consequence(controller),
        "queues": report.queues,
        "program_id": report.program_id,
        "busy_poll_us": report.busy_poll_us,
        "rungs_refused": [
            {"rung": rung.name, "reason": refusal.reason.name, "detail": refusal.detail}
            for rung, refusal in report.refusals.items()
        ],
        "syn_option": controller.syn_refusal or str(controller.syn_options),
        "engine_bytes": endpoint.engine.bytes,
        "negotiations": endpoint.engine.transactions,
        "load": _load(controller),
        "in_flight": endpoint.in_flight,
        "strangers": {
            "answers": strangers.answers,
            "slotless": strangers.slotless,
            "commits": strangers.commits,
            "deferred": dict(strangers.deferred),
        },
        "unmodified": {
            "programs": clients.running,
            "syns": {fate.name.lower(): count for fate, count in clients.fates().items()},
            "ended": dict(clients.ended),
        },
        "associations": controller.associations.rows(_ASSOCIATIONS_SHOWN),
        "associations_more": max(0, len(controller.associations) - _ASSOCIATIONS_SHOWN),
        "plugins": sorted(controller.plugins),
        "plugin_troubles": plugin_guard.describe(controller.guard),
        "networks_over_budget": controller.prefixes.refused,
        "sealing_keys": [key.name for key in controller.recursion.keys.published],
        "early_refused": controller.recursion.replay.refused,
        "listeners": [_listener(exposed) for exposed in controller.exposed.values()],
        "counters": {
            "steering": {reason.name: count for reason, count in endpoint.port.counters().items()},
            "engine": {reason.name: count for reason, count in endpoint.engine.counters().items()},
            "negotiation": controller.counts.by_reason(),
        },
    }


def headline(controller: Controller) -> str:
    """One line for people: what was attached to, and how."""
    where = controller.config.interface or "no interface"
    queues = controller.endpoint.port.report.queues
    how = f"{where}, {controller.back_end}, attach {controller.attach_mode}"
    return f"{how}, {queues} queue(s)" if queues else how


def attach_notes(controller: Controller) -> list[str]:
    """Lines for people, after ``headline``: what the attachment costs others, and why it is no better one."""
    endpoint = controller.endpoint
    if controller.link is None and controller.config.interface is not None:
        return ["attach: when the daemon before this one has no negotiation in flight any more"]
    notes = [f"attach {controller.attach_mode}: {_consequence(controller)}"]
    if controller.config.attach == "auto":
        notes.append(f"attach auto takes {endpoint.plan.why}")
    for rung, refusal in endpoint.port.report.refusals.items():
        notes.append(f"not {rung.name}: {refusal.detail} ({refusal.reason.name})")
    return notes


def _consequence(controller: Controller) -> str:
    """What the attachment costs the others on the interface."""
    return consequence(controller.endpoint.port.report.rung, controller.endpoint.plan.driver)


def _load(controller: Controller) -> dict[str, Any]:
    now, engine = clock.now_us(), controller.endpoint.engine
    load, usage = engine.load(now), engine.usage()
    return {
        "level": int(load.level),
        "gets": load.level.name.lower(),
        "for_s": round((now - load.since) / 1e6, 1),
        "strangers_per_second": load.strangers,
        "places": usage.unproven_limit,
        "places_taken": usage.unproven,
        "raised": {level.name.lower(): load.raised[level] for level in Level if level},
    }


def _listener(exposed: Exposed) -> dict[str, Any]:
    to = exposed.service.name if exposed.service else "listener" if exposed.given else "program"
    given = {} if exposed.given is None else {"given": dict(exposed.given.fates)}
    return {"port": exposed.port, "to": to, **given}
