# SPDX-License-Identifier: Apache-2.0
"""What the tracers print is what a capture of the same packets shows, read by scapy and by no code of ours."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.utils import rdpcap

from accord.cli.trace.histogram import slot_of
from accord.datapath.port import Rung
from accord.datapath.watch import LEASE_SECONDS
from accord.lab.hosts import PORT, TLS_PORT, Hosts
from accord.scapy_layer import Accord
from tests.datapath.netns import two_hosts
from tests.datapath.sides import Side
from tests.e2e.conftest import PAGE
from tests.e2e.test_negotiated_stacks import GET, address, body
from tests.e2e.test_stats import key, values
from tests.trace.tracer import tracing

pytestmark = pytest.mark.root

NEVER = ("--prefer", "tls/tcp", "--fallback", "never")
# Two clocks are compared, by readings a moment apart.
CLOCK_SECONDS = 0.001


def negotiate(hosts: Hosts, *arguments: str) -> None:
    """One request over a negotiated stack."""
    done = hosts.connect(*(arguments or (*NEVER, address(hosts, 4))), stdin=GET)
    assert done.returncode == 0, done.stderr.decode() + hosts.logs()
    assert body(done.stdout) == PAGE


def settled(path: Path) -> list[Any]:
    """The packets of a capture."""
    return list(rdpcap(str(path)))


def sent_by(packets: list[Any], source: str) -> list[Any]:
    """Negotiation packets of one host, in the order in which they left."""
    return [packet for packet in packets if Accord in packet and packet[IP].src == source]


def pid(hosts: Hosts, end: str) -> int:
    """Process of a daemon."""
    return int(hosts.status(getattr(hosts.lab, end))["pid"])


def test_the_verdicts_are_those_of_the_captured_packets_one_for_one(hosts: Hosts, tmp_path: Path) -> None:
    server = hosts.lab.server
    with tracing(server, "verdicts", "--iface", server.interface) as tracer:
        before = values(hosts, server)
        with hosts.lab.capture(tmp_path / "c.pcap", where="link"):
            negotiate(hosts)
            time.sleep(0.1)
        after = values(hosts, server)
        lines = tracer.stop()
    captured = sent_by(settled(tmp_path / "c.pcap"), hosts.lab.client.address4)
    told = [line for line in lines if "transaction" in line]
    assert len(captured) >= 3
    assert [(line["transaction"], line["step"]) for line in told] == [
        (packet[Accord].transaction.hex(), packet[Accord].step) for packet in captured
    ]
    assert [line["frame_bytes"] - 14 for line in told] == [packet[IP].len for packet in captured]
    for line, packet in zip(told, captured, strict=True):
        assert bytes.fromhex(line["head"])[14:] == bytes(packet[IP])[:114], "the first 128 bytes of the frame"
        # A daemon on a starved machine misses a heartbeat, and then the kernel delivers.
        verdict = {"STEERED": "REDIRECT", "STALE_HEARTBEAT": "PASS"}[line["reason"]]
        assert (line["verdict"], line["interface"], line["queue"]) == (verdict, "acc0", 0)
        assert f"{packet[UDP].sport} > {hosts.lab.server.address4}" in line["packet"]
    others = {line["reason"] for line in lines if line.get("verdict") == "PASS"}
    assert "NOT_OURS_PROTOCOL" in others, "the TCP segments of the stack"
    assert lines[-1]["event"] == "summary"
    assert lines[-1]["lost"] == 0
    steered = sum(line["reason"] == "STEERED" for line in told)
    assert lines[-1]["counts"].get("STEERED", 0) == steered
    name = key("accord_steering_packets_total", reason="STEERED")
    assert after.get(name, 0) - before.get(name, 0) == steered


def test_a_killed_tracer_leaves_a_daemon_that_works_and_the_next_one_prints_only_the_reasons_named(
    hosts: Hosts,
) -> None:
    with tracing(hosts.lab.server, "verdicts") as tracer:
        os.kill(tracer.process.pid, signal.SIGKILL)
        tracer.process.wait()
    time.sleep(LEASE_SECONDS)
    with tracing(hosts.lab.server, "verdicts", "--reason", "not_ours_protocol") as tracer:
        negotiate(hosts)
        lines = tracer.stop(signal.SIGTERM)
    assert {line["reason"] for line in lines if line["event"] == "verdict"} == {"NOT_OURS_PROTOCOL"}


def test_a_redirect_that_the_kernel_could_not_carry_out_is_told() -> None:
    """A port that nobody polls: its ring fills, and the program cannot know."""
    frames = 512
    packet = b"\x04\x00\x00\x05ACRD" + bytes(24)
    with two_hosts() as (near, far), Side(far, Rung.XDP_GENERIC, any_port=True, frames=frames):

        class Far:
            def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
                return far.run(lambda: subprocess.Popen(argv, **options))

        with tracing(Far(), "verdicts", "--iface", far.interface) as tracer, near.udp(4) as sock:
            for _ in range(frames):
                sock.sendto(packet, (far.address4, PORT))
            lines = tracer.stop()
    steered = [line for line in lines if line.get("reason") == "STEERED"]
    failed = [line for line in lines if line["event"] == "failed"]
    assert len(steered) == frames, lines[-5:]
    assert len(failed) == frames // 2, "half of the frames are for sending"
    assert {(line["verdict"], line["interface"]) for line in failed} == {("REDIRECT", far.interface)}
    assert lines[-1]["counts"] == {**lines[-1]["counts"], "failed": len(failed), "STEERED": frames}


def test_verdicts_go_on_with_the_program_of_the_next_daemon() -> None:
    packet = b"\x04\x00\x00\x05ACRD" + bytes(24)
    with two_hosts() as (near, far), Side(far, Rung.XDP_GENERIC, any_port=True) as first:

        class Far:
            def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
                return far.run(lambda: subprocess.Popen(argv, **options))

        with tracing(Far(), "verdicts", "--reason", "STEERED") as tracer, near.udp(4) as sock:

            def deliver() -> dict[str, Any]:
                sock.sendto(packet, (far.address4, PORT))
                return tracer.next()

            assert deliver()["reason"] == "STEERED"
            before = far.xdp_id()
            first.port.close()
            with Side(far, Rung.XDP_GENERIC, any_port=True):
                told = tracer.next()
                if told["program"] is None:  # it looked between the two
                    told = tracer.next()
                assert (told["event"], told["interface"], told["program"]) == ("program", "far0", far.xdp_id())
                assert told["program"] != before
                assert deliver()["reason"] == "STEERED"
                tracer.stop()


def test_stages_are_reached_in_the_order_in_which_the_packets_were_on_the_wire(hosts: Hosts, tmp_path: Path) -> None:
    ends = {pid(hosts, end): role for end, role in (("client", "initiator"), ("server", "responder"))}
    pids = [f"--pid={each}" for each in ends]
    with tracing(hosts.lab.server, "stages", "--each", *pids) as tracer:
        with hosts.lab.capture(tmp_path / "c.pcap", where="link"):
            negotiate(hosts)
            time.sleep(0.1)
        lines = tracer.stop()
    packets = settled(tmp_path / "c.pcap")
    frames = {
        packet[Accord].step: float(packet.time) for packet in packets if Accord in packet and packet[Accord].chunks
    }  # of each step the last
    (transaction,) = {packet[Accord].transaction.hex() for packet in packets if Accord in packet}
    at = {
        (line["role"], line["stage"], line["step"]): line["at"]
        for line in lines
        if line["event"] == "stage" and line["transaction"] == transaction
    }
    assert all(ends[line["pid"]] == line["role"] for line in lines if line["event"] == "stage")
    order = [
        at["initiator", "opened", 0],
        at["initiator", "sent", 0],
        frames[0],
        at["responder", "whole", 0],
        at["responder", "sent", 1],
        frames[1],
        at["initiator", "whole", 1],
        at["initiator", "sent", 2],
        frames[2],
        at["responder", "whole", 2],
    ]
    for earlier, later in itertools.pairwise(order):
        assert earlier <= later + CLOCK_SECONDS, order
    assert at["responder", "opened", 0] <= at["responder", "whole", 0]


def test_the_histograms_are_those_of_the_stages_one_by_one(hosts: Hosts) -> None:
    """The BPF side's sums and buckets, against the same computed from the events that it printed beside them."""
    pids = [f"--pid={pid(hosts, end)}" for end in ("client", "server")]
    with tracing(hosts.lab.server, "stages", "--each", *pids) as tracer:
        for _ in range(3):
            negotiate(hosts)
        lines = tracer.stop()
    words = {"sent": "sent", "whole": "in", "acknowledged": "acknowledged"}
    messages = ("proposal", "answer", "commit")
    expected: dict[tuple[str, str, str], Counter[int]] = {}
    by_side: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for line in lines:
        if line["event"] == "stage":
            by_side.setdefault((line["transaction"], line["role"]), []).append(line)
    for (_, role), stages in by_side.items():
        if stages[0]["stage"] != "opened":
            continue
        began = chain = stages[0]
        sent: dict[int, float] = {}
        for stage in stages[1:]:
            name = f"{messages[stage['step']]} {words[stage['stage']]}" if stage["stage"] in words else ""
            if stage["stage"] == "acknowledged":
                pair = [(f"{messages[stage['step']]} sent", sent[stage["step"]])]
            elif name:
                origin = f"{messages[chain['step']]} {words[chain['stage']]}" if chain is not began else "opened"
                pair = [(origin, chain["at"])]
                if stage["step"] == 2:
                    pair.append(("opened", began["at"]))
                chain = stage
            else:
                continue
            if stage["stage"] == "sent":
                sent[stage["step"]] = stage["at"]
            for origin, since in pair:
                microseconds = round((stage["at"] - since) * 1e6)
                expected.setdefault((role, origin, name), Counter())[microseconds] += 1
    shown = {(line["role"], line["from"], line["to"]): line for line in lines if line["event"] == "histogram"}
    assert set(shown) == set(expected)
    assert ("initiator", "proposal sent", "answer in") in shown
    assert ("responder", "proposal in", "answer sent") in shown
    assert ("initiator", "opened", "commit sent") in shown
    for each, line in shown.items():
        durations = sorted(expected[each].elements())
        assert line["count"] == len(durations) == sum(bucket["count"] for bucket in line["buckets"])
        assert line["mean_us"] == pytest.approx(sum(durations) / len(durations), abs=2)
        placed = [bucket for bucket in line["buckets"] for _ in range(bucket["count"])]
        for duration, bucket in zip(durations, placed, strict=True):
            # Unix time as a float is good to a microsecond or two.
            assert bucket["from_us"] - 2 <= duration <= bucket["to_us"] + 2
            assert abs(slot_of(duration) - slot_of(bucket["from_us"])) <= 2


