# SPDX-License-Identifier: Apache-2.0
"""What a daemon says of its files before it serves anybody."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from accord.controller.settings.config import DaemonConfig
from accord.daemon.daemon import Daemon
from accord.protocols.authority import issue, make_ca
from accord.wire.constants import Reason
from accord.wire.errors import UserError


def opened(config: DaemonConfig) -> None:
    """As ``accord daemon`` does it before it forks."""
    daemon = Daemon(config, None)
    daemon.open()
    daemon.leave()


@pytest.mark.parametrize(
    ("name", "why"),
    [("file", "Address already in use"), ("file/below", "File exists"), (108 * "a", "path too long")],
)
def test_a_control_socket_that_cannot_be_made_is_no_matter_of_privileges(tmp_path: Path, name: str, why: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=why) as caught:
        opened(DaemonConfig(control=tmp_path / name))
    assert caught.value.reason is Reason.BAD_CONFIG
    assert "--control" in str(caught.value)
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_files_of_tls_that_are_wrong_are_told_at_the_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_ca(tmp_path)
    good = issue(tmp_path, ["a.example"])
    other = tmp_path / "other"
    other.mkdir()
    make_ca(other)
    stranger = issue(other, ["b.example"])
    cases = [
        ({"certificate": good.certificate, "private_key": good.private_key, "ca_file": good.certificate}, ""),
        ({"certificate": good.certificate, "private_key": stranger.private_key}, "is not the key of"),
        ({"certificate": tmp_path / "nosuch", "private_key": good.private_key}, "nosuch"),
        ({"ca_file": good.private_key}, "holds no certificate"),
    ]
    for number, (files, word) in enumerate(cases):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            opened(DaemonConfig(control=tmp_path / f"{number}.sock", **files))
        assert (word in caplog.text) if word else not caplog.text
