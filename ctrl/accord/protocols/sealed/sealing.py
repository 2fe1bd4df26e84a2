# SPDX-License-Identifier: Apache-2.0
"""Sealing: HPKE for an inner negotiation's first message, keys that this message brings for all after it.

    first message    HPKE base mode (RFC 9180, section 5.1.1), single-shot, to the peer's public key
    later ones       AEAD of the same configuration; key and nonce by HKDF-SHA256 (RFC 5869) from
                     salt = SHA-256(first sealed message), secret = 32 random bytes that were sealed in it,
                     info = "accord inner key" || u8 number; so each key seals one message

The responder's numbers are 1, 3, ..., the initiator's 2, 4, ... They are those of the sealed messages, not of steps:
what comes beside an unfinished handshake is heard later than it was said.

The secret stands in for HPKE's own export (section 5.3), which the ``cryptography`` package does not offer: likewise
only whoever sealed and whoever opened know it, and one number's key says nothing of another's. What a message belongs
to is HPKE's info, and the AEAD's associated data afterwards.

What is sealed is padded to a multiple of ``PAD_BYTES`` before: u32 length, contents, zeros.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.hpke import MLKEM768X25519PrivateKey, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from accord.negotiation.interface import Role
from accord.protocols.sealed.configuration import AEAD_OF, KDF_OF, KEM_OF, Aead, KeyConfiguration
from accord.wire.constants import Reason
from accord.wire.errors import error

PAD_BYTES: Final = 256
SECRET_BYTES: Final = 32
TAG_BYTES: Final = 16
"""Of every AEAD that is spoken."""
_LENGTH_BYTES: Final = 4
_NONCE_BYTES: Final = 12
_LABEL: Final = b"accord inner key"

PrivateKey = X25519PrivateKey | MLKEM768X25519PrivateKey
_Aead = AESGCM | ChaCha20Poly1305

_KEY_BYTES: Final = {Aead.AES_128_GCM: 16, Aead.AES_256_GCM: 32, Aead.CHACHA20_POLY1305: 32}
_CIPHER: Final[dict[int, Callable[[bytes], _Aead]]] = {
    Aead.AES_128_GCM: AESGCM,
    Aead.AES_256_GCM: AESGCM,
    Aead.CHACHA20_POLY1305: ChaCha20Poly1305,
}


def seal(configuration: KeyConfiguration, info: bytes, contents: bytes) -> bytes:
    """``enc || ciphertext``. Raises ``PeerError`` (WRONG_KEY) for a key that cannot be sealed to."""
    try:
        return _suite(configuration).encrypt(pad(contents), configuration.public, info)
    except ValueError as refusal:  # X25519: a point of small order
        raise error(Reason.WRONG_KEY, f"{configuration.name} cannot be sealed to: {refusal}") from refusal


def unseal(configuration: KeyConfiguration, key: PrivateKey, info: bytes, sealed: bytes) -> bytes:
    """The contents. Raises ``PeerError`` (WRONG_KEY): sealed to another key or for another place, or changed."""
    try:
        return unpad(_suite(configuration).decrypt(sealed, key, info))
    except (InvalidTag, ValueError) as refusal:
        raise error(Reason.WRONG_KEY, f"{len(sealed)} bytes do not open with {configuration.name}") from refusal


@functools.lru_cache(maxsize=16)
def _suite_of(kem: int, kdf: int, aead: int) -> Suite:
    if kem not in KEM_OF or kdf not in KDF_OF or aead not in AEAD_OF:
        raise ValueError(f"KEM {kem:#06x}, KDF {kdf:#06x} or AEAD {aead:#06x} is not spoken")
    return Suite(KEM_OF[kem], KDF_OF[kdf], AEAD_OF[aead])


def _suite(configuration: KeyConfiguration) -> Suite:
    return _suite_of(configuration.kem, configuration.kdf, configuration.aead)


def sealed_bytes(configuration: KeyConfiguration, contents: int) -> int:
    """Length of ``seal`` of so many bytes."""
    return KEM_OF[configuration.kem].enc_length() + padded_bytes(contents) + TAG_BYTES


class Channel:
    """The messages after the first, both ways. ``about``: what they belong to, the same on both sides."""

    def __init__(self, role: Role, aead: int, secret: bytes, sealed: bytes, about: bytes) -> None:
        """``sealed``: the first message, which brought ``secret``."""
        self._said, self._heard = (2, 1) if role is Role.INITIATOR else (1, 2)
        self._aead = Aead(aead)
        self._secret = secret
        self._salt = hashlib.sha256(sealed).digest()
        self._about = about

    def seal(self, contents: bytes) -> bytes:
        """This side's next message."""
        cipher, nonce, about = self._keys(self._said)
        self._said += 2
        return cipher.encrypt(nonce, pad(contents), about)

    def unseal(self, ciphertext: bytes) -> bytes:
        """The contents of the peer's next message. Raises ``PeerError`` (HANDSHAKE_FAILED) when this is not that."""
        cipher, nonce, about = self._keys(self._heard)
        try:
            contents = unpad(cipher.decrypt(nonce, ciphertext, about))
        except (InvalidTag, ValueError) as refusal:
            raise error(Reason.HANDSHAKE_FAILED, f"inner: sealed message {self._heard} does not open") from refusal
        self._heard += 2
        return contents

    def _keys(self, number: int) -> tuple[_Aead, bytes, bytes]:
        size = _KEY_BYTES[self._aead]
        derived = HKDF(hashes.SHA256(), size + _NONCE_BYTES, self._salt, _LABEL + bytes((number,))).derive(self._secret)
        return _CIPHER[self._aead](derived[:size]), derived[size:], self._about + bytes((number,))


def padded_bytes(contents: int) -> int:
    """Length of ``pad`` of so many bytes."""
    return -(-(_LENGTH_BYTES + contents) // PAD_BYTES) * PAD_BYTES


def pad(contents: bytes) -> bytes:
    """``u32`` length, contents, zeros."""
    return (len(contents).to_bytes(_LENGTH_BYTES, "big") + contents).ljust(padded_bytes(len(contents)), b"\0")


def unpad(padded: bytes) -> bytes:
    """The contents. Raises ``ValueError`` for anything that ``pad`` does not make."""
    length = int.from_bytes(padded[:_LENGTH_BYTES], "big")
    contents = padded[_LENGTH_BYTES : _LENGTH_BYTES + length]
    if len(contents) != length or pad(contents) != padded:
        raise ValueError("padding of another form")
    return contents
