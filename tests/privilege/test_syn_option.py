# SPDX-License-Identifier: Apache-2.0
"""Who may attach the sockops program, who may use it, and what is left when its process is gone."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from accord.datapath._core import ffi, lib
from accord.datapath.cgroup import own_cgroup
from accord.datapath.syn_option import OBJECT_PATH, ExId, SynFate, SynOptions, saved_syn
from accord.wire.constants import Reason
from accord.wire.errors import HostError
from tests.datapath import syns
from tests.datapath.netns import two_hosts
from tests.failopen.conftest import deployed
from tests.privilege.conftest import NOBODY, in_worker
from tests.xdp.mutants import edited

pytestmark = pytest.mark.root

ID = b"0123456789ab"
PROGRAM = "accord_sockops"


def child(act: Callable[[], None]) -> int:
    """Run it in a process of its own, which ends with it; its process ID."""
    pid = os.fork()
    if pid == 0:
        try:
            act()
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(0)
    return pid


def attached_to(cgroup: Path) -> set[int]:
    """IDs of the programs of this name, as bpftool sees them: those of other daemons among them.

    It fails when one of them ends while it looks.
    """
    words = ["bpftool", "--json", "cgroup", "show", str(cgroup)]
    while (done := subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)).returncode:
        time.sleep(0.01)
    return {program["id"] for program in json.loads(done.stdout.strip() or "[]") if program["name"] == PROGRAM}


def linked_by(pid: int) -> set[int]:
    """IDs of the programs that a process holds by a link (proc(5), fdinfo)."""
    found = set()
    for path in Path(f"/proc/{pid}/fdinfo").iterdir():
        try:
            lines = dict(line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
        except FileNotFoundError:  # the descriptor by which we look
            continue
        if lines.get("link_type", "").strip() == "cgroup":
            found.add(int(lines["prog_id"]))
    return found


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    """Whether it comes true."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@contextlib.contextmanager
def listening(options: SynOptions | None = None) -> Iterator[socket.socket]:
    """On the loopback."""
    with socket.socket() as listener:
        listener.settimeout(5)
        if options is not None:
            options.answer(listener)
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)
        yield listener


def use() -> None:
    """All that a worker does with it."""
    options = SynOptions()
    with listening(options) as listener, socket.socket() as sock:
        options.write(sock, ID, ExId.ADOPT)
        sock.connect(listener.getsockname())
        with listener.accept()[0] as accepted:
            assert saved_syn(accepted) == (ExId.ADOPT, ID)
        assert options.fate(sock) == SynFate(written=True, no_room=False, syns=1, marked=False)
        options.forget(sock)
    assert options.in_use == 0
    options.close()


def test_a_worker_without_privileges_and_bpf_uses_what_its_broker_attached() -> None:
    asked, refused = in_worker(use, cgroup=own_cgroup())
    assert (asked, refused) == (2, 0)  # the map, and one listener; nothing for a connection


def test_a_worker_whose_broker_has_no_cgroup_for_it_is_told_so() -> None:
    def act() -> None:
        with pytest.raises(HostError, match="no cgroup") as refused:
            SynOptions()
        assert refused.value.reason is Reason.NO_PRIVILEGE

    assert in_worker(act) == (1, 1)


def test_the_broker_lets_only_tcp_sockets_that_are_not_connected_answer() -> None:
    def act() -> None:
        options, failure = SynOptions(), ffi.new("struct accord_failure *")
        near, far = socket.socketpair()
        with listening() as listener, socket.create_connection(listener.getsockname()) as connected:
            for sock in (near, far, connected, socket.socket(socket.AF_INET, socket.SOCK_DGRAM)):
                assert lib.accord_syns_answer(options._pointer, sock.fileno(), failure) == -Reason.NO_PRIVILEGE
            options.answer(listener)

    assert in_worker(act, cgroup=own_cgroup()) == (6, 4)


def test_a_user_without_privileges_is_told_which_are_missing() -> None:
    reading, writing = os.pipe()

    def act() -> None:
        os.setresuid(NOBODY, NOBODY, NOBODY)
        try:
            SynOptions()
        except HostError as refusal:
            os.write(writing, json.dumps([refusal.reason.name, refusal.detail, refusal.mend]).encode())

    pid = child(act)
    os.close(writing)
    with os.fdopen(reading) as answer:
        reason, detail, mend = json.load(answer)
    os.waitpid(pid, 0)
    assert reason == "NO_PRIVILEGE"
    assert "EPERM" in detail or "not permitted" in detail
    assert "CAP_NET_ADMIN" in mend


