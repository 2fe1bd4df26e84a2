# SPDX-License-Identifier: Apache-2.0
"""A worker that was taken over tries what an intruder would: each try in a process confined as the worker is."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from accord.datapath import privilege
from accord.datapath.link import look
from tests.privilege.conftest import in_worker

pytestmark = pytest.mark.root

_library = ctypes.CDLL(None, use_errno=True)
_LIBSECCOMP = ctypes.CDLL("libseccomp.so.2")


def call(name: str, *arguments: int) -> None:
    """A system call by its name. Raises ``OSError``."""
    number = _LIBSECCOMP.seccomp_syscall_resolve_name(name.encode())
    assert number >= 0, name
    if _library.syscall(ctypes.c_long(number), *(ctypes.c_long(each) for each in arguments)) < 0:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")


def refused(act: Callable[[], object], *numbers: int) -> None:
    """It is, with one of these errors."""
    with pytest.raises(OSError, match=r"\w") as refusal:
        act()
    assert refusal.value.errno in (numbers or (errno.EPERM,)), refusal.value


CALLS = [
    "bpf",
    "execve",
    "execveat",
    "ptrace",
    "process_vm_readv",
    "process_vm_writev",
    "mount",
    "umount2",
    "pivot_root",
    "chroot",
    "unshare",
    "setns",
    "init_module",
    "finit_module",
    "delete_module",
    "kexec_load",
    "reboot",
    "swapon",
    "keyctl",
    "add_key",
    "request_key",
    "userfaultfd",
    "perf_event_open",
    "io_uring_setup",
    "open_by_handle_at",
    "setuid",
    "setgid",
    "setresuid",
    "setgroups",
    "capset",
    "personality",
    "quotactl",
    "sethostname",
    "syslog",
    "iopl",
    "fork",
    "vfork",
    "kill",
    "tkill",
    "unlink",
    "unlinkat",
    "rename",
    "mkdir",
    "chmod",
    "chown",
    "symlink",
    "link",
    "mknod",
]


@pytest.mark.parametrize("name", CALLS)
def test_a_system_call_that_the_worker_has_no_use_for_is_refused(name: str) -> None:
    in_worker(lambda: refused(lambda: call(name, 0, 0, 0, 0, 0)))


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        (socket.AF_NETLINK, socket.SOCK_RAW),
        (socket.AF_PACKET, socket.SOCK_RAW),
        (44, socket.SOCK_RAW),  # AF_XDP
        (socket.AF_VSOCK, socket.SOCK_STREAM),
        (38, socket.SOCK_SEQPACKET),  # AF_ALG
        (socket.AF_INET, socket.SOCK_RAW),
        (socket.AF_INET6, socket.SOCK_RAW),
    ],
)
def test_sockets_of_other_kinds_are_refused(family: int, kind: int) -> None:
    in_worker(lambda: refused(lambda: socket.socket(family, kind, 253 if kind == socket.SOCK_RAW else 0)))


def test_new_processes_are_refused_and_new_threads_are_not() -> None:
    def act() -> None:
        refused(os.fork)
        done = threading.Event()
        thread = threading.Thread(target=done.set)
        thread.start()
        thread.join(10)
        assert done.is_set()

    in_worker(act)


def test_files_of_root_stay_roots(tmp_path: Path) -> None:
    secret = tmp_path / "key.pem"
    secret.write_text("secret")
    secret.chmod(0o600)

    def act() -> None:
        refused(secret.read_text, errno.EACCES)
        refused(lambda: Path("/etc/shadow").read_text(), errno.EACCES)
        refused(lambda: (tmp_path / "new").write_text("x"), errno.EACCES)

    in_worker(act)


def test_repair_mode_and_reserved_ports_are_not_the_workers() -> None:
    def act() -> None:
        with socket.socket() as sock:
            refused(lambda: sock.setsockopt(socket.IPPROTO_TCP, 19, 1))
            refused(lambda: sock.bind(("127.0.0.1", 443)), errno.EACCES)

    in_worker(act)


def test_what_the_worker_does_need_works() -> None:
    """Names of interfaces, addresses, memory with a path, resolving: all of it without a privilege."""

    def act() -> None:
        assert look("lo").index == 1
        descriptor = os.memfd_create("held")
        os.write(descriptor, b"contents")
        assert Path(f"/proc/self/fd/{descriptor}").read_bytes() == b"contents"
        assert socket.getaddrinfo("localhost", 80)
        with socket.socket() as sock:
            privilege.bind(sock, "127.0.0.1", 991)
            assert sock.getsockname() == ("127.0.0.1", 991)

    assert in_worker(act) == (1, 0)
