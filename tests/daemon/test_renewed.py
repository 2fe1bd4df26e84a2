# SPDX-License-Identifier: Apache-2.0
"""A certificate is renewed under a port that stays exposed: by the program that listens, and by ``accord expose``."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography import x509

import accord
from accord.controller.control import Channel
from accord.controller.held import opened
from accord.daemon import operations
from accord.daemon.operations import Operations
from accord.lab.deployment import NAME, Deployment
from accord.protocols.authority import Files, issue
from accord.wire.constants import Reason
from accord.wire.errors import AccordError
from tests.controller.pairs import Pair, free_port, pair, run
from tests.failopen.conftest import deployed

LISTEN = 7002


def put(new: Files, place: Files) -> None:
    """As a renewal does it: another file under the name of the old one."""
    for source, target in ((new.certificate, place.certificate), (new.private_key, place.private_key)):
        shutil.copy(source, f"{target}.new")
        os.replace(f"{target}.new", target)


def serial(path: Path) -> int:
    return x509.load_pem_x509_certificate(path.read_bytes()).serial_number


def shown(both: Deployment) -> int:
    """The serial number that a client without Accord is shown, as OpenSSL's binding in the standard library has it."""
    context = ssl.create_default_context(cafile=both.ca)
    with (
        both.client.call(socket.create_connection, (both.server.address4, LISTEN), 20) as bare,
        context.wrap_socket(bare, server_hostname=NAME) as secured,
    ):
        found = secured.getpeercert(binary_form=True)
    assert found is not None
    return x509.load_der_x509_certificate(found).serial_number


@pytest.mark.root
def test_a_certificate_that_expose_was_given_is_renewed_where_it_lies(tmp_path: Path) -> None:
    with deployed(tmp_path) as both:
        place, others = issue(tmp_path, [NAME], stem="place"), [issue(tmp_path, [NAME], stem=f"new{i}") for i in (1, 2)]
        first, service = serial(place.certificate), "{}:{}".format(*both._service.getsockname())
        command = [sys.executable, "-um", "accord.cli.main", "expose", "--listen", str(LISTEN), "--to", service]
        command += ["--certificate", str(place.certificate), "--private-key", str(place.private_key)]
        command += ["--control", str(both.control(both.server))]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        expose = both.server.popen(command, **pipes)
        assert expose.stdout is not None
        assert expose.stdout.readline().startswith("exposed")
        assert shown(both) == first

        shutil.copy(others[0].certificate, place.certificate)  # and not its key
        expose.send_signal(signal.SIGHUP)
        assert "is not renewed" in expose.stdout.readline()
        assert shown(both) == first
        for new in others:
            put(new, place)
            expose.send_signal(signal.SIGHUP)
            assert expose.stdout.readline().startswith(f"renewed: port {LISTEN}")
            assert shown(both) == serial(new.certificate)


@pytest.mark.root
def test_a_program_renews_its_listener_also_when_another_daemon_has_taken_over(tmp_path: Path) -> None:
    with deployed(tmp_path) as both:
        place, new = issue(tmp_path, [NAME], stem="place"), issue(tmp_path, [NAME], stem="new")

        async def use() -> None:
            control = both.control(both.server)
            async with accord.listen(
                LISTEN, certificate=place.certificate, private_key=place.private_key, control=control
            ) as listener:
                pid = both.wait_for(both.server)["pid"]
                both.launch(both.server, "--takeover")
                while (status := await asyncio.to_thread(both.status, both.server)) is None or status["pid"] == pid:
                    await asyncio.sleep(0.01)
                put(new, place)
                await listener.renew()
                assert await asyncio.to_thread(shown, both) == serial(new.certificate)

        asyncio.run(use())


@contextlib.asynccontextmanager
async def exposing(directory: Path) -> AsyncIterator[tuple[Pair, Operations, int]]:
    """A data path on loopback, and a port of it that a program listens on."""
    async with pair(directory) as both:
        ours, theirs = (Channel(end) for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        carrying_out, port = Operations(both.server), free_port()
        named = {"certificate": str(directory / "server.pem"), "private_key": str(directory / "server.key")}
        with opened(named.values()) as files:
            passed = [os.dup(file) for file in files]  # as the kernel does
        request = {"op": "listen", "port": port, "plain": False, **named}
        serving = asyncio.create_task(carrying_out.handle(request, ours, passed))
        assert (await theirs.receive() or ({}, []))[0]["ok"]
        yield both, carrying_out, port
        serving.cancel()
        await asyncio.wait({serving})
        for end in (ours, theirs):
            end.close()


async def renew(carrying_out: Operations, port: int, files: list[Path]) -> None:
    ours, theirs = (Channel(end) for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    with opened(files) as descriptors:
        passed = [os.dup(descriptor) for descriptor in descriptors]
    named = dict(zip(("certificate", "private_key"), map(str, files), strict=False))
    try:
        await carrying_out.handle({"op": "renew", "port": port, **named}, ours, passed)
    finally:
        ours.close()
        theirs.close()


def test_what_cannot_be_shown_or_is_not_ones_own_to_change_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with exposing(tmp_path) as (both, carrying_out, port):
            new = issue(tmp_path, [NAME], stem="new")
            good, before = [new.certificate, new.private_key], both.server.exposed[port].security
            for where, files in (
                (port, [new.certificate, tmp_path / "server.key"]),
                (port, [new.private_key, new.certificate]),
                (port, [new.certificate]),
                (port, []),
                (both.exposed.port, good),  # exposed, but by no program
                (9, good),
            ):
                with pytest.raises(AccordError) as refused:
                    await renew(carrying_out, where, files)
                assert refused.value.reason is Reason.BAD_CONFIG
            users = iter([1001, 1000])
            with monkeypatch.context() as patch:
                patch.setattr(operations, "peer_credentials", lambda _: (1, next(users), 1))
                with pytest.raises(AccordError, match="another user's"):
                    await renew(carrying_out, port, good)
            assert both.server.exposed[port].security is before
            await renew(carrying_out, port, good)
            assert str(both.server.exposed[port].certificate) == str(new.certificate)

    run(main())
