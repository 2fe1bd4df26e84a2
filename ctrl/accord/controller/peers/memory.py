# SPDX-License-Identifier: Apache-2.0
"""What is remembered of peers: RFC 1263, section 2.4, the cache of VTCP, widened by how the path there behaves.

Of each address and port: what the peer supported when it last answered, and three things that the path may or may not
do. A capability learnt saves packets, never the safety of a round trip: whatever stands here, a connection comes about
without it as well, and what is authenticated is authenticated anew each time.

- *Supports*, the protocols of its last answer. Changes nothing on the wire, is shown, and is what a proposal may be
  made ahead for. Wrong: the peer was upgraded or downgraded, or another host has the address or is behind the same
  NAT: that one answers with what it has, the negotiation decides as ever, and the new answer takes the old one's place.
- *ANSWERS works.* An unmarked SYN-ACK is no reason to give up the negotiation: the answer has a bounded time to come.
  Wrong: one connection waits that time in vain, the next does not wait.
- *ANSWERS broken*, the peer is silent. No proposal is sent, where the policy lets the plain connection be taken at all.
  Wrong: a peer that has Accord by now is served as one without, until the belief ends or is flushed.
- *NO_SYN works.* ``tcp = "auto"`` installs TCP without a SYN instead of adopting the SYN's connection. Wrong: one such
  connection stalls, and the next adopts a SYN.
- *NO_SYN broken.* ``auto`` installs nothing, which it did not before either. Wrong: a SYN more than was needed.
- *The length of its last answer.* The next proposal is repeated until it has a third of that, where it has less by
  itself: three times as much may the peer send before it knows that the address is not forged. Wrong: some packets in
  vain, or a round trip more.
- *OPTION broken.* SYNs bear no option, so nothing can be suppressed or marked. Wrong: a SYN more, a mark less.

Losing something good takes one failure, for that is only caution. Believing a black hole takes failures in a row, as in
the kernel for Fast Open (RFC 7413, section 4.1.3.1; ``net/ipv4/tcp_fastopen.c``) and MPTCP (``net/mptcp/ctrl.c``): two,
and five where it worked within the last day, one second at least between any two that count; one success clears it.
The belief holds for an hour. Then it is tried again, and one more failure renews it for twice as long, up to a day.
With 5 % loss either way a SYN or its answer is lost 1 time in 10: two in a row befall 1 new peer in 100, for
an hour; five in a row one connection in 100,000. A negotiation is silent only after three such losses, so two in a
row are 1 in 10^6. (``tests/controller/test_peers_under_loss.py`` has the figures by simulation.)

ICMP alone is no evidence for anything here, since anybody can send it (RFC 5927).

The three things about the path hold for the own address from which they were learnt, and end when the network changes.
Whoever is on the path can teach this memory that a peer is silent; he could as well drop each proposal.
"""

from __future__ import annotations

import enum
import functools
import ipaddress
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

HOUR: Final = 3600.0
DAY: Final = 24 * HOUR
LIMIT: Final = 4096
"""Peers; about 1 KiB each."""
MISSES: Final = 2
"""Failures in a row that make a black hole, with a peer of whom nothing else is known."""
MISSES_LATELY: Final = 5
"""The same where it worked lately: what is more likely, loss or a new black hole?"""
GAP_SECONDS: Final = 1.0
"""Failures closer together are one: connections begun at once share the burst of losses, or the peer's restart."""
NEVER: Final = float("-inf")
MAX_EXPIRY: Final = 30 * DAY
MAX_TIMES: Final = 16
"""Further confirmations are not counted: the belief's time is at its most by then."""

PeerKey = tuple[str, int]


class Way(enum.Enum):
    """Things that a path, and the peer at its end, do or do not."""

    ANSWERS = "answers"
    """Proposals are answered."""
    NO_SYN = "no_syn"
    """TCP that was installed without a SYN carries data."""
    OPTION = "option"
    """SYNs with the option arrive."""