def test_a_negotiated_connection_is_followed_from_its_installation_to_its_close(hosts: Hosts, tmp_path: Path) -> None:
    with tracing(hosts.lab.client, "tcp") as client, tracing(hosts.lab.server, "tcp") as server:
        with hosts.lab.capture(tmp_path / "c.pcap", where="link"):
            negotiate(hosts)
            negotiate(hosts, "--secure", "required", f"{hosts.lab.server.address4}:{TLS_PORT}")  # by a SYN
            for tracer in (client, server):
                tracer.until(event="state", after="CLOSE")
        traced = {"client": client.stop(), "server": server.stop()}
    segments = [packet for packet in settled(tmp_path / "c.pcap") if TCP in packet and PORT in (
        packet[TCP].sport, packet[TCP].dport
    )]  # fmt: skip
    ports = {packet[TCP].sport for packet in segments} - {PORT}
    assert len(ports) == 1
    assert not [packet for packet in segments if "S" in str(packet[TCP].flags)]
    for end, lines in traced.items():
        states = [line for line in lines if line["event"] == "state"]
        assert states[0]["before"] == "SYN_SENT"
        assert states[0]["after"] == "ESTABLISHED"
        assert states[-1]["after"] == "CLOSE"
        assert all(earlier["after"] == later["before"] for earlier, later in itertools.pairwise(states))
        assert {line["local_port" if end == "client" else "remote_port"] for line in states} == ports
        assert {line["remote_port" if end == "client" else "local_port"] for line in states} == {PORT}
        host = getattr(hosts.lab, end)
        assert {line["local"] for line in states} == {host.address4}
        assert all(line["negotiated"] for line in states)
        assert not [line for line in lines if line["event"] in ("reset_sent", "reset_received")]
        assert states[0]["at"] <= min(float(packet.time) for packet in segments) + CLOCK_SECONDS


