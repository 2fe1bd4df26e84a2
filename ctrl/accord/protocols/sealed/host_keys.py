# SPDX-License-Identifier: Apache-2.0
"""A host's own keys, to which its peers seal: several are valid at once, so that they can be rotated.

Of each KEM the newest one that is not over is *published*: peers are given it. The others go on opening what was sealed
to them until they are over too. As text a key is two lines, the configuration and the private key in Base64:

    accord-key-configuration: rME...
    accord-private-key: Yw0...

The private key is that of X25519, 32 bytes, or the seed of ML-KEM-768, 64 bytes, followed by that of X25519.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hpke import MLKEM768X25519PrivateKey

from accord.protocols.sealed.configuration import Aead, Kem, KeyConfiguration, decode_list, encode_list
from accord.protocols.sealed.sealing import PrivateKey
from accord.wire.constants import Reason
from accord.wire.errors import error

DAY: Final = 86400
DEFAULT_DAYS: Final = 90
_CONFIGURATION: Final = "accord-key-configuration"
_PRIVATE: Final = "accord-private-key"
_X25519_BYTES: Final = 32
_SEED_BYTES: Final = 64


@dataclass(frozen=True, slots=True)
class HostKey:
    """One key: what peers are told of it, and the rest."""

    configuration: KeyConfiguration
    private: PrivateKey
    raw: bytes
    """The private key as bytes."""

    def text(self) -> str:
        """As a file holds it."""
        pieces = ((_CONFIGURATION, self.configuration.encode()), (_PRIVATE, self.raw))
        return "".join(f"{name}: {base64.b64encode(data).decode()}\n" for name, data in pieces)


def make(kem: Kem, aead: Aead, now: float, days: int = DEFAULT_DAYS) -> HostKey:
    """A new key that is valid for so many days from ``now``, Unix time in seconds."""
    raw = X25519PrivateKey.generate().private_bytes_raw()
    if kem is Kem.HYBRID:
        raw = MLKEM768PrivateKey.generate().private_bytes_raw() + raw
    return _of(kem, aead, raw, int(now) + days * DAY)


def parse(text: str) -> HostKey:
    """A key from its text. Raises ``UserError`` (BAD_CONFIG) saying what is wrong."""
    try:
        found = dict(line.split(": ", 1) for line in text.splitlines() if line)
        if found.keys() != {_CONFIGURATION, _PRIVATE}:
            raise ValueError(f"it needs the two lines {_CONFIGURATION} and {_PRIVATE}")
        told, raw = (base64.b64decode(found[name], validate=True) for name in (_CONFIGURATION, _PRIVATE))
        (configuration,) = decode_list(told)
        key = _of(Kem(configuration.kem), Aead(configuration.aead), raw, configuration.not_after)
        if key.configuration != configuration:
            raise ValueError("the configuration is not this private key's")
    except (ValueError, binascii.Error) as wrong:
        raise error(Reason.BAD_CONFIG, f"no key: {wrong}", "make one with: accord keys make") from wrong
    return key


def _of(kem: Kem, aead: Aead, raw: bytes, not_after: int) -> HostKey:
    seed = raw[:-_X25519_BYTES]
    if len(seed) != (_SEED_BYTES if kem is Kem.HYBRID else 0):
        raise ValueError(f"{len(raw)} bytes are no private key of {kem.name}")
    x25519 = X25519PrivateKey.from_private_bytes(raw[-_X25519_BYTES:])
    public = x25519.public_key().public_bytes_raw()
    private: PrivateKey = x25519
    if kem is Kem.HYBRID:
        mlkem = MLKEM768PrivateKey.from_seed_bytes(seed)
        private, public = MLKEM768X25519PrivateKey(mlkem, x25519), mlkem.public_key().public_bytes_raw() + public
    return HostKey(KeyConfiguration(kem, aead, public, not_after), private, raw)


class HostKeys:
    """All keys of a host. ``now`` is Unix time in seconds."""

    def __init__(self, keys: Iterable[HostKey], now: Callable[[], float]) -> None:
        self._now = now
        self._by_id: dict[bytes, HostKey] = {}
        self.replace(keys)

    def replace(self, keys: Iterable[HostKey]) -> None:
        """Other keys from now on; without any one is made, for as long as this process lives."""
        self._by_id = {key.configuration.id: key for key in keys}

    def find(self, key_id: bytes) -> HostKey | None:
        """The key of this ID, if it is not over."""
        key = self._valid().get(key_id)
        return key

    @property
    def published(self) -> tuple[KeyConfiguration, ...]:
        """What peers are given: the newest of each KEM, hybrid first."""
        newest: dict[int, KeyConfiguration] = {}
        for key in sorted(self._valid().values(), key=lambda each: each.configuration.not_after):
            newest[key.configuration.kem] = key.configuration
        return tuple(newest[kem] for kem in sorted(newest, key=lambda kem: kem != Kem.HYBRID))

    @property
    def published_bytes(self) -> bytes:
        """As ``published``, as a list of configurations."""
        return encode_list(self.published)

    def _valid(self) -> dict[bytes, HostKey]:
        now = self._now()
        valid = {key_id: key for key_id, key in self._by_id.items() if now < key.configuration.not_after}
        if not valid:
            made = make(Kem.HYBRID, Aead.CHACHA20_POLY1305, now)
            self._by_id = valid = {made.configuration.id: made}
        return valid