class Learnt(enum.Enum):
    """What one connection has shown."""

    ANSWERED = "answered"
    """The peer answered the proposal, with the protocols that it supports."""
    REFUSED = "refused"
    """The peer speaks Accord, and negotiated no stack: its own reason, a policy, a load."""
    LATE_ANSWER = "late_answer"
    """The answer came when the plain connection had been taken."""
    WAITED_IN_VAIN = "waited_in_vain"
    """The answer was waited for because of this memory, and did not come in time."""
    SILENT = "silent"
    """TCP to the same port was answered; the proposal and at least two repetitions of it were not."""
    NO_SYN_WORKED = "no_syn_worked"
    """TCP without a SYN has carried data both ways."""
    NO_SYN_STALLED = "no_syn_stalled"
    """The negotiation was committed, and nothing came through the TCP that was installed."""
    ADOPTED_MARKED = "adopted_marked"
    """The SYN's connection was adopted, and its SYN-ACK bore the mark."""
    ADOPTED_UNMARKED = "adopted_unmarked"
    """The SYN's connection was adopted by its preface: the option was stripped, or the proposal came later."""
    FORCED_FALLBACK = "forced_fallback"
    """TLS on the plain connection says that the peer speaks Accord: the path kept the negotiation from one of both."""
    OPTION_PASSED = "option_passed"
    """The first SYN, which bore the option, was answered."""
    OPTION_SYN_LOST = "option_syn_lost"
    """The SYN with the option was not answered, the same SYN repeated without it was."""


_SHOWS: Final[dict[Learnt, dict[Way, bool]]] = {
    Learnt.ANSWERED: {Way.ANSWERS: True},
    Learnt.REFUSED: {Way.ANSWERS: True},
    Learnt.LATE_ANSWER: {Way.ANSWERS: True},
    Learnt.WAITED_IN_VAIN: {},
    Learnt.SILENT: {Way.ANSWERS: False},
    Learnt.NO_SYN_WORKED: {Way.ANSWERS: True, Way.NO_SYN: True},
    Learnt.NO_SYN_STALLED: {Way.NO_SYN: False},
    Learnt.ADOPTED_MARKED: {Way.ANSWERS: True, Way.OPTION: True},
    Learnt.ADOPTED_UNMARKED: {Way.ANSWERS: True},
    Learnt.FORCED_FALLBACK: {},
    Learnt.OPTION_PASSED: {Way.OPTION: True},
    Learnt.OPTION_SYN_LOST: {Way.OPTION: False},
}
_SPEAKS_ACCORD: Final = frozenset(what for what, shows in _SHOWS.items() if shows.get(Way.ANSWERS)) | {
    Learnt.FORCED_FALLBACK
}


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What to go by in the next connection to a peer. The defaults are what holds for one that is not known."""

    accord: bool | None = None
    """It answered lately; it is believed silent; nobody knows."""
    protocols: tuple[int, ...] = ()
    """IDs of its last answer, in its order."""
    no_syn: bool | None = None
    """TCP without a SYN worked lately; is believed not to; nobody knows."""
    option: bool = True
    """SYNs may bear the option."""
    speaks: bool = field(default=False, compare=False)
    """It has spoken Accord, whether or not the path lets it answer lately."""
    propose: bool = True
    """Proposals are to be sent. Where the policy rules the plain connection out they are sent in any case."""
    answers_late: bool = False
    """The answer is worth a bounded wait when an unmarked SYN-ACK comes first."""


NOTHING: Final = Knowledge()


@dataclass(slots=True)
class Belief:
    """About one ``Way``. Times are seconds of the memory's clock."""

    worked_until: float = NEVER
    """It worked, and for so long that is remembered."""
    doubted: bool = False
    """It has failed since."""
    misses: int = 0
    """Failures in a row that count, since it last worked or was last believed broken."""
    missed_at: float = NEVER
    times: int = 0
    """Black hole confirmed so often since it last worked."""
    broken_until: float = NEVER
    """Believed to be a black hole."""

    def holds(self, now: float) -> bool | None:
        """It works; it is a black hole; nobody knows."""
        if now < self.broken_until:
            return False
        return True if now < self.worked_until and not self.doubted else None

    def worked(self, now: float, expiry: float) -> None:
        """One success clears everything that spoke against it."""
        self.worked_until, self.doubted = now + expiry, False
        self.misses, self.missed_at, self.times, self.broken_until = 0, NEVER, 0, NEVER

    def failed(self, now: float) -> None:
        """One failure that counts; see the module's docstring."""
        self.doubted = True
        if now < self.broken_until or now - self.missed_at < GAP_SECONDS:
            return  # a connection that was begun before, or in the same moment as the last one
        self.misses, self.missed_at = self.misses + 1, now
        needed = 1 if self.times else MISSES_LATELY if now < self.worked_until else MISSES
        if self.misses >= needed:
            self.misses, self.times = 0, min(self.times + 1, MAX_TIMES)
            self.broken_until = now + min(HOUR * 2 ** (self.times - 1), DAY)

    def over(self, now: float) -> bool:
        """Nothing of it matters any more. How often it was confirmed is remembered a day longer than it holds."""
        return now >= self.worked_until and now >= max(self.broken_until, self.missed_at) + DAY


