# SPDX-License-Identifier: Apache-2.0
"""`./build.py vm` without machines: the topology's three descriptions agree, verdicts, and who is meant by a PID."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.utils import wrpcap

from accord.cli.capture import Tally
from accord.cli.demo import CASES, Case
from accord.datapath.probe import probe
from buildtools import clean, vm, vm_box, vm_doctor, vm_hall
from buildtools.bare import STACKS
from buildtools.console import BuildFailure
from vagrant import demo_cases, host_cases, kernel_cases, machines, round_trips, suite
from vagrant.carry import MARK

ROOT = Path(__file__).resolve().parent.parent
CASE = {case.name: case for case in CASES}


def runs(case: Case, **changes: Any) -> list[dict[str, Any]]:
    """Two connections that are as they should be, but for ``changes`` in the second."""
    good = {"stack": STACKS[case.name], "sha256": hashlib.sha256(machines.PAGE).hexdigest()}
    return [good, {**good, **changes}]


def test_every_case_of_the_demo_has_a_stack_that_it_has_to_come_to() -> None:
    assert {case.name for case in CASES} == set(STACKS)


@pytest.mark.parametrize(
    ("name", "syns", "changes", "wrong"),
    [
        ("accord-tls-tcp", 0, {}, ""),
        ("accord-tls-tcp", 1, {}, "1 SYNs in 2 connections instead of 0"),
        ("accord-tls-tcp", 0, {"sha256": "0"}, "other bytes"),
        ("accord-tls-tcp", 0, {"stack": ["http", "tcp"]}, "stack http/tcp, http/tls/tcp instead of http/tls/tcp"),
        ("accord-quic", 0, {"stack": ["http", "tls", "tcp"]}, "instead of http/quic"),
        ("accord-parallel-syn", 2, {}, ""),
        ("accord-parallel-syn", 3, {}, "3 SYNs"),
        ("today-tls-tcp", 2, {}, ""),
        ("today-tls-tcp", 0, {}, "0 SYNs"),
        ("no-accord-peer", 2, {}, ""),
        ("no-accord-peer", 3, {}, "3 SYNs"),
    ],
)
def test_a_case_passes_with_its_stack_its_bytes_and_its_number_of_syns_only(
    name: str, syns: int, changes: dict[str, Any], wrong: str
) -> None:
    found = demo_cases.judge(CASE[name], runs(CASE[name], **changes), Tally(packets=20, syn_packets=syns))
    assert [wrong in each for each in found] == ([True] if wrong else []), found


def test_a_capture_without_a_packet_shows_nothing_not_even_that_there_was_no_syn() -> None:
    assert demo_cases.judge(CASE["accord-quic"], runs(CASE["accord-quic"]), Tally()) == ["no packet passed the router"]


def test_on_a_lossy_link_a_syn_may_be_sent_again_but_none_comes_where_none_belongs() -> None:
    today, negotiated = CASE["today-tls-tcp"], CASE["accord-tls-tcp"]
    assert demo_cases.judge(today, runs(today), Tally(packets=20, syn_packets=3), lossy=True) == []
    assert demo_cases.judge(today, runs(today), Tally(packets=20, syn_packets=1), lossy=True) != []
    assert demo_cases.judge(negotiated, runs(negotiated), Tally(packets=20, syn_packets=1), lossy=True) != []


def test_the_machines_have_the_addresses_that_the_suite_and_the_routes_speak_of() -> None:
    vagrantfile = (ROOT / "vagrant/Vagrantfile").read_text()
    network = (ROOT / "vagrant/network.sh").read_text()
    block = vagrantfile[vagrantfile.index("HOSTS = {") :].partition("\n}\n")[0]
    addresses = dict(re.findall(r'\["([\d.]+)", "(\w+)"\]', block))
    assert addresses[machines.CLIENT] == "client"
    assert addresses[machines.SERVER] == "server"
    assert f"{machines.SERVER6}/64 dev eth1" in network
    gateways = set(re.findall(r"via ([\d.]+)", network))
    assert len(gateways) == 2
    assert {addresses[gateway] for gateway in gateways} == {"client", "server"}
    assert set(re.findall(r'^  "(\w+)" => ', block, re.MULTILINE)) == set(vm.HOSTS)


def test_a_host_that_the_network_script_does_not_know_is_refused_before_anything_is_changed() -> None:
    done = subprocess.run(["sh", ROOT / "vagrant/network.sh", "other"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "there is no host 'other'" in done.stderr


def test_a_process_id_that_was_given_to_another_process_is_not_the_hall(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vm_hall, "STATE", tmp_path)
    assert vm_hall.running() is None
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        started = vm_hall.started(process.pid)
        assert started is not None
        (tmp_path / "pid").write_text(f"{process.pid} {started}")
        assert vm_hall.running() == process.pid
        (tmp_path / "pid").write_text(f"{process.pid} {int(started) + 1}")
        assert vm_hall.running() is None
        (tmp_path / "pid").write_text(f"{process.pid} {started}")
        process.communicate(b"\n")
    assert vm_hall.running() is None


def test_clean_refuses_to_take_the_disks_of_running_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clean, "running", os.getpid)
    monkeypatch.setattr(clean, "targets", lambda: pytest.fail("it went on"))
    with pytest.raises(BuildFailure, match="vm down"):
        clean.run()


@pytest.mark.parametrize(
    ("noted", "refusal"),
    [
        ({"kernel": "6.12", "box": "accord-1"}, "run with kernel 6.12: ./build.py vm down"),
        ({"kernel": "6.1", "box": "accord-0"}, "compiled in the machines is of other sources: ./build.py vm down"),
    ],
)
def test_machines_of_another_kernel_or_of_other_compiled_sources_are_not_tested(
    noted: dict[str, str], refusal: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in noted.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "ssh-config").touch()
    monkeypatch.setattr(vm_hall, "STATE", tmp_path)
    monkeypatch.setattr(vm_hall, "running", os.getpid)
    monkeypatch.setattr(vm, "SSH_CONFIG", tmp_path / "ssh-config")
    monkeypatch.setattr(vm, "become_root", lambda _: None)
    monkeypatch.setattr(vm, "require", lambda _: None)
    monkeypatch.setattr(vm_box, "name", lambda: "accord-1")
    monkeypatch.setattr(vm_box, "box", lambda kernel: pytest.fail("it built a box"))
    with pytest.raises(BuildFailure, match=re.escape(refusal)):
        vm.up("6.1", "tcg")


def test_a_run_that_a_shell_started_in_the_background_cleans_up_at_sigterm_too() -> None:
    """Such a shell has it ignore SIGINT (POSIX, XCU 2.11)."""
    program = (
        "import os, signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from buildtools.minimal import terminable\n"
        "try:\n"
        "    with terminable():\n"
        "        os.kill(os.getpid(), signal.SIGTERM); signal.pause()\n"
        "finally:\n"
        "    print('cleaned up')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "cleaned up\n"
    assert "KeyboardInterrupt" in done.stderr


def test_a_run_under_nohup_outlives_its_terminal() -> None:
    program = (
        "import os, signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from buildtools.minimal import terminable\n"
        "with terminable():\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        "print('went on')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "went on\n", done.stderr


BULK = {
    "sent": 100,
    "sha256": "aa",
    "sendfile": True,
    "stack": ["http", "tls", "tcp"],
    "inside": {"tls": {"kernel": "yes"}},
    "peer": {"sha256": "aa", "stack": ["http", "tls", "tcp"], "inside": {"tls": {"kernel": "yes"}}},
}


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({}, ""),
        ({"sent": 99}, "99 of 100 bytes"),
        ({"sha256": "bb"}, "100 of 100 bytes"),
        ({"stack": ["http", "quic"]}, "the client's stack is http/quic"),
        (
            {"inside": {"tls": {"kernel": "no: Protocol not supported"}}},
            "the client's TLS is not the kernel's: no: Pro",
        ),
        ({"peer": {**BULK["peer"], "inside": {}}}, "the server's TLS is not the kernel's: None"),  # type: ignore[dict-item]
        ({"sendfile": False}, "no kernel socket"),
    ],
)
def test_a_file_counts_only_whole_over_the_promised_stack_by_the_kernel_at_both_ends(
    changes: dict[str, Any], wrong: str
) -> None:
    found = kernel_cases.judge("kernel-tls", {**BULK, **changes}, 100)
    assert [wrong in each for each in found] == ([True] if wrong else []), found


def test_a_capture_with_the_files_own_words_is_never_a_pass(tmp_path: Path) -> None:
    datagrams = [Ether() / IP() / UDP(sport=51821, dport=51822) / bytes((4, 0, 0, 0, *bytes(44))) for _ in range(20)]
    begin = [Ether() / IP() / UDP(sport=51821, dport=51822) / bytes((1, 0, 0, 0, *bytes(144)))]
    wrpcap(str(tmp_path / "good.pcap"), begin + datagrams)
    clear = Ether() / IP() / TCP(dport=443) / (MARK + b" 000000000001\n")
    wrpcap(str(tmp_path / "clear.pcap"), [*begin, *datagrams, clear])
    assert kernel_cases.on_the_wire("wireguard", tmp_path / "good.pcap") == []
    assert kernel_cases.on_the_wire("wireguard", tmp_path / "clear.pcap") == ["the capture has clear text of the file"]
    assert "0 packets with sctp" in kernel_cases.on_the_wire("kernel-sctp", tmp_path / "good.pcap")[0]


def mptcp_segment(flags: str, subtype: int, data: bytes = b"", sport: int = 40001, dport: int = 50002) -> Ether:
    """With the option of kind 30 in the form that this segment has (RFC 8684, sections 3.1 and 3.3)."""
    capable = {"S": b"\x01\x81", "SA": b"\x01\x81" + bytes(8), "A": b"\x01\x81" + bytes(16)}
    mapping = b"\x20\x04" + bytes(8) + len(data).to_bytes(2, "big")
    option = mapping if subtype == 2 else capable[flags]
    return Ether() / IP() / TCP(sport=sport, dport=dport, flags=flags, options=[(30, option)]) / data


def test_a_capture_of_plain_tcp_is_no_capture_of_mptcp(tmp_path: Path) -> None:
    shaken = [mptcp_segment("S", 0), mptcp_segment("SA", 0, sport=50002, dport=40001), mptcp_segment("A", 0)]
    data = [mptcp_segment("A", 2, b"\x17\x03\x03\x00\x01x") for _ in range(20)]
    plain = [Ether() / IP() / TCP(sport=40001, dport=50002, flags="A") / b"x" for _ in range(40)]
    wrpcap(str(tmp_path / "good.pcap"), shaken + data)
    wrpcap(str(tmp_path / "fallback.pcap"), shaken[:1] + plain)
    assert kernel_cases.on_the_wire("kernel-mptcp", tmp_path / "good.pcap") == []
    wrong = kernel_cases.on_the_wire("kernel-mptcp", tmp_path / "fallback.pcap")
    assert "0 packets with tcp.options.mptcp.subtype == 2" in wrong[0]
    assert len(wrong) == 3, "the SYN alone has MP_CAPABLE"


@pytest.mark.parametrize(("there", "wrong"), [(True, ""), (False, "the server's connection is not one of MPTCP")])
def test_a_file_over_mptcp_counts_only_where_both_ends_say_that_it_is_that(there: bool, wrong: str) -> None:
    stack = ["http", "tls", "mptcp"]
    ends = {"stack": stack, "inside": {"mptcp": {"multipath": True}}}
    peer = {"sha256": "aa", "stack": stack, "inside": {"mptcp": {"multipath": there}}}
    found = kernel_cases.judge("kernel-mptcp", {**BULK, **ends, "peer": peer}, 100)
    assert [wrong in each for each in found] == ([True] if wrong else []), found


@pytest.mark.parametrize(
    ("raised", "result", "reason"),
    [
        (machines.Absent("Protocol not supported"), "absent", "Protocol not supported"),
        (machines.Failed("client: exit code 1"), "fail", "client: exit code 1"),
        (KeyError("tls"), "fail", "KeyError: 'tls'"),
        (None, "pass", ""),
    ],
)
def test_a_row_says_how_its_case_ended_and_in_whose_words(raised: Exception | None, result: str, reason: str) -> None:
    def case() -> dict[str, Any]:
        if raised is not None:
            raise raised
        return {"stack": ["http"]}

    row = suite.attempt({"case": "one"}, case)
    assert (row["case"], row["result"], row["reason"]) == ("one", result, reason)
    assert ("stack" in row) is (result == "pass")


def timed(rtt: float, ready: float, first: float, late: float = 0.0, **more: Any) -> dict[str, Any]:
    """A row of `accord-tls-tcp` that passed; milliseconds. ``late``: by what the median is above the least."""
    times = {"rtt_ms": rtt, "measured_rtt_ms": rtt + 1, "ready_least_ms": ready, "first_response_least_ms": first}
    times |= {"ready_rtts": (ready + late) / (rtt + 1), "first_response_rtts": (first + late) / (rtt + 1)}
    return {"case": "accord-tls-tcp", "result": "pass", "stack": ["http", "tls", "tcp"], **times, **more}


def test_what_processors_cost_is_no_round_trip_and_a_round_trip_more_is_a_failure() -> None:
    slow = 140.0  # of one connection, on processors that are translated
    good = [timed(100, 101 + slow, 202 + slow), timed(300, 301 + slow, 602 + slow)]
    (row,) = round_trips.rows(good)
    assert (row["result"], row["ready_rtts"], row["first_response_rtts"]) == ("pass", 1.0, 2.0)
    assert row["ready_offset_ms"] == slow
    (row,) = round_trips.rows([good[0], timed(300, 602 + slow, 903 + slow)])
    assert row["result"] == "fail"
    assert "round trips by slope, 1 in the lab" in row["reason"]


def test_a_slope_that_differs_by_less_than_the_processors_do_by_themselves_tells_nothing() -> None:
    quiet = [timed(100, 241, 342), timed(300, 491, 742)]  # 1.25 round trips until ready
    (row,) = round_trips.rows(quiet)
    assert row["result"] == "fail"
    busy = [timed(100, 241, 342, late=40), timed(300, 491, 742)]  # 40 ms of 200: 0.2 round trips
    (row,) = round_trips.rows(busy)
    assert row["result"] == "absent"
    assert "differs by 0.20 round trips by itself" in row["reason"]
    # A whole round trip too many is seen through it.
    (row,) = round_trips.rows([busy[0], timed(300, 641, 942)])
    assert row["result"] == "fail"


def test_round_trips_are_judged_by_two_long_links_and_neither_by_weather_nor_by_what_failed() -> None:
    one = timed(100, 250, 350)
    assert round_trips.rows([one, timed(20, 150, 170)]) == []
    assert round_trips.rows([one, timed(300, 450, 750, weather="loss")]) == []
    assert round_trips.rows([one, timed(300, 450, 750, result="fail")]) == []
    assert {case.name for case in CASES} == set(round_trips.LAB)


def test_a_kernel_without_the_protocol_is_absent_with_the_doctors_reason(tmp_path: Path) -> None:
    findings = {"SCTP": {"ok": False, "reason": "Protocol not supported (EPROTONOSUPPORT)"}}
    with pytest.raises(machines.Absent, match="EPROTONOSUPPORT"):
        kernel_cases.run("kernel-sctp", 1, findings, tmp_path)
    with pytest.raises(machines.Absent, match="TCP_REPAIR: Operation not permitted"):
        host_cases.CASES["mode-no-syn"]({"TCP_REPAIR": {"ok": False, "reason": "Operation not permitted"}})


class Refusing:
    """A server on which ``accord expose`` says so."""

    def __init__(self, words: str) -> None:
        self.words = words

    def run(self, command: str) -> str:
        """Refused."""
        raise machines.Failed(f"server: {command}: exit code 1: accord: {self.words}")


def test_a_kernel_that_gives_a_listener_no_connections_is_absent_only_if_accord_says_so_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reqsk, cookies = host_cases.LISTENER
    monkeypatch.setattr(host_cases, "SERVER_HOST", Refusing("the kernel lacks it [NO_KERNEL_SUPPORT, host]"))
    lacking = {reqsk: {"ok": False, "reason": "kernel 6.1.0 does not have it"}, cookies: {"ok": True, "reason": "is 1"}}
    with pytest.raises(machines.Absent, match="bpf_sk_assign_tcp_reqsk: kernel 6"):
        host_cases.CASES["mode-unmodified-server"](lacking)
    off = {
        reqsk: {"ok": True, "reason": ""},
        cookies: {"ok": False, "reason": "is 0: the first segment would be reset"},
    }
    with pytest.raises(machines.Absent, match="tcp_syncookies: is 0"):
        host_cases.CASES["mode-unmodified-server"](off)
    monkeypatch.setattr(host_cases, "SERVER_HOST", Refusing("something else [LOAD_FAILED, host]"))
    with pytest.raises(machines.Failed, match="LOAD_FAILED"):
        host_cases.CASES["mode-unmodified-server"](off)


def test_every_case_has_one_name_and_the_smoke_run_is_of_them() -> None:
    names = suite.known_cases()
    assert len(names) == len(set(names))
    assert all(fnmatch.filter(names, pattern) for pattern in suite.SMOKE)


@pytest.mark.parametrize(
    ("words", "code"),
    [(["--smoke"], 0), (["--case", "accord-*", "--rtt", "100"], 0), (["--smok"], 2), (["--case", "nosuch"], 2)],
)
def test_a_word_that_the_suite_does_not_know_is_told_before_any_machine_is_up(words: list[str], code: int) -> None:
    found = CliRunner().invoke(suite.main, ["--kernel", "6.1", "--results", "nowhere", "--check", *words])
    assert found.exit_code == code


def test_what_the_doctor_is_asked_about_is_what_it_answers_to() -> None:
    """The findings that cases look for are findings of the probe."""
    known = {finding.name for finding in probe()}
    wanted = {needed for _, needed in kernel_cases.CASES.values()}
    wanted |= {needed for _, _, needed in host_cases.MODES.values() if needed is not None}
    wanted |= set(host_cases.LISTENER)
    assert wanted | {"bcc", "kernel headers", "SYN option", "TC capture"} <= known


def test_the_compatibility_table_is_as_the_generator_makes_it_of_the_answers() -> None:
    answers = vm_doctor.answers()
    assert vm_doctor.DOCUMENT.read_text() == vm_doctor.render(answers)
    for answer in answers:
        assert {"kernel", "findings", "back_end", "interface"} <= set(answer)


def test_a_no_in_the_table_has_its_reason_and_what_mends_it_below() -> None:
    finding = {"group": "protocols", "name": "SCTP", "purpose": "a | b", "ok": False, "reason": "none", "mend": "do"}
    answer = {"kernel": "6.1.0", "interface": "eth1", "back_end": "af_xdp", "tried_first": None, "findings": [finding]}
    text = vm_doctor.render([answer, {**answer, "kernel": "6.12.0", "findings": [{**finding, "ok": True}]}])
    assert "| protocols | SCTP | no | yes | a \\| b |" in text
    assert "- **SCTP**, 6.1.0: none. Mend: do" in text
    assert "**SCTP**, 6.12.0" not in text
