# SPDX-License-Identifier: Apache-2.0
"""Two hosts for the tests of ports."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.datapath.netns import Host, two_hosts


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    """``near`` and ``far``, connected by a veth pair."""
    with two_hosts() as pair:
        yield pair


@pytest.fixture
def near(hosts: tuple[Host, Host]) -> Host:
    """The host that a test plays by hand."""
    return hosts[0]


@pytest.fixture
def far(hosts: tuple[Host, Host]) -> Host:
    """The host whose port is tested."""
    return hosts[1]
