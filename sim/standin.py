# SPDX-License-Identifier: Apache-2.0
"""A fast stand-in for TLS 1.3: the same calls, the same shape on the wire, one hash in the place of the cryptography.

    proposal   a hello: 0x16 and so many bytes that tell nothing, as long as TLS's up to its random; 32 random bytes;
               the names of ALPN, their length in front
    answer     0x16, 32 random bytes, the chosen name, a flight as long as the scenario says
    commit     the initiator's finished: HMAC over both randoms

Where the scenario wants it, a round trip more, as after a HelloRetryRequest:

    answer     0x15, 32 random bytes                            step 3     the flight
    step 2     the hello with another random                    commit     finished

Its exporter depends on every byte of both flights, so whoever changes one is found out as with TLS. Whoever reads them
could compute it: nobody in the simulator does. Its hellos and its stream are in records like TLS's, which the adoption
of connections looks at.
"""

from __future__ import annotations

import contextlib
import hmac
import socket
from dataclasses import dataclass
from typing import Final

from accord.negotiation.interface import Answer, Elaboration, Outcome, Refuse, Role, View
from accord.protocols.alpn import SPEAKS, offered_by_accord, wanted
from accord.protocols.lifecycle import Call, Lifecycle, Phase
from accord.protocols.services import Carrier, Security, Services
from accord.protocols.tls import tell_below
from accord.wire.constants import Protocol, Reason
from accord.wire.errors import AccordError, error
from sim.chance import Entropy, digest

_HELLO: Final = b"\x16"
_RETRY: Final = b"\x15"
_RECORD: Final = b"\x17\x03\x03"
_HELLO_RECORD: Final = b"\x16\x03\x01"
_HEADER: Final = 5
_UNTIL_RANDOM: Final = 6
_RANDOM: Final = 32
_ANSWER: Final = 1 + _RANDOM + 1
_TAG: Final = 8
_KEY: Final = b"accord simulator"


def hello_of(random: bytes, names: str) -> bytes:
    """A client's."""
    body = bytes(_UNTIL_RANDOM) + random + bytes([len(names)]) + names.encode()
    return _HELLO_RECORD + len(body).to_bytes(2, "big") + body


def names_in(hello: bytes) -> list[bytes] | None:
    """The names of ALPN in a client's hello; None: it is no whole one."""
    at = _HEADER + _UNTIL_RANDOM + _RANDOM
    whole = hello[:3] == _HELLO_RECORD and len(hello) == _HEADER + int.from_bytes(hello[3:5], "big") > at
    return hello[at + 1 :].split(b",") if whole else None


@dataclass(frozen=True, slots=True)
class Begun:
    """A client's side whose hello has been said."""

    hello: bytes


