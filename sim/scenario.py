# SPDX-License-Identifier: Apache-2.0
"""What happens in one run: hosts, calls of ``connect``, and faults. All of it is data, drawn from the seed."""

from __future__ import annotations

import enum
import random
from dataclasses import dataclass, field, replace
from typing import Any, Final

from sim.chance import mix

SECOND: Final = 1_000_000
PORT: Final = 443


class Trouble(enum.Enum):
    """A kind of fault; ``Fault`` says what its fields mean for each."""

    LOSS = "loss"
    MASK = "loss mask"
    DUPLICATION = "duplication"
    REORDERING = "reordering"
    FLIP = "bit flips"
    FORGERY = "forgery"
    PARTITION = "partition"
    STRIP = "options stripped"
    CRASH = "crash"
    POWER = "power failure"
    SUSPEND = "suspended"
    RESTART = "orderly restart"
    POLICY = "policy change"
    NO_INSTALL = "kernel refuses"
    HANG = "stands still"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault, from ``begin`` to ``end`` (microseconds of virtual time).

    LOSS, DUPLICATION, REORDERING, FLIP, FORGERY: on the way from host ``a`` to host ``b``, to each packet with the
    probability ``amount``. FLIP is one bit, which the checksum finds; FORGERY mends the checksum. MASK: bit i of
    ``amount`` drops the i-th datagram of that way since ``begin``. PARTITION: nothing passes between the two.
    STRIP: SYNs lose our option on that way. CRASH, POWER, RESTART: host ``a`` is away from ``begin`` to ``end``,
    killed, without power, or stopped in order. SUSPEND: its clock jumps from ``begin`` to ``end`` at once.
    HANG: its processes stand still until ``end`` and then go on; its kernel does all the time.
    POLICY: it reloads its configuration with policy number ``amount``. NO_INSTALL: its kernel installs no TCP.
    """

    trouble: Trouble
    a: int
    b: int
    begin: int
    end: int
    amount: float = 0

    def __str__(self) -> str:
        who = f"host {self.a}" if self.b < 0 else f"host {self.a} to {self.b}"
        amount = hex(int(self.amount)) if self.trouble is Trouble.MASK else f"{self.amount:g}"
        return f"{self.trouble.value}, {who}, {self.begin / 1000:.1f} to {self.end / 1000:.1f} ms, {amount}"


@dataclass(frozen=True, slots=True)
class HostSpec:
    """One host. ``accord`` False: it has never heard of Accord and serves TCP and TLS on the port."""

    accord: bool = True
    plugins: tuple[str, ...] = ("tcp", "tls", "http")
    policy: int = 0
    """Index into ``POLICIES``."""
    transactions: int = 64
    unproven: int = 16
    buffers: int = 256
    xdp: bool = True
    """It suppresses SYNs, and marks SYN-ACKs."""
    options: bool = True
    """Its SYNs bear the option."""


@dataclass(frozen=True, slots=True)
class Call:
    """An application calls ``connect``. ``patience``: seconds, then it calls it off."""

    at: int
    source: int
    target: int
    wishes: tuple[tuple[str, Any], ...] = ()
    patience: float = 60.0
    request: int = 64
    """Bytes that it sends, and wants back."""
    early: bool = False
    """They are given to ``connect``, which may send them in the proposal."""
    renegotiations: int = 0
    """While it talks it has the association re-negotiated so often."""
    silence: float = 0.0
    """Seconds before it says anything."""


@dataclass(frozen=True, slots=True)
class Meet:
    """Two hosts call each other: ``one`` at once, ``other`` so many microseconds later."""

    at: int
    one: int
    other: int
    lag: int = 0
    wishes: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Scenario:
    """One run."""

    seed: int
    real_tls: bool
    hosts: tuple[HostSpec, ...]
    calls: tuple[Call, ...]
    faults: tuple[Fault, ...] = ()
    delays: tuple[tuple[int, ...], ...] = field(default_factory=tuple)
    """Microseconds one way, by source and target."""
    flight: int = 600
    """Bytes of the stand-in's answer, as a certificate chain is long."""
    meetings: tuple[Meet, ...] = ()
    retries: bool = False
    """The stand-in asks for another hello first, as TLS does for another share."""
    family: int = 4
    """Of all addresses."""
    translated: int = -1
    """The host that is behind an address translator; -1: none is."""
    flooded: frozenset[int] = frozenset()
    """Hosts that ask every stranger for a cookie, as under a flood."""
    unkept: frozenset[int] = frozenset()
    """Hosts that have no place for strangers, and answer them without memory where that can be."""

    @property
    def opaque(self) -> bool:
        """There is cryptography in it whose randomness is not the seed's: only lengths are the same each time."""
        return self.real_tls or any("quic" in host.plugins for host in self.hosts)

    @property
    def quiet(self) -> int:
        """When the last fault is over and the last call was made."""
        began = [call.at for call in self.calls] + [meet.at + meet.lag for meet in self.meetings]
        return max([fault.end for fault in self.faults] + began, default=0)


