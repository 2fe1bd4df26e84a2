# SPDX-License-Identifier: Apache-2.0
"""Probe of the option on the SYN: a connection over the loopback of a scratch namespace, its SYN looked at.

The program hangs on this process's cgroup for that moment, beside those of others, and leaves their sockets alone.
"""

from __future__ import annotations

import contextlib
import os
import socket

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from accord.datapath.probe_finding import Finding, kernel_error
from accord.datapath.probe_scratch import AS_ROOT, in_scratch_namespace
from accord.wire.constants import Packet, Reason
from accord.wire.errors import AccordError, error

_SECONDS = 1.0


def syn_option() -> Finding:
    """Written, and read back from the accepted socket."""
    name, purpose = "SYN option", "the transaction ID on SYNs, by sockops"
    try:
        from accord.datapath import syn_option as options  # a host without the C core has findings, too
    except ImportError as failure:
        reason = f"the C core does not load: {failure}"
        return Finding("kernel TCP", name, purpose, False, reason, "install Accord again: pip install .")

    def attempt() -> str:
        with IPRoute() as netlink:
            netlink.link("set", index=netlink.link_lookup(ifname="lo")[0], state="up")
        with contextlib.closing(options.SynOptions()) as asked, socket.socket() as listener, socket.socket() as sock:
            listener.settimeout(_SECONDS)
            sock.settimeout(_SECONDS)
            asked.answer(listener)
            listener.bind(("127.0.0.1", 0))
            listener.listen(1)
            wanted = options.ExId.ADOPT, os.urandom(Packet.TRANSACTION_BYTES)
            asked.write(sock, wanted[1], wanted[0])
            sock.connect(listener.getsockname())
            with listener.accept()[0] as accepted:
                if options.saved_syn(accepted) != wanted:
                    raise error(Reason.NO_KERNEL_SUPPORT, "a SYN went without it", "boot Linux 5.12 or later")
            return f"written by a program on {asked.cgroup}, and read from the accepted socket"

    try:
        return Finding("kernel TCP", name, purpose, True, in_scratch_namespace(attempt))
    except AccordError as refusal:
        mend = AS_ROOT if refusal.reason is Reason.NO_PRIVILEGE else refusal.mend
        return Finding("kernel TCP", name, purpose, False, refusal.detail, mend)
    except (OSError, NetlinkError) as failure:
        code = failure.code if isinstance(failure, NetlinkError) else failure.errno
        words = kernel_error(OSError(int(code or 0), ""))
        return Finding("kernel TCP", name, purpose, False, f"cannot try it in a network namespace: {words}", AS_ROOT)
