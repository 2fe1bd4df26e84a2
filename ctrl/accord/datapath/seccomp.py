# SPDX-License-Identifier: Apache-2.0
"""The system calls that the worker may make; every other one answers EPERM (seccomp(2), libseccomp).

By name, so that one list serves all architectures. What is not on it matters more than what is: no new program
(execve), no new process (clone without CLONE_THREAD), no bpf, ptrace, mount, unshare, setns, keyctl, io_uring, module,
no change of IDs or capabilities; sockets of four families only. A refused call is logged by the kernel (audit, or the
kernel log), with its number.
"""

from __future__ import annotations

import ctypes
import errno
import socket
from typing import Any, Final

_ALLOW: Final = 0x7FFF0000
_ERRNO: Final = 0x00050000
_ATTRIBUTE_LOG: Final = 6  # SCMP_FLTATR_CTL_LOG
_ATTRIBUTE_NO_NEW_PRIVS: Final = 3  # SCMP_FLTATR_CTL_NNP
_EQUAL, _MASKED_EQUAL = 4, 7  # SCMP_CMP_EQ, SCMP_CMP_MASKED_EQ
_CLONE_THREAD: Final = 0x10000

FAMILIES: Final = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6)
"""Of new sockets. AF_NETLINK, AF_PACKET, AF_XDP and raw ones come from the broker."""

_STREAMS: Final = """
read readv pread64 preadv write writev pwrite64 pwritev lseek close close_range dup dup2 dup3 fcntl ioctl
fstat newfstatat stat lstat statx fstatfs statfs access faccessat faccessat2 readlink readlinkat getcwd
open openat getdents64 ftruncate fsync fadvise64 umask memfd_create pipe2 pipe eventfd2 timerfd_create timerfd_settime
"""
_SOCKETS: Final = """
socketpair bind connect listen accept accept4 getsockname getpeername setsockopt getsockopt shutdown
sendto recvfrom sendmsg recvmsg sendmmsg recvmmsg
epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 poll ppoll select pselect6
"""
_MEMORY: Final = "brk mmap munmap mremap mprotect madvise"
_SELF: Final = """
exit exit_group getpid getppid gettid getuid geteuid getgid getegid getresuid getresgid getgroups capget getpgrp
rt_sigaction rt_sigprocmask rt_sigreturn rt_sigtimedwait sigaltstack restart_syscall tgkill
futex set_robust_list get_robust_list rseq set_tid_address arch_prctl membarrier sched_yield sched_getaffinity
getrandom clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time getrusage sysinfo uname times
prlimit64 getrlimit setrlimit setitimer
"""
ALLOWED: Final = tuple(f"{_STREAMS} {_SOCKETS} {_MEMORY} {_SELF}".split())


class _Comparison(ctypes.Structure):
    """``struct scmp_arg_cmp``."""

    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


def confine() -> str | None:
    """Filter this process's system calls, for good; None, or why not (then all of them stay allowed)."""
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError as missing:
        return f"{missing}: apt-get install libseccomp2"
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(_ERRNO | errno.EPERM)))
    if not context:
        return "seccomp_init: no filter"
    try:
        return _fill_and_load(library, context)
    finally:
        library.seccomp_release(context)


def _fill_and_load(library: Any, context: ctypes.c_void_p) -> str | None:
    def rule(action: int, name: str, *comparisons: _Comparison) -> None:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number != -1:  # __NR_SCMP_ERROR: not a call of this architecture, or too new for this library
            array = (_Comparison * max(1, len(comparisons)))(*comparisons)
            library.seccomp_rule_add_array(context, ctypes.c_uint32(action), number, len(comparisons), array)

    library.seccomp_attr_set(context, _ATTRIBUTE_NO_NEW_PRIVS, 1)
    library.seccomp_attr_set(context, _ATTRIBUTE_LOG, 1)  # before Linux 4.14: refused, and not logged
    for name in ALLOWED:
        rule(_ALLOW, name)
    for family in FAMILIES:
        rule(_ALLOW, "socket", _Comparison(0, _EQUAL, family, 0))
    # clone3 has its flags in memory, where no filter sees them: the C library then takes clone.
    rule(_ERRNO | errno.ENOSYS, "clone3")
    rule(_ALLOW, "clone", _Comparison(0, _MASKED_EQUAL, _CLONE_THREAD, _CLONE_THREAD))
    result = library.seccomp_load(context)
    return None if result == 0 else f"seccomp_load: {errno.errorcode.get(-result, result)}"
