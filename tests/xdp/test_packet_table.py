# SPDX-License-Identifier: Apache-2.0
"""Every packet of the table through BPF_PROG_TEST_RUN: the verdict, the counter, and not one byte changed."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from accord.datapath.xdp_test import Program
from accord.wire.constants import Reason
from accord.wire.errors import OurError
from tests.xdp.craft import Case
from tests.xdp.mutants import MUTANTS, ROOT, Mutant, caught_by, check
from tests.xdp.packets import TABLE

pytestmark = pytest.mark.root


UNDER_LOAD = {Reason.CHALLENGED, Reason.BAD_COOKIE, Reason.QUOTA, Reason.SHORT_PACKET, Reason.BAD_CHECKSUM}
"""Counted in a flood alone: ``test_challenge.py``."""


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_each_packet_of_the_table_is_steered_or_passed_for_its_reason_and_left_as_it_is(
    program: Program, row: Case
) -> None:
    assert check(program, row) is None


def test_the_names_in_the_table_are_all_different() -> None:
    assert len({row.name for row in TABLE}) == len(TABLE) >= 120


def test_the_table_meets_every_reason_that_the_program_counts() -> None:
    sources = Path(__file__).parents[2] / "ebpf"
    text = "".join(path.read_text() for path in sources.glob("*.[ch]"))
    named = {Reason[name] for name in re.findall(r"ACCORD_REASON_(\w+)", text) if name not in ("OK", "LIMIT")}
    assert {row.reason for row in TABLE} == named - UNDER_LOAD


@pytest.mark.parametrize("mutant", MUTANTS[::12], ids=lambda mutant: mutant.name)
def test_a_fault_put_into_the_program_fails_a_row_of_the_table(mutant: Mutant) -> None:
    """Every twelfth; ``python -m tests.xdp.mutants`` runs them all."""
    if shutil.which("clang") is None:
        pytest.skip("clang is missing: apt-get install clang")
    assert caught_by(mutant) is not None


def test_every_fault_on_the_list_still_has_its_place_in_the_sources() -> None:
    for mutant in MUTANTS:
        assert (ROOT / "ebpf" / mutant.file).read_text().count(mutant.old) == 1, mutant.name


def test_a_port_is_steered_from_its_registration_to_its_removal(program: Program) -> None:
    row = next(row for row in TABLE if row.name == "a port that nobody registered")
    assert program.run(row.frame).reason is Reason.NOT_OURS_PORT
    program.steer(444)
    assert program.run(row.frame).reason is Reason.STEERED
    program.steer(444, False)
    assert program.run(row.frame).reason is Reason.NOT_OURS_PORT


def test_a_full_port_map_refuses_another_port_and_still_steers_the_first(program: Program) -> None:
    others = range(1024, 1024 + 4095)
    try:
        for port in others:
            program.steer(port)
        with pytest.raises(OurError, match="no room"):
            program.steer(others.stop)
        assert program.run(TABLE[0].frame).reason is Reason.STEERED
    finally:
        for port in others:
            program.steer(port, False)
