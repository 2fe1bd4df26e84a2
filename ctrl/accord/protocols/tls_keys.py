# SPDX-License-Identifier: Apache-2.0
"""From a TLS 1.3 traffic secret to the key and the nonce that protect records (RFC 8446, sections 7.1 and 7.3)."""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from accord.protocols.services import RecordKeys

KEY_BYTES: Final = {
    "TLS_AES_128_GCM_SHA256": 16,
    "TLS_AES_256_GCM_SHA384": 32,
    "TLS_CHACHA20_POLY1305_SHA256": 32,
}
"""By the suites that a context offers (``tls_context``)."""
IV_BYTES: Final = 12


def record_keys(cipher: str, secret: bytes) -> RecordKeys:
    """The keys of the first record under ``secret``. ``cipher``: one of ``KEY_BYTES``."""
    algorithm = hashes.SHA384() if cipher.endswith("SHA384") else hashes.SHA256()
    return RecordKeys(
        cipher,
        expand_label(algorithm, secret, b"key", KEY_BYTES[cipher]),
        expand_label(algorithm, secret, b"iv", IV_BYTES),
    )


def expand_label(algorithm: hashes.HashAlgorithm, secret: bytes, label: bytes, length: int) -> bytes:
    """HKDF-Expand-Label with an empty context (RFC 8446, section 7.1)."""
    full = b"tls13 " + label
    info = length.to_bytes(2, "big") + bytes((len(full),)) + full + b"\0"
    return HKDFExpand(algorithm, length, info).derive(secret)
