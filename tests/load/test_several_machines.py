# SPDX-License-Identifier: Apache-2.0
"""Two responders behind one address that share their cookie keys, and a router that sends what comes to either."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import accord
from accord.controller.control import MAX_MESSAGE
from accord.lab import namespace
from accord.lab.hosts import HTTP_PORT, PORT, SERVER_NAME, Hosts
from accord.lab.lab import Lab
from accord.lab.namespace import Namespace
from tests.e2e.test_parallel_syn import BARE, GET, PARALLEL, TLS

pytestmark = pytest.mark.root

PAGE = b"from one of two machines\n"
TABLE = "100"
RTT = 0.6


def ip(host: Namespace, *words: str) -> None:
    """iproute2 in a namespace."""
    host.run(["ip", *words], check=True, capture_output=True)


class Machines:
    """``one`` is the lab's server, ``other`` has the same address behind the router's third interface."""

    def __init__(self, hosts: Hosts) -> None:
        self.hosts, self.router, self.one = hosts, hosts.lab.router, hosts.lab.server
        name = f"{self.one.name}2"
        control = hosts.directory / "other.sock"
        self.other = Namespace(name, "acc0", self.one.address4, environment={"ACCORD_CONTROL": str(control)})
        self.keys = hosts.directory / "cookies.keys"
        self.share(1)
        self._config = hosts.directory / "shared.toml"
        self._config.write_text(f'[limits]\nleast_level = 1\nstrangers_percent = 100\ncookie_keys = "{self.keys}"\n')

    def share(self, number: int) -> None:
        """The key that both have from now on."""
        self.keys.write_text(f"{number} {bytes([number] * 16).hex()}\n")
        self.keys.chmod(0o600)

    def start(self) -> None:
        """Wires, addresses, daemons."""
        namespace.create(self.other.name)
        here = f"/run/netns/{self.other.name}"
        ip(self.router, "link", "add", "other-side", "type", "veth", "peer", "name", "acc0", "netns", here)
        for space, interface in ((self.router, "other-side"), (self.other, "acc0"), (self.other, "lo")):
            ip(space, "link", "set", interface, "up")
        # The same network as the first one's, so routes decide, and nothing else.
        ip(self.other, "address", "add", f"{self.other.address4}/24", "dev", "acc0")
        gateway = self.other.address4.rpartition(".")[0] + ".254"
        ip(self.other, "route", "add", "default", "via", gateway)
        ip(self.router, "route", "add", f"{self.other.address4}/32", "dev", "other-side", "table", TABLE)
        for interface in ("all", "other-side"):
            self.router.call(Path(f"/proc/sys/net/ipv4/conf/{interface}/rp_filter").write_text, "0")
        for machine in (self.one, self.other):
            serving = ["busybox", "httpd", "-f", "-p", f"127.0.0.1:{HTTP_PORT}", "-h", str(self.hosts.site)]
            self.hosts.start(machine, serving)
            self.hosts.daemon(machine, "--config", str(self._config))
            self.hosts.expose("--control", str(self.hosts.control(machine)))
        self.hosts.daemon(self.hosts.lab.client)

    def send_to_other(self, protocol: str) -> None:
        """What comes for the address, and is of this protocol, goes to the other one from now on."""
        ip(self.router, "rule", "add", "to", f"{self.one.address4}/32", "ipproto", protocol, "lookup", TABLE)

    def send_to_one(self) -> None:
        """As at first."""
        for protocol in ("tcp", "udp"):
            rule = ["ip", "rule", "del", "to", f"{self.one.address4}/32", "ipproto", protocol, "lookup", TABLE]
            self.router.run(rule, capture_output=True)

    def status(self, machine: Namespace) -> dict[str, Any]:
        """As ``accord status --json``, without a process."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.settimeout(20)
            sock.connect(os.fspath(self.hosts.control(machine)))
            sock.send(b'{"op":"status"}')
            said: dict[str, Any] = json.loads(sock.recv(MAX_MESSAGE))
            return said

    def strangers(self, machine: Namespace) -> dict[str, Any]:
        """Of its status."""
        found: dict[str, Any] = self.status(machine)["strangers"]
        return found

    def counter(self, machine: Namespace, reason: str) -> int:
        """Of its engine."""
        return int(self.status(machine)["counters"]["engine"].get(reason, 0))

    def connect(self, *wishes: str) -> subprocess.CompletedProcess[bytes]:
        """A request to the address."""
        address = f"{self.one.address4}:{PORT}"
        return self.hosts.connect(*wishes, *PARALLEL, "--server-name", SERVER_NAME, "-v", address, stdin=GET)

    def split(self, *wishes: str) -> subprocess.CompletedProcess[bytes]:
        """The same, scattered."""
        with self.scattered():
            return self.connect(*wishes)

    @contextlib.contextmanager
    def scattered(self) -> Iterator[None]:
        """For one connection: the proposal goes to the first, TCP and all that follows its answer to the other."""
        before, done = self.strangers(self.one)["answers"], threading.Event()
        self.send_to_other("tcp")

        def turn() -> None:
            while not done.is_set() and self.strangers(self.one)["answers"] == before:
                time.sleep(0.01)
            self.send_to_other("udp")

        turning = threading.Thread(target=turn)
        turning.start()
        try:
            yield
        finally:
            done.set()
            turning.join()
            self.send_to_one()


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    directory = tmp_path_factory.mktemp("machines")
    with (
        Lab(f"several-{os.getpid()}", rtt=RTT, path="router") as lab,
        contextlib.closing(Hosts(lab, directory, site={"index.html": PAGE})) as hosts,
    ):
        made = Machines(hosts)
        try:
            made.start()
            yield made
        finally:
            namespace.end_processes([made.other.name])
            namespace.remove(made.other.name)


