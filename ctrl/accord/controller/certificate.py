# SPDX-License-Identifier: Apache-2.0
"""The certificate of a daemon that was given none: issued by an authority of this host's own."""

from __future__ import annotations

import datetime
import os
import socket
from pathlib import Path

from cryptography import x509

from accord.datapath.netdev import local_addresses
from accord.protocols.authority import issue, make_ca
from accord.wire.constants import Reason
from accord.wire.errors import error

STATE_DIRECTORY = Path("/var/lib/accord")
_RENEW_BEFORE = datetime.timedelta(days=7)


def own_certificate(directory: Path = STATE_DIRECTORY) -> tuple[Path, Path]:
    """Certificate and private key for this host's name and addresses, made when missing or about to expire.

    Peers verify it with ``ca.pem`` of the same directory. Raises ``HostError`` when the directory is not to be had.
    """
    certificate, key = directory / "server.pem", directory / "server.key"
    names = sorted({socket.gethostname(), socket.getfqdn(), "localhost", *local_addresses()})
    try:
        if not (directory / "ca.pem").exists() or not (directory / "ca.key").exists():
            directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            make_ca(directory, f"Accord on {socket.gethostname()}")
            certificate.unlink(missing_ok=True)
        if not key.exists() or not _still_good(certificate, names):
            issue(directory, names)
    except OSError as refusal:
        raise error(
            Reason.NO_PRIVILEGE, f"{directory}: {refusal.strerror}", "give --certificate and --private-key"
        ) from refusal
    return certificate, key


def _still_good(certificate: Path, names: list[str]) -> bool:
    try:
        parsed = x509.load_pem_x509_certificate(certificate.read_bytes())
        found = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (FileNotFoundError, ValueError, x509.ExtensionNotFound):
        return False
    covered = {str(name.value) for name in found}
    soon = datetime.datetime.now(datetime.UTC) + _RENEW_BEFORE
    return parsed.not_valid_after_utc > soon and set(names) <= covered and os.access(certificate, os.R_OK)
