# SPDX-License-Identifier: Apache-2.0
"""Probes that try for real, in a network namespace of their own: back ends on a veth, qdiscs, links.

``unshare(CLONE_NEWNET)`` in a thread moves only that thread. Nothing holds the namespace but the thread and
the sockets that it made, so it ends with them, also when the process is killed.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from accord.datapath.probe_finding import Finding, kernel_error

_CLONE_NEWNET = 0x40000000
_ETH_P_ALL = 0x0003
_AF_XDP = 44

_OBJECT = Path(__file__).with_name("accord_xdp.bpf.o")
AS_ROOT = "sudo accord doctor"

T = TypeVar("T")


def in_scratch_namespace(function: Callable[[], T]) -> T:
    """The result of ``function``, run in a fresh, nameless network namespace. Raises what it raises, and OSError."""
    results: list[T] = []
    errors: list[Exception] = []

    def body() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        try:
            if libc.unshare(_CLONE_NEWNET) != 0:
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code))
            results.append(function())
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=body, name="accord-probe")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def back_ends() -> list[Finding]:
    """The ladder, each rung on a fresh veth: what this kernel can do, whatever its NICs can."""
    findings = [_socket_family("AF_XDP", "rings shared with the kernel", _AF_XDP, "CONFIG_XDP_SOCKETS")]
    findings.append(_socket_family("AF_PACKET", "frames where XDP is not to be had", socket.AF_PACKET, "CONFIG_PACKET"))
    findings.append(_udp())
    try:
        xdp = in_scratch_namespace(_xdp_on_veth)
    except (OSError, NetlinkError) as error:
        mend = AS_ROOT if _code(error) == errno.EPERM else "boot a kernel with CONFIG_NET_NS=y and CONFIG_VETH=y"
        reason = f"cannot try it in a network namespace: {_words(error)}"
        xdp = [Finding("back ends", name, purpose, False, reason, mend) for name, purpose in _XDP.values()]
    return [*xdp, *findings]


# enum accord_rung by name of its enumerator -> name and purpose here.
_XDP = {
    "ACCORD_RUNG_XDP_NATIVE": ("native XDP", "packets taken in the driver; turns a veth peer's TSO off"),
    "ACCORD_RUNG_XDP_GENERIC": ("generic XDP", "packets taken after the driver, on any NIC"),
}


def _xdp_on_veth() -> list[Finding]:
    with IPRoute() as netlink:
        netlink.link("add", ifname="probe0", kind="veth", peer={"ifname": "probe1"})
        for name in ("probe0", "probe1"):
            netlink.link("set", index=netlink.link_lookup(ifname=name)[0], state="up")
    return [_rung("probe0", rung, name, purpose) for rung, (name, purpose) in _XDP.items()]


def _rung(interface: str, rung: str, name: str, purpose: str) -> Finding:
    """Open the port on this rung alone, as the daemon would: program loaded and attached, rings bound."""
    try:
        from accord.datapath._core import ffi, lib
    except ImportError as error:
        reason = f"the C core does not load: {error}"
        return Finding("back ends", name, purpose, False, reason, "install Accord again: pip install .")
    number = getattr(lib, rung)
    # cffi's structs do not keep what they point at alive.
    interface_c, object_c = ffi.new("char[]", interface.encode()), ffi.new("char[]", os.fsencode(_OBJECT))
    config = ffi.new("struct accord_port_config *")
    config.interface, config.object_path = interface_c, object_c
    config.first_rung = config.last_rung = number
    report = ffi.new("struct accord_port_report *")
    port = ffi.new("struct accord_port **")
    result = lib.accord_port_open(config, report, port)
    if result == 0:
        lib.accord_port_close(port[0])
        return Finding("back ends", name, purpose, True, "program attached and rings bound on a veth")
    detail = bytes(ffi.string(report.detail[number])).decode(errors="replace")
    code = int(report.error[number])
    reason_text = lib.accord_reason_text(-result)
    reason = bytes(ffi.string(reason_text)).decode() if reason_text else f"reason {-result}"
    words = "; ".join(part for part in (reason, detail, kernel_error(OSError(code, "")) if code else "") if part)
    return Finding("back ends", name, purpose, False, words, _xdp_mend(code))


def _xdp_mend(code: int) -> str:
    if code in (errno.EPERM, errno.EACCES):
        return AS_ROOT
    if not _OBJECT.exists():
        return "./build.py build, or pip install . with clang there"
    return "boot a kernel with CONFIG_BPF_SYSCALL=y, CONFIG_XDP_SOCKETS=y and CONFIG_VETH=y"


def _socket_family(name: str, purpose: str, family: int, option: str) -> Finding:
    try:
        # Protocol 0: such a packet socket receives nothing, and an AF_XDP socket knows no other.
        socket.socket(family, socket.SOCK_RAW, 0).close()
    except PermissionError as error:
        return Finding("back ends", name, purpose, False, kernel_error(error), AS_ROOT)
    except OSError as error:
        return Finding("back ends", name, purpose, False, kernel_error(error), f"boot a kernel with {option}=y")
    return Finding("back ends", name, purpose, True, "the kernel makes such sockets")


def _udp() -> Finding:
    name, purpose = "UDP sockets", "everywhere, without privilege"
    bound = []
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probed:
                probed.bind((address, 0))
                bound.append("IPv6" if family == socket.AF_INET6 else "IPv4")
        except OSError as error:
            refusal = kernel_error(error)
    if bound:
        return Finding("back ends", name, purpose, True, " and ".join(bound))
    return Finding("back ends", name, purpose, False, refusal, "ip link set lo up")


def qdiscs() -> list[Finding]:
    """tc netem, clsact and WireGuard, each added for real."""
    trials = (
        ("lab", "tc netem", "the lab's link; else its own forwarder delays and drops", _try_netem, "sch_netem"),
        ("kernel TCP", "tc clsact", "captured SYNs, sockets born from segments", _try_clsact, "sch_ingress"),
        ("protocols", "WireGuard", "WireGuard stacks, negotiated as a plan", _try_wireguard, "wireguard"),
    )
    findings = []
    for group, name, purpose, trial, module in trials:
        try:
            in_scratch_namespace(trial)
        except (OSError, NetlinkError) as error:
            mend = AS_ROOT if _code(error) == errno.EPERM else f"modprobe {module}, or a kernel that has it"
            findings.append(Finding(group, name, purpose, False, _words(error), mend))
        else:
            findings.append(Finding(group, name, purpose, True, "added and removed in a scratch namespace"))
    return findings


def _try_netem() -> None:
    with IPRoute() as netlink:
        netlink.tc("add", "netem", netlink.link_lookup(ifname="lo")[0], "1:", delay=1000)


def _try_clsact() -> None:
    with IPRoute() as netlink:
        netlink.tc("add", "clsact", netlink.link_lookup(ifname="lo")[0])


def _try_wireguard() -> None:
    with IPRoute() as netlink:
        netlink.link("add", ifname="probe0", kind="wireguard")


def _code(error: OSError | NetlinkError) -> int:
    return int((error.code if isinstance(error, NetlinkError) else error.errno) or 0)


def _words(error: OSError | NetlinkError) -> str:
    return kernel_error(OSError(_code(error), ""))
