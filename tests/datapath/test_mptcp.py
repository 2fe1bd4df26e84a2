# SPDX-License-Identifier: Apache-2.0
"""Kernel MPTCP sockets: what the kernel is asked, whether a connection is one of MPTCP, and who else may knock."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.datapath import mptcp, probe
from accord.datapath.mptcp import IPPROTO_MPTCP, MptcpCarrier, is_multipath, mptcp_socket
from accord.wire.constants import Reason
from accord.wire.errors import AccordError

ROOT = Path(__file__).resolve().parents[2]
FINDING = probe.mptcp()
needs_mptcp = pytest.mark.skipif(not FINDING.ok, reason=f"no MPTCP: {FINDING.reason}; {FINDING.mend}")
LOOPBACK = ("127.0.0.1", "::1")


class Told:
    """A socket whose kernel answers to SOL_MPTCP with bytes, or with an error."""

    def __init__(self, answer: bytes | int) -> None:
        self.answer = answer

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        assert (level, option) == (284, 1), "linux/socket.h, linux/mptcp.h"
        if isinstance(self.answer, int):
            raise OSError(self.answer, "no")
        return self.answer[:size]


def told(answer: bytes | int) -> Any:
    return Told(answer)


@given(st.binary(min_size=6, max_size=6), st.integers(0, 2**32 - 1), st.binary(max_size=80))
def test_the_flag_is_read_where_every_kernel_has_it_however_much_follows(
    counts: bytes, flags: int, more: bytes
) -> None:
    """``struct mptcp_info`` of Linux 5.16: six u8, u32 flags, u32 token; bit 0 is MPTCP_INFO_FLAG_FALLBACK."""
    info = struct.pack("=6sxxII", counts, flags, 0x5A5A5A5A) + more
    assert is_multipath(told(info)) is not bool(flags & 1)


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.ENOPROTOOPT])
def test_what_plain_tcp_answers_to_the_question_is_a_no(number: int) -> None:
    assert not is_multipath(told(number))


def test_another_error_is_no_answer() -> None:
    with pytest.raises(AccordError, match="MPTCP_INFO") as failed:
        is_multipath(told(errno.EBADF))
    assert failed.value.reason is Reason.CANNOT_INSTALL


@contextlib.contextmanager
def connected(local: str, near_protocol: int, far_protocol: int) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a connection over loopback; each side of its own protocol."""
    family = socket.AF_INET6 if ":" in local else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM, far_protocol) as listener:
        listener.bind((local, 0))
        listener.listen()
        with socket.socket(family, socket.SOCK_STREAM, near_protocol) as near:
            near.settimeout(10)
            near.connect(listener.getsockname())
            far, _ = listener.accept()
            with far:
                yield near, far


@needs_mptcp
@pytest.mark.parametrize("local", LOOPBACK)
@pytest.mark.parametrize(
    ("near", "far", "multipath"),
    [
        (IPPROTO_MPTCP, IPPROTO_MPTCP, True),
        (IPPROTO_MPTCP, socket.IPPROTO_TCP, False),
        (socket.IPPROTO_TCP, IPPROTO_MPTCP, False),
    ],
)
def test_a_connection_is_one_of_mptcp_only_where_both_kernels_speak_it(
    local: str, near: int, far: int, multipath: bool
) -> None:
    with connected(local, near, far) as both:
        assert [is_multipath(end) for end in both] == [multipath, multipath]


@needs_mptcp
@pytest.mark.parametrize("local", LOOPBACK)
def test_a_socket_has_a_port_of_its_own_and_is_listed_by_the_kernel_as_mptcp(local: str) -> None:
    with mptcp_socket(local) as one, mptcp_socket(local) as other:
        port = one.getsockname()[1]
        assert port not in (0, other.getsockname()[1])
        assert one.getsockopt(socket.SOL_SOCKET, socket.SO_PROTOCOL) == 262
        one.listen(1)
        listed = subprocess.run(["ss", "-HMtln"], capture_output=True, text=True, check=True).stdout
    assert any(line.startswith("mptcp") and f":{port} " in line for line in listed.splitlines()), listed


