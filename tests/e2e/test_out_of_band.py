# SPDX-License-Identifier: Apache-2.0
"""Out-of-band: negotiated by one path, for a connection on another one, which has to show where it leads first."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from accord.cli.capture import tally
from accord.lab.hosts import PORT, SERVER_NAME, Hosts
from accord.lab.lab import Lab
from accord.lab.namespace import Namespace
from tests.e2e.conftest import PAGE, RTT

pytestmark = pytest.mark.root

GET = b"GET /index.html HTTP/1.0\r\n\r\n"
HERE, THERE = "10.99.0.1", "10.99.0.2"
_links = itertools.count()


def ip(host: Namespace, *arguments: str) -> None:
    """Of a host's namespace."""
    subprocess.run(["ip", "-n", host.name, *arguments], check=True, capture_output=True)


def join(one: Namespace, other: Namespace) -> str:
    """Another link, as different from the lab's own as two paths can be. Its name at both ends."""
    name = f"data{next(_links)}"
    ip(one, "link", "add", name, "type", "veth", "peer", "name", name, "netns", other.name)
    for host, address in ((one, HERE), (other, THERE)):
        ip(host, "address", "add", f"{address}/24", "dev", name)
        ip(host, "link", "set", name, "up")
    return name


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """Two hosts that negotiate by the lab's path."""
    directory = tmp_path_factory.mktemp("hosts")
    with (
        Lab(f"oob-{os.getpid()}", rtt=RTT) as lab,
        contextlib.closing(Hosts(lab, directory, site={"index.html": PAGE})) as hosts,
    ):
        hosts.serve_plain()
        hosts.daemon(lab.client)
        hosts.daemon(lab.server, "-v")
        hosts.expose()
        yield hosts


def connect(hosts: Hosts, *more: str) -> subprocess.CompletedProcess[bytes]:
    """To the address on the other link, negotiated by the lab's path."""
    via = f'via = "{hosts.lab.server.address4}"'
    options = ("-v", "--tcp", "auto", "--server-name", SERVER_NAME, "--policy", via, *more)
    return hosts.connect(*options, f"{THERE}:{PORT}", stdin=GET)


def test_a_stack_comes_up_on_a_path_that_no_negotiation_packet_takes(hosts: Hosts, tmp_path: Path) -> None:
    link = join(hosts.lab.client, hosts.lab.server)
    try:
        control, data = tmp_path / "control.pcap", tmp_path / "data.pcap"
        dump = hosts.start(
            hosts.lab.client, ["tcpdump", "-i", link, "--immediate-mode", "-U", "-w", str(data)], ready="listening"
        )
        with hosts.lab.capture(control, where="link"):
            for _ in range(2):  # the second proposal was made ahead
                done = connect(hosts, "--fallback", "never")
                assert done.returncode == 0, done.stderr.decode() + hosts.logs()
                assert done.stdout.endswith(PAGE)
                assert done.stderr.decode().startswith("http/tls/tcp to ")
                assert "the data path leads to the peer" in done.stderr.decode()
        dump.terminate()
        dump.wait(5)
        assert (tally(control).negotiation_packets >= 6, tally(control).syn_packets) == (True, 0)
        assert tally(data).negotiation_packets == 0
        assert tally(data).syn_packets == 2
    finally:
        ip(hosts.lab.client, "link", "delete", link)


def test_a_data_path_that_leads_elsewhere_is_noticed_before_anything_is_committed(hosts: Hosts) -> None:
    """There too is a TLS server, with the right certificate even: as behind a balancer, or a route of another site."""
    name = f"oob-{os.getpid()}-elsewhere"
    subprocess.run(["ip", "netns", "add", name], check=True)
    elsewhere = Namespace(name, "", THERE, "", {})
    try:
        link = join(hosts.lab.client, elsewhere)
        command = ["openssl", "s_server", "-accept", str(PORT), "-tls1_3", "-WWW", "-cert", str(hosts.certificate)]
        command += ["-cert_chain", str(hosts.certificate), "-key", str(hosts.key)]
        hosts.start(elsewhere, command, ready="ACCEPT", cwd=hosts.site)
        done = connect(hosts, "--fallback", "never")
        assert done.returncode != 0
        assert "DATA_PATH_FAILED" in done.stderr.decode()
        assert "has not heard the proposal" in done.stderr.decode()
        # Where the policy has a plain connection, that is what there is.
        done = connect(hosts)
        assert done.returncode == 0, done.stderr.decode() + hosts.logs()
        assert done.stdout.endswith(PAGE)
        assert "plain connection" in done.stderr.decode()
        assert "DATA_PATH_FAILED" in done.stderr.decode()
        ip(hosts.lab.client, "link", "delete", link)
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)
    assert hosts.status(hosts.lab.server)["associations"] == []


def test_a_data_path_that_is_blocked_ends_in_its_reason_and_leaves_no_stack(hosts: Hosts) -> None:
    link = join(hosts.lab.client, hosts.lab.server)
    try:
        rule = ["-i", link, "-p", "tcp", "-j", "REJECT", "--reject-with", "tcp-reset"]
        hosts.lab.server.run(["iptables", "-A", "INPUT", *rule], check=True)
        done = connect(hosts, "--fallback", "never")
        assert done.returncode != 0
        assert "DATA_PATH_FAILED" in done.stderr.decode()
    finally:
        hosts.lab.server.run(["iptables", "-F", "INPUT"], check=True)
        ip(hosts.lab.client, "link", "delete", link)
    assert hosts.status(hosts.lab.server)["associations"] == []
