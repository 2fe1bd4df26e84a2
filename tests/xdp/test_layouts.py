# SPDX-License-Identifier: Apache-2.0
"""BPF objects and maps that are not what this build expects: refused by name before anything is attached, or harmless.

That the program passes everything under settings of another layout is in the packet table.
"""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from accord.datapath import births, captures, probe
from accord.datapath._core import lib
from accord.datapath.engine import EventKind
from accord.datapath.port import Port, Rung
from accord.datapath.xdp_test import Program
from accord.wire.constants import Reason
from accord.wire.errors import OurError
from tests.datapath.foreign import missing_tool
from tests.datapath.netns import Host, two_hosts
from tests.datapath.sides import PORT, Side, packet, transaction_id, until
from tests.xdp.mutants import edited

pytestmark = pytest.mark.root

LAYOUT: int = lib.ACCORD_MAP_LAYOUT
MAPS_H, MAPS = "include/accord/maps.h", "ebpf/maps.h"

# name -> the file, what in it becomes what, and the words of the refusal.
OBJECTS = {
    "the layout before this one": (
        MAPS_H,
        f"ACCORD_MAP_LAYOUT = {LAYOUT}",
        f"ACCORD_MAP_LAYOUT = {LAYOUT - 1}",
        f"the XDP object has map layout {LAYOUT - 1}, the library {LAYOUT}",
    ),
    "the layout after this one": (
        MAPS_H,
        f"ACCORD_MAP_LAYOUT = {LAYOUT}",
        f"ACCORD_MAP_LAYOUT = {LAYOUT + 1}",
        f"the XDP object has map layout {LAYOUT + 1}, the library {LAYOUT}",
    ),
    "no layout, as objects had before": (
        MAPS,
        'const volatile __u32 map_layout SEC(".rodata.layout") = ACCORD_MAP_LAYOUT;',
        "",
        "does not say its map layout",
    ),
    "settings of another size": (
        MAPS_H,
        "__u8 reserved[38];",
        "__u8 reserved[10];",
        "map settings is of another layout",
    ),
    "fewer ports": (MAPS, "ACCORD_MAX_PORTS", "16", "map ports is of another layout"),
    "wider ports": (MAPS, "__type(key, __be16)", "__type(key, __be32)", "map ports is of another layout"),
    "fewer queues": (MAPS, "ACCORD_MAX_QUEUES", "4", "map xsks is of another layout"),
    "a smaller table of what was heard": (
        MAPS_H,
        "ACCORD_HEARD_BITS = 14",
        "ACCORD_HEARD_BITS = 10",
        "map heard is of another layout",
    ),
    "entries of another size in it": (MAPS_H, "__u8 reserved[5];", "__u8 reserved[13];", "map heard is of another"),
    "fewer counters": (MAPS, "ACCORD_REASON_LIMIT", "200", "map counters is of another layout"),
    "counters that are not by CPU": (
        MAPS,
        "BPF_MAP_TYPE_PERCPU_ARRAY",
        "BPF_MAP_TYPE_ARRAY",
        "map counters is of another layout",
    ),
}


@contextmanager
def built(name: str) -> Iterator[Path]:
    if tool := missing_tool():
        pytest.skip(f"{tool} is missing: apt-get install {tool}")
    file, old, new, _ = OBJECTS[name]
    with edited(file, old, new) as path:
        yield path


@pytest.fixture(scope="module")
def far() -> Iterator[Host]:
    with two_hosts() as (_, host):
        yield host


@pytest.mark.parametrize("name", OBJECTS)
def test_an_object_with_other_maps_is_refused_by_name_and_nothing_is_attached(far: Host, name: str) -> None:
    with built(name) as path:
        with pytest.raises(OurError, match=OBJECTS[name][3]) as raised:
            Program(path)
        assert raised.value.reason is Reason.MAP_MISMATCH
        port = far.run(lambda: Port.open(far.interface, object_path=path))
        with port:
            assert port.report.rung is Rung.PACKET
            for rung in (Rung.XDP_NATIVE, Rung.XDP_GENERIC):
                assert port.report.refusals[rung].reason is Reason.MAP_MISMATCH
                assert OBJECTS[name][3] in port.report.refusals[rung].detail
            assert far.xdp_id() == 0


