# SPDX-License-Identifier: Apache-2.0
"""A long server flight over a link that loses packets: Accord's negotiation and aioquic's handshake, in turns.

Both verify the same certificate chain over the same link; the time is from the call until application data may be sent.
Of ``accord`` both know each other, of ``accord_first`` neither knows anything any more; ``quic`` is aioquic with what
it has by itself.
"""

from __future__ import annotations

import json
import math
import random
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import _chain
from _site import ACCORD_PORT, Site, Worker

from accord.lab.hosts import SERVER_NAME
from accord.lab.lab import Lab

LOSSES: Final = (0.0, 1.0, 5.0, 10.0)
"""Per cent, each way."""
KINDS: Final = ("accord", "accord_first", "quic")
_QUIC_PORT: Final = 4433
_PATIENCE: Final = 15.0
_RESAMPLES: Final = 1000
_POLICY: Final = {"secure": "required", "prefer": ["tls/tcp"], "only": True, "fallback": "never", "tcp": "no-syn"}


class Flights:
    """The two hosts with a long certificate chain."""

    def __init__(self, lab: Lab, site: Site, directory: Path, size: int) -> None:
        self._lab = lab
        self._site = site
        self.chain = _chain.make(directory / "chain", [SERVER_NAME, lab.server.address4], size)
        site.hosts.ca, site.hosts.certificate, site.hosts.key = self.chain.root, self.chain.certificate, self.chain.key
        for path in (directory / "chain").iterdir():
            path.chmod(0o644)
        site.daemon(lab.server)
        site.daemon(lab.client)
        self._contact = site.worker(lab.client, "_contact.py")
        spec = {
            "host": lab.server.address4,
            "port": _QUIC_PORT,
            "certificate": str(self.chain.certificate),
            "key": str(self.chain.key),
        }
        site.worker(lab.server, "_quic.py", "serve", json.dumps(spec)).wait_ready()
        self._quic: Worker = site.worker(lab.client, "_quic.py", "ask")

    def at(self, loss: float, runs: int, step: Callable[[str], None]) -> dict[str, Any]:
        """One row; ``loss`` in per cent."""
        self._lab.change(loss=loss / 100)
        for _ in range(3):  # so that the peer is known, and whatever is made at first use is made
            self._one("accord")
            self._one("quic")
        found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
        for number in range(runs):
            # Who follows whom changes: the one after finds warm caches.
            for kind in KINDS[number % len(KINDS) :] + KINDS[: number % len(KINDS)]:
                step(f"flight, {loss:g} % loss")
                found[kind].append(self._one(kind))
                if kind == "accord_first":
                    self._one("accord")
        times = {kind: [each["ready_ms"] for each in of if each["ok"]] for kind, of in found.items()}
        row: dict[str, Any] = {"loss_percent": loss, "bytes": self.chain.size, "n": runs}
        for kind in KINDS:
            row[kind] = summary(times[kind])
            failures = [each["failure"] for each in found[kind] if not each["ok"]]
            row[kind]["failed"] = len(failures)
            if failures:
                row[kind]["failures"] = sorted(set(failures))[:3]
        row["faster_ms"] = difference(times["quic"], times["accord"])
        row["first_faster_ms"] = difference(times["quic"], times["accord_first"])
        return row

    def _one(self, kind: str) -> dict[str, Any]:
        if kind == "quic":
            order = {
                "host": self._lab.server.address4,
                "port": _QUIC_PORT,
                "server_name": SERVER_NAME,
                "ca_file": str(self.chain.root),
                "timeout": _PATIENCE,
            }
            return self._quic.ask(order)
        if kind == "accord_first":
            for host in (self._lab.client, self._lab.server):
                self._site.flush(host)
        return self._contact.ask(self._site.order("accord", ACCORD_PORT, policy=_POLICY, timeout=_PATIENCE, pause=0.05))


def summary(times: Sequence[float]) -> dict[str, Any]:
    """Milliseconds."""
    if not times:
        return {"median_ms": None, "p95_ms": None, "spread_ms": []}
    ordered = sorted(times)
    return {
        "median_ms": round(statistics.median(ordered), 2),
        "p95_ms": round(ordered[max(0, math.ceil(0.95 * len(ordered)) - 1)], 2),
        "mean_ms": round(statistics.fmean(ordered), 2),
        "spread_ms": [round(ordered[0], 2), round(ordered[-1], 2)],
    }


def difference(theirs: Sequence[float], ours: Sequence[float]) -> dict[str, Any]:
    """By how much ours is sooner, milliseconds: medians and means, each with a range that has 95 of 100 bootstrap
    samples."""
    if not theirs or not ours:
        return {}
    chance = random.Random(1)
    found: dict[str, Any] = {}
    for name, measure in (("median", statistics.median), ("mean", statistics.fmean)):
        drawn = sorted(
            measure(chance.choices(theirs, k=len(theirs))) - measure(chance.choices(ours, k=len(ours)))
            for _ in range(_RESAMPLES)
        )
        found[name] = round(measure(theirs) - measure(ours), 2)
        found[f"{name}_range"] = [
            round(drawn[round(0.025 * _RESAMPLES)], 2),
            round(drawn[round(0.975 * _RESAMPLES) - 1], 2),
        ]
    return found
