# SPDX-License-Identifier: Apache-2.0
"""The race with real sockets on loopback: what the peer's listener sees of the loser, and what is left of it here."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from accord.cli.connect import explain
from accord.controller.controller import Controller
from accord.controller.peers.memory import Learnt
from accord.controller.race.fallback_log import Seldom
from accord.controller.settings.config import DaemonConfig, ExposeConfig
from accord.datapath.engine import Engine
from accord.datapath.stream import SocketCarrier
from accord.protocols.authority import issue, make_ca
from accord.protocols.services import Security
from accord.wire.constants import Reason
from accord.wire.errors import AccordError, PathError
from tests.controller.pairs import NAME, believe_silent, run, step_of

QUIC = {"prefer": ["quic"], "only": True}


@dataclass
class Seen:
    """What a connection brought to the peer's listener, and how it ended."""

    data: bytes = b""
    end: str = "open"


@dataclass
class Listener:
    """TCP on the peer's port, by a program without Accord. ``secure``: it speaks TLS, and echoes."""

    secure: ssl.SSLContext | None
    hangs_up: bool = False
    """As soon as it hears something: what a program does that does not understand a ClientHello."""
    seen: list[Seen] = field(default_factory=list)
    server: asyncio.Server | None = None

    async def start(self, port: int) -> int:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", port, ssl=self.secure)
        return int(self.server.sockets[0].getsockname()[1])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen = Seen()
        self.seen.append(seen)
        try:
            while data := await reader.read(65536):
                seen.data += data
                if self.hangs_up:
                    break
                if self.secure is not None:
                    writer.write(data)
            seen.end = "FIN"
        except ConnectionResetError:
            seen.end = "RST"
        finally:
            writer.close()

    async def ended(self, count: int) -> list[str]:
        """How so many connections ended."""
        while sum(seen.end != "open" for seen in self.seen) < count:
            await asyncio.sleep(0.005)
        return [seen.end for seen in self.seen]


@dataclass
class World:
    """A client, and a peer: its listener, and with Accord a server too."""

    client: Controller
    server: Controller
    listener: Listener
    security: Security
    port: int
    files: Any
    hole: socket.socket | None = None
    """What swallows everything, if something does."""

    async def connect(self, **policy: Any) -> Any:
        """By the client."""
        return await self.client.connect("127.0.0.1", self.port, overrides=policy, security=self.security)

    def expose(self, **options: Any) -> None:
        """The peer speaks Accord on the port, beside the listener."""
        config = ExposeConfig(
            self.port, None, certificate=self.files.certificate, private_key=self.files.private_key, plain=False
        )
        self.server.expose(config, asyncio.Queue(64))


@contextlib.asynccontextmanager
async def world(directory: Path, *, tls: bool = True, silent: bool = False) -> AsyncIterator[World]:
    """``silent``: the peer's UDP port swallows everything, where otherwise ICMP says that nobody is there."""
    ca = make_ca(directory)
    files = issue(directory, [NAME])
    context = None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(files.certificate, files.private_key)
    listener = Listener(context)
    port = await listener.start(0)
    config = DaemonConfig(back_end="udp")
    both = World(
        Controller(config),
        Controller(config),
        listener,
        Security(server_name=NAME, ca_file=ca.certificate),
        port,
        files,
    )
    with contextlib.ExitStack() as stack:
        if silent:
            hole = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            hole.bind(("127.0.0.1", port))
            both.hole = hole
        try:
            yield both
        finally:
            both.client.close()
            both.server.close()
            assert listener.server is not None
            listener.server.close()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_peer_that_icmp_says_has_no_accord_is_met_over_tls_by_one_connection(tmp_path: Path) -> None:
    async def work() -> None:
        async with world(tmp_path) as both:
            association = await both.connect()
            report = association.report
            assert (report.negotiated, report.stack) == (False, ["tls", "tcp"])
            assert (report.reason, report.fault) in (("LEGACY_PEER", "none"), ("LEGACY_FIRST", "none"))
            await association.carrier.write(b"ping")
            assert await association.carrier.read() == b"ping"
            await association.carrier.close()
            assert await both.listener.ended(1) == ["FIN"]

    run(work())


