# SPDX-License-Identifier: Apache-2.0
"""An XDP program of somebody else: before us, after us, in the very moment; it is named, and it stays."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path as FilePath

import pytest

from accord.datapath.attached import attached as find
from accord.datapath.attached import holders
from accord.datapath.engine import EventKind
from accord.datapath.port import Port, Rung
from accord.datapath.probe_interface import interface
from accord.wire.constants import Reason
from accord.wire.errors import HostError
from tests.datapath import foreign
from tests.datapath.foreign import MODES, NAME, WAYS
from tests.datapath.netns import Host
from tests.datapath.sides import PORT, Side, packet, transaction_id, until

pytestmark = pytest.mark.root

XDP = [Rung.XDP_NATIVE, Rung.XDP_GENERIC]


@pytest.fixture(scope="module")
def pin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if tool := foreign.missing_tool():
        pytest.skip(f"{tool} is missing: apt-get install {tool}")
    with foreign.pinned(tmp_path_factory.mktemp("foreign")) as path:
        yield path


def shown(identity: int) -> dict[str, object]:
    """What bpftool says of a program: the oracle for what we say."""
    words = ["bpftool", "-j", "prog", "show", "id", str(identity)]
    result: dict[str, object] = json.loads(subprocess.run(words, check=True, capture_output=True, timeout=20).stdout)
    return result


@pytest.mark.parametrize("way", WAYS)
def test_a_foreign_program_stays_is_named_with_its_holder_and_the_next_rung_is_taken(
    far: Host, pin: str, way: str
) -> None:
    with foreign.attached(far, pin, way) as pid:
        theirs = far.xdp_id()
        with Side(far, Rung.XDP_NATIVE, Rung.UDP) as side:
            assert side.port.report.rung is Rung.PACKET
            for rung in XDP:
                refusal = side.port.report.refusals[rung]
                assert refusal.reason is Reason.FOREIGN_PROGRAM
                assert f"XDP program {NAME}, ID {theirs}, tag {shown(theirs)['tag']}" in refusal.detail
                assert f"attached {MODES[way.split()[0]]} to {far.interface} and stays there" in refusal.detail
                assert "loaded by root at " in refusal.detail
                assert (f"held by process {pid} (" in refusal.detail) == bool(pid)
                assert (sys.executable[:60] in refusal.detail) == bool(pid)
                assert ("no process that is to be seen" in refusal.detail) == (not pid)
            assert far.xdp_id() == theirs
        assert far.xdp_id() == theirs != 0


def test_what_is_told_of_a_program_is_what_bpftool_tells(far: Host, pin: str) -> None:
    with foreign.attached(far, pin, "xdpgeneric by link") as pid:
        found = far.run(lambda: find(far.index))
        assert found is not None
        told = shown(found.program)
        assert (found.name, found.tag, found.user) == (told["name"], told["tag"], told["uid"])
        assert abs(found.loaded - float(str(told["loaded_at"]))) <= 2
        links = json.loads(subprocess.run(["bpftool", "-j", "link", "show"], check=True, capture_output=True).stdout)
        assert [link["prog_id"] for link in links if link["id"] == found.link] == [found.program]
        assert [process for process, _ in holders(found.program)] == [pid]
    assert far.run(lambda: find(far.index)) is None


def test_a_holder_cannot_write_to_the_terminal_of_who_asks(far: Host, pin: str) -> None:
    with foreign.attached(far, pin, "xdpgeneric by link", "\x1b]0;owned\x07"):
        found = far.run(lambda: find(far.index))
        assert found is not None
        ((_, command),) = holders(found.program)
        assert command.isprintable()


@pytest.mark.parametrize("rung", XDP, ids=lambda rung: rung.name)
@pytest.mark.parametrize("way", WAYS)
def test_while_ours_is_there_nobody_gets_in_by_any_way(far: Host, pin: str, rung: Rung, way: str) -> None:
    with Side(far, rung) as side:
        ours = side.port.report.program_id
        with pytest.raises(subprocess.CalledProcessError), foreign.attached(far, pin, way):
            pass
        assert far.xdp_id() == ours
        assert side.port.attached


def test_a_second_port_is_refused_with_the_first_ones_name(far: Host) -> None:
    with Side(far, Rung.XDP_NATIVE) as side:
        with pytest.raises(HostError, match="accord_xdp") as raised:
            far.run(lambda: Port.open(far.interface, Rung.XDP_GENERIC, Rung.XDP_GENERIC))
        assert raised.value.reason is Reason.FOREIGN_PROGRAM
        assert far.xdp_id() == side.port.report.program_id


def test_a_program_that_comes_between_the_probe_and_the_attachment_stays(far: Host, pin: str) -> None:
    def slot() -> tuple[bool, str]:
        finding = next(finding for finding in interface(far.interface) if finding.name == "XDP slot")
        return finding.ok, finding.reason

    assert far.run(slot) == (True, "free")
    with foreign.attached(far, pin, "xdpdrv by netlink"):
        theirs = far.xdp_id()
        with Side(far, Rung.XDP_NATIVE, Rung.UDP) as side:
            assert side.port.report.refusals[Rung.XDP_NATIVE].reason is Reason.FOREIGN_PROGRAM
        ok, reason = far.run(slot)
        assert not ok
        assert f"ID {theirs}," in reason
        assert "loaded by root" in reason


def test_two_that_come_at_once_never_replace_each_other(far: Host, pin: str) -> None:
    """Whoever was told that it is attached finds itself attached until it goes, however the two fall together."""
    over = threading.Event()
    replaced: list[tuple[int, int]] = []
    came = 0

    def come_and_go() -> None:
        nonlocal came
        while not over.is_set():
            try:
                foreign.attach(far, pin, "xdpdrv")
            except subprocess.CalledProcessError:
                continue  # ours is there
            came += 1
            before, after = far.xdp_id(), far.xdp_id()
            foreign.detach(far, "xdpdrv")
            if not before == after != 0:
                replaced.append((before, after))

    other = threading.Thread(target=come_and_go)
    other.start()
    reached = set()
    try:
        for _ in range(200):
            with Side(far, Rung.XDP_NATIVE, Rung.UDP, frames=64) as side:
                reached.add(side.port.report.rung)
                if side.port.report.program_id:
                    assert far.xdp_id() == side.port.report.program_id
                    assert side.port.attached
                else:
                    assert side.port.report.refusals[Rung.XDP_NATIVE].reason is Reason.FOREIGN_PROGRAM
            if came > 10 and len(reached) > 1:
                break
    finally:
        over.set()
        other.join()
    assert replaced == []
    assert came > 0
    assert reached & set(XDP)


@pytest.mark.parametrize("rung", XDP, ids=lambda rung: rung.name)
def test_ours_detached_by_force_leaves_the_packets_to_the_sockets_and_the_place_to_others(
    near: Host, far: Host, pin: str, rung: Rung
) -> None:
    with Side(far, rung) as side, near.udp(4) as plain:
        side.bind(4, PORT, "0.0.0.0")
        found = far.run(lambda: find(far.index))
        assert found is not None
        assert side.port.attached
        far.command("bpftool", "link", "detach", "id", str(found.link))
        assert not side.port.attached
        with foreign.attached(far, pin, "xdpdrv by netlink"):
            theirs = far.xdp_id()
            plain.sendto(packet(transaction_id()), (far.address4, PORT))
            until(lambda: side.of(EventKind.OPENED), [side])
            side.port.close()
            assert far.xdp_id() == theirs


def test_when_the_foreign_program_has_gone_the_port_attaches_ours_again_if_asked(far: Host, pin: str) -> None:
    with foreign.attached(far, pin, "xdpgeneric by link"):
        side = Side(far, Rung.XDP_NATIVE, Rung.UDP)
    with side:
        assert side.port.report.rung is Rung.PACKET
        assert side.port.attached  # nothing of ours that could be missing
        far.run(lambda: side.port.reopen(far.interface, rungs=(Rung.XDP_GENERIC, Rung.UDP)))
        assert side.port.report.rung is Rung.XDP_GENERIC
        assert side.port.report.refusals == {}


def test_a_rung_that_is_left_out_is_not_tried(far: Host, tmp_path: FilePath) -> None:
    missing = tmp_path / "missing.o"
    port = far.run(lambda: Port.open(far.interface, object_path=missing, skip={Rung.XDP_NATIVE, Rung.PACKET}))
    with port:
        assert port.report.rung is Rung.UDP
        assert set(port.report.refusals) == {Rung.XDP_GENERIC}
        assert re.search(r"missing\.o", port.report.refusals[Rung.XDP_GENERIC].detail)
