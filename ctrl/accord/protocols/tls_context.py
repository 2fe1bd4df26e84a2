# SPDX-License-Identifier: Apache-2.0
"""OpenSSL contexts for TLS 1.3, one for each set of options, made again when one of their files changes.

Loading the roots takes milliseconds and a negotiation a fraction of one, so contexts are shared. What belongs to
one connection (the names it offers, the name its peer must have) is its ``PeerCheck``, which the callbacks
find as the connection's application data.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from OpenSSL import SSL, crypto

from accord.negotiation.interface import Role
from accord.protocols import certificates
from accord.protocols.services import Security
from accord.wire.constants import Reason
from accord.wire.errors import AccordError, error

# Certificates are renewed every few weeks and a host has a few of them: more is somebody's mistake.
_CACHE_LIMIT: Final = 64

_Key = tuple[Role, bool, bool, tuple[certificates.FileStamp | None, ...], Path | None]
_cache: dict[_Key, SSL.Context] = {}


@dataclass(slots=True)
class PeerCheck:
    """What one connection wants of its peer, and what was wrong with it."""

    server_name: str | None
    alpn: tuple[str, ...]
    failure: AccordError | None = None
    secrets: dict[str, bytes] = field(default_factory=dict)
    """By their labels in the key log format; only of connections that keep them."""


def context(role: Role, security: Security, *, keep_secrets: bool = False) -> SSL.Context:
    """The context for one side. ``keep_secrets``: its connections' ``PeerCheck`` learn the traffic secrets.

    Raises ``UserError`` (``BAD_CONFIG``) naming the file that cannot be used.
    """
    files = (security.ca_file,) if role is Role.INITIATOR else (security.certificate, security.private_key)
    key = (role, security.verify, keep_secrets, tuple(certificates.stamp(path) for path in files), security.key_log)
    made = _cache.get(key)
    if made is None:
        made = _make(role, security)
        if keep_secrets:
            made.set_keylog_callback(_KeyLog(security.key_log, keep=True))
        while len(_cache) >= _CACHE_LIMIT:
            del _cache[next(iter(_cache))]
        _cache[key] = made
    return made


def _make(role: Role, security: Security) -> SSL.Context:
    made = SSL.Context(SSL.TLS_METHOD)
    made.set_min_proto_version(SSL.TLS1_3_VERSION)
    made.set_max_proto_version(SSL.TLS1_3_VERSION)
    # Resumption would need a ticket store on the initiator; until there is one, keep no sessions here either.
    made.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    made.set_mode(SSL.MODE_RELEASE_BUFFERS)
    # As browsers order them: processors have instructions for SHA-256, and none for SHA-384.
    made.set_tls13_ciphersuites(b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256")
    if security.key_log is not None:
        made.set_keylog_callback(_KeyLog(security.key_log, keep=False))
    if role is Role.RESPONDER:
        identity = certificates.load_identity(security)
        made.use_certificate(identity.chain[0])
        for extra in identity.chain[1:]:
            made.add_extra_chain_cert(extra)
        made.use_privatekey(identity.key)
        made.set_alpn_select_callback(_select_alpn)
    elif security.verify:
        file, directory = certificates.roots(security)
        try:
            made.load_verify_locations(file, directory)
        except (SSL.Error, TypeError) as refusal:
            raise error(
                Reason.BAD_CONFIG,
                f"{file or directory or 'system roots'}: no root certificates could be read",
                "install ca-certificates, or name a PEM file of roots",
            ) from refusal
        made.set_verify(SSL.VERIFY_PEER, _verify)
    else:
        made.set_verify(SSL.VERIFY_NONE)
    return made


def _verify(connection: SSL.Connection, certificate: crypto.X509, code: int, depth: int, ok: int) -> bool:
    """OpenSSL calls once for each certificate, the peer's own last, and once for each thing that is wrong."""
    check: PeerCheck = connection.get_app_data()
    if not ok:
        check.failure = check.failure or certificates.chain_error(code, depth, certificate.to_cryptography())
        return False
    if depth == 0 and check.failure is None and check.server_name is not None:
        check.failure = certificates.check_name(certificate.to_cryptography(), check.server_name)
    return check.failure is None


def _select_alpn(connection: SSL.Connection, offered: list[bytes]) -> Any:
    check: PeerCheck = connection.get_app_data()
    if not check.alpn:
        return SSL.NO_OVERLAPPING_PROTOCOLS
    for name in check.alpn:
        if name.encode("latin-1") in offered:
            return name.encode("latin-1")
    # An exception makes OpenSSL send no_application_protocol (RFC 7301 section 3.2) and comes out of do_handshake.
    raise error(
        Reason.HANDSHAKE_FAILED, f"no common ALPN protocol: peer has {offered!r}, this side {', '.join(check.alpn)}"
    )


_key_logs: dict[Path, int] = {}


def open_key_log(path: Path) -> None:
    """Open it now, and keep it open: later this process may not be able to. Raises ``UserError`` (``BAD_CONFIG``)."""
    try:
        _key_logs[path] = _open_key_log(path)
    except OSError as refusal:
        raise error(Reason.BAD_CONFIG, f"key log {path}: {refusal.strerror}", "name a writable file") from refusal


def _open_key_log(path: Path) -> int:
    """Only its owner may read it (draft-ietf-tls-keylogfile)."""
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


def append_secret(path: Path, line: str) -> None:
    """Append one line to a key log."""
    kept = _key_logs.get(path)
    descriptor = _open_key_log(path) if kept is None else kept
    try:
        os.write(descriptor, line.encode("ascii") + b"\n")
    finally:
        if kept is None:
            os.close(descriptor)


class _KeyLog:
    def __init__(self, path: Path | None, *, keep: bool) -> None:
        self._path = path
        self._keep = keep

    def __call__(self, connection: SSL.Connection, line: bytes) -> None:
        text = line.decode("ascii")
        if self._path is not None:
            append_secret(self._path, text)
        if self._keep:
            check: PeerCheck = connection.get_app_data()
            label, _, secret = text.split()
            check.secrets[label] = bytes.fromhex(secret)
