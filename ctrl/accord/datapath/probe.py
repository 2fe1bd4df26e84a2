# SPDX-License-Identifier: Apache-2.0
"""What this host's kernel and NIC support: each mode tried or looked up, with the reason for each no.

A probe is harmless and leaves nothing behind. What has to be tried for real (attaching a program, adding a
qdisc) is tried in a network namespace without a name that one thread enters for itself: the kernel removes
it, and all in it, with the thread. A real interface is only ever asked, never touched: attaching XDP can
make a link flap.
"""

from __future__ import annotations

import ctypes
import errno
import importlib.util
import os
import resource
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from accord.datapath import probe_capture, probe_interface, probe_scratch, probe_syn
from accord.datapath.mptcp import IPPROTO_MPTCP, MEND_KERNEL, MEND_SWITCH, SWITCHED_OFF
from accord.datapath.probe_finding import Finding, kernel_error

__all__ = ["Finding", "probe"]

# <linux/tcp.h>, <linux/in.h>, <linux/capability.h>: what Python's modules do not name.
_TCP_REPAIR = 19
_TCP_ULP = 31
_IPPROTO_SCTP = 132
_CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13, "CAP_IPC_LOCK": 14, "CAP_SYS_ADMIN": 21, "CAP_BPF": 39}

# AF_XDP memory is charged to RLIMIT_MEMLOCK: for each queue 4096 frames of up to 4 KiB, and the rings themselves.
_MEMLOCK_BYTES = 17 << 20

_BTF = Path("/sys/kernel/btf/vmlinux")


def probe(interface: str | None = None) -> Iterator[Finding]:
    """All findings in the order in which they are best read, each as soon as it is known.

    ``interface``: say of this one too whether and how it would serve. Raises nothing: what cannot be found
    out is a finding that says why.
    """
    yield privileges()
    yield from probe_scratch.back_ends()
    if interface is not None:
        yield from probe_interface.interface(interface)
    for function in _HOST:
        yield function()
    yield from probe_scratch.qdiscs()


def read(path: str) -> str | None:
    """Contents of a file of /proc or /sys, stripped; None when there is none."""
    try:
        return Path(path).read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None


def capabilities() -> frozenset[str]:
    """Those of Accord's that are effective."""
    status = read("/proc/self/status") or ""
    mask = next((int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:")), 0)
    return frozenset(name for name, bit in _CAPABILITIES.items() if mask >> bit & 1)


def privileges() -> Finding:
    """Root, or the capabilities that stand for it here."""
    name, purpose = "privileges", "XDP, raw sockets, installed TCP state"
    held = capabilities()
    needed = {"CAP_NET_ADMIN", "CAP_NET_RAW"} | ({"CAP_BPF"} if "CAP_SYS_ADMIN" not in held else set())
    if missing := sorted(needed - held):
        bpf = read("/proc/sys/kernel/unprivileged_bpf_disabled")
        also = "; BPF is closed to unprivileged users" if bpf in ("1", "2") else ""
        reason = f"user ID {os.geteuid()} lacks {', '.join(missing)}{also}: only UDP sockets are left"
        return Finding("host", name, purpose, False, reason, "sudo accord doctor")
    return Finding("host", name, purpose, True, f"user ID {os.geteuid()} has all that is needed")


def memlock() -> Finding:
    """RLIMIT_MEMLOCK, to which AF_XDP memory is charged unless CAP_IPC_LOCK is held."""
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    name, purpose = "locked memory", "AF_XDP rings"
    if soft == resource.RLIM_INFINITY or "CAP_IPC_LOCK" in capabilities():
        return Finding("host", name, purpose, True, "unlimited for this process")
    enough = soft >= _MEMLOCK_BYTES
    reason = f"limit {soft >> 10} KiB, one queue's frames and rings take up to {_MEMLOCK_BYTES >> 10} KiB"
    return Finding("host", name, purpose, enough, reason, "" if enough else "ulimit -l unlimited, as root")


def btf() -> Finding:
    """Type information of the kernel."""
    name, purpose = "BTF", "finding kernel functions, BPF objects that fit several kernels"
    if _BTF.exists():
        return Finding("host", name, purpose, True, f"{_BTF} is there")
    return Finding("host", name, purpose, False, f"no {_BTF}", "boot a kernel with CONFIG_DEBUG_INFO_BTF=y")


def _btf_names(name: str) -> bool | None:
    """Whether BTF's string section holds exactly this name; None without BTF."""
    try:
        return b"\0" + name.encode() + b"\0" in _BTF.read_bytes()
    except OSError:
        return None


def tcp_repair() -> Finding:
    """A kernel connection installed from negotiated numbers (CONFIG_CHECKPOINT_RESTORE)."""
    name, purpose = "TCP_REPAIR", "TCP without a SYN"
    try:
        with socket.socket() as probed:
            probed.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 1)
            probed.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 0)
    except PermissionError as error:
        return Finding("kernel TCP", name, purpose, False, kernel_error(error), "sudo accord doctor")
    except OSError as error:
        mend = "boot a kernel with CONFIG_CHECKPOINT_RESTORE=y"
        return Finding("kernel TCP", name, purpose, False, kernel_error(error), mend)
    return Finding("kernel TCP", name, purpose, True, "the kernel lets us set it")


