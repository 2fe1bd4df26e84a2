# SPDX-License-Identifier: Apache-2.0
"""Arguments that nobody could read are told by the command itself: no daemon is asked first."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import accord
from accord.api.connect import EARLY_MOST, parse_remote
from accord.cli.connect import local_listener
from accord.cli.main import accord as group
from accord.controller.names import host_name
from accord.wire.constants import Reason
from accord.wire.errors import UserError

USER, HOST, USAGE = 64, 71, 2
"""Exit codes: EX_USAGE of sysexits.h for what is named by a reason, click's for the form of a command."""


def command(*arguments: str, control: Path | None = None) -> subprocess.CompletedProcess[str]:
    """``accord`` where no daemon answers."""
    argv = [sys.executable, "-m", "accord.cli.main", *arguments]
    return subprocess.run(
        [*argv, "--control", str(control)] if control else argv, capture_output=True, text=True, timeout=30, input=""
    )


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--prefer", "tls/carrier-pigeon"), "carrier-pigeon"),
        (("--prefer", "tcp", "--prefer", "tcp"), "listed twice"),
        (("--listen", "unix:SOCKET", "--prefer", "tcp/tcp"), "names a protocol twice"),
        (("--listen", "unix:"), "names no socket"),
        (("--listen", "unix:/tmp/" + 120 * "a"), "names no socket"),
        (("--server-name", "a b"), "no host name"),
        (("--early", "/dev/zero"), f"more than {EARLY_MOST} bytes"),
    ],
)
def test_a_policy_that_cannot_be_read_is_told_without_a_daemon(
    tmp_path: Path, arguments: tuple[str, ...], word: str
) -> None:
    local = [argument.replace("SOCKET", str(tmp_path / "local.sock")) for argument in arguments]
    done = command("connect", *local, "127.0.0.1:443", control=tmp_path / "nobody.sock")
    assert done.returncode == USER
    assert "BAD_CONFIG" in done.stderr
    assert word in done.stderr
    assert "NO_DAEMON" not in done.stderr
    assert "listening" not in done.stderr


def test_one_early_request_is_not_for_many_connections(tmp_path: Path) -> None:
    request = tmp_path / "request"
    request.write_bytes(b"GET / HTTP/1.0\r\n\r\n")
    local = ("--listen", f"unix:{tmp_path / 'local.sock'}", "--early", str(request))
    done = command("connect", *local, "127.0.0.1:443", control=tmp_path / "nobody.sock")
    assert done.returncode == USAGE
    assert "--early" in done.stderr


@pytest.mark.parametrize("policy", [{"prefer": ["pigeon"]}, {"secure": "sometimes"}, {"haste": True}, {"only": 1}])
def test_a_program_s_wish_that_cannot_be_read_is_refused_when_it_is_made(policy: dict[str, object]) -> None:
    with pytest.raises(UserError) as caught:
        accord.connect("127.0.0.1:443", policy)
    assert caught.value.reason is Reason.BAD_CONFIG


@pytest.mark.parametrize(("port", "secure"), [(0, None), (65536, None), (443, "sometimes")])
def test_a_port_that_nobody_could_listen_on_is_refused_when_it_is_asked_for(port: int, secure: str | None) -> None:
    with pytest.raises(UserError) as caught:
        accord.listen(port, secure=secure)
    assert caught.value.reason is Reason.BAD_CONFIG


@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_the_doctor_names_an_interface_that_is_not_there_and_what_shows_those_that_are(
    arguments: tuple[str, ...],
) -> None:
    done = command("doctor", "--iface", "nosuch", *arguments)
    assert done.returncode == USER
    assert done.stdout == ""
    assert "nosuch" in done.stderr
    assert "ip -br link" in done.stderr
    assert "NO_INTERFACE" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        ((), USAGE, "where the peer is"),
        (("10.0.0.1",), USER, "HOST:PORT"),
        (("10.0.0.1:5", "--prefer", "tls/carrier-pigeon"), USER, "carrier-pigeon"),
        (("10.0.0.1:5", "--seconds", "0"), USAGE, "--seconds"),
    ],
)
def test_a_meeting_that_cannot_be_is_told_without_a_daemon(
    tmp_path: Path, arguments: tuple[str, ...], code: int, word: str
) -> None:
    (tmp_path / "a.pem").touch()
    files = ("--certificate", str(tmp_path / "a.pem"), "--private-key", str(tmp_path / "a.pem"), "--insecure")
    done = command("meet", "tea", *arguments, *files, control=tmp_path / "nobody.sock")
    assert done.returncode == code
    assert word in done.stderr
    assert "NO_DAEMON" not in done.stderr