POLICIES: Final = (
    "",
    '[default]\nsecure = "preferred"',
    '[default]\nsecure = "no"\nprefer = ["tcp", "tls/tcp"]',
    '[default]\nsecure = "no"\nprefer = ["tls/tcp"]\nonly = true',
    '[default]\nsecure = "no"\nprefer = ["tcp"]\nonly = true',
)
_TCP: Final = ("no-syn", "parallel-syn", "auto")
_FALLBACK: Final = ("parallel", "parallel", "delayed", "never")
_QUIC_FIRST: Final = ("prefer", ["quic", "tls/tcp", "tcp"])
_SECURE: Final = ("required", "preferred", "no")
_FLIGHTS: Final = (0, 600, 600, 1500, 4000, 20_000, 50_000)


def draw(seed: int) -> Scenario:
    """The seed's scenario. Faults are milder in some seeds, so that each is also met alone."""
    chance = random.Random(seed)
    real_tls = chance.random() < 0.1
    count = chance.choice((2, 2, 2, 3, 3, 4))
    hosts = tuple(_host(chance, index, real_tls) for index in range(count))
    delays = tuple(tuple(chance.choice((50, 1000, 10_000, 40_000, 120_000)) for _ in hosts) for _ in hosts)
    calls = tuple(_call(chance, hosts) for _ in range(chance.choice((1, 1, 2, 3, 5))))
    faults = tuple(_fault(chance, count, real_tls) for _ in range(chance.choice((0, 1, 1, 2, 3, 4, 6))))
    flight = chance.choice(_FLIGHTS)
    # Drawn last: the calls of a seed stay what they were.
    meetings = tuple(_meet(chance, hosts) for _ in range(chance.choice((0, 0, 0, 0, 1))) if _able(hosts) > 1)
    return _widened(Scenario(seed, real_tls, hosts, calls, faults, delays, flight, meetings))


def _widened(scenario: Scenario) -> Scenario:
    """With what not every negotiation has, by a chance of its own."""
    chance = random.Random(mix(scenario.seed, 0x5EED))
    if chance.random() < 0.2:
        scenario = replace(scenario, calls=tuple(_longer(chance, call) for call in scenario.calls))
    if chance.random() < 0.1:
        scenario = replace(scenario, retries=True)
    if chance.random() < 0.12 and not scenario.real_tls:
        scenario = _with_quic(scenario)
    if chance.random() < 0.12:
        calls = tuple(_renegotiating(chance, call) for call in scenario.calls)
        scenario = replace(scenario, calls=calls)
    if chance.random() < 0.15 and not scenario.meetings:
        scenario = replace(scenario, family=6)
    called = {call.target for call in scenario.calls}
    behind = [n for n, host in enumerate(scenario.hosts) if host.accord and n not in called]
    if chance.random() < 0.15 and behind and not scenario.meetings:
        scenario = replace(scenario, translated=chance.choice(behind))
    if chance.random() < 0.04:
        crowd = replace(chance.choice(scenario.calls), request=16, patience=60.0)
        scenario = replace(scenario, calls=(*scenario.calls, *[crowd] * chance.choice((8, 16, 24))))
    flooded = frozenset(index for index, _ in enumerate(scenario.hosts) if chance.random() < 0.1)
    if chance.random() < 0.1:
        scenario = replace(scenario, faults=(*scenario.faults, _hang(chance, len(scenario.hosts))))
    return replace(scenario, flooded=flooded)


def _hang(chance: random.Random, count: int) -> Fault:
    """Around the first exchange, or later; for less than a probe time-out, or for longer than anything waits."""
    begin = chance.choice((chance.randrange(2000), chance.randrange(300_000), chance.randrange(4 * SECOND)))
    length = chance.choice((20_000, 300_000, 600_000, 2 * SECOND, 12 * SECOND, 25 * SECOND))
    return Fault(Trouble.HANG, chance.randrange(count), -1, begin, begin + length)


def _longer(chance: random.Random, call: Call) -> Call:
    return replace(call, wishes=(*call.wishes, (chance.choice(("defer", "choose")), ["tls"])))