def test_bare_tcp_that_is_wanted_is_had_with_the_first_syn_ack(tmp_path: Path) -> None:
    async def work() -> None:
        async with world(tmp_path, tls=False, silent=True) as both:
            association = await both.connect(secure="no")
            assert (association.report.reason, association.report.stack) == ("LEGACY_FIRST", ["tcp"])
            entries = [entry["text"] for entry in association.report.ladder]
            assert "step 0" in next(text for text in entries if "step 0" in text or "SYN" in text), "proposal, then SYN"
            association.carrier.abort()

    run(work())


def test_the_loser_gets_a_fin_and_no_reset(tmp_path: Path) -> None:
    """QUIC is negotiated while TLS over TCP has begun: the listener is told by a FIN, the winner is not disturbed."""

    async def work() -> None:
        async with world(tmp_path, tls=False) as both:
            both.expose()
            association = await both.connect(fallback="parallel", **QUIC)
            assert association.report.negotiated
            assert await both.listener.ended(1) == ["FIN"]
            await association.carrier.write(b"ping")
            await association.carrier.close()

    run(work())


def test_without_a_fallback_no_connection_is_opened(tmp_path: Path) -> None:
    async def work() -> None:
        async with world(tmp_path) as both:
            with pytest.raises(PathError):
                await both.connect(fallback="never")
            assert both.listener.seen == []

    run(work())


def test_a_delayed_fallback_opens_its_connection_only_after_the_negotiation_has_failed(tmp_path: Path) -> None:
    async def work() -> None:
        async with world(tmp_path) as both:
            association = await both.connect(fallback="delayed")
            assert association.report.reason == "LEGACY_PEER"
            texts = [entry["text"] for entry in association.report.ladder]
            assert texts.index("ICMP: nobody negotiates on that port") < next(
                i for i, text in enumerate(texts) if "TCP SYN to" in text
            )
            association.carrier.abort()

    run(work())


def test_a_peer_that_refuses_to_negotiate_is_met_by_a_second_connection_without_the_option(tmp_path: Path) -> None:
    async def work() -> None:
        async with world(tmp_path) as both:
            both.expose()
            both.server.withdraw(both.server.exposed[both.port])  # the port is left, with nothing behind it
            bound = both.server.endpoint.sockets.bind("127.0.0.1", both.port)
            association = await both.connect(fallback="parallel", **QUIC)
            assert association.report.reason == "NO_SERVICE"
            assert association.report.fault == "peer"
            assert Learnt.REFUSED.value in association.report.remembered
            assert not both.client.lessons._listening, "it has spoken"
            await association.carrier.write(b"ping")
            assert await association.carrier.read() == b"ping", "the loser's end does not hurt the winner"
            both.server.endpoint.sockets.unbind(bound)
            association.carrier.abort()

    run(work())


def test_security_that_is_required_is_never_answered_with_bare_tcp(tmp_path: Path) -> None:
    async def work() -> None:
        async with world(tmp_path, tls=False) as both:
            both.listener.hangs_up = True
            with pytest.raises(AccordError) as failure:
                await both.connect(secure="required")
            assert failure.value.reason is Reason.HANDSHAKE_FAILED
            await both.listener.ended(1)
            assert len(both.listener.seen) == 1, "no second one without TLS"
            assert both.listener.seen[0].data.startswith(b"\x16\x03"), "a ClientHello"

    run(work())


def test_security_that_is_only_preferred_is_given_up_on_a_second_connection(tmp_path: Path) -> None:
    async def work() -> None:
        async with world(tmp_path, tls=False) as both:
            both.listener.hangs_up = True
            association = await both.connect(secure="preferred")
            assert association.report.stack == ["tcp"]
            association.carrier.abort()

    run(work())


def test_a_peer_without_tcp_is_met_by_the_negotiation_alone(tmp_path: Path) -> None:
    async def work() -> None:
        async with world(tmp_path) as both:
            both.expose()
            assert both.listener.server is not None
            both.listener.server.close()
            await asyncio.sleep(0)
            association = await both.connect(fallback="parallel", **QUIC)
            assert association.report.negotiated
            association.carrier.abort()

    run(work())


