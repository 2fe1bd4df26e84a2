# SPDX-License-Identifier: Apache-2.0
"""The registry: every usable plug-in, and for each other one the reason, by name."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from accord.protocols.registry import BUILT_IN, GROUP, load_plugins
from accord.wire.constants import Protocol, Reason

PRIVATE = 0x7E000001


def point(name: str, value: str) -> EntryPoint:
    return EntryPoint(name, value, GROUP)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that is imported from."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def plugin(
    package: Path, module: str, name: object = "demo", protocol: object = PRIVATE, extra: str = ""
) -> EntryPoint:
    """A module with one plug-in class."""
    code = f"class Demo:\n name = {name!r}\n protocol = {protocol!r}\n def open(self, role, services): return None\n"
    (package / f"{module}.py").write_text(extra + code)
    return point(module, f"{module}:Demo")


def test_the_built_in_protocols_are_found_without_metadata() -> None:
    plugins, broken = load_plugins(installed=[])
    assert broken == {}
    assert {name: each.protocol for name, each in plugins.items()} == {
        "tcp": Protocol.TCP,
        "tls": Protocol.TLS13,
        "quic": Protocol.QUIC,
        "compression": Protocol.COMPRESSION,
        "framing": Protocol.FRAMING,
        "http": Protocol.HTTP,
        "inner": Protocol.INNER,
        "sctp": Protocol.SCTP,
        "mptcp": Protocol.MPTCP,
        "wireguard": Protocol.WIREGUARD,
    }


def test_metadata_of_the_built_in_ones_does_not_make_them_duplicates() -> None:
    plugins, broken = load_plugins(installed=[*BUILT_IN, *BUILT_IN])
    assert len(plugins) == len(BUILT_IN)
    assert broken == {}


def test_a_package_with_an_entry_point_adds_its_protocol(tmp_path: Path) -> None:
    """The real thing: a distribution's metadata on the path of a Python of its own."""
    plugin(tmp_path, "acme_accord")
    metadata = tmp_path / "acme_accord-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-accord\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[{GROUP}]\ndemo = acme_accord:Demo\n")
    code = "from accord.protocols.registry import load_plugins; p, b = load_plugins(); print(sorted(p), b)"
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": f"{tmp_path}:{root / 'ctrl'}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == f"{sorted([*(point.name for point in BUILT_IN), 'demo'])} {{}}\n"


def test_a_broken_plug_in_is_left_out_and_reported_and_the_rest_works(package: Path) -> None:
    raising = plugin(package, "raising", extra="raise RuntimeError('half installed')\n")
    good = plugin(package, "good")
    absent = point("absent", "no_such_module:Demo")
    plugins, broken = load_plugins(installed=[raising, absent, good])
    assert set(plugins) == {*(point.name for point in BUILT_IN), "demo"}
    assert set(broken) == {"raising", "absent"}
    assert all(problem.reason is Reason.PLUGIN_FAILED for problem in broken.values())
    assert "half installed" in str(broken["raising"])
    assert "no_such_module" in str(broken["absent"])


def test_a_second_claim_on_a_protocol_or_a_name_is_refused(package: Path) -> None:
    thief = plugin(package, "thief", "mytls", int(Protocol.TLS13))
    namesake = plugin(package, "namesake", "tls", PRIVATE)
    first = plugin(package, "alpha", "one", PRIVATE + 1)
    second = plugin(package, "beta", "two", PRIVATE + 1)
    plugins, broken = load_plugins(installed=[second, thief, namesake, first])
    assert type(plugins["tls"]).__module__ == "accord.protocols.tls"
    assert "one" in plugins
    assert set(broken) == {"thief", "namesake", "beta"}
    assert "tls" in str(broken["thief"])
    assert "one" in str(broken["beta"])


@pytest.mark.parametrize(
    ("name", "protocol"),
    [
        ("Upper", PRIVATE),
        ("a/b", PRIVATE),
        ("", PRIVATE),
        (7, PRIVATE),
        ("demo", 0),
        ("demo", -1),
        ("demo", 1 << 32),
        ("demo", True),
        ("demo", "tls"),
        ("demo", 17),
        ("demo", 253),
        ("demo", 0x0A0A0A0A),
        ("demo", 0x1A2A3AFA),
    ],
)
def test_a_name_or_protocol_id_that_nobody_may_have_is_refused(
    package: Path, request: pytest.FixtureRequest, name: object, protocol: object
) -> None:
    module = f"claims_{abs(hash(request.node.name))}"
    plugins, broken = load_plugins(installed=[plugin(package, module, name, protocol)])
    assert len(plugins) == len(BUILT_IN)
    assert list(broken) == [module]


def test_two_broken_ones_with_one_name_are_both_reported() -> None:
    _, broken = load_plugins(installed=[point("x", "no_a:A"), point("x", "no_b:B")])
    assert set(broken) == {"x", "x (no_b:B)"}