def test_a_meeting_needs_a_name_for_the_peer_s_certificate(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, pytest.raises(UserError, match="server_name"):
        accord.rendezvous(sock, [("10.0.0.1", 5)], "tea", certificate=tmp_path / "a", private_key=tmp_path / "b")


@pytest.mark.parametrize(
    ("remote", "host"),
    [
        ("example.net:443", "example.net"),
        ("example.net.:443", "example.net."),
        ("a_b.example:443", "a_b.example"),
        ("192.0.2.1:443", "192.0.2.1"),
        ("[fd00::1]:443", "fd00::1"),
        ("fd00::1:443", "fd00::1"),
        ("[fe80::1%eth0]:443", "fe80::1%eth0"),
        ("[::ffff:192.0.2.1]:443", "192.0.2.1"),
        ("b\xfccher.example:443", "xn--bcher-kva.example"),
    ],
)
def test_a_peer_is_named_as_the_resolver_and_certificates_name_it(remote: str, host: str) -> None:
    assert parse_remote(remote) == (host, 443)


@pytest.mark.parametrize(
    "remote",
    [
        *("[fd00::1:443", "fd00::1]:443", "a b:443", "a..b:443", "-a:443", 64 * "a" + ":443", 130 * "a." + "b:443"),
        *("a\nb:443", "a/b:443", "\xfc" * 64 + ":443", "example.net:\u0664\u0664\u0663", "example.net:0443443"),
    ],
)
def test_what_is_neither_a_name_nor_an_address_is_refused_before_it_is_looked_up(remote: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_remote(remote)
    assert caught.value.reason is Reason.BAD_CONFIG


def test_a_name_that_is_in_the_dns_s_form_already_stays_as_it_is() -> None:
    for name in ("xn--bcher-kva.example", "EXAMPLE.net", "localhost", "10.83.2"):
        assert host_name(name) == name


def test_wishes_for_a_re_negotiation_that_cannot_be_read_are_told_without_a_daemon(tmp_path: Path) -> None:
    done = command("renegotiate", "--all", "--prefer", "pigeon", control=tmp_path / "nobody.sock")
    assert done.returncode == USER
    assert "pigeon" in done.stderr


@pytest.mark.parametrize("number", ["nan", "inf", "-inf", "1e300", "x"])
@pytest.mark.parametrize("arguments", [("stats", "--watch"), ("trace", "tcp", "--seconds"), ("daemon", "--watchdog")])
def test_a_number_that_no_timer_takes_is_no_number(arguments: tuple[str, ...], number: str) -> None:
    """In one process: the form of an option is click's."""
    found = CliRunner().invoke(group, [*arguments, number])
    assert found.exit_code == USAGE
    assert arguments[-1] in found.output


def test_a_full_disk_is_told_in_a_line() -> None:
    with open("/dev/full", "w") as full:
        argv = [sys.executable, "-m", "accord.cli.main", "lab", "paths"]
        done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True, timeout=30)
    assert done.returncode == HOST
    assert done.stderr.splitlines() == ["accord: writing the output: No space left on device"]


def test_a_stale_socket_is_taken_over_and_one_that_somebody_listens_on_is_not(tmp_path: Path) -> None:
    path = tmp_path / "local.sock"
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(path))
        old.listen()
        with pytest.raises(UserError, match="already in use"):
            local_listener(f"unix:{path}")
    listener, _ = local_listener(f"unix:{path}")
    listener.close()
