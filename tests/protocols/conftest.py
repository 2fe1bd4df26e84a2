# SPDX-License-Identifier: Apache-2.0
"""Certificates for the tests of the security plug-ins, good and bad."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

import pytest

from accord.protocols.authority import Files, issue, make_ca
from accord.protocols.services import Security
from tests.protocols.support import HOST


@dataclass(frozen=True)
class Pki:
    """An authority and a stranger to it, and what they issued."""

    ca: Files
    stranger: Files
    good: Files
    expired: Files
    future: Files
    other_name: Files
    nameless: Files
    unknown_ca: Files
    long: Files
    huge: Files

    def trusting(self, server_name: str = HOST, **options: object) -> Security:
        """An initiator that trusts the authority."""
        return Security(server_name=server_name, ca_file=self.ca.certificate, **options)  # type: ignore[arg-type]

    def being(self, files: Files, **options: object) -> Security:
        """A responder with this certificate."""
        return Security(certificate=files.certificate, private_key=files.private_key, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    """Made once: keys are what takes the time."""
    ours: Path = tmp_path_factory.mktemp("ca")
    theirs: Path = tmp_path_factory.mktemp("stranger")
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    names = [HOST, "192.0.2.2", "2001:db8::2"]
    return Pki(
        ca=make_ca(ours),
        stranger=make_ca(theirs, "Stranger"),
        good=issue(ours, names),
        expired=issue(ours, names, not_after=now - day, stem="expired"),
        future=issue(ours, names, not_before=now + day, stem="future"),
        other_name=issue(ours, ["other.accord.test", "198.51.100.7"], stem="other"),
        nameless=issue(ours, [], stem="nameless"),
        unknown_ca=issue(theirs, names),
        long=issue(ours, names + [f"name-{number}.accord.test" for number in range(40)], stem="long"),
        huge=issue(ours, names + [f"name-{number}.accord.test" for number in range(200)], stem="huge"),
    )
