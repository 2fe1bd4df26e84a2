# SPDX-License-Identifier: Apache-2.0
"""The certificate of all simulated hosts: the same bytes in every process, for the lengths of flights depend on it.

Ed25519, whose signatures all have one length; ECDSA's have not. It is its own root. It protects nothing.
"""

from __future__ import annotations

import datetime
import functools
import os
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from sim.host import NAME, Identity


@functools.cache
def files() -> Identity:
    """Made once in each process, in its memory: files that go with it, however it ends."""
    key = Ed25519PrivateKey.from_private_bytes(bytes(32))
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC))
        .not_valid_after(datetime.datetime(2120, 1, 1, tzinfo=datetime.UTC))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Identity(_in_memory(builder.sign(key, None).public_bytes(Encoding.PEM)), _in_memory(private))


def _in_memory(content: bytes) -> Path:
    file = os.memfd_create("accord-sim")
    os.write(file, content)
    return Path(f"/proc/self/fd/{file}")
