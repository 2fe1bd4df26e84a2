# SPDX-License-Identifier: Apache-2.0
"""What tracers are made of: buckets, records, what the kernel says about itself, and what they say when it fails."""

from __future__ import annotations

import itertools
import os
import re
import struct
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from accord.cli.trace import stages, tcp, verdicts
from accord.cli.trace.command import trace
from accord.cli.trace.histogram import bounds, quantile, render, slot_of
from accord.cli.trace.in_order import InOrder
from accord.datapath.engine import Stage
from accord.datapath.kernel_types import bit_offset, byte_offset
from accord.datapath.watch import Record
from accord.datapath.xdp_test import Verdict
from accord.wire.constants import Reason
from accord.wire.errors import AccordError, HostError
from tests.trace.tracer import ACCORD, lend
from tests.wire import header
from tests.xdp.packets import TABLE

HOST, USER = 71, 64


@given(st.integers(0, 2**40))
def test_every_duration_has_a_bucket_no_wider_than_a_quarter_of_it(microseconds: int) -> None:
    low, high = bounds(slot_of(microseconds))
    assert low <= microseconds < high
    assert high - low == 1 or (high - low) * 4 <= low


@given(st.integers(0, 150))
def test_buckets_follow_one_another_without_a_gap(slot: int) -> None:
    assert bounds(slot)[1] == bounds(slot + 1)[0]
    assert slot_of(bounds(slot)[0]) == slot


@given(st.lists(st.integers(0, 10**7), min_size=1, max_size=50), st.floats(0.01, 1))
def test_a_quantile_bounds_that_part_of_all(durations: list[int], part: float) -> None:
    counts: dict[int, int] = {}
    for each in durations:
        counts[slot_of(each)] = counts.get(slot_of(each), 0) + 1
    bound = quantile(counts, part)
    assert sum(each < bound for each in durations) >= part * len(durations)
    assert len([line for line in render(counts) if "..." not in line.split()[:1]]) == len(counts)


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5_000_000), st.integers(0, 900_000)), max_size=60),
    st.lists(st.integers(1, 2_000_000), min_size=1, max_size=20),
)
def test_what_happens_on_several_cpus_is_handed_on_in_its_order(
    happened: list[tuple[int, int, int]], pauses: list[int]
) -> None:
    """Of each: CPU, time, and how long it takes to get into that CPU's ring. Reading a ring takes time as well."""
    now, seen = 0, list[tuple[int, int]]()
    rings: dict[int, list[tuple[int, int, int]]] = {cpu: [] for cpu in range(3)}
    for number, (cpu, at, delay) in enumerate(sorted(happened, key=lambda each: each[1])):
        rings[cpu].append((at + delay, at, number))
    order = InOrder[tuple[int, int]](seen.append)
    pause = itertools.cycle(pauses)

    def poll(seconds: float) -> None:
        nonlocal now
        for ring in rings.values():
            now += next(pause)
            for there, at, number in [each for each in ring if each[0] <= now]:
                ring.remove((there, at, number))
                order.add(at, (at, number))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("accord.cli.trace.in_order.time", SimpleNamespace(
            clock_gettime_ns=lambda clock: now, CLOCK_BOOTTIME=time.CLOCK_BOOTTIME
        ))  # fmt: skip
        while any(rings.values()):
            order.round(poll, 0.25)
    late = [at for at, _ in seen if at > now - 1_000_000]
    assert not late, "who may still be overtaken waits"
    order.finish()
    assert [at for at, _ in seen] == sorted(at for _, at, _ in happened)
    assert len(seen) == len(set(seen)) == len(happened)


CHANGE = struct.Struct("=QQQIHHHBBBB16s16s")


def test_a_change_of_state_is_read_as_the_kernel_side_wrote_it() -> None:
    data = CHANGE.pack(2, 1, 3, 4, 10, 443, 5000, 1, 1, 2, 1, bytes(15) + b"\1", bytes(15) + b"\2") + b"padding"
    change = tcp.decode(data)
    assert (change.local, change.local_port, change.remote, change.remote_port) == ("::1", 443, "::2", 5000)
    assert (tcp.state(change.before), tcp.state(change.after)) == ("SYN_SENT", "ESTABLISHED")
    assert change.negotiated
    four = tcp.decode(CHANGE.pack(2, 1, 3, 4, 2, 1, 2, 2, 0, 0, 0, b"\x7f\0\0\1" + bytes(12), bytes(16)))
    assert (four.local, four.remote, four.what) == ("127.0.0.1", "0.0.0.0", tcp.What.RETRANSMITTED)
    assert tcp.state(99) == "99"


@given(st.binary(max_size=CHANGE.size - 1))
def test_a_change_that_is_cut_off_is_refused(data: bytes) -> None:
    with pytest.raises(struct.error):
        tcp.decode(data)


@pytest.mark.parametrize("row", [row for row in TABLE if row.reason is Reason.STEERED], ids=lambda row: row.name)
def test_a_steered_packet_of_the_table_is_described_with_its_step_and_transaction(row: object) -> None:
    frame = row.frame  # type: ignore[attr-defined]
    at = frame.find(b"ACRD")
    found = verdicts.transaction(frame[:128])
    if at + 16 > 128:  # behind extension headers that nobody sends
        assert found is None
        return
    assert found == (frame[at - 3], frame[at + 4 : at + 16])
    words = verdicts.describe(Record(0, 1, 0, len(frame), Reason.STEERED, Verdict.REDIRECT, frame[:128]))
    assert words.endswith(f"step {frame[at - 3]} of {frame[at + 4 : at + 16].hex()}")


