# SPDX-License-Identifier: Apache-2.0
"""The policy: which stacks a host wants and allows, for which peers (HotNets 2009, section 4). docs/POLICY.md.

A file has a ``[default]`` table and any number of ``[[destination]]`` tables with the same keys. The first
destination that matches a peer rules, and what it leaves out comes from the default. An application may ask
for other values, but cannot take back what the file says (``EffectivePolicy.override``).
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from accord.controller.settings import stacks
from accord.controller.settings.destination import Pattern, parse_pattern
from accord.controller.settings.stacks import PROTOCOLS, SECURE, StackIds
from accord.controller.settings.toml import Document, Table
from accord.negotiation.choice import CandidateStack
from accord.wire.constants import Limit, Reason
from accord.wire.errors import error


class Secure(enum.StrEnum):
    """What is asked of a stack's security, weakest first."""

    NO = "no"
    PREFERRED = "preferred"
    REQUIRED = "required"


class Context(enum.StrEnum):
    """What the negotiation packets travel in."""

    UDP = "udp"
    DIRECT = "direct"


class Fallback(enum.StrEnum):
    """When the plain connection is tried, for peers without Accord."""

    PARALLEL = "parallel"
    DELAYED = "delayed"
    NEVER = "never"


class TcpOpen(enum.StrEnum):
    """How the connection of a negotiated TCP comes to be."""

    AUTO = "auto"
    NO_SYN = "no-syn"
    PARALLEL_SYN = "parallel-syn"


class Early(enum.StrEnum):
    """Whether the first request may travel in the proposal."""

    NEVER = "never"
    IDEMPOTENT = "idempotent"


def _names(kind: type[enum.StrEnum]) -> dict[str, Any]:
    return {member.value: member for member in kind}


_SECURITY_ORDER: Final = tuple(Secure)
_REMEMBERED_WISHES: Final = 64
_REMEMBERED_LETTERS: Final = 1024
_KEYS: Final = ("secure", "prefer", "only", "context", "fallback", "tcp", "early", "packets_min")


