# SPDX-License-Identifier: Apache-2.0
"""A man in the middle between two real daemons: whatever he changes, it is the same stack, or a reason at both ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

import accord
from accord.lab.hosts import PORT, SERVER_NAME, Hosts
from accord.lab.lab import Lab
from accord.lab.namespace import Namespace
from accord.wire.errors import AccordError
from sim.mitm.corpus import corpus
from sim.mitm.edits import Edit, Kind, Record
from tests.e2e.conftest import PAGE
from tests.e2e.interposer import Interposer

pytestmark = pytest.mark.root

GET = f"GET /index.html HTTP/1.0\r\nHost: {SERVER_NAME}\r\n\r\n".encode()
STACK = ("http", "tls", "tcp")
EDITS = 24
_QUIET = (Kind.REPLAY, Kind.STREAM, Kind.OPTION, Kind.ABORT, Kind.ORDER)
"""Not in the slice: what is tested by itself, what the simulator's TCP is for, and what has no effect by design."""


@dataclass
class Between:
    """Two hosts, and him."""

    hosts: Hosts
    him: Interposer

    async def connect(self, **policy: Any) -> tuple[tuple[str, ...], str]:
        """Stack and reason of one call, whose page has to be what the server has."""
        lab = self.hosts.lab
        remote = f"{lab.server.address4}:{PORT}"
        wishes = {"tcp": "no-syn", "prefer": ["tls/tcp"], "fallback": "parallel", **policy}
        options: dict[str, Any] = {"ca_file": self.hosts.ca, "server_name": SERVER_NAME}
        try:
            async with asyncio.timeout(15):
                control = self.hosts.control(lab.client)
                async with accord.connect(remote, wishes, control=control, **options) as association:
                    said = b""
                    with contextlib.suppress(AccordError, OSError):
                        await association.write(GET)
                        while more := await association.read():
                            said += more
                    assert said.partition(b"\r\n\r\n")[2] in (PAGE, b""), said
                    report = association.report
                    return tuple(report["stack"]), report["reason"] if said else "broken"
        except AccordError as failure:
            return (), failure.reason.name

    def ask(self, host: Namespace, **message: Any) -> dict[str, Any]:
        """A daemon's answer."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.settimeout(20)
            sock.connect(os.fspath(self.hosts.control(host)))
            sock.send(json.dumps(message).encode())
            answer: dict[str, Any] = json.loads(sock.recv(1 << 20))
            return answer

    def forget(self) -> None:
        """What the client has learnt of the path."""
        self.ask(self.hosts.lab.client, op="flush_peers", addresses=None, port=None)

    def record(self) -> Record:
        """What he sees when he does nothing."""
        him = self.him.edit(None)
        assert asyncio.run(self.connect()) == (STACK, "OK")
        return him.recorded()


@pytest.fixture(scope="module")
def between(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Between]:
    with (
        Lab(f"mitm-{os.getpid()}", rtt=0.0, kind="forwarder") as lab,
        contextlib.closing(Hosts(lab, tmp_path_factory.mktemp("mitm"), site={"index.html": PAGE})) as hosts,
        contextlib.closing(Interposer(lab)) as him,
    ):
        hosts.serve_plain()
        hosts.daemon(lab.client)
        hosts.daemon(lab.server)
        hosts.expose()
        yield Between(hosts, him)


def test_each_edit_ends_in_the_same_stack_or_in_a_plain_one_of_which_both_ends_know_why(between: Between) -> None:
    one, other = between.record(), between.record()
    edits = [edit for edit in corpus(one, 1, streams=False) if edit.kind not in _QUIET][:EDITS]
    outcomes: Counter[tuple[tuple[str, ...], str]] = Counter()
    for edit in edits:
        between.forget()
        between.him.edit(edit, other)
        stack, reason = asyncio.run(between.connect())
        outcomes[stack, reason] += 1
        assert stack in (STACK, ("tls", "tcp"), ()), (str(edit), stack, reason)
        if stack == ("tls", "tcp"):
            # A hello of its own names no protocol to a stranger: then there is nothing to be found out by.
            assert reason in ("FORCED_FALLBACK", "LEGACY_FIRST") or reason not in ("OK", "broken"), str(edit)
        elif not stack:
            assert reason not in ("", "OK"), str(edit)
    assert len({stack for stack, _ in outcomes}) > 1, outcomes


def test_what_was_said_into_a_stack_that_the_responder_never_committed_to_is_not_waited_upon(between: Between) -> None:
    """It is silent about a commit without T(1), whoever sent it; its kernel has acknowledged the request by then."""
    transcript = 0x8003
    between.forget()
    for _ in range(3):
        him = between.him.edit(Edit(Kind.UNTLV, 0, 2, 0, (transcript,)))
        assert asyncio.run(between.connect()) == (STACK, "broken")
        assert him.struck


def test_who_drops_every_proposal_is_found_out_by_both_daemons(between: Between) -> None:
    between.forget()
    server = between.hosts.lab.server
    between.him.edit(Edit(Kind.DROP, 0, -1, args=(0,)))
    before = between.ask(server, op="status")["counters"]["negotiation"].get("FORCED_FALLBACK", 0)
    assert asyncio.run(between.connect(tcp="parallel-syn")) == (("tls", "tcp"), "FORCED_FALLBACK")
    assert between.ask(server, op="status")["counters"]["negotiation"]["FORCED_FALLBACK"] == before + 1
    refused = asyncio.run(between.connect(tcp="parallel-syn", on_forced_fallback="refuse"))
    assert refused == ((), "FORCED_FALLBACK")


def test_a_whole_negotiation_that_is_replayed_a_hundred_times_after_its_commit_changes_nothing(
    between: Between,
) -> None:
    between.forget()
    server = between.hosts.lab.server
    him = between.him.edit(Edit(Kind.REPLAY, 0, 0, args=(150, 100)))

    async def talk() -> None:
        lab = between.hosts.lab
        wishes = {"tcp": "no-syn", "prefer": ["tls/tcp"], "fallback": "never"}
        control, remote = between.hosts.control(lab.client), f"{lab.server.address4}:{PORT}"
        options: dict[str, Any] = {"ca_file": between.hosts.ca, "server_name": SERVER_NAME}
        async with accord.connect(remote, wishes, control=control, **options) as association:
            await asyncio.sleep(0.6)  # all of it comes again meanwhile
            await association.write(GET)
            said = b""
            while more := await association.read():
                said += more
            assert said.endswith(PAGE)

    def committed() -> float:
        return float(between.ask(server, op="status")["counters"]["negotiation"].get("OK", 0))

    before = committed()
    asyncio.run(talk())
    assert him.struck
    assert committed() == before + 1
    deadline = time.monotonic() + 20
    while between.ask(server, op="status")["in_flight"]:
        assert time.monotonic() < deadline, "a repetition has begun something"
        time.sleep(0.05)
