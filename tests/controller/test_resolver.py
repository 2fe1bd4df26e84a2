# SPDX-License-Identifier: Apache-2.0
"""Names to addresses; a name server that is silent holds up nobody's end."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys

import pytest

from accord.controller.resolver import resolve

SILENT = """
import asyncio, socket, threading

socket.getaddrinfo = lambda *arguments, **options: threading.Event().wait()
from accord.controller.resolver import resolve

async def main():
    try:
        await asyncio.wait_for(resolve("example.net", 443, 0), 0.1)
    except TimeoutError:
        print("given up", flush=True)

asyncio.run(main())
"""


def test_addresses_come_in_the_resolver_s_order() -> None:
    expected = [entry[4] for entry in socket.getaddrinfo("localhost", 443, type=socket.SOCK_STREAM)]
    assert asyncio.run(resolve("localhost", 443, 0)) == expected


@pytest.mark.parametrize(("name", "failure"), [("x" * 64 + ".example", UnicodeError), ("127.0.0.1", socket.gaierror)])
def test_what_is_no_name_is_told_to_whoever_asked(name: str, failure: type[Exception]) -> None:
    with pytest.raises(failure):
        asyncio.run(resolve(name, 443, socket.AF_INET6 if failure is socket.gaierror else 0))


def test_a_process_ends_while_a_name_server_is_silent() -> None:
    done = subprocess.run([sys.executable, "-c", SILENT], capture_output=True, text=True, timeout=20)
    assert done.stdout == "given up\n", done.stderr
    assert done.returncode == 0