@dataclass(frozen=True, slots=True)
class EffectivePolicy:
    """What holds for one peer; the negotiation's ``Chooser``. Defaults are those of a host without a policy file."""

    secure: Secure = Secure.REQUIRED
    prefer: tuple[StackIds, ...] = stacks.USUAL
    """Best first; each from bottom to top, as a rule without its application node."""
    only: bool = False
    """Stacks that are not in ``prefer`` are forbidden."""
    context: Context = Context.UDP
    fallback: Fallback = Fallback.PARALLEL
    tcp: TcpOpen = TcpOpen.AUTO
    early: Early = Early.NEVER
    packets_min: int = 0
    """Packets of 1200 bytes that a proposal is padded to, so that its answer may be longer."""
    fixed: frozenset[str] = field(default=frozenset(), compare=False)
    """Keys that the policy file sets: an application cannot take them back."""
    protocols: Mapping[str, int] = field(default_factory=lambda: PROTOCOLS, compare=False, repr=False)

    @property
    def early_in_clear(self) -> bool:
        """Whether the request may go into the proposal, where everybody on the path reads it."""
        return self.early is Early.IDEMPOTENT and self.secure is Secure.NO

    def order(self, stacks: Sequence[CandidateStack]) -> Sequence[CandidateStack]:
        """The allowed stacks, best first. The order, each rule for those that the rules before leave equal:

        1. secure before insecure, unless ``secure = "no"``;
        2. the place in ``prefer``; what is not listed comes after all that is;
        3. the peer's preference, as the initiator's PREFERENCE values tell it, higher first;
        4. fewer nodes;
        5. lower protocol IDs, then lower node IDs, from the bottom: arbitrary, but the same on every host.
        """
        return sorted((stack for stack in stacks if self._objection(stack) is None), key=self._rank)

    def refusal(self, stacks: Sequence[CandidateStack]) -> Reason:
        """Why none of ``stacks`` is allowed; INSECURE when security is all that one of them lacks."""
        objections = [self._objection(stack) for stack in stacks]
        if Reason.INSECURE in objections:
            return Reason.INSECURE
        return Reason.POLICY if stacks else Reason.NO_COMMON_STACK

    def stacks_wanted(self, available: Collection[str], secure: Collection[int] = SECURE) -> list[tuple[str, ...]]:
        """The stacks to propose, best first, as protocol names from bottom to top without the application node.

        ``available``: names of the plug-ins that work on this host; ``secure``: IDs of those that secure a stack.
        """
        ids = {self.protocols[name] for name in available if name in self.protocols}
        wanted = [stacks.without_application(stack) for stack in self.prefer]
        if not self.only:
            wanted += stacks.USUAL
        usable = [
            stack
            for stack in dict.fromkeys(stacks.usable(wanted, ids))
            if self.secure is not Secure.REQUIRED or any(number in secure for number in stack)
        ]
        if self.secure is Secure.PREFERRED:
            usable.sort(key=lambda stack: not any(number in secure for number in stack))
        names = {number: name for name, number in self.protocols.items()}
        return [tuple(names[number] for number in stack) for stack in usable]

    def override(self, wishes: Mapping[str, Any]) -> EffectivePolicy:
        """This policy with an application's wishes, which use the file's keys.

        Raises ``UserError``: BAD_CONFIG for a wish that cannot be read, POLICY for one that takes back what the
        policy file says: less security, a stack outside of ``only``, a fallback or early data where it says never,
        connections without a SYN where it says that they have one.
        """
        # For programs, which check the same wishes before each connection. The daemon remembers what they come to
        # for a destination anyway (Controller._policy_for).
        words = repr(wishes)
        key = (self, self.fixed, tuple(self.protocols.items()), words)
        known = _overridden.get(key)
        if known is None:
            known = self._override(wishes)
            if len(_overridden) >= _REMEMBERED_WISHES:
                _overridden.clear()
            if len(words) <= _REMEMBERED_LETTERS:
                _overridden[key] = known
        return known

    def _override(self, wishes: Mapping[str, Any]) -> EffectivePolicy:
        document = Document("", "policy of the application")
        table = Table(document, (), wishes)
        wished = _read(table, self, self.protocols)
        table.finish()
        document.finish()
        forbidden = {
            "secure": "secure" in self.fixed
            and _SECURITY_ORDER.index(wished.secure) < _SECURITY_ORDER.index(self.secure),
            "only": "only" in self.fixed and self.only and not wished.only,
            "prefer": "only" in self.fixed and self.only and not set(wished.prefer) <= set(self.prefer),
            "fallback": "fallback" in self.fixed and Fallback.NEVER is self.fallback is not wished.fallback,
            "tcp": "tcp" in self.fixed and TcpOpen.PARALLEL_SYN is self.tcp is not wished.tcp,
            "early": "early" in self.fixed and Early.NEVER is self.early is not wished.early,
        }
        for key, is_forbidden in forbidden.items():
            if is_forbidden:
                raise error(
                    Reason.POLICY,
                    f"the application asks for {key} = {wishes[key]!r}",
                    "ask for no less than this host's policy file demands, or change the file",
                )
        return replace(wished, fixed=self.fixed)

    def _objection(self, stack: CandidateStack) -> Reason | None:
        if self.secure is Secure.REQUIRED and not stack.secure:
            return Reason.INSECURE
        if self.only and self._place(stack) == len(self.prefer):
            return Reason.POLICY
        return None

    def _rank(self, stack: CandidateStack) -> tuple[bool, int, int, int, tuple[int, ...], tuple[int, ...]]:
        return (
            self.secure is not Secure.NO and not stack.secure,
            self._place(stack),
            -stack.preference,
            len(stack.ids),
            stack.protocols,
            stack.ids,
        )

    def _place(self, stack: CandidateStack) -> int:
        below = stacks.without_application(stack.protocols)
        return next(
            (place for place, listed in enumerate(self.prefer) if listed in (below, stack.protocols)), len(self.prefer)
        )