def test_an_answer_without_secrets_may_be_of_one_machine_and_its_commit_be_taken_by_another(
    machines: Machines,
) -> None:
    assert machines.connect(*BARE).stdout.endswith(PAGE)  # learns how long the answer is
    one, other = machines.strangers(machines.one), machines.strangers(machines.other)
    done = machines.split(*BARE)
    assert done.stdout.endswith(PAGE), (done.stderr, machines.hosts.logs())
    assert machines.strangers(machines.one)["answers"] == one["answers"] + 1
    assert machines.strangers(machines.one)["commits"] == one["commits"]
    assert machines.strangers(machines.other)["answers"] == other["answers"]
    assert machines.strangers(machines.other)["commits"] == other["commits"] + 1


def test_a_commit_for_a_slot_of_another_machine_is_refused_after_one_round_trip_and_the_next_attempt_works(
    machines: Machines,
) -> None:
    wishes = (*TLS, "--only")
    assert machines.connect(*wishes).stdout.endswith(PAGE)  # learns how long the answer is
    before = machines.counter(machines.other, "OTHER_MACHINE")
    done = machines.split(*wishes)
    assert machines.counter(machines.other, "OTHER_MACHINE") > before, machines.hosts.logs()
    assert not done.stdout.endswith(PAGE)
    assert b"OTHER_MACHINE" in done.stderr or done.returncode != 0, done.stderr
    machines.send_to_other("tcp")
    machines.send_to_other("udp")
    try:
        assert machines.connect(*wishes).stdout.endswith(PAGE)
    finally:
        machines.send_to_one()


def test_a_program_that_has_said_nothing_yet_has_a_stack_to_the_other_machine_by_itself(machines: Machines) -> None:
    lab, before = machines.hosts.lab, machines.counter(machines.other, "OTHER_MACHINE")
    committed = machines.strangers(machines.other)["commits"]
    policy = {"tcp": "parallel-syn", "fallback": "never", "prefer": ["tls/tcp"], "only": True}

    async def talk() -> bytes:
        remote, control = f"{machines.one.address4}:{PORT}", machines.hosts.control(lab.client)
        options: dict[str, Any] = {"ca_file": machines.hosts.ca, "server_name": SERVER_NAME, "control": control}
        async with accord.connect(remote, policy, **options) as association:
            while machines.strangers(machines.other)["commits"] == committed:
                await asyncio.sleep(0.05)
            await association.write(GET)
            said = b""
            while more := await association.read():
                said += more
            return said

    assert machines.connect(*TLS, "--only").stdout.endswith(PAGE)  # learns how long the answer is
    with machines.scattered():
        assert asyncio.run(talk()).endswith(PAGE), machines.hosts.logs()
    assert machines.counter(machines.other, "OTHER_MACHINE") > before
