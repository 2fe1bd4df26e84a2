# SPDX-License-Identifier: Apache-2.0
"""Counters move as the traffic says that they should: read by Prometheus' parser, against what was sent."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import Callable

import pytest
from prometheus_client.parser import text_string_to_metric_families

from accord.cli.prometheus import exposition
from accord.cli.status import ask
from accord.controller.metrics import FAMILIES
from accord.lab.hosts import PORT, SERVER_NAME, TLS_PORT, Hosts
from accord.lab.namespace import Namespace
from tests.e2e.conftest import PAGE
from tests.e2e.test_negotiated_stacks import GET, address, body

pytestmark = pytest.mark.root

NEVER = ("--fallback", "never")
ACCORD = (sys.executable, "-m", "accord.cli.main")

Values = dict[tuple[str, frozenset[tuple[str, str]]], float]


def stats(hosts: Hosts, host: Namespace, *arguments: str) -> str:
    """What ``accord stats`` prints."""
    command = [*ACCORD, "stats", *arguments, "--control", str(hosts.control(host))]
    return str(host.run(command, check=True, capture_output=True, text=True, timeout=30).stdout)


def values(hosts: Hosts, host: Namespace) -> Values:
    """Every sample that is not zero, as Prometheus reads them; the command itself is a process more."""
    families = asyncio.run(ask(hosts.control(host), {"op": "stats"}))["families"]
    return parse(exposition(families))


def parse(text: str) -> Values:
    """Every sample that is not zero, read by Prometheus."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.value
    }


def rises(before: Values, after: Values) -> Values:
    """What grew, and by how much."""
    return {key: value - before.get(key, 0) for key, value in after.items() if value > before.get(key, 0)}


def is_gauge(sample: tuple[str, frozenset[tuple[str, str]]]) -> bool:
    return any(family.name == sample[0] and family.kind.value == "gauge" for family in FAMILIES)


def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


def moved(hosts: Hosts, action: Callable[[], None]) -> tuple[Values, Values]:
    """By how much the client's and the server's samples grew while something was done."""
    ends = (hosts.lab.client, hosts.lab.server)
    before = [values(hosts, end) for end in ends]
    action()
    client, server = (rises(then, values(hosts, end)) for end, then in zip(ends, before, strict=True))
    return client, server


def connect(hosts: Hosts, *arguments: str, page: bytes | None = PAGE) -> Callable[[], None]:
    """A request whose answer is the page, or which is to fail."""

    def ask() -> None:
        done = hosts.connect(*arguments, stdin=GET)
        assert (done.returncode == 0) == (page is not None), done.stderr.decode() + hosts.logs()
        assert page is None or body(done.stdout) == page

    return ask


def test_a_negotiation_is_counted_at_both_ends_with_its_stack_and_its_time(hosts: Hosts) -> None:
    client, server = moved(hosts, connect(hosts, "--prefer", "tls/tcp", *NEVER, address(hosts, 4)))
    stack = "http/tls/tcp"
    for role, end in (("initiator", client), ("responder", server)):
        committed = key("accord_negotiations_total", role=role, outcome="committed", reason="OK")
        assert end[committed] == 1
        assert end[key("accord_stacks_total", role=role, way="negotiated", stack=stack)] == 1
        assert end[key("accord_ready_seconds_count", role=role, way="negotiated")] == 1
        assert end[key("accord_engine_verdicts_total", reason="OK")] >= 1
        assert sum(1 for name, _ in end if name == "accord_negotiations_total") == 1
    # A round trip of 30 ms and not two: the bucket of 20 ms has nothing of it.
    assert client[key("accord_ready_seconds_sum", role="initiator", way="negotiated")] >= 0.03
    assert key("accord_ready_seconds_bucket", role="initiator", way="negotiated", le="0.02") not in client


def test_steered_packets_and_ring_frames_are_those_of_the_negotiation(hosts: Hosts) -> None:
    _, server = moved(hosts, connect(hosts, "--prefer", "tls/tcp", *NEVER, address(hosts, 4)))
    steered = server.get(key("accord_steering_packets_total", reason="STEERED"), 0)
    passed = server.get(key("accord_steering_packets_total", reason="STALE_HEARTBEAT"), 0)  # on a starved machine
    received = sum(value for (name, _), value in server.items() if name == "accord_ring_received_frames_total")
    taken = server[key("accord_engine_verdicts_total", reason="OK")]
    assert steered == received == taken - passed
    assert taken >= 3, "a proposal of two packets and a commit"


