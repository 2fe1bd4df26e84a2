# SPDX-License-Identifier: Apache-2.0
"""A fast stand-in for TLS 1.3: the same calls, the same shape on the wire, one hash in the place of the cryptography.

    proposal   0x16, 32 random bytes, the names of ALPN
    answer     0x16, 32 random bytes, the chosen name, a flight as long as the scenario says
    commit     the initiator's finished: HMAC over both randoms

Its exporter depends on every byte of both flights, so whoever changes one is found out as with TLS. Whoever reads them
could compute it: nobody in the simulator does. Its stream has records like TLS's, which the adoption of connections
looks at.
"""

from __future__ import annotations

import hmac
import socket
from typing import Final

from accord.negotiation.interface import Answer, Outcome, Refuse, Role, View
from accord.protocols.alpn import wanted
from accord.protocols.lifecycle import Call, Lifecycle
from accord.protocols.services import Carrier, Security, Services
from accord.wire.constants import Protocol, Reason
from accord.wire.errors import error
from sim.chance import Entropy, digest

_HELLO: Final = b"\x16"
_RECORD: Final = 0x17
_RANDOM: Final = 32
_TAG: Final = 8
_KEY: Final = b"accord simulator"


class StandInSession:
    """One node."""

    protocol: int = Protocol.TLS13
    secure: bool = True

    def __init__(self, role: Role, services: Services, flight: int) -> None:
        self._services = services
        self._life = Lifecycle("stand-in", role)
        self._flight = flight
        self._hello = b""
        self._exporter: bytes | None = None
        self.alpn_selected: str | None = None

    def propose(self, view: View) -> Outcome:
        """The hello."""
        self._life.enter(Call.PROPOSE)
        names = ",".join(wanted(view.above, ()))
        self._hello = _HELLO + self._services.random(_RANDOM) + names.encode()
        return Answer(self._hello)

    def respond(self, view: View, payload: bytes) -> Outcome:
        """Hello in, flight out."""
        self._life.enter(Call.RESPOND)
        if not view.below:
            return Refuse(Reason.HANDSHAKE_FAILED, "stand-in: no stream below to run over")
        offered = payload[1 + _RANDOM :].split(b",")
        mine = [name.encode() for name in wanted(view.above, ())]
        chosen = next((name for name in mine if name in offered), b"")
        if payload[:1] != _HELLO or len(payload) < 1 + _RANDOM or (mine and not chosen):
            return Refuse(Reason.HANDSHAKE_FAILED, "stand-in: no hello, or no common ALPN protocol")
        own = _HELLO + self._services.random(_RANDOM) + len(chosen).to_bytes(1) + chosen
        own += bytes(min(self._flight, max(0, view.budget - len(own))))
        self.alpn_selected = chosen.decode() or None
        self._exporter = digest(_KEY, payload, own)
        return Answer(own)

    def resume(self, view: View) -> Outcome:
        """Never waits."""
        raise error(Reason.PLUGIN_FAILED, "stand-in: resume without a wait")

    def advance(self, view: View, payload: bytes) -> Outcome:
        """Initiator: the flight in, finished out. Responder: finished in."""
        self._life.enter(Call.ADVANCE)
        if view.role is Role.RESPONDER:
            good = self._exporter is not None and hmac.compare_digest(payload, digest(b"finished", self._exporter))
            return Answer() if good else Refuse(Reason.HANDSHAKE_FAILED, "stand-in: finished is wrong")
        if payload[:1] != _HELLO or len(payload) < 2 + _RANDOM:
            return Refuse(Reason.HANDSHAKE_FAILED, "stand-in: no flight")
        length = payload[1 + _RANDOM]
        self.alpn_selected = payload[2 + _RANDOM : 2 + _RANDOM + length].decode("latin-1") or None
        self._exporter = digest(_KEY, self._hello, payload)
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

    def __init__(self, flight: int) -> None:
        self._flight = flight

    def open(self, role: Role, services: Services) -> StandInSession:
        """A session."""
        return StandInSession(role, services, self._flight)


class Records:
    """The stream below in records: 0x17, u16 length, 8 bytes that tell key and sender, data. One of none is the end."""

    def __init__(self, below: Carrier, key: bytes, role: Role) -> None:
        self._below = below
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
            if len(self._held) >= 3:
                length = int.from_bytes(self._held[1:3], "big")
                if self._held[0] != _RECORD:
                    raise error(Reason.STREAM_BROKEN, f"stand-in: no record begins with {self._held[0]:#x}")
                if len(self._held) >= 3 + length:
                    record, self._held = self._held[3 : 3 + length], self._held[3 + length :]
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
        return bytes([_RECORD]) + (_TAG + len(data)).to_bytes(2, "big") + self._tags[self._role] + data

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
        self, carrier: Carrier, security: Security, alpn: tuple[str, ...], begun: object = None
    ) -> Records:
        """Hello out, hello in."""
        own = _HELLO + self._entropy.token_bytes(_RANDOM)
        await carrier.write(own)
        return Records(carrier, digest(own, await self._hello(carrier)), Role.INITIATOR)

    async def server(self, carrier: Carrier, security: Security, alpn: tuple[str, ...]) -> Records:
        """Hello in, hello out."""
        theirs = await self._hello(carrier)
        own = _HELLO + self._entropy.token_bytes(_RANDOM)
        await carrier.write(own)
        return Records(carrier, digest(theirs, own), Role.RESPONDER)

    @staticmethod
    async def _hello(carrier: Carrier) -> bytes:
        heard = b""
        while len(heard) < 1 + _RANDOM:
            more = await carrier.read(1 + _RANDOM - len(heard))
            if not more or (heard + more)[:1] != _HELLO:
                raise error(Reason.HANDSHAKE_FAILED, "stand-in: the peer says no hello")
            heard += more
        return heard
