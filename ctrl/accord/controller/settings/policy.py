# SPDX-License-Identifier: Apache-2.0
"""The policy: which stacks a host wants and allows, for which peers (HotNets 2009, section 4). docs/POLICY.md.

A file has a ``[default]`` table and any number of ``[[destination]]`` tables with the same keys. The first
destination that matches a peer rules, and what it leaves out comes from the default. An application may ask
for other values, but cannot take back what the file says (``EffectivePolicy.override``).
"""

from __future__ import annotations

import base64
import enum
import ipaddress
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from accord.controller.settings import inside, preferences, ranking, stacks, wanted
from accord.controller.settings.destination import Pattern, parse_pattern
from accord.controller.settings.preferences import Words
from accord.controller.settings.stacks import PROTOCOLS, SECURE, StackIds
from accord.controller.settings.toml import Document, Table
from accord.controller.settings.values import Context, Early, Fallback, Inner, OnForcedFallback, Secure, TcpOpen
from accord.negotiation.choice import CandidateStack
from accord.protocols.wishes import NONE, Wishes
from accord.wire.constants import Limit, Protocol, Reason, Word
from accord.wire.errors import error

if TYPE_CHECKING:
    from accord.protocols.sealed.configuration import KeyConfiguration

__all__ = [
    "Context",
    "Early",
    "EffectivePolicy",
    "Fallback",
    "Inner",
    "Policy",
    "Rule",
    "Secure",
    "TcpOpen",
    "load_policy",
    "parse_policy",
    "read_policy",
]


def _names(kind: type[enum.StrEnum]) -> dict[str, Any]:
    return {member.value: member for member in kind}