def test_a_negotiation_that_is_refused_is_counted_with_its_reason_at_both_ends(hosts: Hosts) -> None:
    policy = ("--secure", "no", "--prefer", "quic", "--only", "--server-name", "other.accord.test", *NEVER)
    client, _ = moved(hosts, connect(hosts, *policy, address(hosts, 4), page=None))
    assert client[key("accord_negotiations_total", role="initiator", outcome="failed", reason="CERTIFICATE_NAME")] == 1
    assert not [name for name, _ in client if name == "accord_stacks_total"]


def test_a_peer_without_accord_on_that_port_is_a_fall_back_with_its_reason(hosts: Hosts) -> None:
    remote = f"{hosts.lab.server.address4}:{TLS_PORT}"
    client, _ = moved(hosts, connect(hosts, remote))
    (fallen,) = [labels for name, labels in client if name == "accord_negotiations_total"]
    assert ("outcome", "fell_back") in fallen
    assert dict(fallen)["reason"] in ("LEGACY_PEER", "LEGACY_FIRST")
    assert client[key("accord_stacks_total", role="initiator", way="plain", stack="tls/tcp")] == 1


def test_bad_packets_are_counted_by_reason_and_nothing_else_moves(hosts: Hosts) -> None:
    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for payload in (b"\x04\x00\x00\x01ACRD" + bytes(24), b"nobody's cookie" * 3):
                sock.sendto(payload, (hosts.lab.server.address4, PORT))

    def inject() -> None:
        hosts.lab.client.call(send)
        hosts.connect(*NEVER, address(hosts, 4), stdin=GET)  # behind them: they have arrived when it is answered

    _, server = moved(hosts, inject)
    assert server[key("accord_engine_verdicts_total", reason="BAD_CHECKSUM")] == 1
    assert server[key("accord_steering_packets_total", reason="NOT_OURS_MAGIC")] >= 1
    assert server[key("accord_negotiations_total", role="responder", outcome="committed", reason="OK")] == 1
    assert sum(1 for name, _ in server if name == "accord_negotiations_total") == 1


def test_a_proposal_made_ahead_is_a_hit_and_the_first_to_a_peer_a_miss(hosts: Hosts) -> None:
    files = ("--server-name", SERVER_NAME)  # a target that nobody asked for before

    def twice() -> None:
        for _ in range(2):
            connect(hosts, *files, "--prefer", "tls/tcp", *NEVER, address(hosts, 4))()

    client, _ = moved(hosts, twice)
    assert client[key("accord_prepared_proposals_total", result="missed")] == 1
    assert client[key("accord_prepared_proposals_total", result="hit")] == 1


def test_an_association_is_open_for_as_long_as_it_is(hosts: Hosts) -> None:
    command = [*ACCORD, "connect", "--control", str(hosts.control(hosts.lab.client)), "--ca", str(hosts.ca)]
    process = hosts.lab.client.popen(
        [*command, "-v", *NEVER, address(hosts, 4)], stdin=-1, stdout=-1, stderr=-1, text=True
    )
    try:
        assert process.stderr is not None
        process.stderr.readline()  # it is up
        shown = values(hosts, hosts.lab.client)
        assert shown[key("accord_associations_open", role="initiator")] == 1
        assert shown[key("accord_engine_used", what="transactions")] >= 1
    finally:
        process.communicate("GET /index.html HTTP/1.0\r\n\r\n", timeout=20)
    assert key("accord_associations_open", role="initiator") not in values(hosts, hosts.lab.client)


def test_every_family_is_in_every_form_and_the_sums_of_status_agree(hosts: Hosts) -> None:
    families = json.loads(stats(hosts, hosts.lab.server, "--json"))["families"]
    assert [family["name"] for family in families] == [family.name for family in FAMILIES]
    text = stats(hosts, hosts.lab.server, "--prometheus")
    counted = {sample for sample in parse(text).keys() ^ values(hosts, hosts.lab.server).keys() if not is_gauge(sample)}
    assert not counted, "what is counted is never less; a gauge may be zero by the second question"
    assert all(f"# HELP {family.name} {family.help}\n" in text for family in FAMILIES)
    assert "accord_steering_packets_total" in stats(hosts, hosts.lab.server)
    (memory,) = next(family["samples"] for family in families if family["name"] == "accord_engine_memory_bytes")
    assert memory["value"] == hosts.status(hosts.lab.server)["engine_bytes"]


def test_a_watch_prints_one_object_a_line_until_it_is_interrupted(hosts: Hosts) -> None:
    import signal

    command = [*ACCORD, "stats", "--json", "--watch", "0.2", "--control", str(hosts.control(hosts.lab.server))]
    process = hosts.lab.server.popen(command, stdout=-1, stderr=-1, text=True)
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(3)]
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert all(json.loads(line)["families"] for line in lines)
    assert process.returncode == 130
    assert "Traceback" not in said
