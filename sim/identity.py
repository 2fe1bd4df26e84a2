# SPDX-License-Identifier: Apache-2.0
"""The certificate of all simulated hosts: the same bytes in every process, for the lengths of flights depend on it.

Ed25519, whose signatures all have one length; ECDSA's have not. It is its own root. It protects nothing.
"""

from __future__ import annotations

import datetime
import functools
import shutil
import tempfile
from multiprocessing.util import Finalize
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from sim.host import NAME, Identity


@functools.cache
def files() -> Identity:
    """Written once in each process, and removed at its end."""
    directory = Path(tempfile.mkdtemp(prefix="accord-sim-"))
    Finalize(None, shutil.rmtree, (directory, True), exitpriority=0)  # atexit(3) is not run in a pool's processes
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
    made = Identity(directory / "sim.pem", directory / "sim.key")
    made.certificate.write_bytes(builder.sign(key, None).public_bytes(Encoding.PEM))
    made.private_key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return made
