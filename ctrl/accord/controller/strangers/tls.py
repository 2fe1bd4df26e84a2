# SPDX-License-Identifier: Apache-2.0
"""TLS answered without memory: ``TlsService`` on what the C core makes of OpenSSL.

Load does not choose the cryptography. What is agreed upon here is what would be agreed upon with memory, or the node is
deferred: a group that this OpenSSL lacks and the other has, resumption, a second ClientHello.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from accord.controller.strangers.seed import derive
from accord.datapath.tls_repeatable import RepeatableTls, ServerIdentity
from accord.protocols import certificates, tls_context
from accord.protocols.services import Security
from accord.protocols.tls_hello import CLASSICAL, SECP256R1, X25519, Hello, read_hello
from accord.wire.errors import AccordError

_GROUPS: Final = {X25519: "X25519", SECP256R1: "P-256"}
_CACHE_LIMIT: Final = 64
"""As ``tls_context``: more certificates than that is somebody's mistake."""

_Key = tuple[certificates.FileStamp | None, certificates.FileStamp | None, Path | None]
_identities: dict[_Key, ServerIdentity] = {}


class RepeatableAnswers:
    """Of one negotiation. ``defer``: makes the error that says why the node needs memory, and remembers it."""

    def __init__(self, seed: bytes, defer: Callable[[str], AccordError]) -> None:
        self._seed, self._defer = seed, defer

    def answer(self, security: Security, alpn: tuple[str, ...], hello: bytes) -> tuple[RepeatableTls, bytes]:
        """The connection and its flight. Raises ``AccordError``."""
        read = read_hello(hello)
        if read is None:
            raise self._defer("TLS: no ClientHello that can be read beforehand")
        group = group_of(read)
        if group is None:
            raise self._defer(f"TLS: groups {read.groups}, shares {read.shares}")
        if read.resumes:
            raise self._defer("TLS: resumption")
        made = RepeatableTls(identity_of(security), alpn, group)
        # One seed never serves two ClientHellos: theirs are two.
        own = derive(self._seed, b"tls", hello, *(name.encode("latin-1") for name in alpn))
        return made, made.answer(own, hello)


def group_of(hello: Hello) -> str | None:
    """The group that a responder with memory would take, where that is certain and this OpenSSL has it; else None."""
    shares = [share for share in hello.shares if not _is_reserved(share)]
    groups = [group for group in hello.groups if not _is_reserved(group)]
    if not shares or not groups or shares[0] != groups[0] or not CLASSICAL.issuperset(groups):
        return None
    return _GROUPS.get(shares[0])


def _is_reserved(group: int) -> bool:
    """RFC 8701."""
    return group & 0x0F0F == 0x0A0A


def identity_of(security: Security) -> ServerIdentity:
    """Made anew when a file has changed. Raises ``UserError`` (BAD_CONFIG)."""
    key = certificates.stamp(security.certificate), certificates.stamp(security.private_key), security.key_log
    found = _identities.get(key)
    if found is None:
        loaded = certificates.load_identity(security)
        secrets = None if security.key_log is None else partial(tls_context.append_secret, security.key_log)
        found = ServerIdentity(
            [certificate.public_bytes(Encoding.DER) for certificate in loaded.chain],
            loaded.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
            secrets,
        )
        while len(_identities) >= _CACHE_LIMIT:
            del _identities[next(iter(_identities))]
        _identities[key] = found
    return found
