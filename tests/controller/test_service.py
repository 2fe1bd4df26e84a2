# SPDX-License-Identifier: Apache-2.0
"""A service behind an exposed port that is not there: peers are told, nobody hangs, and its return is noticed."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from accord.controller import host, service
from accord.controller.service import LocalService
from accord.wire.constants import Reason
from accord.wire.errors import AccordError, PeerError
from tests.controller.pairs import pair, run


def held_port() -> tuple[socket.socket, tuple[str, int]]:
    """A TCP port on which nobody listens, and nobody else can."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.bind(("127.0.0.1", 0))
    return sock, sock.getsockname()


def test_a_peer_is_refused_by_name_while_the_service_is_not_there_and_served_when_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_ASK_SECONDS", 0.02)

    async def main() -> None:
        sock, target = held_port()
        async with pair(tmp_path, to=target) as both:
            first = await both.connect()
            with pytest.raises(AccordError) as ended:
                async with asyncio.timeout(3):
                    await first.carrier.read()
            assert ended.value.reason is Reason.STREAM_BROKEN, "the first to come pays for finding out"
            with pytest.raises(PeerError) as refused:
                await both.connect()
            assert refused.value.reason is Reason.BACKEND_FAILED
            assert both.server.counts.by_reason()["BACKEND_FAILED"] == 1

            sock.listen()
            sock.setblocking(False)
            async with asyncio.timeout(3):
                while both.exposed.failure is not None:
                    await asyncio.sleep(0.01)
            association = await both.connect()
            await association.carrier.write(b"question")
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(3):
                served = b""
                while not served:  # the connection that asked whether it is there carries nothing
                    connection, _ = await loop.sock_accept(sock)
                    served = await loop.sock_recv(connection, 100)
            assert served == b"question"
            connection.close()
        sock.close()

    run(main())


def test_whoever_exposes_a_service_that_is_not_there_is_told(tmp_path: Path) -> None:
    async def main() -> None:
        sock, target = held_port()
        async with pair(tmp_path, to=target) as both:
            assert both.exposed.service is not None
            failure = await both.exposed.service.check()
            assert failure is not None
            assert f"{target[0]}:{target[1]}" in str(failure)
            with pytest.raises(PeerError) as refused:
                await both.connect()
            assert refused.value.reason is Reason.BACKEND_FAILED
        sock.close()

    run(main())


def test_a_service_whose_name_nobody_knows_is_told_in_the_resolver_s_words() -> None:
    async def main() -> None:
        local = LocalService(("no name", 80))
        failure = await local.check()
        local.close()
        assert failure is not None
        assert "Unknown error" not in str(failure)
        with pytest.raises(socket.gaierror) as said:
            socket.getaddrinfo("no name", 80)
        assert said.value.strerror is not None
        assert said.value.strerror in str(failure)

    run(main())


def test_a_service_whose_queue_is_full_is_one_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "_OPEN_SECONDS", 0.2)

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
            waiting = []
            for _ in range(4):  # a queue of none holds one; what comes after it gets no answer
                sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
                sock.connect_ex(full.getsockname())
                waiting.append(sock)
            local = LocalService(full.getsockname())
            with pytest.raises(AccordError) as caught:
                await local.open()
            assert caught.value.reason is Reason.BACKEND_FAILED
            assert local.failure is caught.value
            local.close()
            for sock in waiting:
                sock.close()

    run(main())


def test_a_process_without_descriptors_goes_on_asking_and_does_not_blame_the_service(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(service, "_ASK_SECONDS", 0.01)

    async def main() -> None:
        sock, target = held_port()
        local = LocalService(target)
        assert await local.check() is not None
        sock.listen()

        async def no_descriptor(target: tuple[str, int]) -> None:
            raise OSError(24, "Too many open files")

        with monkeypatch.context() as exhausted:
            exhausted.setattr(service, "open_service", no_descriptor)
            with pytest.raises(AccordError) as caught:
                await local.open()
            assert caught.value.reason is Reason.CANNOT_INSTALL
            await asyncio.sleep(0.05)
            assert local.failure is not None
            assert local.failure.reason is Reason.BACKEND_FAILED
        async with asyncio.timeout(3):
            while local.failure is not None:
                await asyncio.sleep(0.01)
        local.close()
        sock.close()

    run(main())
