# SPDX-License-Identifier: Apache-2.0
"""The conversations that he is in the middle of: one of each kind of exchange."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from sim.scenario import Call, HostSpec, Scenario

_DELAYS: Final = ((50, 10_000), (10_000, 50))
_STRICT, _PREFERS, _LENIENT = 0, 1, 2
"""Indexes into ``scenario.POLICIES``: security required, preferred, not asked for."""
_USUAL: Final = ("tcp", "tls", "http")
_CALLS: Final = HostSpec(policy=_STRICT)
_ANSWERS: Final = HostSpec(policy=_LENIENT)


@dataclass(frozen=True, slots=True)
class Conversation:
    """One kind. ``stack``: what comes of it when nobody touches it, top first."""

    name: str
    stack: str
    wishes: tuple[tuple[str, Any], ...] = ()
    initiator: HostSpec = _CALLS
    responder: HostSpec = _ANSWERS
    floor: frozenset[str] = frozenset({"http/tls/tcp", "tls/tcp"})
    """Stacks that both policies allow, the plain connection's among them."""
    real_tls: bool = False
    early: bool = False
    adapt: Callable[[Scenario], Scenario] = lambda scenario: scenario

    def scenario(self, seed: int) -> Scenario:
        """Two hosts, and one call."""
        call = Call(0, 0, 1, self.wishes, 60.0, 64, early=self.early)
        made = Scenario(seed, self.real_tls, (self.initiator, self.responder), (call,), (), _DELAYS, 600)
        return self.adapt(made)


_LAYERED: Final = (*_USUAL, "framing", "compression")
_NO_SYN: Final = ("tcp", "no-syn")
_PARALLEL: Final = ("tcp", "parallel-syn")
_BARE: Final = frozenset({"http/tcp", "tcp"})
_ANY: Final = frozenset({"http/tls/tcp", "tls/tcp", *_BARE})

CONVERSATIONS: Final[tuple[Conversation, ...]] = (
    Conversation("three steps", "http/tls/tcp", (_NO_SYN, ("fallback", "delayed"))),
    Conversation("parallel SYN", "http/tls/tcp", (_PARALLEL, ("fallback", "parallel"))),
    Conversation("OpenSSL", "http/tls/tcp", (_NO_SYN, ("fallback", "never")), real_tls=True),
    Conversation(
        "alternatives",
        "http/framing/tls/tcp",
        (_NO_SYN, ("fallback", "parallel"), ("prefer", ["framing/tls/tcp", "tls/tcp"])),
        HostSpec(policy=_STRICT, plugins=_LAYERED),
        HostSpec(policy=_STRICT, plugins=_LAYERED),
        floor=frozenset({"http/framing/tls/tcp", "http/tls/tcp", "tls/tcp"}),
    ),
    Conversation(
        "security preferred",
        "http/tls/tcp",
        (_NO_SYN, ("fallback", "parallel"), ("secure", "preferred")),
        HostSpec(policy=_PREFERS),
        HostSpec(policy=_PREFERS),
        floor=_ANY,
    ),
    Conversation(
        "no security",
        "http/tcp",
        (_NO_SYN, ("fallback", "never"), ("secure", "no"), ("prefer", ["tcp"]), ("only", True)),
        HostSpec(policy=_LENIENT),
        floor=_BARE,
    ),
    Conversation(
        "early data",
        "http/tcp",
        (_NO_SYN, ("fallback", "never"), ("secure", "no"), ("prefer", ["tcp"]), ("early", "idempotent")),
        HostSpec(policy=_LENIENT),
        floor=_ANY,
        early=True,
    ),
    Conversation(
        "deferred",
        "http/tls/tcp",
        (_NO_SYN, ("fallback", "never"), ("defer", ["tls"])),
        floor=frozenset({"http/tls/tcp"}),
    ),
    Conversation(
        "initiator choice",
        "http/tls/tcp",
        (
            _NO_SYN,
            ("fallback", "never"),
            ("choose", ["tls", "framing"]),
            ("prefer", ["framing/tls/tcp", "tls/tcp"]),
        ),
        HostSpec(policy=_STRICT, plugins=_LAYERED),
        HostSpec(policy=_LENIENT, plugins=_LAYERED),
        floor=frozenset({"http/tls/tcp"}),
    ),
    Conversation(
        "another share",
        "http/tls/tcp",
        (_NO_SYN, ("fallback", "never")),
        adapt=lambda scenario: replace(scenario, retries=True),
        floor=frozenset({"http/tls/tcp"}),
    ),
    Conversation(
        "QUIC",
        "http/quic",
        (("fallback", "never"), ("prefer", ["quic", "tls/tcp"])),
        HostSpec(policy=_STRICT, plugins=(*_USUAL, "quic")),
        HostSpec(policy=_STRICT, plugins=(*_USUAL, "quic")),
        floor=frozenset({"http/quic", "http/tls/tcp"}),
    ),
    Conversation(
        "re-negotiation",
        "http/tls/tcp",
        (_NO_SYN, ("fallback", "never"), ("renegotiate", True)),
        floor=frozenset({"http/tls/tcp"}),
        adapt=lambda scenario: replace(
            scenario, calls=tuple(replace(call, renegotiations=2, request=600) for call in scenario.calls)
        ),
    ),
)
