# SPDX-License-Identifier: Apache-2.0
"""What the daemon's configuration file means, and that a broken one is refused with everything that is wrong."""

from __future__ import annotations

import pwd
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.controller.settings.config import DaemonConfig, load_config, parse_config
from accord.controller.settings.policy import Secure, parse_policy
from accord.controller.settings.stacks import format_stack
from accord.wire.constants import Reason
from accord.wire.errors import UserError

FILE = """
[daemon]
interface = "eth0"
attach = "generic"
back_end = "af_packet"
control = "/run/accord/control.sock"
any_port = true

[control]
users = ["root", "1000"]

[tls]
certificate = "cert.pem"
key = "key.pem"
ca = "/etc/ssl/roots.pem"

[policy.default]
secure = "preferred"

[[policy.destination]]
match = ["10.0.0.0/8"]
secure = "no"

[[expose]]
listen = 443
to = "127.0.0.1:8080"
secure = "required"
early_limit = 1000

[[expose]]
listen = 8443
to = "[::1]:9000"
certificate = "other.pem"
key = "other.key"
plain = false

[limits]
transactions = 4096
unproven = 256
buffers = 16384
"""


def test_every_value_of_a_file_arrives_where_it_belongs(tmp_path: Path) -> None:
    path = tmp_path / "accord.toml"
    path.write_text(FILE)
    config = load_config(path)
    assert (config.interface, config.attach, config.back_end, config.any_port) == ("eth0", "generic", "af_packet", True)
    assert config.control == Path("/run/accord/control.sock")
    assert config.users == {0, 1000}
    assert config.certificate == tmp_path / "cert.pem"
    assert config.private_key == tmp_path / "key.pem"
    assert config.ca_file == Path("/etc/ssl/roots.pem")
    assert (config.transactions, config.unproven, config.buffers) == (4096, 256, 16384)
    first, second = config.expose
    assert (first.listen, first.to, first.secure, first.early_limit) == (
        443,
        ("127.0.0.1", 8080),
        Secure.REQUIRED,
        1000,
    )
    assert (second.to, second.certificate, second.plain) == (("::1", 9000), tmp_path / "other.pem", False)
    assert second.secure is None
    assert config.policy.for_destination("10.0.0.1", 1).secure is Secure.NO
    assert config.policy.for_destination("192.0.2.1", 1).secure is Secure.PREFERRED


def test_an_empty_file_is_the_default_configuration() -> None:
    assert parse_config("") == DaemonConfig()


def test_command_line_options_override_the_file_where_they_are_given() -> None:
    config = parse_config('[daemon]\ninterface = "eth0"\nattach = "generic"')
    changed = config.override(interface="eth1", attach=None, control=Path("/x"))
    assert (changed.interface, changed.attach, changed.control) == ("eth1", "generic", Path("/x"))


def test_the_policy_may_stand_in_a_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "policy.toml").write_text('[default]\nsecure = "no"\n')
    path = tmp_path / "accord.toml"
    path.write_text('[policy]\nfile = "policy.toml"\n')
    assert load_config(path).policy.for_destination("a", 1).secure is Secure.NO