@given(st.binary(max_size=128), st.integers(0, 2000), st.sampled_from(Reason))
def test_whatever_is_in_a_frame_can_be_described(head: bytes, more: int, reason: Reason) -> None:
    assert isinstance(verdicts.describe(Record(0, 1, 0, len(head) + more, reason, Verdict.PASS, head)), str)


def test_the_stages_and_roles_of_the_tracer_are_those_of_the_core() -> None:
    text = (header.ROOT / "ctrl/accord/cli/trace/stages.bcc.c").read_text()
    names = re.search(r"enum stage \{ (.*) \};", text)
    assert names is not None
    listed = [name.partition(" =")[0] for name in names[1].split(", ")]
    core = (header.ROOT / "dataplane_c/src/core.h").read_text()
    declared = re.findall(r"ACCORD_STAGE_(\w+)", core)
    assert listed == declared == [stage.name for stage in Stage]
    roles = re.search(r"enum role \{(.*?)\}", (header.ROOT / "dataplane_c/src/packet.h").read_text(), re.DOTALL)
    assert roles is not None
    assert re.findall(r"ROLE_(\w+)", roles[1]) == [role.name for role in stages._ROLES]


def test_an_engine_is_found_in_a_process_that_has_it_and_nowhere_else() -> None:
    ((scope, path),) = stages.libraries([os.getpid()])
    assert scope == os.getpid()
    assert os.path.samefile(path, Path(stages.__file__).parents[2] / "datapath/_core.abi3.so")
    child = subprocess.Popen(["sleep", "30"])
    try:
        assert stages.libraries([child.pid]) == []
    finally:
        child.kill()
        child.wait()


@pytest.mark.root
def test_the_kernels_fields_are_where_bpftool_sees_them() -> None:
    command = "bpftool btf dump file /sys/kernel/btf/vmlinux format raw | sed -n \"/STRUCT 'tcp_sock'/,/^\\[/p\""
    dump = subprocess.run(command, shell=True, capture_output=True, text=True, check=True).stdout
    seen = re.search(r"'repair' type_id=\d+ bits_offset=(\d+)", dump)
    assert seen is not None
    assert bit_offset("tcp_sock", "repair") == int(seen[1])
    inner = re.search(r"'inet_conn' type_id=\d+ bits_offset=(\d+)", dump)
    assert inner is not None
    assert byte_offset("tcp_sock", "inet_conn.icsk_inet.sk") == int(inner[1]) // 8


@pytest.mark.parametrize(("structure", "path"), [("tcp_sock", "nosuch"), ("nosuch", "x"), ("sock", "sk_family.x")])
def test_a_field_that_the_kernel_does_not_have_is_named(structure: str, path: str) -> None:
    with pytest.raises(HostError) as caught:
        bit_offset(structure, path)
    assert path in str(caught.value)


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.root
def test_missing_headers_are_named_with_the_package_that_has_them() -> None:
    if Path("/sys/kernel/kheaders.tar.xz").exists():
        pytest.skip("this kernel carries its headers with it")
    hide = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /lib/modules && exec "$@"', "sh"]
    done = run(*hide, *ACCORD, "trace", "tcp", "--seconds", "1")
    assert done.returncode == HOST
    assert f"apt-get install linux-headers-{os.uname().release}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.root
def test_a_missing_bcc_is_named_with_its_package() -> None:
    program = "import sys; sys.modules['bcc'] = None; from accord.cli.main import main; main()"
    done = run(sys.executable, "-c", program, "trace", "tcp", "--seconds", "1")
    assert done.returncode == HOST
    assert "python3-bpfcc" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.root
def test_what_does_not_compile_is_told_with_the_compilers_first_complaint() -> None:
    program = "from accord.cli.trace.session import compile_text; compile_text('tcp')"
    done = run(*lend(), sys.executable, "-c", program)
    assert done.returncode != 0
    complaint = done.stderr.splitlines()[-1]
    assert "HostError" in complaint
    assert "SOCK_NET" in complaint


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("verdicts", "--reason", "SORCERY"), "SORCERY"),
        (("verdicts", "--iface", "lo"), "accord daemon --iface lo"),
        (("verdicts", "--iface", "nosuch0"), "ip -br link"),
        (("stages", "--pid", "1"), "accord daemon"),
        (("tcp", "--seconds", "0"), "seconds"),
    ],
)
def test_what_cannot_be_traced_is_told_before_anything_is_compiled(arguments: tuple[str, ...], word: str) -> None:
    done = run(*ACCORD, "trace", *arguments)
    assert done.returncode in (USER, 2)
    assert word in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["", "verdicts", "stages", "tcp"])
def test_every_tracer_has_help_that_needs_no_root_and_no_bcc(name: str) -> None:
    shown = CliRunner().invoke(trace, [*name.split(), "--help"], standalone_mode=True)
    assert shown.exit_code == 0
    assert "--help" in shown.output


def test_an_accord_error_of_a_tracer_has_a_reason() -> None:
    with pytest.raises(AccordError) as caught:
        verdicts.find(["lo"])
    assert caught.value.reason is Reason.NO_DAEMON