def test_a_connection_with_a_syn_is_shown_on_demand_and_called_what_it_is(hosts: Hosts) -> None:
    with tracing(hosts.lab.client, "tcp", "--all") as tracer:
        negotiate(hosts, "--secure", "required", f"{hosts.lab.server.address4}:{TLS_PORT}")
        lines = [line for line in tracer.stop() if line.get("remote_port") == TLS_PORT]
    assert [line["after"] for line in lines[:2]] == ["SYN_SENT", "ESTABLISHED"]
    assert not any(line["negotiated"] for line in lines)


def test_a_reset_of_a_negotiated_connection_is_told_at_both_ends(hosts: Hosts) -> None:
    """The client's program dies with bytes unread."""
    argv = [sys.executable, "-m", "accord.cli.main", "connect", "--control", str(hosts.control(hosts.lab.client))]
    argv += ["--ca", str(hosts.ca), "--secure", "no", "--prefer", "tcp", "--only", "--fallback", "never"]
    with tracing(hosts.lab.client, "tcp") as client, tracing(hosts.lab.server, "tcp") as server:
        process = hosts.lab.client.popen(
            [*argv, address(hosts, 4)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"GET /big.bin HTTP/1.0\r\n\r\n")
        process.stdin.flush()
        process.stdout.read(100)
        process.kill()
        process.communicate()
        time.sleep(0.3)
        ends = client.stop(), server.stop()
    seen = [{line["event"] for line in lines} for lines in ends]
    assert "reset_sent" in seen[0]
    assert "reset_received" in seen[1]


def test_a_tracer_ends_by_itself_when_its_seconds_are_over(hosts: Hosts) -> None:
    with tracing(hosts.lab.server, "stages", "--seconds", "0.1", f"--pid={pid(hosts, 'server')}") as tracer:
        assert tracer.finish() == []
