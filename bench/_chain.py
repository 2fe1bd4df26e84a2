# SPDX-License-Identifier: Apache-2.0
"""Certificate chains as long as those that post-quantum signatures will have."""

from __future__ import annotations

import datetime
import ipaddress
import secrets
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

_PADDING = x509.ObjectIdentifier("1.3.6.1.4.1.32473.1")
"""Of the arc for examples (RFC 5612)."""
_DAY = datetime.timedelta(days=1)
_INTERMEDIATES = 2


@dataclass(frozen=True, slots=True)
class Chain:
    """PEM files. ``size``: bytes of the chain's certificates, DER, without the root's."""

    root: Path
    certificate: Path
    key: Path
    size: int


def make(directory: Path, names: list[str], size: int) -> Chain:
    """A server's certificate and two intermediate ones of together ``size`` bytes, within three.

    ECDSA, padded with random bytes (which no compression makes shorter) to the size that they would have with
    post-quantum keys and signatures: ML-DSA-65 has 5.3 KB of both to a certificate, ML-DSA-87 7.2 KB (FIPS 204).
    """
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(_INTERMEDIATES + 2)]
    subjects = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"bench {i}")]) for i in range(len(keys))]
    root = _certificate(subjects[0], subjects[0], keys[0], keys[0], authority=True, names=[], padding=0)
    chain = []
    left = size
    for number in range(1, len(keys)):
        leaf = number == len(keys) - 1
        part = left // (len(keys) - number)
        for_names = names if leaf else []
        signer, subject, issuer = keys[number - 1], subjects[number], subjects[number - 1]
        bare = _length(_certificate(subject, issuer, keys[number], signer, not leaf, for_names, 300))
        made = _certificate(subject, issuer, keys[number], signer, not leaf, for_names, max(1, part - bare + 300))
        chain.append(made)
        left -= _length(made)
    directory.mkdir(exist_ok=True)
    files = Chain(directory / "root.pem", directory / "chain.pem", directory / "chain.key", size - left)
    files.root.write_bytes(root.public_bytes(Encoding.PEM))
    files.certificate.write_bytes(b"".join(each.public_bytes(Encoding.PEM) for each in reversed(chain)))
    private = keys[-1].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    files.key.write_bytes(private)
    return files


def _length(certificate: x509.Certificate) -> int:
    return len(certificate.public_bytes(Encoding.DER))


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    authority: bool,
    names: list[str],
    padding: int,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    usage = dict.fromkeys(
        (
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + 30 * _DAY)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=not authority, key_cert_sign=authority, crl_sign=authority, **usage),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([_name(each) for each in names]), critical=False)
    if padding:
        filling = x509.UnrecognizedExtension(_PADDING, secrets.token_bytes(padding))
        builder = builder.add_extension(filling, critical=False)
    return builder.sign(signer, hashes.SHA256())


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)