def test_errors_of_the_policy_file_are_reported_with_those_of_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "policy.toml").write_text('[default]\nsecure = "maybe"\nonly = 1\n')
    path = tmp_path / "accord.toml"
    path.write_text('[policy]\nfile = "policy.toml"\n[daemon]\nattach = "magic"\n')
    with pytest.raises(UserError) as caught:
        load_config(path)
    assert [line.split(": ")[0] for line in caught.value.detail.splitlines()] == [
        f"{path}:4",
        f"{tmp_path / 'policy.toml'}:2",
        f"{tmp_path / 'policy.toml'}:3",
    ]


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ('[daemon]\ninterface = "a-name-that-is-too-long"', "f:2: daemon.interface: "),
        ('[daemon]\ninterface = "eth/0"', "cannot be an interface's name"),
        ('[daemon]\nback_end = "xdp"', "allowed: auto, af_xdp, af_packet, udp"),
        ('[daemon]\ncontrol = ""', "f:2: daemon.control: '' is no text"),
        ('[daemon]\ncontrol = "a\\u0000b"', "NUL"),
        ('[daemon]\ninterfase = "eth0"', "did you mean interface?"),
        ("daemon = 1", "f:1: daemon: 1 is no table; write [daemon]"),
        ('[control]\nusers = ["no-such-user-here"]', "is no user of this host"),
        ('[daemon]\nuser = "no-such-user-here"', "is no user of this host"),
        ('[daemon]\nuser = "0"', "cannot be root"),
        ('[daemon]\nuser = "root"', "cannot be root"),
        ('[daemon]\nuser = "4294967296"', "is no user of this host"),
        ('[daemon]\nprivileges = "none"', "keep"),
        ('[daemon]\nports = ["0"]', "1..65535"),
        ('[daemon]\nports = ["9-8"]', "the lower one first"),
        ('[daemon]\nports = ["http"]', "is no port"),
        ('[daemon]\nports = ["1-65536"]', "1..65535"),
        ("[control]\nusers = [1000]", "element 1: 1000 is no text"),
        ('[tls]\ncertificate = "a.pem"', "f:2: tls.certificate: stands alone; certificate and key go together"),
        ('[[expose]]\nlisten = 443', "f:1: expose[1].to: is missing"),
        ('[[expose]]\nlisten = 1\nto_listener = false', "f:1: expose[1].to: is missing"),
        (
            '[[expose]]\nlisten = 1\nto_listener = true\nto = "127.0.0.1:80"',
            "f:3: expose[1].to_listener: is true: to does not go together with",
        ),
        (
            '[[expose]]\nlisten = 1\nsecure = "required"\nto_listener = true',
            "f:4: expose[1].to_listener: is true: secure does not go together with",
        ),
        (
            "[[expose]]\nlisten = 1\nto_listener = true\nearly_limit = 1",
            "f:3: expose[1].to_listener: is true: early_limit does not go together with",
        ),
        ('[[expose]]\nto = "127.0.0.1:80"', "f:1: expose[1].listen: is missing"),
        ('[[expose]]\nlisten = 0\nto = "127.0.0.1:80"', "f:2: expose[1].listen: 0 is out of range; allowed: 1..65535"),
        ('[[expose]]\nlisten = 1\nto = "127.0.0.1:1"', "f:3: expose[1].to: is the exposed port itself"),
        ('[[expose]]\nto = "[::1]:1"\nlisten = 1', "f:2: expose[1].to: is the exposed port itself"),
        ('[[expose]]\nlisten = 1\nto = "127.0.0.1"', 'write "127.0.0.1:8080" or "[::1]:8080"'),
        ('[[expose]]\nlisten = 1\nto = "::1:80"', "is no address with a port"),
        ('[[expose]]\nlisten = 1\nto = "[127.0.0.1]:80"', "is no address with a port"),
        ('[[expose]]\nlisten = 1\nto = "1.2.3.4:1"\n[[expose]]\nlisten = 1\nto = "::1:1"', "f:5: expose[2].listen: "),
        ("[limits]\ntransactions = 10\nunproven = 11", "f:3: limits.unproven: 11 of 10"),
        ("[limits]\nbuffers = -1", "allowed: 1.."),
        ("[limits]\nleast_level = 3", "allowed: 0..2"),
        ("[limits]\ncookie_period_s = 100\ncookie_lifetime_s = 111", "from 12 s more than that to three times it"),
        ("[limits]\ncookie_period_s = 100\ncookie_lifetime_s = 301", "from 12 s more than that to three times it"),
        ('[policy]\nfile = "x"\n[policy.default]\nsecure = "no"', "stands beside file"),
        ('[policy]\nfile = "/nonexistent/policy.toml"', "No such file"),
        ("[polices]", "did you mean policy?"),
    ],
)  # fmt: skip
def test_an_error_names_the_line_and_the_mend(text: str, wrong: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_config(text, "f")
    assert caught.value.reason is Reason.BAD_CONFIG
    assert wrong in caught.value.detail


@given(st.data())
def test_a_mutated_or_truncated_file_is_read_or_is_a_user_error_with_a_line(data: st.DataObject) -> None:
    text = FILE[: data.draw(st.integers(0, len(FILE)))]
    for _ in range(data.draw(st.integers(0, 2))):
        start = data.draw(st.integers(0, len(text)))
        end = min(len(text), start + data.draw(st.sampled_from([0, 1, 5])))
        text = text[:start] + data.draw(st.text(alphabet="[]{}\"'=,#\n ab0-9.:/*\\", max_size=3)) + text[end:]
    try:
        parse_config(text, "f")
    except UserError as wrong:
        for line in wrong.detail.splitlines():
            number = int(line.split(":")[1])
            if not 1 <= number <= text.count("\n") + 1:
                raise AssertionError(line) from wrong


# ---- The reference, docs/POLICY.md

REFERENCE = (Path(__file__).parents[2] / "docs" / "POLICY.md").read_text()


def test_the_references_examples_are_valid_and_mean_what_they_say(tmp_path: Path) -> None:
    policy, *pieces, config = re.findall(r"```toml\n(.*?)```", REFERENCE, re.DOTALL)
    (tmp_path / "policy.toml").write_text(policy)
    (tmp_path / "accord.toml").write_text(config)
    read = load_config(tmp_path / "accord.toml")
    assert read.interface == "eth0"
    assert read.policy.for_destination("www.example.net", 443).early_in_clear
    assert read.policy.for_destination("192.0.2.1", 8443).only
    for piece in pieces:
        assert parse_policy(piece, "docs/POLICY.md") != parse_policy("")


def rows() -> list[list[str]]:
    """The cells of the reference's tables of keys: four columns for the policy, five for the configuration."""
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in REFERENCE.splitlines() if row[:1] == "|"]
    return [row if len(row) == 4 else row[1:] for row in cells if len(row) in (4, 5)]


