# SPDX-License-Identifier: Apache-2.0
"""accord doctor: its verdicts against other tools', and that it leaves nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from pyroute2 import IPRoute

from accord.cli.doctor import best_back_end, doctor, tried_first
from accord.datapath import attach, probe_interface, probe_syn, syn_option
from accord.datapath import probe as probes
from accord.datapath.cgroup import MOUNT
from accord.datapath.probe import Finding, probe
from accord.datapath.probe_interface import interface, xdp_features
from accord.datapath.probe_scratch import in_scratch_namespace
from accord.wire.constants import Reason
from accord.wire.errors import error

OBJECT = Path(probes.__file__).with_name("accord_xdp.bpf.o")


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    """Findings of the host; those of an interface are in groups of their own."""
    return {finding.name: finding for finding in findings if not finding.group.startswith("interface")}


def succeeds(*command: str) -> bool:
    """The oracle: another program tries the same, in a namespace of its own."""
    return subprocess.run(["unshare", "--net", *command], capture_output=True, check=False).returncode == 0


def holdings() -> tuple[object, ...]:
    """What a probe could leave behind in this process, in its namespace, and by name."""
    with IPRoute() as netlink:
        links = [link.get_attr("IFLA_IFNAME") for link in netlink.get_links()]
    names = sorted(os.listdir("/run/netns")) if os.path.isdir("/run/netns") else []
    threads = [thread.name for thread in threading.enumerate() if thread.name.startswith("accord")]
    mine = [name for name in names if "probe" in name]
    return len(os.listdir("/proc/self/fd")), os.readlink("/proc/thread-self/ns/net"), links, mine, threads


# ---- What is found -------------------------------------------------------------------------------------


@pytest.mark.root
def test_probing_leaves_neither_descriptors_nor_links_nor_namespaces_nor_threads_behind() -> None:
    list(probe("lo"))
    before = holdings()
    list(probe("lo"))
    assert holdings() == before


def test_every_finding_has_a_reason_and_every_no_a_mend_and_no_yes_has_one() -> None:
    for finding in probe("lo"):
        assert finding.reason, finding
        assert finding.purpose, finding
        assert bool(finding.mend) != finding.ok, finding


@pytest.mark.root
@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("tc netem", "tc qdisc add dev lo root netem delay 1ms"),
        ("tc clsact", "tc qdisc add dev lo clsact"),
        ("WireGuard", "ip link add probe0 type wireguard"),
    ],
)
def test_the_verdict_on_a_qdisc_or_link_is_that_of_iproute2(name: str, command: str) -> None:
    assert by_name(list(probe()))[name].ok == succeeds(*command.split())


@pytest.mark.root
def test_the_verdict_on_generic_xdp_is_that_of_iproute2() -> None:
    attach = f"ip link add probe0 type veth && ip link set probe0 xdpgeneric obj {OBJECT} sec xdp"
    assert by_name(list(probe()))["generic XDP"].ok == succeeds("sh", "-c", attach)


@pytest.mark.root
def test_the_verdict_on_native_xdp_is_that_of_iproute2() -> None:
    attach = f"ip link add probe0 type veth && ip link set probe0 xdpdrv obj {OBJECT} sec xdp"
    assert by_name(list(probe()))["native XDP"].ok == succeeds("sh", "-c", attach)


@pytest.mark.root
def test_the_verdict_on_the_kernel_function_is_that_of_bpftool() -> None:
    dump = subprocess.run(
        ["bpftool", "btf", "dump", "file", "/sys/kernel/btf/vmlinux", "format", "raw"], capture_output=True, check=False
    )
    expected = b"FUNC 'bpf_sk_assign_tcp_reqsk'" in dump.stdout
    assert probes.assign_reqsk().ok == expected


def test_a_name_that_is_only_part_of_a_kernel_name_is_not_found() -> None:
    if not Path("/sys/kernel/btf/vmlinux").exists():
        pytest.skip("this kernel has no BTF")
    assert probes._btf_names("tcp_v4_rcv")
    assert not probes._btf_names("tcp_v4_rc")
    assert not probes._btf_names("cp_v4_rcv")


def test_the_cgroup_that_is_named_is_mounted_as_version_2() -> None:
    finding = probes.cgroup2()
    mounted = subprocess.run(["findmnt", "-n", "-t", "cgroup2"], capture_output=True, text=True, check=False)
    assert finding.ok == (mounted.returncode == 0)
    if finding.ok:
        assert Path(finding.reason.removeprefix("mounted at "), "cgroup.controllers").exists()


@pytest.mark.parametrize(
    ("function", "path", "value", "ok", "mend"),
    [
        (probes.syncookies, "tcp_syncookies", "1", True, ""),
        (probes.syncookies, "tcp_syncookies", "2", True, ""),
        (probes.syncookies, "tcp_syncookies", "0", False, "sysctl -w net.ipv4.tcp_syncookies=1"),
        (probes.syncookies, "tcp_syncookies", None, False, "CONFIG_SYN_COOKIES"),
        (probes.conntrack, "tcp_loose", "1", True, ""),
        (probes.conntrack, "tcp_loose", None, True, ""),
        (probes.conntrack, "tcp_loose", "0", False, "sysctl -w net.netfilter.nf_conntrack_tcp_loose=1"),
        (probes.mptcp, "mptcp/enabled", "0", False, "sysctl -w net.mptcp.enabled=1"),
        (probes.cgroup2, "mountinfo", "25 1 0:22 / /sys/fs/cgroup rw - cgroup cgroup rw", False, "mount -t cgroup2"),
        (probes.cgroup2, "mountinfo", "25 1 0:22 / /cgroup2 rw shared:1 - cgroup2 none rw", True, ""),
        (probes.cgroup2, "mountinfo", "a line that is - none of these", False, "mount -t cgroup2"),
        (probes.cgroup2, "mountinfo", "", False, "mount -t cgroup2"),
    ],
)
def test_a_setting_of_the_kernel_leads_to_its_verdict_and_mend(
    monkeypatch: pytest.MonkeyPatch,
    function: Callable[[], Finding],
    path: str,
    value: str | None,
    ok: bool,
    mend: str,
) -> None:
    monkeypatch.setattr(probes, "read", lambda name: value if name.endswith(path) else None)
    finding = function()
    assert finding.ok == ok
    assert mend in finding.mend


@pytest.mark.parametrize(
    ("mask", "missing"),
    [
        ("000001ffffffffff", None),
        (f"{1 << 12 | 1 << 13 | 1 << 39:x}", None),
        (f"{1 << 12 | 1 << 13 | 1 << 21:x}", None),
        (f"{1 << 12 | 1 << 13:x}", "CAP_BPF"),
        (f"{1 << 13 | 1 << 39:x}", "CAP_NET_ADMIN"),
        ("0", "CAP_BPF, CAP_NET_ADMIN, CAP_NET_RAW"),
    ],
)
def test_the_capabilities_that_are_missing_are_named(
    monkeypatch: pytest.MonkeyPatch, mask: str, missing: str | None
) -> None:
    status = f"Name:\tpython\nCapPrm:\t0\nCapEff:\t{mask}\nCapBnd:\t0"
    monkeypatch.setattr(probes, "read", lambda name: status if name.endswith("status") else None)
    finding = probes.privileges()
    assert finding.ok == (missing is None)
    assert missing is None or f"lacks {missing}:" in finding.reason


@pytest.mark.root
def test_without_privilege_udp_is_left_and_everything_else_names_sudo() -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:  # whatever happens in here, the tests go on in the parent alone
        try:
            os.close(reading)
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            findings = list(probe("lo"))
            answer = {finding.name: [finding.ok, finding.mend] for finding in by_name(findings).values()}
            os.write(writing, json.dumps([best_back_end(None, findings), answer]).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answers:
        back_end, answer = json.load(answers)
    os.waitpid(child, 0)
    assert back_end == "UDP sockets"
    assert answer["UDP sockets"] == [True, ""]
    for name in (
        "privileges",
        "native XDP",
        "generic XDP",
        "AF_XDP",
        "AF_PACKET",
        "TCP_REPAIR",
        "tc clsact",
        "SYN option",
    ):
        assert answer[name] == [False, "sudo accord doctor"], name


def test_the_syn_option_needs_a_cgroup_and_the_privilege_that_the_findings_before_it_tell_of() -> None:
    findings = by_name(list(probe()))
    if not (findings["cgroup v2"].ok and findings["privileges"].ok):
        assert not findings["SYN option"].ok
    else:
        assert findings["SYN option"].ok, findings["SYN option"]


def test_a_host_without_cgroup_2_is_told_how_to_have_the_syn_option(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> Path:
        raise error(Reason.NO_KERNEL_SUPPORT, "no cgroup2 file system is mounted", MOUNT)

    monkeypatch.setattr(syn_option, "own_cgroup", refused)
    finding = probe_syn.syn_option()
    assert not finding.ok
    if os.geteuid() == 0:
        assert (finding.reason, finding.mend) == ("no cgroup2 file system is mounted", MOUNT)


# ---- Interfaces -----------------------------------------------------------------------------------------


def test_an_interface_that_is_not_there_is_one_finding_that_says_so() -> None:
    (finding,) = interface("nosuchif0")
    assert not finding.ok
    assert "ENODEV" in finding.reason


@pytest.mark.root
@pytest.mark.parametrize(("mode", "where"), [("xdpgeneric", "in generic mode"), ("xdpdrv", "in the driver")])
def test_a_program_of_our_own_is_found_with_its_number_and_mode(mode: str, where: str) -> None:
    def attached() -> tuple[list[Finding], str]:
        script = f"ip link add probe0 type veth && ip link set probe0 {mode} obj {OBJECT} sec xdp"
        subprocess.run(["sh", "-c", script], check=True, capture_output=True)
        shown = subprocess.run(["ip", "-j", "link", "show", "probe0"], check=True, capture_output=True, text=True)
        return list(interface("probe0")), str(json.loads(shown.stdout)[0]["xdp"]["prog"]["id"])

    findings, number = in_scratch_namespace(attached)
    slot = next(finding for finding in findings if finding.name == "XDP slot")
    assert slot.ok
    assert slot.reason.startswith(f"Accord's own: XDP program accord_xdp, ID {number}, tag ")
    assert f", attached {where}; loaded by " in slot.reason


@pytest.mark.root
@pytest.mark.parametrize("queues", [1, 3, 65])
def test_the_receive_queues_of_an_interface_in_another_namespace_are_counted(queues: int) -> None:
    def made() -> list[Finding]:
        command = f"ip link add probe0 numrxqueues {queues} numtxqueues {queues} type veth"
        subprocess.run(command.split(), check=True, capture_output=True)
        return list(interface("probe0"))

    finding = next(finding for finding in in_scratch_namespace(made) if finding.name == "receive queues")
    assert finding.ok == (queues <= 64)
    assert finding.reason.partition(",")[0] == str(queues)


@pytest.mark.root
def test_the_driver_and_state_of_a_veth_are_told_as_ip_and_ethtool_tell_them() -> None:
    def made() -> tuple[Finding, Finding, int | None]:
        subprocess.run(
            ["ip", "link", "add", "probe0", "mtu", "1404", "type", "veth", "peer", "name", "probe1"], check=True
        )
        subprocess.run(["ip", "link", "set", "probe1", "up"], check=True)
        with IPRoute() as netlink:
            index = netlink.link_lookup(ifname="probe1")[0]
        return next(interface("probe0")), next(interface("probe1")), xdp_features(index)

    down, up, features = in_scratch_namespace(made)
    assert (down.ok, down.reason) == (False, "down, MTU 1404, driver veth")
    assert down.mend == "ip link set probe0 up"
    assert (up.ok, up.reason) == (True, "up, MTU 1500, driver veth")
    assert features is None or features & 0x3


# ---- The scratch namespace ----------------------------------------------------------------------------------


@pytest.mark.root
def test_a_scratch_namespace_is_fresh_and_leaves_the_caller_where_it_was() -> None:
    def links() -> tuple[list[str], str]:
        with IPRoute() as netlink:
            names = [link.get_attr("IFLA_IFNAME") for link in netlink.get_links()]
        return names, os.readlink("/proc/thread-self/ns/net")

    before = os.readlink("/proc/thread-self/ns/net")
    names, inside = in_scratch_namespace(links)
    assert "probe0" not in names
    assert "lo" in names
    assert inside != before
    assert os.readlink("/proc/thread-self/ns/net") == before


@pytest.mark.root
def test_what_goes_wrong_in_a_scratch_namespace_is_raised_to_the_caller() -> None:
    def wrong() -> None:
        raise OSError(95, "on purpose")

    with pytest.raises(OSError, match="on purpose"):
        in_scratch_namespace(wrong)


# ---- The command ------------------------------------------------------------------------------------------


def findings_of(yes: set[str], on_link: set[str] | None = None) -> list[Finding]:
    """The findings that the choice of a back end looks at."""
    names = ("native XDP", "generic XDP", "AF_XDP", "AF_PACKET", "UDP sockets")
    found = [Finding("back ends", name, "p", name in yes, "r") for name in names]
    if on_link is not None:
        for name in ("link", "XDP slot", "receive queues", "native XDP"):
            found.append(Finding("interface eth0", name, "p", name in on_link, "r"))
    return found


EVERYTHING = {"native XDP", "generic XDP", "AF_XDP", "AF_PACKET", "UDP sockets"}
FREE_LINK = {"link", "XDP slot", "receive queues", "native XDP"}


@pytest.mark.parametrize(
    ("yes", "on_link", "best"),
    [
        (EVERYTHING, None, "native XDP"),
        (EVERYTHING - {"native XDP"}, None, "generic XDP"),
        (EVERYTHING - {"AF_XDP"}, None, "AF_PACKET"),
        ({"UDP sockets"}, None, "UDP sockets"),
        (set(), None, None),
        (EVERYTHING, FREE_LINK, "native XDP"),
        (EVERYTHING, FREE_LINK - {"native XDP"}, "generic XDP"),
        (EVERYTHING, FREE_LINK - {"XDP slot"}, "AF_PACKET"),
        (EVERYTHING, FREE_LINK - {"link"}, "UDP sockets"),
    ],
)
def test_the_back_end_that_is_announced_is_the_first_rung_that_holds(
    yes: set[str], on_link: set[str] | None, best: str | None
) -> None:
    assert best_back_end(None if on_link is None else "eth0", findings_of(yes, on_link)) == best


@pytest.mark.parametrize(
    ("yes", "on_link", "native", "first"),
    [
        (EVERYTHING, FREE_LINK, True, "native XDP"),
        (EVERYTHING, FREE_LINK, False, None),
        (EVERYTHING - {"AF_XDP"}, FREE_LINK, True, None),
        (EVERYTHING - {"native XDP"}, FREE_LINK, True, None),
        (EVERYTHING, FREE_LINK - {"XDP slot"}, True, None),
        (EVERYTHING, FREE_LINK - {"link"}, True, None),
    ],
)
def test_where_the_kernel_does_not_tell_of_native_xdp_what_the_daemon_tries_first_is_announced_too(
    yes: set[str], on_link: set[str], native: bool, first: str | None
) -> None:
    told = findings_of(yes, on_link)
    assert tried_first("eth0", told, native) is None
    without = findings_of(yes, on_link - {"native XDP"})
    untold = [*without[:-1], probe_interface._native("interface eth0", None, 1500, "a driver of tomorrow")]
    assert tried_first("eth0", untold, native) == first
    assert best_back_end("eth0", untold, native) == best_back_end("eth0", without)


@pytest.mark.root
def test_the_command_says_what_is_tried_first_and_what_else(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked() -> tuple[str, str]:
        subprocess.run("ip link add probe0 type veth && ip link set probe0 up", shell=True, check=True)
        done = CliRunner().invoke(doctor, ["--iface", "probe0"])
        return done.stdout, CliRunner().invoke(doctor, ["--iface", "probe0", "--json"]).stdout

    monkeypatch.setattr(probe_interface, "xdp_features", lambda _: None)
    monkeypatch.setattr(attach, "driver", lambda _: "a driver of tomorrow")
    table, answer = in_scratch_namespace(asked)
    assert json.loads(answer)["tried_first"] == "native XDP"
    assert "native XDP if the driver takes a program" in " ".join(table.split())
    assert f"else {json.loads(answer)['back_end']}" in " ".join(table.split())


def test_json_holds_every_finding_that_the_table_shows() -> None:
    done = CliRunner().invoke(doctor, ["--iface", "lo", "--json"])
    assert done.exit_code == 0
    answer = json.loads(done.stdout)
    assert answer["interface"] == "lo"
    assert answer["kernel"] == os.uname().release
    table = CliRunner().invoke(doctor, ["--iface", "lo"]).stdout
    assert len(answer["findings"]) > 20
    for finding in answer["findings"]:
        assert finding["name"] in table
        assert finding["group"] in table
        assert set(finding) == {"group", "name", "purpose", "ok", "reason", "mend"}