@pytest.mark.root
@pytest.mark.parametrize(
    ("enabled", "said"),
    [("0", "NO_KERNEL_SUPPORT|MPTCP sockets: switched off|sysctl -w net.mptcp.enabled=1"), ("1", "bound")],
)
@needs_mptcp
def test_a_kernel_that_has_it_switched_off_says_so_with_the_mend_as_the_doctor_does(enabled: str, said: str) -> None:
    """The switch is one of the network namespace."""
    code = (
        "from accord.datapath import mptcp, probe\n"
        "from accord.wire.errors import AccordError\n"
        "found = probe.mptcp()\n"
        "try:\n"
        "    print('bound' if mptcp.mptcp_socket('127.0.0.1').getsockname()[1] else '')\n"
        "    assert found.ok\n"
        "except AccordError as failure:\n"
        "    print(failure.reason.name, failure.detail, failure.mend, sep='|')\n"
        "    assert not found.ok and found.reason in failure.detail and found.mend == failure.mend\n"
    )
    script = f'ip link set lo up; echo {enabled} > /proc/sys/net/mptcp/enabled; exec {sys.executable} -c "$CODE"'
    done = subprocess.run(
        ["unshare", "-n", "sh", "-c", script],
        env={"CODE": code, "PYTHONPATH": str(ROOT / "ctrl"), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.strip() == said, done.stderr
    assert done.returncode == 0, done.stderr


def test_a_kernel_without_it_is_named_with_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def refusing(*_: object) -> socket.socket:
        raise OSError(errno.EPROTONOSUPPORT, "Protocol not supported")

    monkeypatch.setattr("accord.datapath.bound.socket.socket", refusing)
    with pytest.raises(AccordError) as refused:
        mptcp_socket("127.0.0.1")
    assert refused.value.reason is Reason.NO_KERNEL_SUPPORT
    assert "Protocol not supported (EPROTONOSUPPORT)" in refused.value.detail
    assert refused.value.mend == mptcp.MEND_KERNEL


@needs_mptcp
def test_either_end_finishes_by_itself_and_the_other_direction_goes_on() -> None:
    """DATA_FIN closes one direction (RFC 8684, section 3.3.3)."""

    async def work(near: socket.socket, far: socket.socket) -> None:
        one, other = MptcpCarrier(near.dup()), MptcpCarrier(far.dup())
        near.close()
        far.close()
        await one.write(b"a question")
        await one.finish()
        assert await other.read() == b"a question"
        assert await other.read() == b""
        await other.write(b"an answer")
        await other.close()
        assert await one.read() == b"an answer"
        assert await one.read() == b""
        await one.close()

    with connected("127.0.0.1", IPPROTO_MPTCP, IPPROTO_MPTCP) as both:
        asyncio.run(asyncio.wait_for(work(*both), 20))


@needs_mptcp
@pytest.mark.parametrize("lingers", [True, False])
@pytest.mark.parametrize("far_protocol", [IPPROTO_MPTCP, socket.IPPROTO_TCP])
def test_a_stream_that_is_cut_off_is_no_stream_that_ended(
    monkeypatch: pytest.MonkeyPatch, lingers: bool, far_protocol: int
) -> None:
    """``lingers`` False: the kernel makes nothing of SO_LINGER, as before Linux 7.1."""
    if not lingers:
        monkeypatch.setattr("accord.datapath.stream._LINGER_ABORT", struct.pack("ii", 0, 0))

    async def work(near: socket.socket, far: socket.socket) -> None:
        one, other = MptcpCarrier(near.dup()), MptcpCarrier(far.dup())
        near.close()
        far.close()
        await one.write(b"half of")
        assert await other.read() == b"half of"
        one.abort()
        with pytest.raises(ConnectionResetError):
            await other.read()
        await other.close()

    with connected("127.0.0.1", IPPROTO_MPTCP, far_protocol) as both:
        asyncio.run(asyncio.wait_for(work(*both), 20))