class StandInSession:
    """One node."""

    protocol: int = Protocol.TLS13
    secure: bool = True
    elaboration: Elaboration = Elaboration.FREE

    def __init__(self, role: Role, services: Services, flight: int, *, retries: bool = False) -> None:
        self._services = services
        self._life = Lifecycle("stand-in", role)
        self._flight = flight
        self._retries = retries
        self._retry = b""
        """What the responder has asked for another hello with."""
        self.hello = b""
        self._first = b""
        """The hello that was not the last."""
        self._second = b""
        self._answered = False
        self._exporter: bytes | None = None
        self.alpn_selected: str | None = None

    @property
    def begun(self) -> Begun | None:
        """As ``TlsSession.begun``."""
        return Begun(self.hello) if self._life.phase is Phase.PROPOSED else None

    @property
    def fresh(self) -> bool:
        """As ``TlsSession.fresh``."""
        return not self._answered

    def propose(self, view: View) -> Outcome:
        """The hello."""
        self._life.enter(Call.PROPOSE)
        names = offered_by_accord(wanted(view.above, ()))
        self.hello = hello_of(self._services.random(_RANDOM), ",".join(names))
        return Answer(self.hello)

    def respond(self, view: View, payload: bytes) -> Outcome:
        """Hello in, flight out."""
        self._life.enter(Call.RESPOND)
        if not view.below:
            return Refuse(Reason.HANDSHAKE_FAILED, "stand-in: no stream below to run over")
        if self._retries:
            self._first, self._retry = payload, _RETRY + self._services.random(_RANDOM)
            try:
                tell_below(view, payload)
            except AccordError as failure:
                return Refuse(failure.reason, failure.detail)
            return Answer(self._retry, more=True)
        return self._flight_for(view, payload)

    def _flight_for(self, view: View, payload: bytes) -> Outcome:
        offered = names_in(payload)
        mine = [name.encode() for name in wanted(view.above, ())]
        chosen = next((name for name in mine if name in (offered or ())), b"")
        if offered is None or (mine and not chosen):
            return Refuse(Reason.HANDSHAKE_FAILED, "stand-in: no hello, or no common ALPN protocol")
        own = _HELLO + self._services.random(_RANDOM) + len(chosen).to_bytes(1) + chosen
        own += bytes(min(self._flight, max(0, view.budget - len(own))))
        self.alpn_selected = chosen.decode() or None
        self._exporter = digest(_KEY, self._first, self._retry, payload, own)
        if not self._retries:  # else it is told already
            try:
                tell_below(view, payload)
            except AccordError as failure:
                return Refuse(failure.reason, failure.detail)
        return Answer(own)

    def resume(self, view: View) -> Outcome:
        """Never waits."""
        raise error(Reason.PLUGIN_FAILED, "stand-in: resume without a wait")

    def advance(self, view: View, payload: bytes) -> Outcome:
        """Initiator: the flight in, finished out. Responder: finished in."""
        self._life.enter(Call.ADVANCE)
        self._answered = True
        if view.role is Role.RESPONDER:
            if self._retries and self._exporter is None:
                return self._flight_for(view, payload)
            good = self._exporter is not None and hmac.compare_digest(payload, digest(b"finished", self._exporter))
            return Answer() if good else Refuse(Reason.HANDSHAKE_FAILED, "stand-in: finished is wrong")
        if payload[:1] == _RETRY and len(payload) == 1 + _RANDOM and not self._retry:
            self._retry, self._first = payload, self.hello
            random = self._services.random(_RANDOM)
            begin = _HEADER + _UNTIL_RANDOM
            self._second = self.hello[:begin] + random + self.hello[begin + _RANDOM :]
            return Answer(self._second, more=True)
        if payload[:1] != _HELLO or len(payload) < 2 + _RANDOM:
            return Refuse(Reason.HANDSHAKE_FAILED, "stand-in: no flight")
        length = payload[1 + _RANDOM]
        self.alpn_selected = payload[2 + _RANDOM : 2 + _RANDOM + length].decode("latin-1") or None
        self._exporter = digest(_KEY, self._first, self._retry, self._second or self.hello, payload)
        return Answer(digest(b"finished", self._exporter))

    def exporter(self) -> bytes | None:
        """Of both flights."""
        return self._exporter

    def prune(self, reason: Reason) -> None:
        """Forget it."""
        if self._life.leave():
            self._exporter = None

    def commit(self, view: View) -> None:
        """From now on there is a stream."""
        self._life.enter(Call.COMMIT)

    def abort(self, reason: Reason) -> None:
        """Forget it."""
        self.prune(reason)

    def carrier(self, below: Carrier | None) -> Carrier:
        """Records."""
        self._life.enter(Call.CARRIER)
        assert below is not None
        assert self._exporter is not None
        return Records(below, self._exporter, self._life.role)


class StandInPlugin:
    """Found as ``tls``."""

    name = "tls"
    protocol = int(Protocol.TLS13)
    elaboration = Elaboration.FREE
    repeatable = True
    """All that is random in it comes from ``Services``."""

    def __init__(self, flight: int, *, retries: bool = False) -> None:
        """``retries``: every responder asks for another hello first."""
        self._flight, self._retries = flight, retries

    def open(self, role: Role, services: Services) -> StandInSession:
        """A session."""
        return StandInSession(role, services, self._flight, retries=self._retries)


