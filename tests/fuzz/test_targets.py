# SPDX-License-Identifier: Apache-2.0
"""The fuzz targets: every committed input keeps their invariants, and mistakes that are put in break them."""

from __future__ import annotations

import importlib
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from accord.controller.peers import text
from accord.controller.settings.config import load_config
from accord.controller.settings.values import Secure
from accord.daemon.operations import Operations
from accord.datapath import unkept
from accord.datapath.engine import Engine
from accord.negotiation.graph import Graph
from accord.protocols import tcp_wishes
from accord.protocols.tcp import TcpSession
from accord.wire.constants import Reason
from accord.wire.errors import error
from buildtools import fuzzing
from fuzz import blind
from fuzz.packets import chunks_of

ROOT = Path(__file__).resolve().parents[2]
PYTHON = [target for target in fuzzing.targets() if target.source.suffix == ".py"]
Patch = pytest.MonkeyPatch


def module(name: str) -> ModuleType:
    """A target's."""
    return importlib.import_module(f"fuzz.targets.{name}")


def seeds(name: str) -> list[bytes]:
    """What is committed for it."""
    return [path.read_bytes() for path in sorted((ROOT / "fuzz/corpus" / name).iterdir())]


def test_every_target_begins_with_an_invariant_and_has_inputs_to_begin_with() -> None:
    for target in fuzzing.targets():
        assert len(target.invariant) > 40
        assert target.name == fuzzing.XDP or any(target.seeds.iterdir()), target.name


@pytest.mark.root
@pytest.mark.parametrize("target", PYTHON, ids=lambda target: target.name)
def test_every_committed_input_keeps_the_invariant(target: fuzzing.Target) -> None:
    one = module(target.name).one
    for path in sorted(target.seeds.iterdir()):
        one(path.read_bytes())


@pytest.mark.root
def test_a_target_takes_nothing_from_who_comes_after_it(tmp_path: Path) -> None:
    for target in PYTHON:
        module(target.name).one(seeds(target.name)[0])
    policy, configuration = tmp_path / "policy.toml", tmp_path / "accord.toml"
    policy.write_text('[default]\nsecure = "no"\n')
    configuration.write_text('[daemon]\ninterface = "eth0"\n[policy]\nfile = "policy.toml"\n')
    config = load_config(configuration)
    assert config.interface == "eth0"
    assert config.policy.for_destination("a", 1).secure is Secure.NO


# ---- mistakes ----


def cycles_are_taken(patch: Patch) -> None:
    patch.setattr(Graph, "_check", lambda self, *rest: None)


def a_memory_forgets_the_source(patch: Patch) -> None:
    whole = text._address
    patch.setattr(text, "_address", lambda found: "" if found == "192.0.2.9" else whole(found))
    patch.setattr(text, "_integer", lambda found, name, low, high: found[name] + (name == "times"))


def an_option_is_read_wrongly(patch: Patch) -> None:
    read = tcp_wishes.decode_offer
    patch.setattr(tcp_wishes, "decode_offer", lambda data: tcp_wishes.Offer(read(data).words))


def a_handler_raises_what_is_no_answer(patch: Patch) -> None:
    async def broken(self: Operations, message: dict[str, Any], *rest: object) -> None:
        raise KeyError("host")

    patch.setattr(Operations, "_status", broken)


def an_unexpected_error_comes_out_of_a_policy(patch: Patch) -> None:
    def broken(*_: object) -> None:
        raise LookupError("a rule")

    patch.setattr(module("settings"), "parse_policy", broken)


def python_refuses_what_the_core_takes(patch: Patch) -> None:
    def refuse(*_: object) -> None:
        raise error(Reason.BAD_DESCRIPTOR, "as it likes")

    patch.setattr(module("readings"), "decode_descriptor", refuse)


def a_reserved_connection_is_not_given_back(patch: Patch) -> None:
    for name in ("prune", "abort"):
        patch.setattr(TcpSession, name, lambda *_: None)


def a_transaction_is_forgotten(patch: Patch) -> None:
    patch.setattr(Engine, "close", lambda *_: None)


def a_commit_leaves_its_slot_taken(patch: Patch) -> None:
    patch.setattr(unkept, "settle", lambda *_: None)


