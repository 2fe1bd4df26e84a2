# SPDX-License-Identifier: Apache-2.0
"""``accord keys`` and the daemon's key files; and keys in the memory of peers."""

from __future__ import annotations

import base64
import json
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from accord.cli.keys import keys as command
from accord.controller import keys
from accord.controller.control import DEFAULT_PATH
from accord.controller.peers.lessons import Lessons
from accord.controller.peers.memory import Learnt, Peers
from accord.controller.recursion import Remarks
from accord.controller.settings.config import DaemonConfig, KeysConfig
from accord.protocols.sealed.configuration import Aead, Kem, decode_list
from accord.protocols.sealed.host_keys import make
from accord.wire.constants import Reason
from accord.wire.errors import AccordError, UserError

NOW = 1_800_000_000


def accord_keys(*arguments: str, directory: Path) -> Result:
    name, *rest = arguments
    return CliRunner().invoke(command, [name, "--directory", str(directory), *rest])


def test_keys_are_made_for_the_owners_eyes_alone_shown_pinned_and_removed(tmp_path: Path) -> None:
    directory = tmp_path / "keys"
    for kem in ("hybrid", "x25519"):
        assert accord_keys("make", "--kem", kem, directory=directory).exit_code == 0
    files = list(directory.iterdir())
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    shown = json.loads(accord_keys("show", "--json", directory=directory).stdout)
    pinned = decode_list(base64.b64decode(shown["pin"]))
    assert [Kem(each.kem) for each in pinned] == [Kem.HYBRID, Kem.X25519]
    assert f'key = "{shown["pin"]}"' in accord_keys("show", directory=directory).stdout
    assert isinstance(accord_keys("show", "--dns", "a b", directory=directory).exception, UserError)
    record = accord_keys("show", "--dns", "example.net", directory=directory).stdout
    assert record.startswith('example.net. HTTPS 1 . key65281="\\172\\193')
    read = keys.parse_all(keys.read_text(directory))
    assert {key.configuration for key in read} == set(pinned)
    for key in read:
        assert accord_keys("remove", key.configuration.id.hex(), directory=directory).exit_code == 0
    assert keys.read_text(directory) == ""


def test_what_is_no_key_is_named_and_no_key_is_used(tmp_path: Path) -> None:
    accord_keys("make", directory=tmp_path)
    (tmp_path / "broken.key").write_text("accord-private-key: AAAA\n")
    with pytest.raises(UserError, match=r"broken\.key") as refused:
        keys.read_text(tmp_path)
    assert refused.value.reason is Reason.BAD_CONFIG
    for wrong in (("remove", "0123456789abcdef"), ("show",)):
        done = accord_keys(*wrong, directory=tmp_path if wrong[0] == "remove" else tmp_path / "none")
        assert isinstance(done.exception, AccordError)


def test_only_the_hosts_own_daemon_has_the_hosts_keys_unless_it_is_told_where(tmp_path: Path) -> None:
    assert keys.directory_of(DaemonConfig(control=tmp_path / "control"), {}) is None
    named = DaemonConfig(control=tmp_path / "control", keys=KeysConfig(tmp_path))
    assert keys.directory_of(named, {}) == tmp_path
    own = DaemonConfig(control=DEFAULT_PATH)
    assert keys.directory_of(own, {"STATE_DIRECTORY": "/state/one:/state/two"}) == Path("/state/one/keys")


def test_a_key_is_remembered_for_the_name_that_it_was_authenticated_by_and_no_other() -> None:
    clock = [0.0]
    peers = Peers(lambda: clock[0], expiry=100)
    lesson = Lessons(peers).of("192.0.2.1", 443, "")
    key, other = (make(Kem.X25519, Aead.AES_128_GCM, NOW).configuration for _ in range(2))
    lesson.learn_key("one.example", key)
    assert lesson.keys("one.example") == (), "of a peer that nothing is known of"
    lesson.learn(Learnt.ANSWERED)
    lesson.learn_key("one.example", key)
    assert lesson.keys("one.example") == (key,)
    assert lesson.keys("two.example") == ()
    lesson.learn_key("one.example", other)
    assert lesson.keys("one.example") == (other,)
    clock[0] = 101
    assert lesson.keys("one.example") == ()


def test_remarks_on_a_proposal_that_is_made_ahead_are_told_when_somebody_listens() -> None:
    remarks, told = Remarks(), list[str]()
    remarks("before")
    remarks.to(told.append)
    remarks("after")
    assert told == ["before", "after"]