def test_a_certificate_that_does_not_verify_is_no_reason_to_fall_back(tmp_path: Path) -> None:
    async def work() -> None:
        async with world(tmp_path) as both:
            both.expose()
            stranger = make_ca(tmp_path / "stranger")
            both.security = Security(server_name=NAME, ca_file=stranger.certificate)
            with pytest.raises(AccordError) as failure:
                await both.connect(fallback="parallel", secure="preferred")
            assert failure.value.reason is Reason.BAD_CERTIFICATE

    (tmp_path / "stranger").mkdir()
    run(work())


def test_a_connect_that_is_called_off_at_any_moment_leaves_no_socket_and_no_task(tmp_path: Path) -> None:
    async def work() -> None:
        async with world(tmp_path, silent=True) as both:
            await (await both.connect()).carrier.close()  # what is loaded once is loaded
            both.client.proposals.clear()
            await settled(both, 0, 0)
            before, tasks = descriptors(), len(asyncio.all_tasks())
            for moment in range(12):
                connecting = asyncio.create_task(both.connect())
                for _ in range(moment):
                    await asyncio.sleep(0)
                connecting.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    (await connecting).carrier.abort()
            await settled(both, before, tasks)

    async def settled(both: World, fds: int, tasks: int) -> None:
        """Or never: then the time of the test ends."""
        while (
            both.client.endpoint.engine.transactions
            or (fds and descriptors() > fds)
            or (tasks and len(asyncio.all_tasks()) > tasks)
        ):
            both.client.proposals.clear()  # the next one is made ahead, and has a socket
            await asyncio.sleep(0.02)

    run(work())


def test_a_plugin_that_raises_costs_the_negotiation_and_not_the_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with world(tmp_path) as both:

            def broken(*_: object, **__: object) -> None:
                raise ZeroDivisionError("a plug-in's")

            monkeypatch.setattr("accord.controller.negotiating.prepare", broken)
            association = await both.connect()
            assert (association.report.reason, association.report.fault) == ("PLUGIN_FAILED", "ours")
            assert "ZeroDivisionError" in association.report.detail
            association.carrier.abort()

    run(work())


