# SPDX-License-Identifier: Apache-2.0
"""Peers on the same link, by addresses that mean nothing without their zone (RFC 4007)."""

from __future__ import annotations

from pathlib import Path

import pytest

from accord.lab.hosts import PORT, SERVER_NAME, Hosts
from tests.e2e.conftest import BIG, PAGE, two_hosts
from tests.e2e.test_negotiated_stacks import GET, GET_BIG, body, captured

pytestmark = pytest.mark.root

NEVER = ("--fallback", "never", "--server-name", SERVER_NAME)


def by_link(hosts: Hosts) -> str:
    """The server by its link-local address, as the client has to write it; both get one first."""
    for host, address in ((hosts.lab.client, "fe80::c/64"), (hosts.lab.server, "fe80::5/64")):
        host.run(["ip", "-6", "addr", "replace", address, "dev", host.interface, "nodad"], check=True)
    return f"[fe80::5%{hosts.lab.client.interface}]:{PORT}"


@pytest.fixture
def remote(hosts: Hosts) -> str:
    """Of the hosts that this module shares."""
    return by_link(hosts)


@pytest.mark.parametrize(
    ("policy", "stack"),
    [
        (("--prefer", "tls/tcp"), "http/tls/tcp"),
        (("--prefer", "quic"), "http/quic"),
        (("--prefer", "tcp", "--only", "--secure", "no"), "http/tcp"),
    ],
)
def test_a_peer_on_the_link_is_negotiated_with_by_its_link_local_address(
    hosts: Hosts, tmp_path: Path, remote: str, policy: tuple[str, ...], stack: str
) -> None:
    page, said, wire = captured(hosts, tmp_path / "c.pcap", *policy, *NEVER, remote)
    assert page == PAGE
    assert said.startswith(f"{stack} to fe80::")
    assert ", negotiated, " in said.splitlines()[0]
    assert wire.syn_packets == 0
    assert wire.reset_packets == 0


@pytest.mark.parametrize("stack", ["tls/tcp", "quic"])
def test_a_long_answer_comes_by_it_too(hosts: Hosts, remote: str, stack: str) -> None:
    done = hosts.connect("--prefer", stack, *NEVER, remote, stdin=GET_BIG)
    assert done.returncode == 0, done.stderr.decode() + hosts.logs()
    assert body(done.stdout) == BIG


def test_sockets_alone_know_the_zone_as_well(tmp_path: Path) -> None:
    with two_hosts(tmp_path, "zone", back_end="udp", attach="none") as hosts:
        for stack in ("tls/tcp", "quic"):
            done = hosts.connect("--prefer", stack, *NEVER, by_link(hosts), stdin=GET)
            assert done.returncode == 0, done.stderr.decode() + hosts.logs()
            assert body(done.stdout) == PAGE


def test_the_zone_is_no_part_of_the_name_that_the_certificate_is_for(hosts: Hosts, remote: str) -> None:
    done = hosts.connect("--fallback", "never", remote, stdin=GET)
    assert b"CERTIFICATE_NAME" in done.stderr
    assert b"%" not in done.stderr.partition(b"wanted")[2].partition(b";")[0]


def test_a_plain_connection_knows_the_zone_as_well(hosts: Hosts, remote: str) -> None:
    plain = remote.replace(f":{PORT}", ":8443")
    done = hosts.connect("--server-name", SERVER_NAME, plain, stdin=GET)
    assert done.returncode == 0, done.stderr.decode() + hosts.logs()
    assert body(done.stdout) == PAGE


def test_a_zone_that_is_not_there_is_named(hosts: Hosts, remote: str) -> None:
    done = hosts.connect(*NEVER, remote.replace(f"%{hosts.lab.client.interface}", "%nosuch0"), stdin=GET)
    assert done.returncode != 0
    assert b"Traceback" not in done.stderr
    assert b"nosuch0" in done.stderr
    assert b"NO_INTERFACE" in done.stderr


def test_a_link_local_address_without_a_zone_is_told_how_to_be_written(hosts: Hosts) -> None:
    done = hosts.connect(*NEVER, f"[fe80::5]:{PORT}", stdin=GET)
    assert b"BAD_CONFIG" in done.stderr
    assert b"fe80::5%" in done.stderr
