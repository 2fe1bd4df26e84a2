# SPDX-License-Identifier: Apache-2.0
"""A small certificate authority: for labs, and for a daemon that was given no certificate. PEM files."""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_DAY = datetime.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Files:
    """A certificate (PEM chain, own one first) and its private key (PKCS #8, mode 0600)."""

    certificate: Path
    private_key: Path


def make_ca(directory: Path, name: str = "Accord lab") -> Files:
    """Make an authority: ``ca.pem`` and ``ca.key`` in ``directory``, P-256, valid from yesterday for ten years."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = _certificate(subject, subject, key.public_key(), now - _DAY, now + 3650 * _DAY)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(authority=True), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    return _write(directory, "ca", [builder.sign(key, hashes.SHA256())], key)


def issue(
    directory: Path,
    names: Sequence[str],
    *,
    not_before: datetime.datetime | None = None,
    not_after: datetime.datetime | None = None,
    stem: str = "server",
) -> Files:
    """Issue a server's certificate by the authority in ``directory``: ``STEM.pem`` and ``STEM.key``.

    ``names`` are DNS names and IP addresses, all of them subject alternative names (none: no such extension). Valid
    from yesterday for 90 days unless told otherwise; a ``not_after`` of the past alone makes an expired one. Raises
    ``OSError`` when there is no authority.
    """
    issuer = x509.load_pem_x509_certificate((directory / "ca.pem").read_bytes())
    issuer_key = load_pem_private_key((directory / "ca.key").read_bytes(), None)
    assert isinstance(issuer_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    start = not_before or datetime.datetime.now(datetime.UTC) - _DAY
    if not_before is None and not_after is not None:
        start = min(start, not_after - _DAY)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0] if names else "nameless")])
    builder = _certificate(subject, issuer.subject, key.public_key(), start, not_after or start + 90 * _DAY)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(authority=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([_name(each) for each in names]), critical=False)
    return _write(directory, stem, [builder.sign(issuer_key, hashes.SHA256())], key)


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    start: datetime.datetime,
    end: datetime.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )


def _usage(authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _write(directory: Path, stem: str, chain: Sequence[x509.Certificate], key: ec.EllipticCurvePrivateKey) -> Files:
    directory.mkdir(parents=True, exist_ok=True)
    files = Files(directory / f"{stem}.pem", directory / f"{stem}.key")
    files.certificate.write_bytes(b"".join(each.public_bytes(Encoding.PEM) for each in chain))
    files.private_key.unlink(missing_ok=True)
    descriptor = os.open(files.private_key, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files
