# SPDX-License-Identifier: Apache-2.0
"""A UDP port that is another program's: negotiation packets are picked from its traffic, and it notices nothing."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from accord.cli.capture import tally
from accord.lab.hosts import PORT, Hosts
from accord.lab.lab import Lab
from tests.e2e import udp_programs
from tests.e2e.conftest import PAGE, RTT

pytestmark = pytest.mark.root

GET = b"GET /index.html HTTP/1.0\r\n\r\n"
NEGOTIATED = ("-v", "--fallback", "never", "--tcp", "no-syn", "--prefer", "quic", "--prefer", "tls/tcp")
PROGRAM = (sys.executable, udp_programs.__file__)


@contextlib.contextmanager
def server_with(directory: Path, program: str, **options: str) -> Iterator[Hosts]:
    """Two hosts, and a program of others on the server's UDP port."""
    with (
        Lab(f"shared-{os.getpid()}", rtt=RTT) as lab,
        contextlib.closing(Hosts(lab, directory, site={"index.html": PAGE}, **options)) as hosts,
    ):
        command = [*PROGRAM, program, "serve", "0.0.0.0", str(PORT)]
        command += [] if program == "stun" else [str(hosts.certificate), str(hosts.key)]
        hosts.start(lab.server, command, ready="ready")
        hosts.daemon(lab.server, "-v")
        yield hosts


def answers(hosts: Hosts, program: str) -> bool:
    """Its own client, on the other host, is served."""
    command = [*PROGRAM, program, "ask", hosts.lab.server.address4, str(PORT)]
    command += [] if program == "stun" else [str(hosts.ca)]
    done = hosts.lab.client.run(command, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr + hosts.logs()
    return bool(done.stdout == "abc\n")


@pytest.mark.parametrize(
    ("program", "back_end", "attach"),
    [("stun", "af_xdp", "generic"), ("dtls", "af_xdp", "native"), ("quic", "af_packet", "none")],
)
def test_a_program_on_the_same_udp_port_and_negotiations_do_not_disturb_each_other(
    tmp_path: Path, program: str, back_end: str, attach: str
) -> None:
    """Over AF_XDP the program sees nothing of ours at all (the STUN server would not stand it)."""
    with server_with(tmp_path, program, back_end=back_end, attach=attach) as hosts:
        hosts.serve_plain()
        hosts.daemon(hosts.lab.client)
        hosts.expose("--share-udp")
        capture = tmp_path / "c.pcap"
        with hosts.lab.capture(capture, where="link"):
            assert answers(hosts, program)
            done = hosts.connect(*NEGOTIATED, f"{hosts.lab.server.address4}:{PORT}", stdin=GET)
            assert done.returncode == 0, done.stderr.decode() + hosts.logs()
            assert done.stdout.endswith(PAGE)
            # Not QUIC: its datagrams would come to the program's socket.
            assert done.stderr.decode().startswith("http/tls/tcp to ")
            assert answers(hosts, program)
        assert tally(capture).negotiation_packets >= 3
        assert hosts.status(hosts.lab.server)["back_end"] == back_end


def test_a_taken_port_is_named_with_the_mend_and_over_udp_sockets_it_cannot_be_shared(tmp_path: Path) -> None:
    with server_with(tmp_path, "stun", back_end="udp", attach="none") as hosts:
        command = [sys.executable, "-m", "accord.cli.main", "expose", "--listen", str(PORT), "--to", "127.0.0.1:9"]
        command += ["--control", str(hosts.control(hosts.lab.server))]
        for options, words in (([], "may share it: --share-udp"), (["--share-udp"], "a back end with frames")):
            done = hosts.lab.server.run([*command, *options], capture_output=True, text=True, timeout=20)
            assert done.returncode != 0
            assert words in done.stderr
