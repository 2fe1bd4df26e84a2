# SPDX-License-Identifier: Apache-2.0
"""The engine's memory: all of it taken at start, as much as docs/OPERATIONS.md says, whatever comes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.controller.settings.config import parse_config
from accord.datapath import engine
from accord.datapath.engine import Engine
from accord.wire.constants import Reason
from accord.wire.errors import UserError
from tests.datapath import memory_document
from tests.datapath.memory_document import DEFAULTS, DOCUMENT, MEBIBYTE, PART, TEN_THOUSAND

LIMIT = 256 * MEBIBYTE


def test_the_document_states_the_memory_that_the_engine_takes() -> None:
    text = DOCUMENT.read_text()
    assert PART.search(text), "the table has lost its marks"
    assert text == memory_document.render(text), "stale: PYTHONPATH=ctrl:. python -m tests.datapath.memory_document"


@given(st.integers(1, 100_000), st.integers(1, 500_000), st.integers(100, 100_000))
def test_the_documents_table_bounds_the_memory_of_any_settings_closely(
    transactions: int, buffers: int, events: int
) -> None:
    settings = {"transactions": transactions, "unproven": 1, "buffers": buffers, "events": events}
    actual = memory_document.engine_bytes(settings)
    # Each of the engine's parts begins at a multiple of 16; two of the table's numbers are rounded up.
    assert actual <= memory_document.predicted(settings) + 8 * 16 <= actual * 1.03 + 3 * 16_384


def test_the_defaults_of_the_document_are_the_engines() -> None:
    assert Engine().bytes == memory_document.engine_bytes(DEFAULTS)


def test_the_settings_of_the_configuration_file_are_the_engines() -> None:
    text = "[limits]\n" + "".join(f"{key} = {TEN_THOUSAND[key]}\n" for key in ("transactions", "unproven", "buffers"))
    config = parse_config(text)
    engine = Engine(transactions=config.transactions, unproven=config.unproven, buffers=config.buffers)
    assert engine.bytes == memory_document.engine_bytes(TEN_THOUSAND) <= LIMIT
    assert re.search(rf"{TEN_THOUSAND['transactions']:,} transactions", DOCUMENT.read_text())


def test_ten_thousand_open_negotiations_take_no_more_than_was_taken_at_start() -> None:
    program = Path(__file__).with_name("ten_thousand.py")
    environment = {"PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=100, env=environment)
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)
    for counts in measured["rounds"]:
        assert counts == {
            "initiators": 10_000,
            "responders": 10_000,
            "answered": 10_000,
            "committed": 10_000,
            "left": 0,
        }
    assert max(measured["engine_bytes"]) <= LIMIT
    both = sum(measured["engine_bytes"])
    # Both engines are in this process; python's own objects for 20,000 handles come on top.
    assert measured["made"] - measured["before"] >= 0.9 * both, "memory was promised, not taken"
    assert max(measured["peaks"]) - measured["before"] <= 2 * LIMIT
    assert max(measured["peaks"]) - measured["made"] <= 0.1 * both + 32 * MEBIBYTE
    assert measured["peaks"][-1] - measured["peaks"][0] <= 2 * MEBIBYTE, "it grows"


def test_limits_that_contradict_each_other_are_the_users_fault() -> None:
    with pytest.raises(UserError, match="unproven no more than transactions") as caught:
        Engine(unproven=2000)
    assert caught.value.reason is Reason.BAD_CONFIG


def test_more_than_the_host_has_left_is_the_users_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = Engine().bytes
    monkeypatch.setattr(engine, "available_bytes", lambda: needed)
    Engine()
    monkeypatch.setattr(engine, "available_bytes", lambda: needed - 1)
    with pytest.raises(UserError, match="MiB left") as caught:
        Engine()
    assert caught.value.reason is Reason.BAD_CONFIG


def test_what_the_host_has_left_is_between_nothing_and_all_that_it_has() -> None:
    assert 0 < engine.available_bytes() < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_more_buffers_than_have_numbers_are_the_users_fault_and_take_no_memory() -> None:
    with pytest.raises(UserError, match=r"1048577 buffers.*none of them over 1048576") as caught:
        Engine(buffers=2**20 + 1)
    assert caught.value.reason is Reason.BAD_CONFIG