def assign_reqsk() -> Finding:
    """A socket born from the first data segment (mainline since 6.9)."""
    name, purpose = "bpf_sk_assign_tcp_reqsk", "TCP without a SYN to an unmodified server"
    found = _btf_names("bpf_sk_assign_tcp_reqsk")
    if found:
        return Finding("kernel TCP", name, purpose, True, "the kernel's BTF names it")
    reason = "no BTF to look it up in" if found is None else f"kernel {os.uname().release} does not have it"
    return Finding("kernel TCP", name, purpose, False, reason, "boot Linux 6.9 or later, with BTF")


def cgroup2() -> Finding:
    """Where a sockops program is attached."""
    name, purpose = "cgroup v2", "the negotiation's option on SYNs, by sockops; programs under accord run"
    for line in (read("/proc/self/mountinfo") or "").splitlines():
        before, _, after = line.partition(" - ")
        if after.split(" ", 1)[0] == "cgroup2":
            return Finding("kernel TCP", name, purpose, True, f"mounted at {before.split()[4]}")
    mend = "mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified"
    return Finding("kernel TCP", name, purpose, False, "not mounted", mend)


def syncookies() -> Finding:
    """tcp_syncookies: with 0 the kernel answers a socket born from a first segment with a reset."""
    name, purpose = "tcp_syncookies", "sockets born from the first segment"
    value = read("/proc/sys/net/ipv4/tcp_syncookies")
    if value in ("1", "2"):
        return Finding("kernel TCP", name, purpose, True, f"is {value}")
    reason = "is 0: the first segment would be reset" if value == "0" else "not in this kernel"
    mend = "sysctl -w net.ipv4.tcp_syncookies=1" if value == "0" else "boot a kernel with CONFIG_SYN_COOKIES=y"
    return Finding("kernel TCP", name, purpose, False, reason, mend)


def conntrack() -> Finding:
    """Whether this host's connection tracking lets a TCP flow in whose SYN it never saw."""
    name, purpose = "conntrack loose", "TCP without a SYN through NAT and firewall rules of this host"
    value = read("/proc/sys/net/netfilter/nf_conntrack_tcp_loose")
    if value is None:
        return Finding("kernel TCP", name, purpose, True, "no connection tracking in this namespace")
    if value != "0":
        return Finding("kernel TCP", name, purpose, True, f"nf_conntrack_tcp_loose is {value}")
    reason = "nf_conntrack_tcp_loose is 0: flows without a SYN are invalid, rules that drop those drop ours"
    mend = "sysctl -w net.netfilter.nf_conntrack_tcp_loose=1"
    return Finding("kernel TCP", name, purpose, False, reason, mend)


