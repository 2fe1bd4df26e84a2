# SPDX-License-Identifier: Apache-2.0
"""TCP without a SYN: the SYN and the SYN-ACK travel as handshake data, the kernel sockets are made from them.

Each side begins to install its socket as soon as it has both sides' numbers, and has it for certain before its
message leaves: the responder when its answer is confirmed, before anything can tell the initiator to send, the
initiator in ``commit``. So neither ever meets the other's first segment without a socket, which the kernel would
answer with a reset (the reset race). In between, the sessions above do their work while the kernel does its own.
Until the commit the socket is tentative: ``prune`` and ``abort`` drop it, without a segment where none has come.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from accord.negotiation.interface import Answer, Outcome, Refuse, Role, View
from accord.protocols.services import Carrier, Services, TcpEndpoint, TcpParameters
from accord.protocols.tcp_agreement import Agreement
from accord.protocols.tcp_wishes import OPTIONS
from accord.wire import tcp_header
from accord.wire.constants import Reason, Word
from accord.wire.errors import AccordError, error
from accord.wire.tcp_header import TcpHeader

_SEQUENCE_MASK: Final = 0xFFFFFFFF
_TELLING_SECONDS: Final = 2.0
"""As long as a peer is told again that a negotiation is over (``controller.exchange``)."""


class InstalledTcp:
    """``TcpWay``: both kernels are given the connection's state."""

    def __init__(self, role: Role, services: Services) -> None:
        self._role = role
        self._services = services
        self._endpoint: TcpEndpoint | None = None
        self._peer: TcpParameters | None = None
        self._committed = False
        self._agreement = Agreement(services)
        self._offered: TcpParameters | None = None
        """Initiator: what its SYN says."""

    @property
    def inside(self) -> Mapping[str, object]:
        """What the kernel says of the connection."""
        return self._agreement.inside

    def propose(self, view: View) -> Outcome:
        """Initiator: the SYN's header, from a free local port to the service port."""
        try:
            return Answer(self._syn())
        except AccordError as failed:
            return self._refuse(failed)

    def respond(self, view: View, payload: bytes) -> Outcome:
        """Responder: the SYN in, the SYN-ACK out; the kernel gets the connection, tentatively."""
        try:
            return Answer(self._syn_ack(payload), self._confirm)
        except AccordError as failed:
            return self._refuse(failed)

    def advance(self, view: View, payload: bytes) -> Outcome:
        """Initiator: the SYN-ACK in, nothing out; the kernel gets the connection, tentatively.

        Responder: the commit, which says nothing.
        """
        try:
            if self._role is Role.INITIATOR:
                self._install(self._accept(payload))
            elif payload:
                raise _failed(f"{len(payload)} bytes in the commit of a TCP node, which has none")
        except AccordError as failed:
            return self._refuse(failed)
        return Answer()

    def resume(self, view: View) -> Outcome:
        """Never asked for: this session waits for nothing."""
        return Refuse(Reason.PLUGIN_FAILED, "the TCP session was resumed, but never waits")

    def commit(self, view: View) -> None:
        """What was tentative stays. Raises ``HostError`` (CANNOT_INSTALL) at the initiator."""
        if self._committed:
            return
        if self._endpoint is None or self._peer is None:
            raise RuntimeError("commit of a TCP session that has no agreed numbers")
        self._endpoint.installed()
        self._committed = True

    def greeted_by(self, hello: bytes) -> None:
        """Nothing is said over a connection that is still to be installed."""

    def drop(self) -> None:
        """Give up port and socket, silently; what was handed over as a stream is not ours any more."""
        endpoint, self._endpoint = self._endpoint, None
        if endpoint is not None:
            endpoint.release()

    def give_up(self) -> None:
        """As ``drop``, before the peer has been told: until then it may have the connection installed, and refuses
        another one from the same port. So an initiator that has proposed keeps its port for that time."""
        endpoint = self._endpoint
        if self._role is Role.RESPONDER or endpoint is None or self._peer is not None:
            self.drop()
            return
        self._endpoint = None
        self._services.call_later(_TELLING_SECONDS, endpoint.release)

    def carrier(self, below: Carrier | None) -> Carrier:
        """The kernel connection's stream. TCP has nothing of ours below it: ``below`` is None."""
        if not self._committed or self._endpoint is None:
            raise RuntimeError("a TCP session has a stream only after commit, and only one")
        endpoint, self._endpoint = self._endpoint, None
        return self._agreement.tune(endpoint.stream())

    # ---- The three segments of RFC 9293, Figure 6, of which the third is the commit

    def _syn(self) -> bytes:
        behind = self._agreement.begin()
        own = self._offered = self._restricted(self._reserve(None).parameters)
        return self._encode(TcpHeader(self._services.remote[1], None, 0, own)) + behind

    def _syn_ack(self, payload: bytes) -> bytes:
        syn, behind = self._decode(payload)
        verdict = self._agreement.answer(behind)
        port = self._services.local[1]
        if syn.acknowledgement is not None:
            raise _failed("a SYN-ACK where a SYN belongs")
        if syn.destination_port != port:
            raise _failed(f"the SYN is for port {syn.destination_port}, the negotiation for {port}")
        own = self._restricted(self._reserve(port).parameters, syn.sender)
        peer = syn.sender
        self._install(peer if self._agreement.silent else _agreed(peer, own))
        echo = peer.timestamp if own.timestamp is not None and peer.timestamp is not None else 0
        return self._encode(TcpHeader(peer.port, _next(peer.isn), echo, own)) + verdict

    def _install(self, peer: TcpParameters) -> None:
        assert self._endpoint is not None, "numbers are agreed with what was reserved"
        self._endpoint.install(peer)
        self._peer = peer

    def _confirm(self) -> Refuse | None:
        if self._endpoint is None:
            return Refuse(Reason.CANNOT_INSTALL, "the TCP socket was given up")
        try:
            self._endpoint.installed()
        except AccordError as failed:
            return self._refuse(failed)
        return None

    def _accept(self, payload: bytes) -> TcpParameters:
        if self._endpoint is None:
            raise _failed("a SYN-ACK for a SYN that was not proposed")
        own = self._offered
        assert own is not None, "what was reserved was proposed"
        syn_ack, behind = self._decode(payload)
        peer = syn_ack.sender
        if syn_ack.acknowledgement is None:
            raise _failed("a SYN where a SYN-ACK belongs")
        if syn_ack.acknowledgement != _next(own.isn):
            raise _failed("the SYN-ACK acknowledges another SYN's sequence number")
        if (peer.port, syn_ack.destination_port) != (self._services.remote[1], own.port):
            raise _failed(
                f"the SYN-ACK runs from port {peer.port} to {syn_ack.destination_port}, "
                f"the SYN from {own.port} to {self._services.remote[1]}"
            )
        if _agreed(peer, own) != peer:
            raise _failed("the SYN-ACK has options that the SYN did not offer")
        if peer.timestamp is not None and syn_ack.echo != own.timestamp:
            raise _failed("the SYN-ACK echoes another timestamp than the SYN's")
        self._agreement.conclude(behind)
        if not self._agreement.silent:
            self._agreement.check(_has(peer))
        return peer

    def _restricted(self, own: TcpParameters, peer: TcpParameters | None = None) -> TcpParameters:
        """``own`` as the policies want it; without ``peer`` what a SYN is to offer, else what both have and want."""
        if (limit := self._services.wishes.tcp.mss) is not None:
            own = replace(own, mss=min(own.mss, limit))
        if peer is not None:
            own = _agreed(own, peer)
        if self._agreement.silent:
            return own
        has, use = _has(own), self._agreement.use
        if peer is None:
            # It is offered whenever this side can: what the peer says of it is not known yet.
            words = dict(zip(OPTIONS, self._services.wishes.tcp.words, strict=True))
            keep = {name: (use(name, able=has[name]) or words[name] is Word.AVOID) and has[name] for name in OPTIONS}
        else:
            keep = {name: use(name, able=has[name]) for name in OPTIONS}
        return replace(
            own,
            window_scale=own.window_scale if keep["window_scale"] else None,
            sack=keep["sack"],
            timestamp=own.timestamp if keep["timestamps"] else None,
        )

    def _encode(self, header: TcpHeader) -> bytes:
        return tcp_header.encode(header, self._services.local[0], self._services.remote[0])

    def _decode(self, payload: bytes) -> tuple[TcpHeader, bytes]:
        """The header, and what is behind it. Raises ``PeerError`` for a bad header, ``PathError`` for one that was
        written for other addresses."""
        local, remote = self._services.local[0], self._services.remote[0]
        payload, behind = tcp_header.split(payload)
        header = tcp_header.decode(
            payload, tcp_header.DEFAULT_MSS_IPV6 if ":" in remote else tcp_header.DEFAULT_MSS_IPV4
        )
        # The negotiation transport has checked the bytes, so what does not match is the pseudo-header. State
        # installed for these addresses would belong to a connection that nobody sends segments of.
        if not tcp_header.checksum_matches(payload, remote, local):
            raise error(
                Reason.ADDRESS_TRANSLATED,
                f"the peer's TCP header was not written for segments from {remote} to {local}",
                "use a stack over UDP, or a path without address translation",
            )
        return header, behind

    def _reserve(self, port: int | None) -> TcpEndpoint:
        if self._services.tcp is None:
            raise error(
                Reason.NO_KERNEL_SUPPORT, "this host cannot install TCP state", "accord doctor says what is missing"
            )
        self.drop()
        self._endpoint = self._services.tcp.reserve(port)
        return self._endpoint

    def _refuse(self, failed: AccordError) -> Refuse:
        self.give_up()
        return Refuse(failed.reason, f"{failed.detail} ({failed.mend})" if failed.mend else failed.detail)


def _agreed(own: TcpParameters, peer: TcpParameters) -> TcpParameters:
    """``own`` with those options only that ``peer`` has too (RFC 7323, sections 2.2 and 3.2; RFC 2018)."""
    return replace(
        own,
        window_scale=own.window_scale if peer.window_scale is not None else None,
        sack=own.sack and peer.sack,
        timestamp=own.timestamp if peer.timestamp is not None else None,
    )


def _has(parameters: TcpParameters) -> dict[str, bool]:
    """Which of ``OPTIONS`` a header has."""
    return {
        "sack": parameters.sack,
        "timestamps": parameters.timestamp is not None,
        "window_scale": parameters.window_scale is not None,
    }


def _next(sequence: int) -> int:
    return (sequence + 1) & _SEQUENCE_MASK


def _failed(detail: str) -> AccordError:
    return error(Reason.HANDSHAKE_FAILED, detail)
