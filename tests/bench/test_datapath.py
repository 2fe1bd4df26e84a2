# SPDX-License-Identifier: Apache-2.0
"""The benchmark of the data path runs, so that it does not rot; how fast anything is, no test can say."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="generator and receiver need a processor each")

ROOT = Path(__file__).resolve().parent.parent.parent
NOT_FIGURES = {"spread", "quartiles", "repeats", "seconds", "kernel", "machine", "processors"}


PARTS = {
    "engine": {"parse_ns_per_packet", "reassemble_ns_per_packet", "proposal_ns"},
    "xdp": {"xdp_foreign_ns", "xdp_empty_ns", "xdp_ours_ns", "xdp_syn_ns", "xdp_syn_option_ns"},
    "receive": {"ratio_afxdp", "afxdp_mpps", "afxdp_bare_mpps", "packet_mpps", "udp_bare_mpps", "afxdp_whole"},
    "crossing": {"cffi_ns_per_event", "python_ns_per_event"},
    "bulk": {"tcp_none_gbit", "ratio_tcp_native", "ratio_tcp_generic", "ratio_tcp_packet"},
}
"""Without the instruction counts, which need valgrind: name -> some of its figures."""

BY_STATE = {"ratio_afxdp_together", "ratio_afxdp_apart"}
"""Of these a run has what the host makes of the two processors: one, or both."""


@functools.cache
def bench(part: str, number: int = 1) -> dict[str, object]:
    """One short run, the first or another. The object that it prints."""
    command = [sys.executable, "bench/datapath.py", "--repeats", "1", "--seconds", "0.002", "--json", "--only", part]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    result: dict[str, object] = json.loads(done.stdout)
    return result


def figures(result: dict[str, object]) -> dict[str, float]:
    """The figures alone."""
    return {name: float(str(value)) for name, value in result.items() if name not in NOT_FIGURES}


@pytest.mark.root
@pytest.mark.parametrize("part", PARTS)
def test_each_part_prints_its_figures_and_their_spread(part: str) -> None:
    result = bench(part)
    found = figures(result)
    assert PARTS[part] <= found.keys()
    assert found.keys() == dict(result["spread"]).keys()  # type: ignore[call-overload]
    # A difference may be anything, and that nothing had to be repeated is good.
    assert all(value > 0 for name, value in found.items() if name not in ("xdp_added_ns", "slices_again"))


@pytest.mark.root
@pytest.mark.skipif(shutil.which("valgrind") is None, reason="callgrind is missing: apt-get install valgrind")
def test_instruction_counts_repeat_exactly() -> None:
    first, second = figures(bench("instructions")), figures(bench("instructions", 2))
    assert first["parse_instructions"] > first["parse_small_instructions"] > 0
    assert first == second


@pytest.mark.root
def test_what_the_engine_takes_comes_out_in_whole_messages() -> None:
    """A generator whose packets the engine refused would make it look fast."""
    assert figures(bench("receive"))["afxdp_whole"] > 0.5


@pytest.mark.root
def test_the_document_explains_every_figure_that_is_printed_and_no_other() -> None:
    document = (ROOT / "docs/BENCHMARKS.md").read_text(encoding="utf-8")
    section = document.partition("\n## `./build.py bench datapath`\n")[2].partition("\n## ")[0]
    explained = set(re.findall(r"^\| `(\w+_\w+)` \|", section, re.MULTILINE))
    parts = [*PARTS, "instructions"]
    if shutil.which("valgrind") is None:
        parts.remove("instructions")
        explained = {name for name in explained if not name.endswith("_instructions")}
    printed = {name for part in parts for name in figures(bench(part))}
    assert explained - BY_STATE == printed - BY_STATE
    assert explained >= BY_STATE
    assert BY_STATE & printed
