# SPDX-License-Identifier: Apache-2.0
"""Processors that do not sleep while something is measured."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from accord.lab.awake import DEVICE, Awake


def latency() -> int:
    """Microseconds: the least that anybody has asked for, as the kernel says itself."""
    opened = os.open(DEVICE, os.O_RDONLY)
    try:
        return int(struct.unpack("=i", os.read(opened, 4))[0])
    finally:
        os.close(opened)


def leave_by_an_error(awake: Awake) -> None:
    with awake:
        assert awake.held
        assert latency() == 0
        raise ZeroDivisionError


@pytest.mark.root
def test_the_kernel_lets_no_processor_sleep_until_it_is_left_also_by_an_error() -> None:
    if not DEVICE.exists():
        with Awake() as awake:
            assert not awake.held
        return
    with Awake() as outer:
        inner = Awake()
        with pytest.raises(ZeroDivisionError):
            leave_by_an_error(inner)
        assert not inner.held
        assert outer.held
        assert latency() == 0
    assert not outer.held


def test_where_the_kernel_does_not_take_the_request_measuring_goes_on_without_it(tmp_path: Path) -> None:
    with Awake(tmp_path / "absent") as awake:
        assert not awake.held
    with Awake(tmp_path) as awake:
        assert not awake.held
