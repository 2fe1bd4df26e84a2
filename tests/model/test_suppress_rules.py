# SPDX-License-Identifier: Apache-2.0
"""The rules of suppression that the model reads, and the XDP program, over the same arrivals."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from accord.datapath._core import lib
from accord.datapath.xdp_test import Program
from accord.wire.constants import Reason
from buildtools import model
from tests.xdp.craft import ID, PORT
from tests.xdp.packets_syn import HEARD_4, SYN_4

pytestmark = pytest.mark.root

ARRIVALS = [letters for length in range(1, 6) for letters in itertools.product("PST", repeat=length) if "S" in letters]
"""P: a packet of the proposal, S: a SYN, T: a tick goes by."""
LINES = {
    "P": "note_proposal();",
    "T": "now++;",
    "S": 'judge_syn(); if :: verdict == DROPS -> printf("D") :: else -> printf("p") fi;',
}


def by_the_model(folder: Path, *macros: str) -> list[str]:
    """A verdict to each SYN of each row: D for dropped, p for passed."""
    steps = [
        f'heard = HEARD_NOTHING; heard_at = 0; now = 0; {"".join(LINES[letter] for letter in row)} printf("\\n");'
        for row in ARRIVALS
    ]
    driver = folder / "driver.pml"
    driver.write_text(
        f'#include "{model.FOLDER}/suppress_rules.pmh"\ninit {{ d_step {{\n' + "\n".join(steps) + "\n} }\n"
    )
    command = ["spin", *(f"-D{macro}" for macro in macros), "-T", driver]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.split("\n")[: len(ARRIVALS)]


@pytest.fixture(scope="module")
def by_the_program() -> list[str]:
    """The same of the XDP program, whose daemon lives for ever."""
    with Program() as program:
        program.steer(PORT)
        program.join()
        program.heartbeat(-3_600_000)
        return ["".join(_run(program, row)) for row in ARRIVALS]


def _run(program: Program, row: tuple[str, ...]) -> Iterator[str]:
    program.forget(ID)
    heard = False
    for letter in row:
        if letter == "T" and heard:
            program.age(ID, lib.ACCORD_SUPPRESS_MS)
        elif letter != "T":
            heard = True
            run = program.run(bytes(HEARD_4 if letter == "P" else SYN_4))
            if letter == "S":
                yield "D" if run.reason is Reason.SYN_SUPPRESSED else "p"


def test_the_rules_of_the_model_drop_what_the_program_drops(tmp_path: Path, by_the_program: list[str]) -> None:
    rows = zip(ARRIVALS, by_the_model(tmp_path), by_the_program, strict=True)
    assert not {"".join(row): (modelled, run) for row, modelled, run in rows if modelled != run}
    assert "D" in "".join(by_the_program)


@pytest.mark.parametrize("mistake", ["MISTAKE_1", "MISTAKE_2", "MISTAKE_3", "MISTAKE_4"])
def test_rules_with_a_mistake_in_them_are_not_the_program_s(
    tmp_path: Path, by_the_program: list[str], mistake: str
) -> None:
    assert by_the_model(tmp_path, mistake) != by_the_program