def kernel_tls() -> Finding:
    """kTLS: the probe asks an unconnected socket, which a kernel that has it refuses as unconnected."""
    name, purpose = "kernel TLS", "handing a negotiated TLS stream to the kernel"
    mend = "modprobe tls, or a kernel with CONFIG_TLS"
    try:
        with socket.socket() as probed:
            probed.setsockopt(socket.IPPROTO_TCP, _TCP_ULP, b"tls")
    except OSError as error:
        if error.errno != errno.ENOTCONN:
            return Finding("protocols", name, purpose, False, kernel_error(error), mend)
    return Finding("protocols", name, purpose, True, "the kernel knows the upper-layer protocol")


def _socket_protocol(name: str, purpose: str, protocol: int, mend: str) -> Finding:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol).close()
    except OSError as error:
        return Finding("protocols", name, purpose, False, kernel_error(error), mend)
    return Finding("protocols", name, purpose, True, "the kernel makes such sockets")


def sctp() -> Finding:
    """Kernel SCTP."""
    mend = "modprobe sctp, or a kernel with CONFIG_IP_SCTP"
    return _socket_protocol("SCTP", "SCTP stacks, negotiated as a plan", _IPPROTO_SCTP, mend)


def mptcp() -> Finding:
    """Kernel Multipath TCP, and its switch."""
    purpose = "MPTCP stacks, negotiated as a plan"
    if read("/proc/sys/net/mptcp/enabled") == "0":
        return Finding("protocols", "MPTCP", purpose, False, SWITCHED_OFF, MEND_SWITCH)
    return _socket_protocol("MPTCP", purpose, IPPROTO_MPTCP, MEND_KERNEL)


def seccomp() -> Finding:
    """What filters the worker's system calls: the kernel's part, and the library that writes the filter."""
    name, purpose = "seccomp", "the daemon's worker: refusing system calls that it has no use for"
    if not Path("/proc/sys/kernel/seccomp/actions_avail").exists():
        return Finding(
            "privileges", name, purpose, False, "not in this kernel", "boot one with CONFIG_SECCOMP_FILTER=y"
        )
    try:
        ctypes.CDLL("libseccomp.so.2")
    except OSError as missing:
        return Finding("privileges", name, purpose, False, str(missing), "apt-get install libseccomp2")
    return Finding("privileges", name, purpose, True, "the kernel and libseccomp have it")


def bcc() -> Finding:
    """Debian's bcc, which a virtual environment sees only with --system-site-packages."""
    name, purpose = "bcc", "accord trace"
    # PyPI's package of this name is something else: only the real one has a table module.
    try:
        found = importlib.util.find_spec("bcc.table") is not None
    except ImportError:
        found = False
    if found:
        return Finding("tracing", name, purpose, True, "the Python module is there")
    mend = "apt-get install python3-bpfcc, and a virtual environment with --system-site-packages"
    return Finding("tracing", name, purpose, False, "no Python module bcc", mend)


def kernel_headers() -> Finding:
    """What bcc compiles against."""
    name, purpose = "kernel headers", "accord trace"
    release = os.uname().release
    wanted = Path(f"/lib/modules/{release}/build")
    for path in (wanted, Path("/sys/kernel/kheaders.tar.xz")):
        if path.exists():
            return Finding("tracing", name, purpose, True, f"{path} is there")
    mend = f"apt-get install linux-headers-{release}"
    if others := sorted(Path("/usr/src").glob(f"linux-headers-*-{_debian_architecture()}")):
        common = others[-1].with_name(others[-1].name.removesuffix(_debian_architecture()) + "common")
        mend += f"; or lend it another kernel's: mkdir -p {wanted.parent} && ln -s {others[-1]} {wanted}"
        mend += f" && ln -s {common} {wanted.with_name('source')}"
    return Finding("tracing", name, purpose, False, f"no {wanted}", mend)


def _debian_architecture() -> str:
    machine = os.uname().machine
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


_HOST: tuple[Callable[[], Finding], ...] = (
    tcp_repair,
    assign_reqsk,
    syncookies,
    conntrack,
    cgroup2,
    probe_syn.syn_option,
    probe_capture.captures,
    kernel_tls,
    sctp,
    mptcp,
    btf,
    memlock,
    seccomp,
    bcc,
    kernel_headers,
)
