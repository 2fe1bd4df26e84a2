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

from accord.negotiation.interface import Role, View
from accord.protocols.plan import Plan
from accord.protocols.services import Carrier, Services, Tunnel
from accord.wire.constants import Protocol, Reason
from accord.wire.errors import error

_KEY_BYTES: Final = 32
_PAYLOAD_BYTES: Final = _KEY_BYTES + 2


class WireguardSession(Plan[Tunnel]):
    """One WireGuard node."""

    protocol: int = Protocol.WIREGUARD
    secure: bool = False

    def __init__(self, role: Role, services: Services) -> None:
        super().__init__("wireguard", "WireGuard", role)
        self._services = services
        self._peer: tuple[bytes, int] | None = None

    @property
    def inside(self) -> Mapping[str, object]:
        """The two ports and the peer's key."""
        if self._own is None or self._peer is None:
            return {}
        return {"port": self._own.port, "peer_port": self._peer[1], "peer_key": self._peer[0].hex()}

    def commit(self, view: View) -> None:
        """The interface is made. Raises ``HostError``."""
        super().commit(view)
        if self._own is None or self._peer is None:
            raise error(Reason.PLUGIN_FAILED, "wireguard: commit without keys")
        self._own.establish(*self._peer)

    def carrier(self, below: Carrier | None) -> Carrier:
        """The connection through the tunnel, on its way. ``below`` is the context's, which has no stream."""
        return self._committed().stream()

    def _service(self) -> Tunnel | None:
        return None if self._services.tunnels is None else self._services.tunnels.reserve()

    def _said(self, own: Tunnel) -> bytes:
        return encode(own.public_key, own.port)

    def _hear(self, payload: bytes) -> None:
        key, port = decode(payload)
        if self._own is not None and key == self._own.public_key:
            raise error(Reason.HANDSHAKE_FAILED, "WireGuard: our own key")
        self._peer = key, port


class WireguardPlugin:
    """WireGuard, found as ``wireguard``."""

    name: str = "wireguard"
    protocol: int = Protocol.WIREGUARD

    def open(self, role: Role, services: Services) -> WireguardSession:
        """A session for one node of one negotiation."""
        return WireguardSession(role, services)


def encode(public_key: bytes, port: int) -> bytes:
    """The payload of a proposal and of an answer."""
    return public_key + port.to_bytes(_PAYLOAD_BYTES - _KEY_BYTES, "big")


def decode(payload: bytes) -> tuple[bytes, int]:
    """Public key and port. Raises ``PeerError`` (HANDSHAKE_FAILED)."""
    key, port = payload[:_KEY_BYTES], int.from_bytes(payload[_KEY_BYTES:], "big")
    if len(payload) != _PAYLOAD_BYTES or port == 0:
        raise error(Reason.HANDSHAKE_FAILED, f"WireGuard: no key and port in {len(payload)} bytes")
    return key, port