def test_with_a_full_port_map_a_port_is_served_by_its_socket_and_it_is_counted() -> None:
    if tool := missing_tool():
        pytest.skip(f"{tool} is missing: apt-get install {tool}")
    with two_hosts() as (near, far), Side(far, Rung.XDP_GENERIC) as side, near.udp(4) as plain:
        program = json.loads(
            subprocess.run(
                ["bpftool", "-j", "prog", "show", "id", str(side.port.report.program_id)],
                check=True,
                capture_output=True,
                timeout=20,
            ).stdout
        )
        maps = {
            each["name"]: each["id"]
            for each in json.loads(
                subprocess.run(["bpftool", "-j", "map", "show"], check=True, capture_output=True, timeout=20).stdout
            )
            if each["id"] in program["map_ids"]
        }
        others = (port for port in range(10_000, 10_000 + lib.ACCORD_MAX_PORTS))
        lines = "\n".join(
            f"map update id {maps['ports']} key hex {port >> 8:02x} {port & 255:02x} value hex 01" for port in others
        )
        filled = subprocess.run(
            ["bpftool", "batch", "file", "-"], input=lines.encode(), capture_output=True, timeout=60
        )
        assert filled.returncode == 0, filled.stderr.decode()

        side.bind(4, PORT, "0.0.0.0")
        assert side.port.counters()[Reason.NO_MEMORY] == 1
        plain.sendto(packet(transaction_id()), (far.address4, PORT))
        until(lambda: side.of(EventKind.OPENED), [side])
        assert side.port.counters()[Reason.NOT_OURS_PORT] == 1
        assert Reason.STEERED not in side.port.counters()


def test_of_more_queues_than_the_map_holds_the_first_get_rings() -> None:
    with two_hosts() as (_, far):
        queues = lib.ACCORD_MAX_QUEUES + 1
        count = ("numrxqueues", str(queues), "numtxqueues", str(queues))
        far.command("ip", "link", "add", "many0", *count, "type", "veth", "peer", "name", "many1", *count)
        port = far.run(lambda: Port.open("many0", Rung.XDP_GENERIC, Rung.XDP_GENERIC, frames=64))
        with port:
            assert port.report.queues == len(port.ring_statistics()) == lib.ACCORD_MAX_QUEUES


BIRTHS_H, CAPTURES_H = "include/accord/births.h", "include/accord/captures.h"


@pytest.mark.parametrize(
    ("file", "old", "new", "what"),
    [
        (BIRTHS_H, "ACCORD_BIRTHS_LAYOUT = 1", "ACCORD_BIRTHS_LAYOUT = 2", "ingress object has map layout 2, the lib"),
        (BIRTHS_H, "ACCORD_BIRTHS_ENTRIES = 8192", "ACCORD_BIRTHS_ENTRIES = 64", "map births is of another layout"),
        (CAPTURES_H, "ACCORD_CAPTURES_LAYOUT = 1", "ACCORD_CAPTURES_LAYOUT = 2", "egress object has map layout 2, the"),
        (CAPTURES_H, "ACCORD_CAPTURE_CGROUPS = 1024", "ACCORD_CAPTURE_CGROUPS = 8", "map cgroups is of another layout"),
    ],
)
def test_the_tc_programs_of_another_build_are_refused_by_name(
    far: Host, monkeypatch: pytest.MonkeyPatch, file: str, old: str, new: str, what: str
) -> None:
    born = file == BIRTHS_H
    if born and not (found := probe.assign_reqsk()).ok:
        pytest.skip(f"{found.name}: {found.reason}: {found.mend}")
    with edited(file, old, new, "accord_born.bpf.c" if born else "accord_capture.bpf.c") as path:
        monkeypatch.setattr(births if born else captures, "OBJECT_PATH", path)

        def attach() -> None:
            if born:
                births.Births(far.interface).close()
            else:
                captures.Captures(socket.if_nametoindex(far.interface)).close()

        with pytest.raises(OurError, match=what) as raised:
            far.run(attach)
    assert raised.value.reason is Reason.MAP_MISMATCH
