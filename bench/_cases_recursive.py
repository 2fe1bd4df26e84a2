# SPDX-License-Identifier: Apache-2.0
"""A negotiation inside another one: the peer's key known, unknown, and guessed wrong; a sealed request in the first
message, whose row is the time until the first byte of the response."""

from __future__ import annotations

import base64
import sys
import time
from collections.abc import Iterator
from typing import Any

from _site import ACCORD_PORT, BARE_PORT, EARLY_WINDOW_S, Worker
from _stage import Once, Stage, case

from accord.protocols.sealed.configuration import Aead, Kem
from accord.protocols.sealed.host_keys import make

_STACK = ["http", "inner", "tls", "tcp"]
_EARLY_PORT = 4443
_SERVICE_PORT = 7000


def _ready(stage: Stage, contact: Worker, port: int, **policy: Any) -> float:
    wished = {"fallback": "never", "inner": "required", "prefer": ["tls/tcp"], "tcp": "no-syn", **policy}
    found = contact.ask(stage.site.order("accord", port, policy=wished, timeout=15, pause=0.05))
    if not found["ok"] or found["stack"] != _STACK:
        raise RuntimeError(f"a connection failed: {found.get('failure', found.get('stack'))}")
    return float(found["ready_ms"]) / 1000


@case("recursive-known", minimum=1)
def known(stage: Stage) -> Iterator[Once]:
    """The key that the peer gave in the connection before, which is the one of the setting up."""
    contact = stage.contact()
    yield lambda: _ready(stage, contact, ACCORD_PORT)


@case("recursive-unknown", minimum=2)
def unknown(stage: Stage) -> Iterator[Once]:
    """The peer is asked, because it has been forgotten: on a port of its own, for the other cases remember theirs."""
    contact, site = stage.contact(), stage.site
    addresses = [stage.lab.server.address4]

    def once() -> float:
        site.daemon_says(stage.lab.client, op="flush_peers", addresses=addresses, port=BARE_PORT)
        return _ready(stage, contact, BARE_PORT)

    yield once


@case("recursive-wrong", minimum=2)
def wrong(stage: Stage) -> Iterator[Once]:
    """Sealed to a key that is not the peer's, of the algorithm that it has and of another one, by turns."""
    contact = stage.contact()
    made = [make(kem, Aead.CHACHA20_POLY1305, time.time()).configuration.encode() for kem in Kem]
    pins = [base64.b64encode(each).decode() for each in made]

    def once() -> float:
        pins.append(pins.pop(0))
        return _ready(stage, contact, ACCORD_PORT, key=pins[0])

    yield once


@case("recursive-early", minimum=1)
def early(stage: Stage) -> Iterator[Once]:
    """From the call until the first byte of the response to a request that was sealed in the first message."""
    hosts, lab = stage.site.hosts, stage.lab
    command = [sys.executable, "-m", "accord.cli.main", "expose", "--listen", str(_EARLY_PORT)]
    command += ["--to", f"127.0.0.1:{_SERVICE_PORT}", "--early-limit", "4096", "--secure", "required"]
    command += ["--certificate", str(hosts.certificate), "--private-key", str(hosts.key)]
    hosts.start(lab.server, [*command, "--control", str(hosts.control(lab.server))], ready="exposed")
    contact = stage.contact()
    # Nothing of it is made ahead, so only what is wanted: a QUIC Initial would cost as much again.
    policy = {"fallback": "never", "inner": "required", "prefer": ["tls/tcp"], "only": True, "tcp": "no-syn"}
    policy["early"] = "idempotent"
    order = stage.site.order("early", _EARLY_PORT, policy=policy, timeout=15, pause=0.05)

    def ask() -> dict[str, Any]:
        found = contact.ask(order)
        if not found["ok"] or found["stack"] != _STACK:
            raise RuntimeError(f"a connection failed: {found.get('failure', found.get('stack'))}")
        return found

    ask()  # learns the key
    time.sleep(2 * EARLY_WINDOW_S)

    def once() -> float:
        found = ask()
        if not found["early"]:
            raise RuntimeError("the request was not served early")
        return float(found["first_ms"]) / 1000

    yield once
