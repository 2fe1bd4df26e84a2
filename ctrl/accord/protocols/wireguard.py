# SPDX-License-Identifier: Apache-2.0
"""WireGuard as a node: a tunnel whose keys the graph exchanges, and a TCP connection through it.

    proposal    the initiator's public key (X25519), 32 bytes; u16 UDP port that its kernel will receive on
    answer      the same of the responder
    commit      nothing

The keys are made for this one tunnel. At the commit each side makes an interface with the other as its only peer; the
responder's begins WireGuard's own handshake (Noise IK, one round trip), since the initiator's is there by then and not
the other way round. The addresses inside follow from the keys. The tunnel ends with the stream.

By itself the node encrypts and authenticates nobody: whoever sits on the path may put keys of his own into the graph.
With TLS above it the graph, and so the keys, is what the transcript's MAC is over: ``tls/wireguard`` is secure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from accord.negotiation.interface import Answer, Outcome, Refuse, Role, View
from accord.protocols.lifecycle import Call
from accord.protocols.services import Carrier, Services, Tunnel
from accord.protocols.stream_layer import StreamLayer
from accord.wire.constants import Protocol, Reason
from accord.wire.errors import AccordError, error

_KEY_BYTES: Final = 32
_PAYLOAD_BYTES: Final = _KEY_BYTES + 2


class WireguardSession(StreamLayer):
    """One WireGuard node."""

    protocol: int = Protocol.WIREGUARD
    secure: bool = False

    def __init__(self, role: Role, services: Services) -> None:
        super().__init__("wireguard", role)
        self._services = services
        self._tunnel: Tunnel | None = None
        self._peer: tuple[bytes, int] | None = None

    @property
    def inside(self) -> Mapping[str, object]:
        """The two ports and the peer's key."""
        if self._tunnel is None or self._peer is None:
            return {}
        return {"port": self._tunnel.port, "peer_port": self._peer[1], "peer_key": self._peer[0].hex()}

    def propose(self, view: View) -> Outcome:
        """The own key and port. Refuses without WireGuard (NO_KERNEL_SUPPORT)."""
        self._life.enter(Call.PROPOSE)
        try:
            return Answer(self._reserve())
        except AccordError as failure:
            return self._refuse(failure)

    def respond(self, view: View, payload: bytes) -> Outcome:
        """The initiator's key and port in, the own out."""
        self._life.enter(Call.RESPOND)
        try:
            if view.below:
                raise error(Reason.HANDSHAKE_FAILED, "WireGuard: runs on the context, not on another protocol")
            own = self._reserve()
            self._learn(payload)
        except AccordError as failure:
            return self._refuse(failure)
        return Answer(own)

    def advance(self, view: View, payload: bytes) -> Outcome:
        """Initiator: the responder's key and port in. Responder: nothing."""
        self._life.enter(Call.ADVANCE)
        try:
            if view.role is Role.INITIATOR:
                self._learn(payload)
            elif payload:
                raise error(Reason.HANDSHAKE_FAILED, f"WireGuard: {len(payload)} bytes in the commit, which has none")
        except AccordError as failure:
            return self._refuse(failure)
        return Answer()

    def commit(self, view: View) -> None:
        """The interface is made. Raises ``HostError``."""
        super().commit(view)
        if self._tunnel is None or self._peer is None:
            raise error(Reason.PLUGIN_FAILED, "wireguard: commit without keys")
        self._tunnel.establish(*self._peer)

    def prune(self, reason: Reason) -> None:
        """Forget the keys."""
        if self._life.leave():
            self._release()

    def abort(self, reason: Reason) -> None:
        """Forget the keys."""
        self.prune(reason)

    def carrier(self, below: Carrier | None) -> Carrier:
        """The connection through the tunnel, on its way. ``below`` is the context's, which has no stream."""
        self._life.enter(Call.CARRIER)
        assert self._tunnel is not None, "what is committed was reserved"
        return self._tunnel.stream()

    def _reserve(self) -> bytes:
        service = self._services.tunnels
        if service is None:
            raise error(
                Reason.NO_KERNEL_SUPPORT,
                "WireGuard: not on this host, or not in its policy file",
                "name wireguard in prefer; accord doctor",
            )
        self._release()  # of a candidate stack before this one
        self._tunnel = service.reserve()
        return self._tunnel.public_key + self._tunnel.port.to_bytes(2, "big")

    def _learn(self, payload: bytes) -> None:
        key, port = payload[:_KEY_BYTES], int.from_bytes(payload[_KEY_BYTES:], "big")
        if len(payload) != _PAYLOAD_BYTES or port == 0:
            raise error(Reason.HANDSHAKE_FAILED, f"WireGuard: no key and port in {len(payload)} bytes")
        if self._tunnel is not None and key == self._tunnel.public_key:
            raise error(Reason.HANDSHAKE_FAILED, "WireGuard: our own key")
        self._peer = key, port

    def _release(self) -> None:
        if self._tunnel is not None:
            self._tunnel.release()

    def _refuse(self, failure: AccordError) -> Refuse:
        self._release()
        self._tunnel = None
        return Refuse(failure.reason, f"{failure.detail} ({failure.mend})" if failure.mend else failure.detail)


class WireguardPlugin:
    """WireGuard, found as ``wireguard``."""

    name: str = "wireguard"
    protocol: int = Protocol.WIREGUARD

    def open(self, role: Role, services: Services) -> WireguardSession:
        """A session for one node of one negotiation."""
        return WireguardSession(role, services)