@dataclass(slots=True)
class Entry:
    """All that is known of one address and port."""

    protocols: tuple[int, ...] = ()
    speaks_until: float = NEVER
    """It has spoken Accord, and for so long that is remembered."""
    source: str = ""
    """Own address that ``ways`` was learnt from; empty: whichever."""
    marked: bool | None = None
    """Of the last adopted connection: whether its SYN-ACK bore the mark."""
    ways: dict[Way, Belief] = field(default_factory=dict)
    key: bytes = b""
    """Key configurations that it gave, as a list on the wire; empty: none."""
    key_name: str = ""
    """The name that it was authenticated by when it gave them: they are for no other."""
    answer_bytes: int = 0
    """IP bytes of its last answer: what a proposal has to make room for. Not kept over a restart."""

    def over(self, now: float) -> bool:
        """Nothing of it matters any more."""
        return now >= self.speaks_until and all(belief.over(now) for belief in self.ways.values())

    def forget_path(self) -> None:
        """Keep what is the peer's own."""
        self.ways.clear()
        self.marked = None


class Peers:
    """The memory. ``now`` is a clock in seconds that never steps; ``expiry`` is how long, in seconds, good news last.

    At most ``limit`` peers; the one that nobody asked for or learnt of for the longest goes first.
    """

    def __init__(self, now: Callable[[], float], *, limit: int = LIMIT, expiry: float = DAY) -> None:
        self._now = now
        self._limit = limit
        self._expiry = expiry
        self._entries: dict[PeerKey, Entry] = {}  # least recently used first
        self.hits = self.misses = self.evicted = 0
        """Questions that found something, and nothing; peers forgotten for want of room."""
        self.learnt: Counter[Learnt] = Counter()
        self.changes = 0
        """Grows with each change, so that whoever keeps a copy knows when it is old."""

    def silent(self, address: str, port: int) -> bool | None:
        """Whether the peer is believed not to answer, from wherever that was learnt; None: nothing is known of it, nor
        was lately. For whoever cannot wait for the own address; ``knows`` has the last word."""
        entry = self._entries.get(peer_key(address, port))
        return None if entry is None else not self.about(entry).propose

    def knows(self, address: str, port: int, source: str = "") -> Knowledge:
        """What to go by towards ``address`` and ``port``. ``source``: own address that packets will leave from."""
        key = peer_key(address, port)
        entry = self._entries.pop(key, None)
        now = self._now()
        if entry is None or entry.over(now):
            self.changes += entry is not None
            self.misses += 1
            return NOTHING
        self._entries[key] = entry
        self.hits += 1
        return self._knowledge(entry, now, source)

    def learn(
        self, address: str, port: int, what: Learnt, *, protocols: tuple[int, ...] = (), source: str = ""
    ) -> None:
        """Take ``what`` one connection has shown. ``protocols``: IDs of the answer, where it has any."""
        key, now = peer_key(address, port), self._now()
        entry = self._entries.pop(key, None)
        if entry is None or entry.over(now):
            entry = Entry()
        self._entries[key] = entry
        self.learnt[what] += 1
        self.changes += 1
        if source and source != entry.source:
            if entry.source:
                entry.forget_path()
            entry.source = source
        if what in _SPEAKS_ACCORD:
            if what is not Learnt.FORCED_FALLBACK:
                entry.protocols = protocols or entry.protocols
            entry.speaks_until = now + self._expiry
        for way, works in _SHOWS[what].items():
            belief = entry.ways.setdefault(way, Belief())
            if works:
                belief.worked(now, self._expiry)
            else:
                belief.failed(now)
        if what is Learnt.WAITED_IN_VAIN and Way.ANSWERS in entry.ways:
            entry.ways[Way.ANSWERS].doubted = True
        if what in (Learnt.ADOPTED_MARKED, Learnt.ADOPTED_UNMARKED):
            entry.marked = what is Learnt.ADOPTED_MARKED
        if entry.over(now):  # nothing to speak of, as a wait in vain for one who is not known
            del self._entries[key]
        self._fit()

    def learn_key(self, address: str, port: int, name: str, key: bytes) -> None:
        """Key configurations that a peer gave, which is known already and was authenticated as ``name``."""
        entry = self._entries.get(peer_key(address, port))
        if entry is not None and (entry.key, entry.key_name) != (key, name):
            entry.key, entry.key_name = key, name
            self.changes += 1

    def key_of(self, address: str, port: int, name: str) -> bytes:
        """What ``learn_key`` was told; empty when it was nothing, or of another name."""
        entry = self._entries.get(peer_key(address, port))
        known = entry is not None and not entry.over(self._now()) and entry.key_name == name
        return entry.key if entry is not None and known else b""

    def measure(self, address: str, port: int, answer_bytes: int) -> None:
        """The answer of a peer that is known took so many bytes on the wire, with IP and UDP headers."""
        if (entry := self._entries.get(peer_key(address, port))) is not None:
            entry.answer_bytes = answer_bytes

    def answer_bytes(self, address: str, port: int) -> int:
        """Of its last answer; 0: not known."""
        entry = self._entries.get(peer_key(address, port))
        return 0 if entry is None else entry.answer_bytes

    def network_changed(self) -> None:
        """This host's addresses or routes have changed: what was learnt of paths is about other ones."""
        for entry in self._entries.values():
            entry.forget_path()
        self.sweep()
        self.changes += 1

    def flush(self, address: str | None = None, port: int | None = None) -> int:
        """Forget everything, or an address, or one port of it. How many peers were forgotten."""
        host = None if address is None else peer_key(address, 0)[0]
        gone = [key for key in self._entries if host in (None, key[0]) and port in (None, key[1])]
        for key in gone:
            del self._entries[key]
        self.changes += bool(gone)
        return len(gone)

    def sweep(self) -> None:
        """Drop what has expired."""
        now = self._now()
        for key in [key for key, entry in self._entries.items() if entry.over(now)]:
            del self._entries[key]
            self.changes += 1

    # ---- for who keeps or shows it ----

    def entries(self) -> list[tuple[PeerKey, Entry]]:
        """Every peer, least recently used first."""
        return list(self._entries.items())

    def about(self, entry: Entry) -> Knowledge:
        """What a connection from where ``entry`` was learnt would go by."""
        return self._knowledge(entry, self._now(), "")

    @property
    def clock(self) -> Callable[[], float]:
        """The memory's own, seconds."""
        return self._now

    def configure(self, limit: int, expiry: float) -> None:
        """As for the constructor; what was learnt keeps the time that it was given."""
        self._limit, self._expiry = limit, expiry
        self._fit()

    def restore(self, key: PeerKey, entry: Entry) -> None:
        """Put back what ``entries`` has given; what has been learnt since stays."""
        if key not in self._entries and not entry.over(self._now()):
            self._entries[key] = entry
            self.changes += 1
            self._fit()

    def __len__(self) -> int:
        return len(self._entries)

    def _fit(self) -> None:
        while len(self._entries) > self._limit:
            del self._entries[next(iter(self._entries))]
            self.evicted += 1

    @staticmethod
    def _knowledge(entry: Entry, now: float, source: str) -> Knowledge:
        speaks = now < entry.speaks_until
        elsewhere = bool(source and entry.source and source != entry.source)
        ways = {} if elsewhere else {way: belief.holds(now) for way, belief in entry.ways.items()}
        answers = ways.get(Way.ANSWERS)
        return Knowledge(
            accord=False if answers is False else True if speaks else None,
            protocols=entry.protocols if speaks else (),
            no_syn=ways.get(Way.NO_SYN),
            option=ways.get(Way.OPTION) is not False,
            speaks=speaks,
            propose=answers is not False,
            answers_late=answers is True,
        )


def peer_key(address: str, port: int) -> PeerKey:
    """One spelling for each address; what is none stays as it is."""
    return _spelling(address), port


@functools.lru_cache(maxsize=1024)
def _spelling(address: str) -> str:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(getattr(found, "ipv4_mapped", None) or found)