def test_a_killed_process_takes_its_program_along_and_its_connections_go_on() -> None:
    ours, theirs = socket.socketpair()

    def act() -> None:
        options = SynOptions()
        with socket.socket() as sock:
            options.write(sock, ID, ExId.FALLBACK)
            sock.connect(listener.getsockname())
            assert options.fate(sock).written
            socket.send_fds(theirs, [b"connected"], [sock.fileno()])
            signal.pause()

    with listening() as listener:
        pid = child(act)
        ours.settimeout(10)
        _, (fd,), _, _ = socket.recv_fds(ours, 100, 1)
        programs = linked_by(pid)
        assert len(programs) == 1
        assert programs <= attached_to(own_cgroup())
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert within(5, lambda: not programs & attached_to(own_cgroup()))
        with socket.socket(fileno=fd) as sock, listener.accept()[0] as accepted:
            sock.sendall(b"still here")
            assert accepted.recv(100) == b"still here"


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """One of the test's own, with nobody in it."""
    found = own_cgroup() / f"accord-test-{uuid.uuid4().hex}"
    found.mkdir()
    yield found
    found.rmdir()


def open_at(cgroup: Path, program: Path = OBJECT_PATH) -> tuple[int, str]:
    """Result and detail of attaching to it, and closing again."""
    failure, pointer = ffi.new("struct accord_failure *"), ffi.new("struct accord_syns **")
    result = lib.accord_syns_open(os.fsencode(program), os.fsencode(cgroup), ffi.NULL, pointer, failure)
    if result == 0:
        lib.accord_syns_close(pointer[0])
    return result, ffi.string(failure.detail).decode()


def test_a_program_of_others_that_is_to_be_alone_stays_so_and_is_named_as_the_reason(cgroup: Path) -> None:
    assert open_at(cgroup) == (0, "")
    pin = f"/sys/fs/bpf/accord-test-{uuid.uuid4().hex}"
    subprocess.run(["bpftool", "prog", "load", str(OBJECT_PATH), pin], check=True, timeout=20)
    try:
        words = ["bpftool", "cgroup", "attach", str(cgroup), "sock_ops", "pinned", pin]
        subprocess.run(words, check=True, capture_output=True, timeout=20)
        result, detail = open_at(cgroup)
        assert result == -Reason.FOREIGN_PROGRAM
        assert f"{cgroup} or one above has a sockops program that admits no other" in detail
        words = ["bpftool", "cgroup", "detach", str(cgroup), "sock_ops", "pinned", pin]
        subprocess.run(words, check=True, capture_output=True, timeout=20)
        assert open_at(cgroup) == (0, "")
    finally:
        os.unlink(pin)


@pytest.fixture
def statistics() -> Iterator[None]:
    """The kernel counts runs of programs for as long as somebody wants it (bpf(2), BPF_ENABLE_STATS)."""
    fd = ctypes.CDLL("libbpf.so.1").bpf_enable_stats(0)
    if fd < 0:
        pytest.skip("no BPF_ENABLE_STATS: boot Linux 5.8 or later")
    yield
    os.close(fd)


def runs(program: int) -> int:
    """So far."""
    words = ["bpftool", "--json", "prog", "show", "id", str(program)]
    shown = subprocess.run(words, check=True, capture_output=True, text=True, timeout=20).stdout
    return int(json.loads(shown).get("run_cnt", 0))


@pytest.mark.usefixtures("statistics")
def test_the_program_runs_for_the_handshake_alone_and_not_for_segments(cgroup: Path) -> None:
    """Of a socket that bears the option, one that a listener which answers has accepted, and those of others."""
    reading, writing = os.pipe()

    def act() -> None:
        (cgroup / "cgroup.procs").write_text(str(os.getpid()))
        options = SynOptions()
        (program,) = linked_by(os.getpid())

        def connection(segments: int, asked: SynOptions | None) -> int:
            before = runs(program)
            with listening(asked) as listener, socket.socket() as sock:
                if asked is not None:
                    asked.write(sock, ID, ExId.ADOPT)
                sock.connect(listener.getsockname())
                with listener.accept()[0] as accepted:
                    for _ in range(segments):
                        sock.sendall(b"question")
                        accepted.recv(100)
                        accepted.sendall(b"answer")
                        sock.recv(100)
            return runs(program) - before

        found = [connection(segments, asked) for asked in (None, options) for segments in (0, 50)]
        os.write(writing, json.dumps(found).encode())

    pid = child(act)
    os.close(writing)
    with os.fdopen(reading) as answer:
        others, others_with_data, asked, asked_with_data = json.load(answer)
    os.waitpid(pid, 0)
    assert 0 < others < asked <= others + 6
    assert (others_with_data, asked_with_data) == (others, asked)