def test_the_reference_names_every_key_and_no_other() -> None:
    """The reader's own lists of allowed keys are the oracle."""
    tables = ("[daemon]", "[control]", "[tls]", "[policy.default]", "[[expose]]", "[limits]", "[keys]", "[peers]")
    with pytest.raises(UserError) as caught:
        parse_config("".join(f"{table}\nno_such_key = 1\n" for table in tables), "f")
    allowed = re.findall(r"no key of this table; allowed: (.*)", caught.value.detail)
    known = {key for line in allowed for key in line.split(", ")}
    named = {key for row in rows() for key in re.findall(r"`([a-z_]+)`", row[0])}
    assert len(allowed) == len(tables)
    assert named == known | {"file"}


def vars_of(settings: Any) -> dict[str, object]:
    """A dataclass's values by name."""
    return {field.name: getattr(settings, field.name) for field in fields(settings)}


def test_the_references_defaults_are_the_codes() -> None:
    default = DaemonConfig().policy.for_destination("example.net", 443)
    written = {row[0].strip("`"): row[2] for row in rows()}
    assert written["fallback"] == f'`"{default.fallback}"`'
    assert written["context"] == f'`"{default.context}"`'
    assert written["tcp"] == f'`"{default.tcp}"`'
    assert written["early"] == f'`"{default.early}"`'
    assert written["only"] == f"`{str(default.only).lower()}`"
    assert written["packets_min"] == str(default.packets_min)
    assert written["prefer"] == "`[" + ", ".join(f'"{format_stack(stack)}"' for stack in default.prefer) + "]`"
    # The policy's comes first; an exposed service has a key of that name too.
    assert next(row[2] for row in rows() if row[0] == "`secure`") == f'`"{default.secure}"`'
    plain = DaemonConfig()
    numbers = {**vars_of(plain), **vars_of(plain.limits), **vars_of(plain.keys)}
    said = {row[0].split("`")[1]: int(row[2]) for row in rows() if row[2].isdecimal() and row[0].count("`") == 2}
    known = {key: value for key, value in said.items() if key in numbers}
    assert {"slots", "strangers_per_second", "early_window_s", "plugin_ms"} <= set(known)
    assert known == {key: numbers[key] for key in known}


def test_busy_polling_is_a_key_of_the_daemon() -> None:
    assert parse_config("[daemon]\nbusy_poll_us = 50").busy_poll_us == 50


@pytest.mark.parametrize("back_end", ["af_packet", "udp"])
def test_busy_polling_on_a_back_end_without_rings_is_refused(back_end: str) -> None:
    with pytest.raises(UserError, match="busy_poll_us: needs AF_XDP") as caught:
        parse_config(f'[daemon]\nback_end = "{back_end}"\nbusy_poll_us = 50')
    assert caught.value.reason is Reason.BAD_CONFIG


def test_the_worker_is_a_user_by_name_or_number_and_ports_are_ranges() -> None:
    config = parse_config('[daemon]\nuser = "12345"\nports = ["443", "8000-8002"]')
    assert config.user == (12345, 12345)
    assert config.ports == {443, 8000, 8001, 8002}
    nobody = pwd.getpwnam("nobody")
    assert parse_config('[daemon]\nuser = "nobody"').user == (nobody.pw_uid, nobody.pw_gid)
    assert parse_config("").ports == frozenset()
    assert parse_config("").privileges == "drop"