_overridden: dict[tuple[EffectivePolicy, frozenset[str], tuple[tuple[str, int], ...], str], EffectivePolicy] = {}
"""By all that the outcome depends on: two policies are equal whatever their ``fixed`` and ``protocols`` are."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One ``[[destination]]``: for whom, and what holds for them."""

    match: tuple[Pattern, ...]
    policy: EffectivePolicy


@dataclass(frozen=True, slots=True)
class Policy:
    """A whole policy file."""

    default: EffectivePolicy = field(default_factory=EffectivePolicy)
    rules: tuple[Rule, ...] = ()

    def for_destination(self, host: str, port: int, address: str | None = None) -> EffectivePolicy:
        """What holds for a peer: the first rule that matches, else the default.

        ``host``: a name or a textual address; ``address``: what the name resolved to, for rules with networks.
        """
        for rule in self.rules:
            if any(pattern.matches(host, port, address) for pattern in rule.match):
                return rule.policy
        return self.default


def load_policy(path: Path, protocols: Mapping[str, int] = PROTOCOLS) -> Policy:
    """The policy of a file. ``protocols``: IDs by name, plug-ins included.

    Raises ``UserError`` (BAD_CONFIG), with a line of text for everything that is wrong with the file.
    """
    return _finished(Document.read(path), protocols)


def parse_policy(text: str, name: str = "policy", protocols: Mapping[str, int] = PROTOCOLS) -> Policy:
    """As ``load_policy``, of a text that errors call ``name``."""
    return _finished(Document(text, name), protocols)


def read_policy(top: Table, protocols: Mapping[str, int] = PROTOCOLS) -> Policy:
    """The ``default`` and ``destination`` tables below ``top``; what is wrong is noted in its document."""
    default = EffectivePolicy(protocols=protocols)
    table = top.table("default")
    if table is not None:
        default = _read(table, default, protocols)
        table.finish()
    rules = []
    for destination in top.tables("destination"):
        if "match" not in destination:
            destination.note("match", "is missing", 'say for which peers this is: match = ["10.0.0.0/8"]')
        match = destination.strings("match", parse_pattern, ())
        rules.append(Rule(match, _read(destination, default, protocols)))
        destination.finish()
    return Policy(default, tuple(rules))


def _finished(document: Document, protocols: Mapping[str, int]) -> Policy:
    top = document.top
    policy = read_policy(top, protocols)
    top.finish()
    document.finish()
    return policy


def _read(table: Table, base: EffectivePolicy, protocols: Mapping[str, int]) -> EffectivePolicy:
    """``base`` with the keys that the table has."""
    present = frozenset(key for key in _KEYS if key in table)
    prefer = table.strings("prefer", lambda text: stacks.parse_stack(text, protocols), base.prefer)
    if len(set(prefer)) != len(prefer):
        table.note("prefer", "a stack is listed twice", "list each once, best first")
    only = table.boolean("only", base.only)
    if only and not prefer:
        table.note("prefer", "is empty while only = true: no stack would be allowed", "list the stacks that are")
    return EffectivePolicy(
        secure=table.choice("secure", _names(Secure), base.secure),
        prefer=prefer,
        only=only,
        context=table.choice("context", _names(Context), base.context),
        fallback=table.choice("fallback", _names(Fallback), base.fallback),
        tcp=table.choice("tcp", _names(TcpOpen), base.tcp),
        early=table.choice("early", _names(Early), base.early),
        packets_min=table.integer("packets_min", 0, Limit.INITIAL_WINDOW, base.packets_min),
        fixed=base.fixed | present,
        protocols=protocols,
    )
