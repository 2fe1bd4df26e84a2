# SPDX-License-Identifier: Apache-2.0
"""Certificates, for TLS and QUIC alike: own ones from files, roots, and what is wrong with a peer's."""

from __future__ import annotations

import functools
import ipaddress
import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from service_identity import CertificateError, VerificationError
from service_identity.cryptography import verify_certificate_hostname, verify_certificate_ip_address

from accord.protocols.fixed_path import FileStamp as FileStamp
from accord.protocols.fixed_path import FixedPath
from accord.protocols.services import Security
from accord.wire.constants import Reason
from accord.wire.errors import AccordError, error

# X509_V_ERR_* of <openssl/x509_vfy.h>. pyOpenSSL has no public way from the number to OpenSSL's own text.
_NOT_YET_VALID: Final = 9
_HAS_EXPIRED: Final = 10
_VERIFY_TEXT: Final = {
    7: "certificate signature failure",
    _NOT_YET_VALID: "certificate is not yet valid",
    _HAS_EXPIRED: "certificate has expired",
    18: "self-signed certificate",
    19: "self-signed certificate in certificate chain",
    20: "unable to get local issuer certificate",
    21: "unable to verify the first certificate",
    22: "certificate chain too long",
    23: "certificate revoked",
    26: "unsuitable certificate purpose",
    66: "EE certificate key too weak",
    68: "CA signature digest algorithm too weak",
    79: "invalid CA certificate",
}


@dataclass(frozen=True, slots=True)
class Identity:
    """This side's certificate chain, own certificate first, and its private key."""

    chain: tuple[x509.Certificate, ...]
    key: Any


def stamp(path: Path | None) -> FileStamp | None:
    """What identifies the present contents of ``path``. Raises ``UserError`` (``BAD_CONFIG``) if it is missing."""
    if path is None:
        return None
    if isinstance(path, FixedPath):
        return path.stamped
    try:
        status = path.stat()
    except OSError as refusal:
        raise error(Reason.BAD_CONFIG, f"{path}: {refusal.strerror}", "name a readable PEM file") from refusal
    return os.fspath(path), status.st_ino, status.st_mtime_ns, status.st_size


def load_identity(security: Security) -> Identity:
    """The responder's own certificate and key. Raises ``UserError`` (``BAD_CONFIG``) naming the file."""
    if security.certificate is None or security.private_key is None:
        raise error(Reason.BAD_CONFIG, "no certificate for this side", "set both a certificate and a private key file")
    at = security.certificate
    try:
        chain = tuple(x509.load_pem_x509_certificates(at.read_bytes()))
        at = security.private_key
        # Without a passphrase argument an encrypted key is a TypeError; OpenSSL would ask on the terminal.
        key = load_pem_private_key(at.read_bytes(), None)
    except (OSError, ValueError, TypeError) as refusal:
        raise error(Reason.BAD_CONFIG, f"{at}: {refusal}", "give unencrypted PEM files") from refusal
    if key.public_key() != chain[0].public_key():
        raise error(
            Reason.BAD_CONFIG, f"{at} is not the key of {security.certificate}", "give the pair that belongs together"
        )
    return Identity(chain, key)


def roots(security: Security) -> tuple[str | None, str | None]:
    """Root certificates as (file, directory): the given file, else the system's."""
    if security.ca_file is not None:
        stamp(security.ca_file)
        return os.fspath(security.ca_file), None
    paths = ssl.get_default_verify_paths()
    return paths.cafile, paths.capath


def check_roots(security: Security) -> None:
    """Whether the file of roots holds any. Raises ``UserError`` (``BAD_CONFIG``) naming it when it does not."""
    if security.verify and security.ca_file is not None:
        _check_root_file(security.ca_file, stamp(security.ca_file))


@functools.lru_cache(maxsize=64)
def _check_root_file(path: Path, stamped: object) -> None:
    try:
        x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError) as refusal:
        raise error(Reason.BAD_CONFIG, f"{path} holds no certificate", "name a PEM file of roots") from refusal


def address_of(name: str) -> bool:
    """Whether a server name is an IP address, which SNI must not carry (RFC 6066 section 3)."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def check_name(certificate: x509.Certificate, name: str) -> AccordError | None:
    """What is wrong when ``certificate`` is taken for ``name``, a DNS name or an IP address (RFC 9525)."""
    mismatch = _name_mismatch(certificate, name)
    return None if mismatch is None else error(*mismatch)


@functools.lru_cache(maxsize=256)
def _name_mismatch(certificate: x509.Certificate, name: str) -> tuple[Reason, str] | None:
    """A function of its arguments alone, and asked for again with every connection to a peer."""
    try:
        if address_of(name):
            verify_certificate_ip_address(certificate, name)
        else:
            verify_certificate_hostname(certificate, name.rstrip("."))
    except (VerificationError, CertificateError) as mismatch:
        return Reason.CERTIFICATE_NAME, f"wanted {name!r}; {_names(certificate) or mismatch}"
    except ValueError as broken:
        return Reason.BAD_CERTIFICATE, f"its extensions do not parse: {broken}"
    return None


def chain_error(code: int, depth: int, certificate: x509.Certificate) -> AccordError:
    """OpenSSL's verdict on the chain: ``code`` is an X509_V_ERR number, ``depth`` 0 the peer's own certificate."""
    reason = Reason.CERTIFICATE_EXPIRED if code in (_NOT_YET_VALID, _HAS_EXPIRED) else Reason.BAD_CERTIFICATE
    text = _VERIFY_TEXT.get(code, "certificate verify failed")
    detail = f"{text} (verify error {code}, depth {depth}, subject {certificate.subject.rfc4514_string()!r})"
    if code == _HAS_EXPIRED:
        detail += f", valid until {certificate.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC"
    elif code == _NOT_YET_VALID:
        detail += f", valid from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M:%S} UTC"
    return error(reason, detail)


def _names(certificate: x509.Certificate) -> str:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, ValueError):
        return ""
    return "it is for " + ", ".join(str(name.value) for name in extension.value)
