# SPDX-License-Identifier: Apache-2.0
"""HPKE's base mode written down once more from RFC 9180 and draft-ietf-hpke-pq, to open what the library has sealed."""

from __future__ import annotations

import hashlib
import hmac

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

_KEY_BYTES = {1: 16, 2: 32, 3: 32}
_HYBRID, _X25519 = 0x647A, 0x0020
_MLKEM_CIPHERTEXT = 1088


def _hmac(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "sha256")


def _extract(suite: bytes, salt: bytes, label: bytes, material: bytes) -> bytes:
    return _hmac(salt or bytes(32), b"HPKE-v1" + suite + label + material)


def _expand(suite: bytes, key: bytes, label: bytes, info: bytes, length: int) -> bytes:
    labelled = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    out = block = b""
    while len(out) < length:
        block = _hmac(key, block + labelled + bytes((len(out) // 32 + 1,)))
        out += block
    return out[:length]


def _dhkem(raw: bytes, enc: bytes) -> bytes:
    """RFC 9180, section 4.1."""
    private = X25519PrivateKey.from_private_bytes(raw)
    shared = private.exchange(X25519PublicKey.from_public_bytes(enc))
    suite = b"KEM" + _X25519.to_bytes(2, "big")
    secret = _extract(suite, b"", b"eae_prk", shared)
    return _expand(suite, secret, b"shared_secret", enc + private.public_key().public_bytes_raw(), 32)


def _x_wing(raw: bytes, enc: bytes) -> bytes:
    """The C2PRI combiner: SHA3-256 of both secrets, X25519's ciphertext and public key, and a label."""
    mlkem, private = MLKEM768PrivateKey.from_seed_bytes(raw[:64]), X25519PrivateKey.from_private_bytes(raw[64:])
    ciphertext, point = enc[:_MLKEM_CIPHERTEXT], enc[_MLKEM_CIPHERTEXT:]
    pieces = (
        mlkem.decapsulate(ciphertext),
        private.exchange(X25519PublicKey.from_public_bytes(point)),
        point,
        private.public_key().public_bytes_raw(),
        b"\\.//^\\",
    )
    return hashlib.sha3_256(b"".join(pieces)).digest()


def unseal(kem: int, aead: int, raw: bytes, info: bytes, sealed: bytes, aad: bytes = b"") -> bytes:
    """``raw``: the private key as bytes, for the hybrid 64 of ML-KEM's seed and 32 of X25519."""
    size = _MLKEM_CIPHERTEXT + 32 if kem == _HYBRID else 32
    enc, ciphertext = sealed[:size], sealed[size:]
    shared = _x_wing(raw, enc) if kem == _HYBRID else _dhkem(raw, enc)
    suite = b"HPKE" + b"".join(number.to_bytes(2, "big") for number in (kem, 1, aead))
    context = b"\0" + _extract(suite, b"", b"psk_id_hash", b"") + _extract(suite, b"", b"info_hash", info)
    secret = _extract(suite, shared, b"secret", b"")
    key = _expand(suite, secret, b"key", context, _KEY_BYTES[aead])
    nonce = _expand(suite, secret, b"base_nonce", context, 12)
    cipher = ChaCha20Poly1305(key) if aead == 3 else AESGCM(key)
    return cipher.decrypt(nonce, ciphertext, aad)