MISTAKES: dict[str, tuple[Callable[[Patch], None], bytes | None]] = {
    # A context with a child, whose child is itself below it.
    "graph": (cycles_are_taken, bytes.fromhex("00 0000 0005 0100000001 0101 0005 0100000002 0201 0005 0100000001")),
    "files": (a_memory_forgets_the_source, None),
    "payloads": (an_option_is_read_wrongly, None),
    "control": (a_handler_raises_what_is_no_answer, None),
    "settings": (an_unexpected_error_comes_out_of_a_policy, None),
    # All that the responder sends is lost.
    "initiator": (a_reserved_connection_is_not_given_back, bytes((0, 0, 63, 0, 0, 0, 0, 0))),
    "responder": (a_transaction_is_forgotten, None),
    "strangers": (a_commit_leaves_its_slot_taken, None),
    "readings": (python_refuses_what_the_core_takes, None),
}


@pytest.mark.root
@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_breaks_the_invariant(name: str, monkeypatch: Patch) -> None:
    mistake, data = MISTAKES[name]
    one = module(name).one
    mistake(monkeypatch)
    inputs = seeds(name) if data is None else [data]

    def broken(each: bytes) -> bool:
        try:
            one(each)
        except (AssertionError, LookupError, TypeError):
            return True
        return False

    assert any(map(broken, inputs))


def test_edits_come_down_to_what_they_say() -> None:
    proposals = [data[1:] for data in seeds("readings") if data[0] == 3]
    for packet in proposals:
        chunks = chunks_of(packet)
        assert packet[:32] + b"".join(each.encode() for each in chunks) == packet


# ---- the C targets: the same, of changed sources ----

C_MISTAKES = [
    ("header", "packet.c", "data_length == 0 || nodes_seen", "nodes_seen"),
    ("header", "packet.c", "packet->step >= ACCORD_MAX_STEPS ||", ""),
    ("descriptor", "descriptor.c", "type <= last_type", "type < last_type"),
    ("descriptor", "descriptor.c", "children[i] <= children[i - 1]", "children[i] < children[i - 1]"),
    ("frame", "frame.c", "udp_length > left", "udp_length > 1500"),
]


@pytest.mark.parametrize(("name", "file", "old", "new"), C_MISTAKES)
def test_a_mistake_in_the_c_core_breaks_the_invariant(tmp_path: Path, name: str, file: str, old: str, new: str) -> None:
    sources = ["packet.c", "checksum.c", "descriptor.c", "frame.c"]
    for source in sources:
        shutil.copy(ROOT / "dataplane_c/src" / source, tmp_path)
    whole = (tmp_path / file).read_text()
    assert whole.count(old) == 1
    (tmp_path / file).write_text(whole.replace(old, new))
    target = ROOT / "dataplane_c/fuzz"
    program = tmp_path / "replay"
    include = [f"-I{ROOT / part}" for part in ("include", "dataplane_c/src", "dataplane_c/tests")]
    command = ["clang", "-std=c11", "-D_GNU_SOURCE", "-O1", "-fsanitize=address", *include, "-o", program]
    command += [target / f"fuzz_{name}.c", target / "replay.c", *(tmp_path / source for source in sources)]
    subprocess.run(command, check=True, timeout=120)
    done = subprocess.run([program, target / "corpus" / name], capture_output=True, timeout=120, check=False)
    assert done.returncode != 0


# ---- without atheris ----


def test_blind_changes_find_an_input_that_raises_and_keep_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def one(data: bytes) -> None:
        assert b"\x80" not in data

    (tmp_path / "seeds").mkdir()
    (tmp_path / "seeds/one").write_bytes(bytes(8))
    options = ["-runs=20000", f"-artifact_prefix={tmp_path}/", str(tmp_path / "seeds")]
    assert blind.run(one, options) == 77
    said = capsys.readouterr().out
    assert "stat::number_of_executed_units: " in said
    (written,) = tmp_path.glob("crash-*")
    assert f"Test unit written to {written}" in said
    with pytest.raises(AssertionError):
        blind.run(one, [str(written)])


def test_blind_changes_count_what_they_run_and_stop_where_they_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[bytes] = []
    assert blind.run(seen.append, ["-runs=300", "-max_len=20"]) == 0
    assert "stat::number_of_executed_units: 300" in capsys.readouterr().out
    assert len(seen) == 300
    assert len(set(seen)) > 100
    assert max(map(len, seen)) <= 20


def test_a_changed_input_is_no_longer_than_allowed() -> None:
    chance = random.Random(1)
    others = [bytes(range(100)), b"x"]
    assert all(len(blind.change(chance, bytes(90), others, 95)) <= 95 for _ in range(500))
