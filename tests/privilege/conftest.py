# SPDX-License-Identifier: Apache-2.0
"""A daemon on each rung, and a worker without any privilege that a test can run code in."""

from __future__ import annotations

import os
import socket
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from accord.datapath import privilege, seccomp
from accord.datapath.port import Rung
from accord.datapath.privilege import ALL_PORTS, Broker
from accord.lab.deployment import Deployment
from tests.failopen.conftest import deployed

NOBODY = 65534
RUNGS = (("af_xdp", "native"), ("af_xdp", "generic"), ("af_packet", "none"), ("udp", "none"))


@pytest.fixture(scope="module", params=RUNGS, ids="-".join)
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Two daemons; the server's stands on one rung."""
    back_end, attach = request.param
    options = ("--back-end", back_end, "--attach", attach)
    with deployed(tmp_path_factory.mktemp("rung"), *options) as both:
        state = both.wait_for(both.server)
        assert (state["back_end"], state["attach_mode"]) == (back_end, attach)
        yield both


def in_worker(
    act: Callable[[], None],
    *,
    interface: str | None = None,
    rungs: set[Rung] | None = None,
    ports: frozenset[int] = ALL_PORTS,
    cgroup: Path | None = None,
) -> tuple[int, int]:
    """Run ``act`` as the daemon's worker is run, with this process as its broker; what that asked and was refused.

    Raises ``AssertionError`` when ``act`` raises; its traceback is on standard error.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            ours.close()
            privilege.drop(NOBODY, NOBODY, keep_memlock=False)
            privilege.ask_from(theirs)
            assert seccomp.confine() is None
            act()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    theirs.close()
    broker = Broker(ours, interface, {Rung.UDP} if rungs is None else rungs, ports, None, cgroup)
    try:
        while True:
            done, status = os.waitpid(pid, os.WNOHANG)
            try:
                pending = broker.step()
            except EOFError:
                status = status if done else os.waitpid(pid, 0)[1]
                assert os.waitstatus_to_exitcode(status) == 0, "see standard error"
                return broker.counts()
            if pending is not None:
                broker.answer(b"answered by Python")
    finally:
        broker.close()
