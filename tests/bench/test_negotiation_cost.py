# SPDX-License-Identifier: Apache-2.0
"""What a usual negotiation costs, in things that can be counted exactly: packets, events, crossings, calls.

Processor time says more and depends on the machine; these do not, so nothing creeps back in unseen. A count that went
down is to be lowered here.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from accord.datapath import engine as engine_module
from tests.datapath.test_hot_path import Crossings

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def memory() -> Iterator[Any]:
    """The benchmark's module."""
    sys.path.insert(0, str(ROOT / "bench"))
    try:
        yield importlib.import_module("_in_memory")
    finally:
        sys.path.remove(str(ROOT / "bench"))


@pytest.fixture(scope="module")
def hosts(memory: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Two that have negotiated before: what is made once is made."""
    made = memory.Hosts(tmp_path_factory.mktemp("hosts"))
    for stack in (memory.TLS, memory.TCP):
        made.negotiate(stack)
    return made


def calls(hosts: Any, stack: tuple[int, ...]) -> int:
    """Functions that one negotiation calls, Python's and C's, both sides together."""
    counted = [0]

    def count(_frame: object, event: str, _argument: object) -> None:
        counted[0] += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        hosts.negotiate(stack)
    finally:
        sys.setprofile(before)
    return counted[0]


@pytest.mark.parametrize(
    ("kind", "initiator", "responder"),
    [
        # The ClientHello and its flight take two packets each; then the commit, and its acknowledgement.
        ("TLS", 2 + 1, 2 + 1),
        ("TCP", 1 + 1, 1 + 1),
    ],
)
def test_no_packet_leaves_but_those_of_the_three_messages_and_one_acknowledgement(
    memory: Any, hosts: Any, kind: str, initiator: int, responder: int
) -> None:
    hosts.near.packets = hosts.far.packets = 0
    hosts.negotiate(getattr(memory, kind))
    assert (hosts.near.packets, hosts.far.packets) == (initiator, responder)


@pytest.mark.parametrize(
    ("kind", "events"),
    [
        # Responder: opened, a node each and one skipped (GREASE), the message, twice; its answer arrived. Initiator: a
        # node each, the message; what arrived of its own two.
        ("TLS", (1 + 5 + 1) + (4 + 1) + 1 + (4 + 1) + 2),
        ("TCP", (1 + 4 + 1) + (3 + 1) + 1 + (3 + 1) + 2),
    ],
)
def test_python_is_told_of_each_node_and_each_message_once(memory: Any, hosts: Any, kind: str, events: int) -> None:
    hosts.near.events = hosts.far.events = 0
    hosts.negotiate(getattr(memory, kind))
    assert hosts.near.events + hosts.far.events == events


def test_the_engines_are_called_once_for_each_thing_that_is_done(
    memory: Any, hosts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    crossings = Crossings(engine_module.lib)
    monkeypatch.setattr(engine_module, "lib", crossings)
    hosts.negotiate(memory.TLS)
    counted = crossings.take()
    once = {name: count for name, count in counted.items() if not name.endswith(("_output", "_events", "_input"))}
    assert once == Counter(
        accord_engine_open=1,
        accord_engine_send=3,
        accord_engine_budget=3,  # of a message that came: how long may the next one be?
        accord_engine_prove=1,
        accord_engine_close=2,
    )
    assert counted["accord_engine_input"] == 6, "a packet each"


# As counted, and a twentieth: another version of a library may do a little more.
@pytest.mark.parametrize(("kind", "ceiling"), [("TLS", 4300), ("TCP", 3150)])
def test_a_negotiation_is_not_more_work_than_it_was(memory: Any, hosts: Any, kind: str, ceiling: int) -> None:
    taken = calls(hosts, getattr(memory, kind))
    assert ceiling * 0.8 < taken <= ceiling, f"{taken} calls: a little more is to be found, a lot less to be kept"


def test_the_benchmark_says_how_many_a_second_and_what_part_of_the_handshakes() -> None:
    options = ("--repeats", "1", "--count", "3", "--json")
    done = subprocess.run(
        [sys.executable, "bench/negotiation_rate.py", *options], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["ratio_tls"]["median"] > 0
    assert result["tcp_per_second"]["median"] > result["tls_tcp_per_second"]["median"] > 0