def test_a_fallback_is_logged_once_for_each_peer_and_reason(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        async with world(tmp_path, tls=False, silent=True) as both:
            for _ in range(3):
                (await both.connect(secure="no")).carrier.abort()

    with caplog.at_level(logging.INFO, "accord.race"):
        run(work())
    assert [record.message for record in caplog.records if "LEGACY_FIRST" in record.message] == [
        record.message for record in caplog.records
    ][:1]


def test_what_is_said_seldom_is_said_once_a_minute_with_a_count_of_the_rest() -> None:
    now = [100.0]
    seldom = Seldom(lambda: now[0])
    assert seldom.may("a") == 0
    assert [seldom.may("a") for _ in range(3)] == [None] * 3
    assert seldom.may("b") == 0
    now[0] += 60
    assert seldom.may("a") == 3
    for number in range(5000):
        seldom.may(number)
    assert len(seldom._said) <= 1024


def test_a_peer_is_silent_when_the_repeated_proposal_is_not_answered_either(tmp_path: Path) -> None:
    async def work() -> None:
        async with world(tmp_path, tls=False, silent=True) as both:
            learnt = both.client.peers.learnt
            for times in (1, 2):
                assert both.client.peers.knows("127.0.0.1", both.port).propose, "once is no proof"
                (await both.connect(secure="no")).carrier.abort()
                while learnt[Learnt.SILENT] < times:
                    await asyncio.sleep(0.02)
                assert both.client.endpoint.engine.transactions == 0, "nothing is left of it"
            known = await both.connect(secure="no")
            assert known.report.reason == "KNOWN_LEGACY"
            assert not [entry for entry in known.report.ladder if "step 0" in str(entry["text"])], "nothing proposed"
            known.carrier.abort()

    run(work())


@pytest.mark.parametrize(("source", "proposed"), [("127.0.0.1", False), ("192.0.2.1", True)])
def test_the_syn_that_left_early_to_a_silent_peer_is_no_obstacle_when_that_was_learnt_from_another_address(
    tmp_path: Path, source: str, proposed: bool
) -> None:
    async def work() -> None:
        async with world(tmp_path, tls=True, silent=True) as both:
            believe_silent(both.client.peers, "127.0.0.1", both.port, source)
            found = await both.connect()
            syn, *rest = [str(entry["text"]) for entry in found.report.ladder]
            assert syn == f"TCP SYN to port {both.port}", "first, and without an option"
            assert any("step 0" in text for text in rest) is proposed
            assert found.report.reason == ("LEGACY_FIRST" if proposed else "KNOWN_LEGACY")
            assert found.report.stack == ["tls", "tcp"]
            await found.carrier.write(b"ping")
            assert await found.carrier.read() == b"ping"
            assert len(both.listener.seen) == 1, "and it is the only one"
            found.carrier.abort()

    run(work())


@pytest.mark.parametrize("policy", [{"fallback": "never"}, {"on_forced_fallback": "refuse"}], ids=["never", "refuse"])
def test_no_syn_leaves_early_to_a_silent_peer_that_has_to_be_asked_all_the_same(
    tmp_path: Path, policy: dict[str, Any]
) -> None:
    async def work() -> None:
        async with world(tmp_path, tls=True, silent=True) as both:
            believe_silent(both.client.peers, "127.0.0.1", both.port, "127.0.0.1")
            assert both.hole is not None
            both.hole.setblocking(False)
            asking = asyncio.create_task(both.connect(**policy))
            assert step_of(await asyncio.get_running_loop().sock_recv(both.hole, 2048)) == 0, "it is asked"
            asking.cancel()
            with contextlib.suppress(AccordError, asyncio.CancelledError):
                (await asking).carrier.abort()

    run(work())


def test_a_late_answer_is_remembered_and_the_peer_told_that_it_came_too_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with world(tmp_path, tls=False) as both:
            both.expose()
            poll, hears = both.server.endpoint.port.poll, time.monotonic() + 0.2

            def slow(engine: Engine, now: int) -> int:
                return poll(engine, now) if time.monotonic() > hears else 0

            monkeypatch.setattr(both.server.endpoint.port, "poll", slow)
            association = await both.connect(secure="no", prefer=["quic", "tcp"], only=True)
            assert association.report.reason == "LEGACY_FIRST"
            while not both.client.peers.learnt[Learnt.LATE_ANSWER]:
                await asyncio.sleep(0.01)
            assert both.client.peers.knows("127.0.0.1", both.port).answers_late
            while both.server.endpoint.engine.transactions or both.client.endpoint.engine.transactions:
                await asyncio.sleep(0.02)
            association.carrier.abort()

    run(work())


@pytest.mark.parametrize(
    ("acknowledged", "repeated", "stalls"), [(0, 4, True), (0, 2, False), (1, 4, False)], ids=["black", "slow", "lossy"]
)
def test_a_connection_without_a_syn_stalls_when_what_it_repeats_is_never_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, acknowledged: int, repeated: int, stalls: bool
) -> None:
    seen: list[socket.socket] = []

    def info(connection: socket.socket) -> SimpleNamespace:
        seen.append(connection)
        return SimpleNamespace(acknowledged=acknowledged, received=0, retransmitted=repeated)

    monkeypatch.setattr("accord.controller.peers.lessons._LOOKS", (0.0, 0.0, 0.0))
    monkeypatch.setattr("accord.datapath.tcp_sockopt.info", info)

    async def work() -> None:
        async with world(tmp_path) as both:
            lesson = both.client.lessons.of("192.0.2.1", 443, "127.0.0.1")
            ours, theirs = socket.socketpair()
            stream = SocketCarrier(ours)
            lesson.watch(stream)
            for _ in range(20):
                await asyncio.sleep(0.001)
            assert (Learnt.NO_SYN_STALLED in lesson.learnt) == stalls
            assert len(seen) == (3 if (acknowledged, repeated) == (0, 2) else 1)
            stream.abort()
            theirs.close()

    run(work())


def test_every_fallback_and_everything_remembered_can_be_said_in_words() -> None:
    report = {"negotiated": False, "detail": "", "remembered": [what.value for what in Learnt]}
    for reason in Reason:
        why, remembered = explain({**report, "reason": reason.name})
        assert reason.text in why
        assert why.endswith(")")
        assert remembered.count(";") == len(Learnt) - 1
    assert explain({"negotiated": True, "remembered": []}) == []
