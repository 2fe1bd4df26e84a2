# SPDX-License-Identifier: Apache-2.0
"""Key configurations: the public keys that a host's peers seal inner negotiations to (docs/PROTOCOL.md, section 19).

    version u16 = 0xacc1 | length u16 | KEM u16 | KDF u16 | AEAD u16 | not after u64 | public key, to the end

As ECHConfig (RFC 9849, section 4): a list is configurations one after another, in the order of the host's preference,
and a reader passes over versions and algorithms that it does not know. The numbers are those of the HPKE registries
(RFC 9180, section 7). A configuration's ID is not in it but follows from it: the first 8 bytes of its SHA-256.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PublicKey

VERSION: Final = 0xACC1
KDF_ID: Final = 0x0001
"""HKDF-SHA256, the only one that is spoken."""
ID_BYTES: Final = 8
MAX_CONFIGURATIONS: Final = 8
MAX_LIST_BYTES: Final = 4096
"""What a peer may give us to remember: two hybrid keys and more."""
MLKEM_PUBLIC_BYTES: Final = 1184

_OUTER: Final = struct.Struct(">HH")
_INNER: Final = struct.Struct(">HHHQ")

PublicKey = X25519PublicKey | MLKEM768X25519PublicKey


class Kem(enum.IntEnum):
    """Key encapsulations that are spoken."""

    X25519 = 0x0020
    """DHKEM(X25519, HKDF-SHA256), RFC 9180 section 4.1."""
    HYBRID = 0x647A
    """MLKEM768-X25519 (draft-ietf-hpke-pq), known as X-Wing."""


class Aead(enum.IntEnum):
    """Encryptions that are spoken (RFC 9180, section 7.3)."""

    AES_128_GCM = 0x0001
    AES_256_GCM = 0x0002
    CHACHA20_POLY1305 = 0x0003


KEM_OF: Final[dict[int, KEM]] = {Kem.X25519: KEM.X25519, Kem.HYBRID: KEM.MLKEM768_X25519}
AEAD_OF: Final[dict[int, AEAD]] = {
    Aead.AES_128_GCM: AEAD.AES_128_GCM,
    Aead.AES_256_GCM: AEAD.AES_256_GCM,
    Aead.CHACHA20_POLY1305: AEAD.CHACHA20_POLY1305,
}
KDF_OF: Final[dict[int, KDF]] = {KDF_ID: KDF.HKDF_SHA256}


def _hybrid(raw: bytes) -> PublicKey:
    mlkem, x25519 = raw[:MLKEM_PUBLIC_BYTES], raw[MLKEM_PUBLIC_BYTES:]
    return MLKEM768X25519PublicKey(
        MLKEM768PublicKey.from_public_bytes(mlkem), X25519PublicKey.from_public_bytes(x25519)
    )


_READERS: Final[dict[int, Callable[[bytes], PublicKey]]] = {
    Kem.X25519: X25519PublicKey.from_public_bytes,
    Kem.HYBRID: _hybrid,
}


@dataclass(frozen=True, slots=True)
class KeyConfiguration:
    """One public key and what it is used with."""

    kem: int
    aead: int
    public_key: bytes
    """As RFC 9180's ``SerializePublicKey``: 32 bytes, or 1184 of ML-KEM-768 and 32 of X25519."""
    not_after: int
    """Unix time in seconds; not to be sealed to any more then."""
    kdf: int = KDF_ID

    @property
    def id(self) -> bytes:
        """8 bytes by which a sealed message names it."""
        return _id(self)

    @property
    def usable(self) -> bool:
        """Its algorithms are spoken here and its key is one."""
        return _public(self.kem, self.public_key) is not None and self.aead in AEAD_OF and self.kdf in KDF_OF

    @property
    def public(self) -> PublicKey:
        """The key. Raises ``ValueError`` when it is not ``usable``."""
        key = _public(self.kem, self.public_key)
        if key is None:
            raise ValueError(f"no public key of KEM {self.kem:#06x}")
        return key

    @property
    def name(self) -> str:
        """For people: ``hybrid 3f0c...``."""
        kem = Kem(self.kem).name.lower() if self.kem in KEM_OF else f"KEM {self.kem:#06x}"
        return f"{kem} {self.id.hex()}"

    def encode(self) -> bytes:
        """Its bytes."""
        body = _INNER.pack(self.kem, self.kdf, self.aead, self.not_after) + self.public_key
        return _OUTER.pack(VERSION, len(body)) + body


@functools.lru_cache(maxsize=256)
def _id(configuration: KeyConfiguration) -> bytes:
    return hashlib.sha256(configuration.encode()).digest()[:ID_BYTES]


@functools.lru_cache(maxsize=256)
def _public(kem: int, raw: bytes) -> PublicKey | None:
    reader = _READERS.get(kem)
    if reader is None:
        return None
    try:
        return reader(raw)
    except ValueError:
        return None


def encode_list(configurations: Iterable[KeyConfiguration]) -> bytes:
    """A list, best first."""
    return b"".join(each.encode() for each in configurations)


def decode_list(data: bytes) -> tuple[KeyConfiguration, ...]:
    """The configurations of a list, without those of other versions.

    Raises ``ValueError`` when it is cut short, or longer than ``MAX_LIST_BYTES`` or ``MAX_CONFIGURATIONS``.
    """
    if len(data) > MAX_LIST_BYTES:
        raise ValueError(f"{len(data)} bytes of key configurations, more than {MAX_LIST_BYTES}")
    found: list[KeyConfiguration] = []
    at = count = 0
    while at < len(data):
        if len(data) - at < _OUTER.size:
            raise ValueError("key configurations that break off")
        version, length = _OUTER.unpack_from(data, at)
        at += _OUTER.size
        body = data[at : at + length]
        at += length
        count += 1
        if len(body) < length or count > MAX_CONFIGURATIONS:
            raise ValueError("key configurations that break off, or too many of them")
        if version != VERSION:
            continue
        if length < _INNER.size:
            raise ValueError(f"a key configuration of {length} bytes")
        kem, kdf, aead, not_after = _INNER.unpack_from(body)
        found.append(KeyConfiguration(kem, aead, body[_INNER.size :], not_after, kdf))
    return tuple(found)


def best(configurations: Iterable[KeyConfiguration], now: float) -> KeyConfiguration | None:
    """The first that is usable here and, at ``now`` (Unix time, seconds), not over."""
    return next((each for each in configurations if each.usable and now < each.not_after), None)
