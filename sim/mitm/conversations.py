# SPDX-License-Identifier: Apache-2.0
"""The conversations that he is in the middle of: one of each kind of exchange."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from accord.protocols.sealed.configuration import encode_list
from sim.host import EARLY_WINDOW_SECONDS, HOST_KEY
from sim.scenario import SECOND, Call, HostSpec, Meet, Scenario

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
    negotiated: bool = True
    meets: bool = False
    """Nobody calls and nobody serves: the two call each other."""
    begins: int = 0
    """When it is called, microseconds."""
    adapt: Callable[[Scenario], Scenario] = lambda scenario: scenario

    def scenario(self, seed: int) -> Scenario:
        """Two hosts, and one call."""
        call = Call(self.begins, 0, 1, self.wishes, 60.0, 64, early=self.early)
        made = Scenario(seed, self.real_tls, (self.initiator, self.responder), (call,), (), _DELAYS, 600)
        if self.meets:
            made = replace(made, calls=(), meetings=(Meet(0, 0, 1, 0, self.wishes),))
        return self.adapt(made)


_LAYERED: Final = (*_USUAL, "framing", "compression")
_NO_SYN: Final = ("tcp", "no-syn")
_PARALLEL: Final = ("tcp", "parallel-syn")
_BARE: Final = frozenset({"http/tcp", "tcp"})
_INNER: Final = (*_USUAL, "inner")
_SEALS: Final = HostSpec(policy=_STRICT, plugins=_INNER)
_OPENS: Final = HostSpec(policy=_LENIENT, plugins=_INNER)
_HIDES: Final = (_NO_SYN, ("inner", "required"))
_KEY: Final = base64.b64encode(encode_list([HOST_KEY.configuration])).decode()
_WRONG_KEY: Final = base64.b64encode(
    encode_list([replace(HOST_KEY.configuration, public_key=bytes((9, *range(1, 32))))])
).decode()
_SEALED: Final = frozenset({"http/inner/tls/tcp"})
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
    Conversation(
        "asked for a cookie",
        "http/tls/tcp",
        (_NO_SYN, ("fallback", "delayed")),
        adapt=lambda scenario: replace(scenario, flooded=frozenset({1})),
    ),
    Conversation(
        "without memory",
        "http/tls/tcp",
        (_PARALLEL, ("fallback", "never"), ("packets_min", 1)),  # no longer than that may the answer be
        responder=HostSpec(policy=_STRICT),
        adapt=lambda scenario: replace(scenario, unkept=frozenset({1})),
        floor=frozenset({"http/tls/tcp"}),
    ),
    Conversation(
        "without memory, no security",
        "http/tcp",
        (_PARALLEL, ("fallback", "never"), ("secure", "no"), ("prefer", ["tcp"]), ("only", True)),
        HostSpec(policy=_LENIENT),
        adapt=lambda scenario: replace(scenario, unkept=frozenset({1})),
        floor=_BARE,
    ),
    Conversation(
        "without memory, silent at first",  # so that what nobody has may be agreed anew (PROTOCOL.md, section 22.1)
        "http/tls/tcp",
        (_PARALLEL, ("fallback", "never"), ("packets_min", 1)),
        responder=HostSpec(policy=_STRICT),
        adapt=lambda scenario: replace(
            scenario, unkept=frozenset({1}), calls=tuple(replace(call, silence=0.3) for call in scenario.calls)
        ),
        floor=frozenset({"http/tls/tcp"}),
    ),
    Conversation(
        "a peer without Accord",
        "tls/tcp",
        (_PARALLEL, ("fallback", "parallel")),
        responder=HostSpec(accord=False),
        negotiated=False,
        floor=frozenset({"tls/tcp"}),
    ),
    Conversation("inner, key known", "http/inner/tls/tcp", (*_HIDES, ("key", _KEY)), _SEALS, _OPENS, _SEALED),
    Conversation("inner, wrong key", "http/inner/tls/tcp", (*_HIDES, ("key", _WRONG_KEY)), _SEALS, _OPENS, _SEALED),
    Conversation("inner, key asked for", "http/inner/tls/tcp", _HIDES, _SEALS, _OPENS, _SEALED),
    Conversation(
        "inner, early request",
        "http/inner/tls/tcp",
        (*_HIDES, ("key", _KEY), ("early", "idempotent")),
        _SEALS,
        _OPENS,
        _SEALED,
        early=True,
        begins=(EARLY_WINDOW_SECONDS + 1) * SECOND,
    ),
    Conversation("peer to peer", "http/tls/tcp", (), _CALLS, _CALLS, frozenset({"http/tls/tcp"}), meets=True),
)