@pytest.mark.parametrize(
    ("file", "old", "new", "what"),
    [
        (
            "include/accord/syns.h",
            "ACCORD_SYNS_LAYOUT = 1,",
            "ACCORD_SYNS_LAYOUT = 2,",
            "has map layout 2, the library 1: build both",
        ),
        (
            "include/accord/syns.h",
            "ACCORD_SYNS_SLOTS = 16384,",
            "ACCORD_SYNS_SLOTS = 8192,",
            "map syns is of another layout",
        ),
        (
            "include/accord/maps.h",
            "ACCORD_HEARD_BITS = 14,",
            "ACCORD_HEARD_BITS = 13,",
            "map heard is of another layout",
        ),
    ],
)
def test_an_object_of_another_build_is_refused_before_it_is_attached(
    cgroup: Path, file: str, old: str, new: str, what: str
) -> None:
    with edited(file, old, new, "accord_sockops.bpf.c") as mutant:
        result, detail = open_at(cgroup, mutant)
    assert result == -Reason.MAP_MISMATCH
    assert "the sockops object" in detail
    assert what in detail
    assert not attached_to(cgroup)


def test_what_is_no_object_is_refused(cgroup: Path) -> None:
    result, detail = open_at(cgroup, Path(__file__))
    assert result == -Reason.LOAD_FAILED
    assert __file__ in detail


def test_a_cgroup_that_is_gone_is_named(cgroup: Path) -> None:
    result, detail = open_at(cgroup / "gone")
    assert result == -Reason.NO_KERNEL_SUPPORT
    assert str(cgroup / "gone") in detail
    assert "No such file" in detail


def test_a_daemon_says_where_its_program_is_attached_and_how_many_slots_are_in_use(tmp_path: Path) -> None:
    with deployed(tmp_path) as both:
        for host in (both.client, both.server):
            state = both.wait_for(host)
            assert state["syn_option"] == f"written by a program on {own_cgroup()}, 0 of 16384 slots in use"


@contextlib.contextmanager
def somebody_else(cgroup: Path, directory: Path) -> Iterator[None]:
    """A program of others on the cgroup, which admits more."""
    source, built = Path(__file__).with_name("foreign_sockops.bpf.c"), directory / "foreign.o"
    flags = ["-O2", "-g", "-target", "bpf", f"-I/usr/include/{sysconfig.get_config_var('MULTIARCH')}"]
    subprocess.run(["clang", *flags, "-c", str(source), "-o", str(built)], check=True, timeout=30)
    pin = f"/sys/fs/bpf/accord-test-{uuid.uuid4().hex}"
    subprocess.run(["bpftool", "prog", "load", str(built), pin], check=True, timeout=20)
    words = [str(cgroup), "sock_ops", "pinned", pin]
    try:
        subprocess.run(["bpftool", "cgroup", "attach", *words, "multi"], check=True, timeout=20)
        yield
        subprocess.run(["bpftool", "cgroup", "detach", *words], check=True, timeout=20)
    finally:
        os.unlink(pin)


def test_a_program_of_others_keeps_its_options_on_the_segments_of_our_sockets(cgroup: Path, tmp_path: Path) -> None:
    """It was there first. Ours is on the SYN beside its own; its are on all segments, on those of our sockets, too."""
    reading, writing = os.pipe()

    def act() -> None:
        (cgroup / "cgroup.procs").write_text(str(os.getpid()))
        options = SynOptions()
        with two_hosts() as (near, far):
            wire = far.raw()
            with syns.listening(far, 4, options) as listener, syns.stream(near) as sock:
                options.write(sock, ID, ExId.ADOPT)
                sock.connect((far.address4, syns.PORT))
                with listener.accept()[0] as accepted:
                    sock.sendall(b"data")
                    accepted.recv(100)
                assert options.fate(sock) == SynFate(written=True, no_room=False, syns=1, marked=False)
            found = [
                (syns.flags(segment), [kind for kind, _ in segment.options if kind in (253, 254)])
                for segment in syns.segments(wire)
            ]
            os.write(writing, json.dumps(found).encode())

    with somebody_else(cgroup, tmp_path):
        pid = child(act)
        os.close(writing)
        with os.fdopen(reading) as answer:
            (first, *others) = json.load(answer)
        os.waitpid(pid, 0)
    assert (first[0], sorted(first[1])) == (syns.SYN, [253, 254])
    assert len(others) >= 3
    assert all(kinds == [253] for _, kinds in others)
