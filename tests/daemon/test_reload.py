# SPDX-License-Identifier: Apache-2.0
"""A configuration that cannot be read changes nothing in a daemon that runs (threat model, row 29)."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator

import pytest

from accord.lab.deployment import Deployment
from accord.lab.pair import pair

pytestmark = pytest.mark.root

REFUSED = "configuration not reloaded, the old one stays"


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with (
        pair() as (client, server),
        contextlib.closing(Deployment(client, server, tmp_path_factory.mktemp("reload"))) as both,
    ):
        both.daemon(server)
        yield both


def reload(both: Deployment, text: str) -> str:
    """Put the text into the daemon's file and say so; what it says to that."""
    both.configuration(both.server).write_text(text)
    before = len(both.log(both.server))
    os.kill(both.server.processes[-1].pid, signal.SIGHUP)
    end = time.monotonic() + 20
    while "reloaded" not in (said := both.log(both.server)[before:]):
        assert time.monotonic() < end, both.log(both.server)
        time.sleep(0.02)
    return said


def spoilt(text: str) -> dict[str, tuple[str, int]]:
    """What may go wrong with a file, and the line of it."""
    lines = text.splitlines()
    policy = next(number for number, line in enumerate(lines, 1) if line.startswith("[policy"))
    return {
        "cut within a table's name": ("\n".join(lines[: policy - 1]) + "\n[polic", policy),
        "cut within a string": ("\n".join(lines[:policy]) + '\ntcp = "no-', policy + 1),
        "a key that there is not": (text.replace("[policy.default]\n", "[policy.default]\nsecurity = 1\n"), policy + 1),
        "a value of another type": (text.replace('tcp = "no-syn"', "tcp = 7"), policy + 1),
        "a word that there is not": (text.replace('tcp = "no-syn"', 'tcp = "nosyn"'), policy + 1),
        "bytes that are no text": (text.replace('tcp = "no-syn"', 'tcp = "\x00"'), policy + 1),
    }


def test_a_bad_reload_keeps_the_old_configuration_and_names_the_line(both: Deployment) -> None:
    good = both.configuration(both.server).read_text()
    before = both.status(both.server)
    assert before is not None
    for what, (text, line) in spoilt(good).items():
        said = reload(both, text)
        assert REFUSED in said, (what, said)
        assert f"server.toml:{line}:" in said, (what, line, said)
        after = both.status(both.server)
        assert after is not None, both.log(both.server)
        for name in ("pid", "listeners", "attached", "program_id", "plugins"):
            assert after[name] == before[name], (what, name)
    assert REFUSED not in reload(both, good), "and a good one is taken"


def test_a_file_that_is_gone_keeps_it_too(both: Deployment) -> None:
    path = both.configuration(both.server)
    good = path.read_text()
    before = len(both.log(both.server))
    path.unlink()
    os.kill(both.server.processes[-1].pid, signal.SIGHUP)
    end = time.monotonic() + 20
    while REFUSED not in both.log(both.server)[before:]:
        assert time.monotonic() < end, both.log(both.server)
        time.sleep(0.02)
    assert both.status(both.server) is not None
    assert REFUSED not in reload(both, good)
