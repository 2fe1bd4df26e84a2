# SPDX-License-Identifier: Apache-2.0
"""Both hosts propose at once."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

from _stage import Once, Stage, case

from accord.lab.hosts import SERVER_NAME
from accord.protocols.authority import issue

_FIRST_PORT = 20_000
_PORTS = 10_000
_LEAD_SECONDS = 0.05
"""For both programs to have read their orders."""


@case("peer-to-peer", minimum=1)
def peer_to_peer(stage: Stage) -> Iterator[Once]:
    """TLS over TCP, from the proposals of both; ready is whoever leads, the other has the commit half a round trip
    later."""
    hosts, lab = stage.site.hosts, stage.lab
    client = issue(hosts.directory, ["client.accord.test"], stem="peer-client")
    workers = [stage.site.worker(host, "_peer.py") for host in (lab.client, lab.server)]
    names = ("client.accord.test", SERVER_NAME)
    files = ((client.certificate, client.private_key), (hosts.certificate, hosts.key))
    numbers = itertools.count()

    def once() -> float:
        number = next(numbers)
        port = _FIRST_PORT + number % _PORTS
        at = time.monotonic() + _LEAD_SECONDS
        for side, (worker, host) in enumerate(zip(workers, (lab.client, lab.server), strict=True)):
            other = lab.server if host is lab.client else lab.client
            order = {
                "at": at,
                "port": port,
                "peer": [other.address4, port],
                "name": f"bench {number}",
                "policy": {"secure": "required", "prefer": ["tls/tcp"], "only": True},
                "expects": names[1 - side],
                "ca_file": str(hosts.ca),
                "certificate": str(files[side][0]),
                "private_key": str(files[side][1]),
                "control": str(hosts.control(host)),
            }
            worker.tell(order)
        found = [worker.read() for worker in workers]
        failures = [str(each.get("failure", each)) for each in found if not each["ok"] or not each.get("heard")]
        if failures:
            raise RuntimeError("; ".join(failures))
        if found[0]["stack"] != found[1]["stack"] or found[0]["stack"] != ["http", "tls", "tcp"]:
            raise RuntimeError(f"met over {found[0]['stack']} and {found[1]['stack']}")
        (leader,) = (each for each in found if each["role"] == "initiator")
        return float(leader["ready_ms"]) / 1000

    yield once
