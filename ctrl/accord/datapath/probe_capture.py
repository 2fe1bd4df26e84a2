# SPDX-License-Identifier: Apache-2.0
"""Probe of what ``accord run`` needs: the TC program on a veth of a scratch namespace, and a cgroup to be marked."""

from __future__ import annotations

import contextlib
import os
import socket

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from accord.datapath.cgroup import own_cgroup
from accord.datapath.probe_finding import Finding, kernel_error
from accord.datapath.probe_scratch import AS_ROOT, in_scratch_namespace
from accord.wire.constants import Reason
from accord.wire.errors import AccordError

_GROUP, _NAME, _PURPOSE = "kernel TCP", "TC capture", "accord run: SYNs of unmodified programs, taken at TC egress"


def captures() -> Finding:
    """Loaded, attached at egress beside whatever there is, this process's cgroup marked and unmarked."""
    try:
        from accord.datapath.captures import Captures  # a host without the C core has findings, too
    except ImportError as failure:
        reason = f"the C core does not load: {failure}"
        return Finding(_GROUP, _NAME, _PURPOSE, False, reason, "install Accord again: pip install .")

    def attempt() -> str:
        with IPRoute() as netlink:
            netlink.link("add", ifname="probe0", kind="veth", peer={"ifname": "probe1"})
        cgroup = own_cgroup()
        with contextlib.closing(Captures(socket.if_nametoindex("probe0"))) as opened:
            directory = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                opened.unmark(opened.mark(directory))
            finally:
                os.close(directory)
        return f"clsact, BPF at egress, a ring buffer and cgroups, as of {cgroup}"

    try:
        return Finding(_GROUP, _NAME, _PURPOSE, True, in_scratch_namespace(attempt))
    except AccordError as refusal:
        mend = AS_ROOT if refusal.reason is Reason.NO_PRIVILEGE else refusal.mend
        return Finding(_GROUP, _NAME, _PURPOSE, False, refusal.detail, mend)
    except (OSError, NetlinkError) as failure:
        code = failure.code if isinstance(failure, NetlinkError) else failure.errno
        words = kernel_error(OSError(int(code or 0), ""))
        return Finding(_GROUP, _NAME, _PURPOSE, False, f"cannot try it in a network namespace: {words}", AS_ROOT)
