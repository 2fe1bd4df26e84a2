# SPDX-License-Identifier: Apache-2.0
"""The certificate of a daemon that was given none, and the files that it is given."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
from cryptography import x509

from accord.controller.certificate import own_certificate
from accord.protocols.authority import issue, make_ca
from accord.protocols.certificates import check_roots, load_identity
from accord.protocols.services import Security
from accord.wire.constants import Reason
from accord.wire.errors import UserError


def test_it_is_made_inside_a_running_loop_names_this_host_and_is_kept(tmp_path: Path) -> None:
    async def make() -> tuple[Path, Path]:
        return own_certificate(tmp_path)

    certificate, key = asyncio.run(make())
    parsed = x509.load_pem_x509_certificate(certificate.read_bytes())
    names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {socket.gethostname(), "localhost", "127.0.0.1"} <= {str(name.value) for name in names}
    assert key.stat().st_mode & 0o777 == 0o600
    before = certificate.read_bytes()
    assert own_certificate(tmp_path)[0].read_bytes() == before


def test_a_key_of_another_certificate_is_refused_before_anything_is_exposed(tmp_path: Path) -> None:
    make_ca(tmp_path)
    one, other = issue(tmp_path, ["one"], stem="one"), issue(tmp_path, ["other"], stem="other")
    with pytest.raises(UserError) as caught:
        load_identity(Security(certificate=one.certificate, private_key=other.private_key))
    assert caught.value.reason is Reason.BAD_CONFIG


def test_a_file_of_roots_without_a_certificate_is_the_users_fault(tmp_path: Path) -> None:
    files = make_ca(tmp_path)
    check_roots(Security(ca_file=files.certificate))
    with pytest.raises(UserError) as caught:
        check_roots(Security(ca_file=files.private_key))
    assert str(files.private_key) in str(caught.value)
