# SPDX-License-Identifier: Apache-2.0
"""Hints from HTTPS records: a name server on loopback answers well, late, nonsense, or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import dns.asyncresolver
import dns.flags
import dns.message
import dns.rrset
import pytest

from accord.controller.peers.dns_hints import MAX_SECONDS, MIN_SECONDS, NOTHING, DnsHints, Hint, advised
from accord.controller.peers.dns_lookup import Https
from accord.controller.peers.memory import Knowledge, Learnt
from accord.protocols.sealed.configuration import Aead, Kem, KeyConfiguration
from tests.controller.pairs import run
from tests.controller.test_racing import world

ACCORD, QUIC = Hint(accord=True), Hint(quic=True)
SEALING = KeyConfiguration(Kem.X25519, Aead.AES_128_GCM, bytes(range(32)), 1_900_000_000)
SEALING_TEXT = '"' + "".join(f"\\{byte:03d}" for byte in SEALING.encode()) + '"'
Answer = Callable[[dns.message.Message], bytes | None]


@dataclass
class NameServer(asyncio.DatagramProtocol):
    """What it was asked, and what ``answer`` makes of it; None: nothing is sent."""

    answer: Answer
    asked: list[str] = field(default_factory=list)
    transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        query = dns.message.from_wire(data)
        self.asked.append(query.question[0].to_text())
        reply = self.answer(query)
        if reply is not None and self.transport is not None:
            self.transport.sendto(reply, addr)


@contextlib.asynccontextmanager
async def name_server(answer: Answer) -> AsyncIterator[tuple[NameServer, Https]]:
    server = NameServer(answer)
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: server, local_addr=("127.0.0.1", 0)
    )

    def resolver() -> dns.asyncresolver.Resolver:
        made = dns.asyncresolver.Resolver(configure=False)
        made.nameservers = ["127.0.0.1"]
        made.port = transport.get_extra_info("sockname")[1]
        made.timeout = 0.2
        return made

    try:
        yield server, Https(resolver)
    finally:
        transport.close()


def records(*texts: str, ttl: int = 300) -> Answer:
    def answer(query: dns.message.Message) -> bytes:
        reply = dns.message.make_response(query)
        if texts:
            reply.answer.append(dns.rrset.from_text(query.question[0].name, ttl, "IN", "HTTPS", *texts))
        return reply.to_wire()

    return answer


def asked(answer: Answer, host: str = "example.test", port: int = 443) -> tuple[Hint, float]:
    async def work() -> tuple[Hint, float]:
        async with name_server(answer) as (_, https):
            return await https(host, port)

    return run(work())


@pytest.mark.parametrize(
    ("record", "port", "hint"),
    [
        ("1 . alpn=h2,h3", 443, QUIC),
        ("1 . alpn=h2", 443, NOTHING),
        ("1 . key65280", 443, ACCORD),
        ("1 . alpn=h3 key65280", 443, Hint(accord=True, quic=True)),
        (r'1 . key65280="\001\187"', 443, ACCORD),
        (r'1 . key65280="\032\251"', 8443, ACCORD),
        (r'1 . key65280="\032\251"', 443, NOTHING),
        ("1 . key65280=x", 443, NOTHING),
        ("1 . port=8443 key65280", 443, NOTHING),
        ("1 . port=443 key65280", 443, ACCORD),
        ("1 example.test. key65280", 443, ACCORD),
        ("1 example.test. key65280", 8443, ACCORD),
        ("1 elsewhere.test. key65280 alpn=h3", 443, NOTHING),
        ("0 elsewhere.test.", 443, NOTHING),
        ("1 . mandatory=key65280 key65280", 443, ACCORD),
        ("1 . mandatory=key65282 key65280 key65282=x", 443, NOTHING),
        ("1 . key65282=x", 443, NOTHING),
        ("1 . key65281=x", 443, NOTHING),
        (f"1 . key65281={SEALING_TEXT}", 443, Hint(keys=(SEALING,))),
        (f"1 . alpn=h3 key65280 key65281={SEALING_TEXT}", 443, Hint(accord=True, quic=True, keys=(SEALING,))),
        (f"1 elsewhere.test. key65281={SEALING_TEXT}", 443, NOTHING),
    ],
)
def test_a_record_hints_at_what_it_says_of_this_very_endpoint(record: str, port: int, hint: Hint) -> None:
    assert asked(records(record), port=port) == (hint, 300.0)


def test_the_question_for_another_port_has_it_in_the_name() -> None:
    async def work() -> list[str]:
        async with name_server(records()) as (server, https):
            assert await https("example.test", 443) == (NOTHING, MIN_SECONDS)
            await https("example.test", 8443)
            return server.asked

    assert run(work()) == ["example.test. IN HTTPS", "_8443._https.example.test. IN HTTPS"]


def hints(lookup: Callable[[str, int], Awaitable[tuple[Hint, float]]]) -> tuple[list[float], DnsHints]:
    clock = [0.0]
    return clock, DnsHints(lambda: clock[0], lookup)


async def settled(found: DnsHints) -> None:
    while found._asking:
        await asyncio.sleep(0.005)


def mutants(count: int) -> list[Answer]:
    """Answers with bytes changed, cut off, or of no meaning; the identifier is right."""
    dice = random.Random(5)

    def mutant(seed: float) -> Answer:
        def answer(query: dns.message.Message) -> bytes:
            own = random.Random(seed)
            good = bytearray(
                records("1 . alpn=h3 key65280 ipv4hint=192.0.2.1", "2 example.test. port=443")(query) or b""
            )
            for _ in range(own.randint(1, 6)):
                good[own.randrange(2, len(good))] = own.randrange(256)
            return bytes(good[: own.randint(2, len(good))] if own.random() < 0.5 else good)

        return answer

    return [mutant(dice.random()) for _ in range(count)]


def test_no_answer_upsets_the_asker() -> None:
    async def work() -> None:
        async with name_server(lambda query: None) as (server, https):
            _, found = hints(https)
            loop = asyncio.get_running_loop()
            failures: list[object] = []
            loop.set_exception_handler(lambda _, context: failures.append(context))
            for number, answer in enumerate(mutants(60)):
                server.answer = answer
                found.ask(f"{number}.test", 443)
                for _ in range(40):
                    await asyncio.sleep(0.001)
                    if not found._asking:
                        break
                found.close()
                await asyncio.sleep(0)
                assert found.knows(f"{number}.test", 443) in (NOTHING, ACCORD, QUIC, Hint(accord=True, quic=True))
            assert failures == []

    run(work())


@pytest.mark.parametrize("host", ["", "a" * 64 + ".test", "a..test", "a." * 200, "\0", "\udcff.test"])
def test_a_name_that_is_none_is_no_hint(host: str) -> None:
    async def work() -> None:
        async with name_server(records("1 . key65280")) as (_, https):
            _, found = hints(https)
            found.ask(host, 8443)
            await settled(found)
            assert found.knows(host, 8443) in (NOTHING, ACCORD)

    run(work())


def test_a_hint_is_for_its_time_to_live_within_bounds_and_is_asked_for_once() -> None:
    async def work() -> None:
        for ttl, lasts in ((0, MIN_SECONDS), (300, 300.0), (2**31 - 1, MAX_SECONDS)):
            async with name_server(records("1 . key65280", ttl=ttl)) as (server, https):
                clock, found = hints(https)
                assert found.knows("Example.test.", 443) == NOTHING
                found.ask("Example.test.", 443)
                found.ask("example.test", 443)
                assert found.knows("example.test", 443) == NOTHING, "nobody waits"
                await settled(found)
                clock[0] = lasts - 1
                found.ask("example.test", 443)
                assert found.knows("example.TEST", 443) == ACCORD
                assert len(server.asked) == 1
                clock[0] = lasts
                assert found.knows("example.test", 443) == NOTHING
                found.ask("example.test", 443)
                await settled(found)
                assert len(server.asked) == 2

    run(work())


def test_the_number_of_answers_and_of_questions_at_once_is_bounded() -> None:
    async def work() -> None:
        waiting: list[str] = []

        async def never(host: str, port: int) -> tuple[Hint, float]:
            waiting.append(host)
            await asyncio.sleep(1000)
            raise AssertionError

        _, found = hints(never)
        for number in range(100):
            found.ask(f"{number}.test", 443)
        await asyncio.sleep(0)
        assert len(waiting) == 16
        found.close()

        async def at_once(host: str, port: int) -> tuple[Hint, float]:
            return ACCORD, 1e9

        _, found = hints(at_once)
        for number in range(1100):
            found.ask(f"{number}.test", 443)
            while found._asking:
                await asyncio.sleep(0)
        assert found.knows("0.test", 443) == NOTHING
        assert found.knows("1099.test", 443) == ACCORD

    run(work())


def test_a_hint_makes_patient_and_takes_nothing_away() -> None:
    for known in (
        Knowledge(),
        Knowledge(option=False),
        Knowledge(no_syn=False),
        Knowledge(True, (6,)),
        Knowledge(True, (6,), answers_late=True),
        Knowledge(False, propose=False),
    ):
        for hint in (NOTHING, QUIC, ACCORD):
            found = advised(known, hint)
            assert (found.propose, found.option, found.no_syn) == (known.propose, known.option, known.no_syn)
            assert found.answers_late >= known.answers_late
    assert advised(Knowledge(), ACCORD).answers_late
    assert not advised(Knowledge(), QUIC).answers_late
    assert not advised(Knowledge(False, propose=False), ACCORD).answers_late, "what was seen counts more"


def test_a_wrong_hint_costs_one_wait_and_the_plain_connection_all_the_same(tmp_path: Path) -> None:
    async def work() -> None:
        async with name_server(records("1 . key65280")) as (server, https), world(tmp_path, silent=True) as both:
            found = both.client.hints = DnsHints(lambda: 0.0, https)
            seen = []
            for _ in range(3):
                association = await both.client.connect("localhost", both.port, security=both.security, family=4)
                assert not association.report.negotiated
                assert association.report.stack == ["tls", "tcp"]
                seen.append(Learnt.WAITED_IN_VAIN.value in association.report.remembered)
                association.carrier.abort()
                await settled(found)
            assert seen.count(True) == 1, "by the first, if the name server was as quick as the host's own resolver"
            assert len(server.asked) == 1

    run(work())


def test_a_name_server_that_says_nothing_is_not_waited_for(tmp_path: Path) -> None:
    async def work() -> None:
        async with name_server(lambda query: None) as (_, https), world(tmp_path, silent=True) as both:
            found = both.client.hints = DnsHints(lambda: 0.0, https)
            association = await both.client.connect("localhost", both.port, security=both.security, family=4)
            assert found._asking, "the question is still open when the connection is"
            association.carrier.abort()

    run(work())
