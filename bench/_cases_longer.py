# SPDX-License-Identifier: Apache-2.0
"""What three steps are not enough for, or who chooses in them. The protocols are those of bench/plugins."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from _site import BARE_PORT
from _stage import Once, Stage, case

# By number: a program's policy knows the names of what it has itself.
_CHAIN = [f"0x7e00b00{place}" for place in range(1, 5)]
_OFFERED = ["0x7e00b011", "0x7e00b012"]


def _chain(length: int) -> str:
    return "/".join([*reversed(_CHAIN[:length]), "tcp"])


def _bare(stage: Stage, *stacks: str, **policy: Any) -> Iterator[Once]:
    contact = stage.contact()
    wanted: dict[str, Any] = {"secure": "no", "prefer": list(stacks), "only": True, "tcp": "no-syn", **policy}
    yield lambda: stage.connection(contact, BARE_PORT, **wanted)


@case("initiator-choice", minimum=1)
def initiator_choice(stage: Stage) -> Iterator[Once]:
    """The responder offers two protocols above TCP, and the initiator's choice is the commit."""
    yield from _bare(stage, *[f"{each}/tcp" for each in _OFFERED], choose=_OFFERED)


@case("deferred", minimum=2)
def deferred(stage: Stage) -> Iterator[Once]:
    """TLS over TCP, of which the proposal shows TCP."""
    contact = stage.contact()
    policy: dict[str, Any] = {
        "secure": "required",
        "prefer": ["tls/tcp"],
        "only": True,
        "tcp": "no-syn",
        "defer": ["tls"],
    }
    yield lambda: stage.connection(contact, **policy)


@case("chain-1", minimum=1)
def chain_1(stage: Stage) -> Iterator[Once]:
    """A protocol above TCP that needs nothing of it."""
    yield from _bare(stage, _chain(1))


@case("chain-2", minimum=2)
def chain_2(stage: Stage) -> Iterator[Once]:
    """Two protocols, of which the upper one needs the lower one's answer."""
    yield from _bare(stage, _chain(2))


@case("chain-3", minimum=3)
def chain_3(stage: Stage) -> Iterator[Once]:
    """Three of them."""
    yield from _bare(stage, _chain(3))


@case("chain-4", minimum=4)
def chain_4(stage: Stage) -> Iterator[Once]:
    """Four: as many as ten steps have room for."""
    yield from _bare(stage, _chain(4))