def _with_quic(scenario: Scenario) -> Scenario:
    hosts = tuple(replace(host, plugins=(*host.plugins, "quic")) for host in scenario.hosts)
    calls = tuple(
        call if any(key == "context" for key, _ in call.wishes) else replace(call, wishes=(*call.wishes, _QUIC_FIRST))
        for call in scenario.calls
    )
    # What is changed on the way depends on what it was: as with OpenSSL.
    faults = tuple(fault for fault in scenario.faults if fault.trouble not in (Trouble.FLIP, Trouble.FORGERY))
    return replace(scenario, hosts=hosts, calls=calls, faults=faults)


def _renegotiating(chance: random.Random, call: Call) -> Call:
    often = chance.choice((1, 2, 3))
    return replace(call, renegotiations=often, request=5000, wishes=(*call.wishes, ("renegotiate", True)))


def _able(hosts: tuple[HostSpec, ...]) -> int:
    return sum(host.accord for host in hosts)


def _meet(chance: random.Random, hosts: tuple[HostSpec, ...]) -> Meet:
    one, other = chance.sample([index for index, host in enumerate(hosts) if host.accord], 2)
    lag = chance.choice((0, 0, 0, chance.randrange(50_000), chance.randrange(3 * SECOND)))
    wishes = (("secure", chance.choice(_SECURE)),) if chance.random() < 0.5 else ()
    return Meet(chance.choice((0, chance.randrange(3 * SECOND))), one, other, lag, wishes)


def _host(chance: random.Random, index: int, real_tls: bool) -> HostSpec:
    tight = chance.random() < 0.15
    return HostSpec(
        accord=index == 0 or chance.random() < 0.9,
        plugins=chance.choice((("tcp", "tls", "http"),) * 5 + (("tcp", "http"), ("tls", "http"))),
        policy=chance.choice((0, 0, 1, 2, 2, 3, 4)),
        transactions=chance.choice((2, 4)) if tight else 64,
        unproven=chance.choice((1, 2)) if tight else 16,
        buffers=chance.choice((64, 128)) if tight else 512,
        xdp=chance.random() < 0.7,
        options=chance.random() < 0.8,
    )


def _call(chance: random.Random, hosts: tuple[HostSpec, ...]) -> Call:
    able = [index for index, host in enumerate(hosts) if host.accord]
    source = chance.choice(able)
    target = chance.choice([index for index in range(len(hosts)) if index != source])
    wishes: list[tuple[str, Any]] = [("tcp", chance.choice(_TCP)), ("fallback", chance.choice(_FALLBACK))]
    if chance.random() < 0.6:
        wishes.append(("secure", chance.choice(_SECURE)))
    if chance.random() < 0.1:
        wishes.append(("packets_min", chance.choice((1, 3, 10))))
    if chance.random() < 0.15:
        wishes.append(("context", "direct"))
    patience = chance.choice((0.005, 0.05, 0.3)) if chance.random() < 0.08 else 60.0
    at = chance.choice((0, 0, chance.randrange(3 * SECOND)))
    return Call(at, source, target, tuple(wishes), patience, chance.choice((1, 64, 5000)))


def _fault(chance: random.Random, count: int, real_tls: bool) -> Fault:
    later = {Trouble.HANG} | ({Trouble.FORGERY} if real_tls else set())  # drawn by ``_widened``, or not at all
    kinds = [kind for kind in Trouble if kind not in later]
    trouble = chance.choice((*kinds, Trouble.LOSS, Trouble.LOSS, Trouble.MASK, Trouble.MASK))
    a, b = chance.sample(range(count), 2)
    begin = chance.choice((0, 0, chance.randrange(300_000), chance.randrange(4 * SECOND)))
    end = begin + chance.choice((50_000, 500_000, 2 * SECOND, 15 * SECOND))
    if trouble is Trouble.MASK:
        amount: float = chance.getrandbits(64) & chance.getrandbits(64)
        return Fault(trouble, a, b, 0, 60 * SECOND, amount)
    if trouble in (Trouble.CRASH, Trouble.POWER, Trouble.RESTART):
        return Fault(trouble, a, -1, begin, begin + chance.choice((1000, 100_000, 3 * SECOND)))
    if trouble in (Trouble.SUSPEND, Trouble.NO_INSTALL):
        return Fault(trouble, a, -1, begin, end)
    if trouble is Trouble.POLICY:
        return Fault(trouble, a, -1, begin, begin, chance.randrange(len(POLICIES)))
    if trouble in (Trouble.PARTITION, Trouble.STRIP):
        return Fault(trouble, a, b, begin, end)
    return Fault(trouble, a, b, begin, end, chance.choice((0.05, 0.2, 0.5)))
