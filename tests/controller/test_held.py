# SPDX-License-Identifier: Apache-2.0
"""Files of programs: read with the program's rights, never with the daemon's."""

from __future__ import annotations

import gc
import os
import socket
from pathlib import Path

import pytest

from accord.controller.control import Channel
from accord.controller.held import HeldPath, hold, opened
from accord.daemon.operations import Operations
from accord.protocols.certificates import stamp
from accord.wire.constants import Reason
from accord.wire.errors import AccordError, UserError
from tests.controller.pairs import pair, run


def held(path: Path, shown: str = "roots.pem") -> HeldPath:
    with opened([path]) as (descriptor,):
        return hold(descriptor, shown)


def test_the_contents_stay_as_they_were_when_they_were_passed(tmp_path: Path) -> None:
    file = tmp_path / "a.pem"
    file.write_bytes(b"as it was")
    kept = held(file)
    file.write_bytes(b"")
    file.unlink()
    assert kept.read_bytes() == b"as it was"
    assert str(kept) == "roots.pem"
    assert kept.stat().st_size == 9


def test_equal_contents_of_one_name_are_one_path_and_others_are_not(tmp_path: Path) -> None:
    for name, contents in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).write_bytes(contents)
    first = held(tmp_path / "a")
    assert held(tmp_path / "b") is first
    assert held(tmp_path / "c") != first
    assert held(tmp_path / "a", "another name") != first


def test_nobody_looks_whether_contents_that_are_held_have_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stamps, paths = set(), set()
    for number in range(100):  # the first of them are let go of meanwhile, and their paths used again
        (tmp_path / "a").write_bytes(b"%d" % number)
        kept = held(tmp_path / "a")
        monkeypatch.setattr(Path, "stat", None)
        stamps.add(stamp(kept))
        paths.add(os.fspath(kept))
        monkeypatch.undo()
        del kept
        gc.collect()
    assert len(stamps) == 100 > len(paths)


def test_what_nobody_uses_is_let_go_of_in_the_end(tmp_path: Path) -> None:
    file = tmp_path / "file"
    before = len(os.listdir("/proc/self/fd"))
    for number in range(300):
        file.write_bytes(f"number {number}".encode())
        held(file)
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before + 64


@pytest.mark.parametrize("kind", ["fifo", "directory", "socket", "large", "device"])
def test_only_regular_files_of_a_bounded_size_are_read(tmp_path: Path, kind: str) -> None:
    """A descriptor may be anything: one that never delivers must not stop the daemon."""
    path = tmp_path / "it"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "large":
        with path.open("wb") as file:
            file.truncate(1 << 40)
    if kind == "socket":
        near, far = socket.socketpair()
        with near, far, pytest.raises(UserError) as caught:
            hold(near.fileno(), "it")
    else:
        with pytest.raises(UserError) as caught:
            held(Path("/dev/zero") if kind == "device" else path)
    assert caught.value.reason is Reason.BAD_CONFIG


def test_a_descriptor_that_was_opened_for_writing_alone_shows_nothing(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b"secret")
    descriptor = os.open(path, os.O_WRONLY)
    try:
        with pytest.raises(UserError, match=r"secret\.pem"):
            hold(descriptor, "secret.pem")
    finally:
        os.close(descriptor)


@pytest.mark.root
def test_a_program_cannot_have_a_file_used_that_it_may_not_read(tmp_path: Path) -> None:
    """The daemon could read it: what counts is who asks."""
    path = tmp_path / "root.key"
    path.write_bytes(b"only root may read this")
    path.chmod(0o600)
    pid = os.fork()
    if pid == 0:
        os.setresuid(65534, 65534, 65534)
        try:
            with opened([path]):
                os._exit(1)
        except AccordError as refusal:
            os._exit(0 if refusal.reason is Reason.BAD_CONFIG else 2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize("passed", [0, 1, 3])
def test_a_message_that_names_files_but_does_not_pass_them_is_refused(tmp_path: Path, passed: int) -> None:
    """A path in a message means nothing, whoever could read it."""

    async def refused() -> None:
        async with pair(tmp_path) as both:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            names = {"certificate": str(tmp_path / "server.pem"), "private_key": str(tmp_path / "server.key")}
            fds = [os.open(tmp_path / "server.pem", os.O_RDONLY) for _ in range(passed)]
            with theirs, pytest.raises(UserError, match="descriptors for certificate, private_key") as caught:
                await Operations(both.server).handle({"op": "listen", "port": 7, **names}, Channel(ours), fds)
            assert caught.value.reason is Reason.BAD_CONFIG
            for fd in fds:
                with pytest.raises(OSError, match="Bad file descriptor"):
                    os.fstat(fd)
            ours.close()

    run(refused())