_SECURITY_ORDER: Final = tuple(Secure)
_REMEMBERED_WISHES: Final = 64
_REMEMBERED_LETTERS: Final = 1024
_BINDING: Final = (Word.FORBIDDEN, Word.REQUIRED)
_KEYS: Final = (
    *("secure", "prefer", "only", "context", "fallback", "on_forced_fallback", "tcp", "early", "packets_min"),
    *("compress_encrypted", "renegotiate", "renegotiate_s", "inner", "key", "defer", "choose", "via"),
)
_MAX_RENEGOTIATE_S: Final = 30 * 24 * 3600


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
    on_forced_fallback: OnForcedFallback = OnForcedFallback.REPORT
    tcp: TcpOpen = TcpOpen.AUTO
    early: Early = Early.NEVER
    packets_min: int = 0
    """Packets of 1200 bytes that a proposal is padded to, so that its answer may be longer."""
    preferences: Words = ()
    """What this host says of protocols."""
    compress_encrypted: bool = False
    """Compression may stand above encryption, where the length of what is sent tells of its contents."""
    renegotiate: bool = False
    """Associations can be re-negotiated whatever their stack, and when the peer wishes it."""
    renegotiate_s: int = 0
    """Seconds after which an association is re-negotiated, again and again; 0: never."""
    inside: Wishes = NONE
    """What is wished of the insides of protocols."""
    inner: Inner = Inner.NO
    keys: tuple[KeyConfiguration, ...] = ()
    """Pinned: what inner negotiations with the peer are sealed to, whatever else is known of it."""
    defer: StackIds = ()
    """Protocols that a proposal does not show: a placeholder stands for them until the peer has answered."""
    choose: StackIds = ()
    """Protocols that the peer is to offer, for this host to choose from."""
    via: str | None = None
    """Out-of-band: the peer's address that negotiation packets go to, on another path than the connection's."""
    fixed: frozenset[str] = field(default=frozenset(), compare=False)
    """Keys that the policy file sets: an application cannot take them back."""
    protocols: Mapping[str, int] = field(default_factory=lambda: PROTOCOLS, compare=False, repr=False)

    def __hash__(self) -> int:
        """Of what mostly tells two policies apart: what is made ahead is found by it, several times a connection."""
        return hash((self.secure, self.prefer, self.only, self.fallback, self.preferences))

    @property
    def early_in_clear(self) -> bool:
        """Whether the request may go into the proposal, where everybody on the path reads it."""
        return self.early is Early.IDEMPOTENT and self.secure is Secure.NO and not self.hides

    @property
    def early_sealed(self) -> bool:
        """Whether the request may go into the sealed part of the proposal."""
        return self.early is Early.IDEMPOTENT and self.hides

    @property
    def hides(self) -> bool:
        """What is above the security node is for the peer alone; so there has to be one, and no plain connection."""
        return self.inner is Inner.REQUIRED

    @property
    def plain(self) -> Fallback:
        """When the plain connection is tried: never, where it lacks or has what the words say."""
        return self.fallback if self.plain_objection is None else Fallback.NEVER

    @property
    def plain_secure(self) -> Secure:
        """What is asked of the plain connection's security."""
        words = dict(self.preferences)
        if words.get(Protocol.TLS13) is Word.REQUIRED:
            return Secure.REQUIRED
        return self.secure

    @property
    def plain_objection(self) -> str | None:
        """Which word excludes a plain connection, TCP with TLS on it or without; None when none does."""
        if self.hides:
            return "it would show what this host's policy hides (inner)"
        words = dict(self.preferences)
        if words.get(Protocol.TCP) is Word.FORBIDDEN:
            return "tcp is forbidden by this host's policy"
        if words.get(Protocol.TLS13) is Word.FORBIDDEN and self.secure is not Secure.NO:
            return "tls is forbidden by this host's policy, and no plain connection is secure without it"
        if (option := self.inside.tcp.binding) is not None:
            return f"this host's policy requires or forbids {option} inside tcp, which nobody negotiates there"
        missing = preferences.lacking(self.preferences, (Protocol.TCP, Protocol.TLS13, *stacks.APPLICATIONS))
        if missing is None:
            return None
        return f"{stacks.format_stack((missing,), self.protocols)}, which this host's policy requires, is not in it"

    @property
    def lasting(self) -> bool:
        """The daemon stays between program and stack, and the context open for the peer's wishes."""
        return self.renegotiate or self.renegotiate_s > 0

    def at_least_secure(self) -> EffectivePolicy:
        """This policy, with nothing insecure in it."""
        return replace(self, secure=Secure.REQUIRED)

    def order(self, stacks: Sequence[CandidateStack]) -> Sequence[CandidateStack]:
        """The allowed stacks, best first. The order, each rule for those that the rules before leave equal:

        1. secure before insecure, unless ``secure = "no"``;
        2. fewer words that say to avoid one of its protocols, this side's and the peer's together;
        3. more words that say to prefer one, likewise;
        4. the place in ``prefer``; what is not listed comes after all that is;
        5. the peer's preference, as the initiator's PREFERENCE values tell it, higher first;
        6. fewer nodes;
        7. lower protocol IDs, then lower node IDs, from the bottom: arbitrary, but the same on every host.
        """
        return ranking.order(self, stacks)

    def refusal(self, stacks: Sequence[CandidateStack]) -> Reason:
        """Why none of ``stacks`` is allowed; INSECURE when security is all that one of them lacks."""
        return ranking.refusal(self, stacks)

    def explain(self, stacks: Sequence[CandidateStack]) -> str:
        """For each of ``stacks`` that is not allowed, whose word excludes it: clauses for people."""
        return ranking.explain(self, stacks)

    def names(self, protocol: int) -> bool:
        """Whether this host wants it: in a stack of ``prefer``, or by a word. Some are in no stack otherwise."""
        listed = any(protocol in stack for stack in self.prefer)
        return listed or self.word_of(protocol) in (Word.PREFERRED, Word.REQUIRED)

    def forbids(self, protocol: int) -> bool:
        """Whether no stack with this protocol is ever allowed."""
        return (protocol, Word.FORBIDDEN) in self.preferences

    def word_of(self, protocol: int) -> Word:
        """What this host says of a protocol."""
        return dict(self.preferences).get(protocol, Word.NEUTRAL)

    def stacks_wanted(self, available: Collection[str], secure: Collection[int] = SECURE) -> list[tuple[str, ...]]:
        """The stacks to propose, best first, as protocol names from bottom to top without the application node.

        ``available``: names of the plug-ins that work on this host; ``secure``: IDs of those that secure a stack.
        """
        return wanted.stacks_wanted(self, available, secure)

    def nested_wanted(self, available: Collection[str], secure: Collection[int] = SECURE) -> list[tuple[str, ...]]:
        """What the stacks to propose have above security, best first, as ``stacks_wanted`` without ``hides``: for the
        inner negotiation. As a rule one empty row."""
        return wanted.nested_wanted(self, available, secure)

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

    def for_messages(self) -> EffectivePolicy:
        """This policy for a program that sends and receives messages, and frames them itself.

        Raises ``UserError`` (POLICY) where the policy file forbids framing.
        """
        framing = int(Protocol.FRAMING)
        if self.word_of(framing) is Word.FORBIDDEN:
            raise error(
                Reason.POLICY, "messages need framing, which this host's policy forbids", "change the policy file"
            )
        words = {**dict(self.preferences), framing: Word.REQUIRED}
        inside = replace(self.inside, program_frames=True)
        return replace(self, preferences=tuple(sorted(words.items())), inside=inside, early=Early.NEVER)

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
            "on_forced_fallback": "on_forced_fallback" in self.fixed
            and OnForcedFallback.REFUSE is self.on_forced_fallback is not wished.on_forced_fallback,
            "tcp": "tcp" in self.fixed and TcpOpen.PARALLEL_SYN is self.tcp is not wished.tcp,
            "compress_encrypted": "compress_encrypted" in self.fixed
            and wished.compress_encrypted
            and not self.compress_encrypted,
            "early": "early" in self.fixed and Early.NEVER is self.early is not wished.early,
            "inner": "inner" in self.fixed and self.hides and not wished.hides,
            "key": "key" in self.fixed and wished.keys != self.keys,
            "defer": "defer" in self.fixed and not set(wished.defer) >= set(self.defer),
        }
        for key, is_forbidden in forbidden.items():
            if is_forbidden:
                raise error(
                    Reason.POLICY,
                    f"the application asks for {key} = {wishes[key]!r}",
                    "ask for no less than this host's policy file demands, or change the file",
                )
        for protocol, word in self.preferences:
            if "preferences" in self.fixed and word in _BINDING and wished.word_of(protocol) is not word:
                name = stacks.format_stack((protocol,), self.protocols)
                raise error(
                    Reason.POLICY,
                    f"the application asks for preferences.{name} = {wished.word_of(protocol).name.lower()!r}",
                    f"this host's policy file says {word.name.lower()}: ask for no less, or change the file",
                )
        if "tcp_options" in self.fixed and (weaker := inside.weaker(self.inside.tcp, wished.inside.tcp)) is not None:
            raise error(
                Reason.POLICY,
                f"the application asks for {weaker}",
                "ask for no less than this host's policy file requires and forbids, or change the file",
            )
        return replace(wished, fixed=self.fixed)


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

    def names(self, protocol: int) -> bool:
        """Whether any of its tables names the protocol (``EffectivePolicy.names``)."""
        return any(each.names(protocol) for each in (self.default, *(rule.policy for rule in self.rules)))

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
    present = frozenset(key for key in (*_KEYS, "preferences", *inside.KEYS) if key in table)
    prefer = table.strings("prefer", lambda text: stacks.parse_stack(text, protocols), base.prefer)
    if len(set(prefer)) != len(prefer):
        table.note("prefer", "a stack is listed twice", "list each once, best first")
    only = table.boolean("only", base.only)
    if only and not prefer:
        table.note("prefer", "is empty while only = true: no stack would be allowed", "list the stacks that are")
    compress_encrypted = table.boolean("compress_encrypted", base.compress_encrypted)
    crime = next((stack for stack in prefer if preferences.compresses_encrypted(stack)), None)
    if crime is not None and not compress_encrypted:
        table.note(
            "prefer",
            f"{stacks.format_stack(crime, protocols)} compresses what it encrypts, so lengths tell of secrets (CRIME)",
            "say compress_encrypted = true if nobody else can put text beside them",
        )
    defer = table.strings("defer", lambda name: stacks.parse_protocol(name, protocols), base.defer)
    choose = table.strings("choose", lambda name: stacks.parse_protocol(name, protocols), base.choose)
    for both in sorted(set(defer) & set(choose)):
        name = stacks.format_stack((both,), protocols)
        table.note("choose", f"{name} is in defer too", "either this host names it, later, or the peer does")
    via = table.converted("via", _numeric, base.via)
    context = table.choice("context", _names(Context), base.context)
    tcp = table.choice("tcp", _names(TcpOpen), base.tcp)
    if via is not None and (context is Context.DIRECT or tcp is TcpOpen.NO_SYN):
        table.note(
            "via",
            f"is not to be had with {'context' if context is Context.DIRECT else 'tcp'} = "
            f'"{context if context is Context.DIRECT else tcp}"',
            'it travels over UDP, and a SYN shows where the connection leads: leave "udp" and "auto"',
        )
    words = preferences.read_words(table, base.preferences, lambda name: stacks.parse_protocol(name, protocols))
    return EffectivePolicy(
        secure=table.choice("secure", _names(Secure), base.secure),
        prefer=prefer,
        only=only,
        context=context,
        fallback=table.choice("fallback", _names(Fallback), base.fallback),
        on_forced_fallback=table.choice("on_forced_fallback", _names(OnForcedFallback), base.on_forced_fallback),
        tcp=tcp,
        early=table.choice("early", _names(Early), base.early),
        packets_min=table.integer("packets_min", 0, Limit.INITIAL_WINDOW, base.packets_min),
        preferences=words,
        compress_encrypted=compress_encrypted,
        renegotiate=table.boolean("renegotiate", base.renegotiate),
        renegotiate_s=table.integer("renegotiate_s", 0, _MAX_RENEGOTIATE_S, base.renegotiate_s),
        inside=inside.read_wishes(table, base.inside),
        inner=table.choice("inner", _names(Inner), base.inner),
        keys=table.converted("key", _read_keys, base.keys),
        defer=defer,
        choose=choose,
        via=via,
        fixed=base.fixed | present,
        protocols=protocols,
    )


def _numeric(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError as wrong:
        raise ValueError(f"{text!r} is no address; a number, as 10.0.9.2 or fd00::2") from wrong


def _read_keys(text: str) -> tuple[KeyConfiguration, ...]:
    # Most programs that read policies have none, and the library takes a while to be loaded.
    from accord.protocols.sealed.configuration import decode_list

    try:
        found = decode_list(base64.b64decode(text, validate=True))
    except ValueError as wrong:
        raise ValueError(f"{text[:24]!r}... is no key configuration ({wrong}); see accord keys show") from wrong
    if not any(each.usable for each in found):
        raise ValueError("no key of an algorithm that is spoken here; see accord keys show on the peer")
    return found
