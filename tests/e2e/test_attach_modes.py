# SPDX-License-Identifier: Apache-2.0
"""``accord daemon --attach``: what it says, what it does, and that another's program is left where it is."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from accord.lab.pair import PairHost
from tests.datapath import foreign
from tests.failopen.conftest import deployed

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def pin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if tool := foreign.missing_tool():
        pytest.skip(f"{tool} is missing: apt-get install {tool}")
    with foreign.pinned(tmp_path_factory.mktemp("foreign")) as path:
        yield path


def xdp(host: PairHost) -> dict[str, Any]:
    """The program on the interface, as iproute2 sees it; mode 1 is the driver, 2 generic (linux/if_link.h)."""
    found: dict[str, Any] = json.loads(host.run("ip", "-j", "link", "show", host.interface))[0]
    return found.get("xdp", {})


@pytest.mark.parametrize(
    ("attach", "mode", "said"),
    [
        ("native", 1, ["attaching natively to acc0: a veth", "attach native: a veth", "4.7 Gbit/s"]),
        ("generic", 2, ["attach generic: every frame"]),
        ("auto", 2, ["attach auto takes generic, not native: a veth", "attach generic: every frame"]),
        ("none", 0, ["attach none: nothing is attached"]),
    ],
)
def test_the_mode_is_what_was_chosen_and_its_consequence_is_printed(
    tmp_path: Path, attach: str, mode: int, said: list[str]
) -> None:
    with deployed(tmp_path, "--attach", attach) as both:
        assert xdp(both.server).get("mode", 0) == mode
        status = both.wait_for(both.server)
        assert status["attach_mode"] == (attach if attach != "auto" else "generic")
        assert status["attached"]
        for words in said:
            assert words in both.log(both.server)
        assert status["attach_consequence"] in both.log(both.server)
        assert "tls" in asyncio.run(both.negotiate())


def test_the_mode_may_stand_in_the_configuration_and_the_command_line_overrules_it(tmp_path: Path) -> None:
    with deployed(tmp_path, more='attach = "none"') as both:
        assert xdp(both.server) == {}
    with deployed(tmp_path, "--attach", "native", more='attach = "none"') as both:
        assert xdp(both.server)["mode"] == 1


@pytest.mark.parametrize("attach", ["native", "auto"])
def test_a_daemon_leaves_a_foreign_program_where_it_is_says_whose_it_is_and_takes_the_next_rung(
    tmp_path: Path, pin: str, attach: str
) -> None:
    with deployed(tmp_path, prepare=("bpftool", "net", "attach", "xdpgeneric", "pinned", pin, "dev", "acc0")) as both:
        theirs = xdp(both.server)["prog"]["id"]
        both.server.processes[-1].terminate()
        both.server.processes[-1].wait(10)
        both.daemon(both.server, "--attach", attach)
        status = both.wait_for(both.server, back_end="af_packet", attach_mode="none")
        assert xdp(both.server)["prog"]["id"] == theirs
        for told in (both.log(both.server), json.dumps(status["rungs_refused"])):
            assert f"XDP program {foreign.NAME}, ID {theirs}" in told
            assert "loaded by root" in told
        assert "tls" in asyncio.run(both.negotiate())
        command = [sys.executable, "-m", "accord.cli.main", "daemon", "--iface", "acc0", "--attach", "generic"]
        command += ["--back-end", "af_xdp", "--control", str(tmp_path / "second.sock")]
        done = both.server.call(lambda: subprocess.run(command, capture_output=True, text=True, timeout=30))
        assert done.returncode != 0
        assert f"XDP program {foreign.NAME}, ID {theirs}" in done.stderr
        assert not done.stderr.count("Traceback")
        assert xdp(both.server)["prog"]["id"] == theirs


def test_a_daemon_whose_program_is_detached_by_force_gives_way_and_goes_on(tmp_path: Path, pin: str) -> None:
    with deployed(tmp_path) as both:
        ours = both.wait_for(both.server, back_end="af_xdp")["program_id"]
        links = json.loads(both.server.run("bpftool", "-j", "link", "show"))
        (link,) = [link["id"] for link in links if link.get("prog_id") == ours]
        both.server.run("bpftool", "link", "detach", "id", str(link))
        both.server.run("bpftool", "net", "attach", "xdpdrv", "pinned", pin, "dev", "acc0")
        theirs = xdp(both.server)["prog"]["id"]
        assert "tls" in asyncio.run(both.negotiate())  # by the sockets
        both.wait_for(both.server, back_end="af_packet", attach_mode="none")
        assert "detached by force" in both.log(both.server)
        assert "tls" in asyncio.run(both.negotiate())
        assert xdp(both.server)["prog"]["id"] == theirs != ours