class Records:
    """The stream below in records: 0x17, 3, 3, u16 length, 8 bytes that tell key and sender, data; none at the end."""

    def __init__(self, below: Carrier, key: bytes, role: Role, *, both_speak_accord: bool = False) -> None:
        self._below = below
        self.both_speak_accord = both_speak_accord
        self._tags = {other: digest(key, other.value.encode())[:_TAG] for other in Role}
        self._role = role
        self._held = b""
        self._plain = b""
        self._ended = False
        self._finished = False

    @property
    def kernel_socket(self) -> socket.socket | None:
        """None: the kernel's bytes are records."""
        return None

    async def read(self, limit: int = 65536) -> bytes:
        """As ``Carrier.read``. Raises ``PeerError`` (STREAM_BROKEN) for what is no record, or a cut."""
        while not self._plain and not self._ended:
            if len(self._held) >= _HEADER:
                length = int.from_bytes(self._held[3:5], "big")
                if self._held[:3] != _RECORD:
                    raise error(Reason.STREAM_BROKEN, f"stand-in: no record begins with {self._held[0]:#x}")
                if len(self._held) >= _HEADER + length:
                    record, self._held = self._held[_HEADER : _HEADER + length], self._held[_HEADER + length :]
                    if record[:_TAG] == self._tags[self._role] or record[:_TAG] not in self._tags.values():
                        raise error(Reason.STREAM_BROKEN, "stand-in: a record that the peer did not write")
                    self._plain = record[_TAG:]
                    self._ended = not self._plain
                    continue
            more = await self._below.read(65536)
            if not more:
                raise error(Reason.STREAM_BROKEN, "stand-in: cut off")
            self._held += more
        data, self._plain = self._plain[:limit], self._plain[limit:]
        return data

    async def write(self, data: bytes) -> None:
        """As ``Carrier.write``."""
        for at in range(0, len(data), 0x4000):
            piece = data[at : at + 0x4000]
            await self._below.write(self._record(piece))

    def _record(self, data: bytes) -> bytes:
        return _RECORD + (_TAG + len(data)).to_bytes(2, "big") + self._tags[self._role] + data

    async def finish(self) -> None:
        """The end, and the stream below's."""
        if not self._finished:
            self._finished = True
            await self._below.write(self._record(b""))
            await self._below.finish()

    async def close(self) -> None:
        """Both directions."""
        try:
            await self.finish()
        finally:
            await self._below.close()

    def abort(self) -> None:
        """At once."""
        self._below.abort()


class StandInTls:
    """In the place of the module ``protocols.tls`` for plain connections: one round trip, then records."""

    def __init__(self, entropy: Entropy) -> None:
        self._entropy = entropy

    def begin(self, security: Security, alpn: tuple[str, ...]) -> None:
        """There is nothing to be made ahead."""

    async def client(
        self, carrier: Carrier, security: Security, alpn: tuple[str, ...], begun: Begun | None = None
    ) -> Records:
        """Hello out, unless it has been said, hello in."""
        names = ",".join(offered_by_accord(alpn))
        own = hello_of(self._entropy.token_bytes(_RANDOM), names) if begun is None else begun.hello
        if begun is None:
            await carrier.write(own)
        return self._heard(carrier, own, await self._read(carrier, _ANSWER))

    def client_now(self, carrier: Carrier, begun: Begun) -> Records | None:
        """As ``protocols.tls.client_now``."""
        connection = carrier.kernel_socket
        with contextlib.suppress(OSError):
            ahead = b"" if connection is None else connection.recv(_ANSWER, socket.MSG_PEEK)
            if connection is not None and len(ahead) == _ANSWER and ahead[:1] == _HELLO:
                return self._heard(carrier, begun.hello, connection.recv(_ANSWER))
        return None

    @staticmethod
    def _heard(carrier: Carrier, own: bytes, theirs: bytes) -> Records:
        if theirs[:1] != _HELLO:
            raise error(Reason.HANDSHAKE_FAILED, "stand-in: the peer says no hello")
        return Records(carrier, digest(own, theirs), Role.INITIATOR, both_speak_accord=theirs[-1] == 1)

    async def server(
        self, carrier: Carrier, security: Security, alpn: tuple[str, ...], *, speaks_accord: bool = False
    ) -> Records:
        """Hello in, hello out, and whether both speak Accord, as the name of ALPN that TLS would select."""
        theirs = await self._read(carrier, _HEADER)
        if theirs[:3] != _HELLO_RECORD:
            raise error(Reason.HANDSHAKE_FAILED, "stand-in: the peer says no hello")
        theirs += await self._read(carrier, int.from_bytes(theirs[3:5], "big"))
        asked = any(name.startswith(SPEAKS.encode()) for name in names_in(theirs) or ())
        own = _HELLO + self._entropy.token_bytes(_RANDOM) + bytes((asked and speaks_accord,))
        await carrier.write(own)
        return Records(carrier, digest(theirs, own), Role.RESPONDER, both_speak_accord=asked and speaks_accord)

    @staticmethod
    async def _read(carrier: Carrier, count: int) -> bytes:
        heard = b""
        while len(heard) < count:
            more = await carrier.read(count - len(heard))
            if not more:
                raise error(Reason.HANDSHAKE_FAILED, "stand-in: the peer closed the connection during the handshake")
            heard += more
        return heard
