# SPDX-License-Identifier: Apache-2.0
"""Programs of others on a UDP port: ``python udp_programs.py quic|stun|dtls serve|ask ADDRESS PORT [CHAIN [KEY]]``.

QUIC by aioquic, an echo; STUN by scapy's reading of RFC 8489, a binding request and its answer; DTLS by openssl, a
handshake with a certificate that is verified. Who asks prints "abc" when all is as it should be.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys

from aioquic.asyncio import connect, serve
from aioquic.quic.configuration import QuicConfiguration
from scapy.contrib.stun import STUN

from accord.lab.hosts import SERVER_NAME

_ALPN = "echo"
_BINDING_REQUEST, _BINDING_RESPONSE = 0x0001, 0x0101


async def serve_quic(address: str, port: int, chain: str, key: str) -> None:
    """Says on each stream what it heard on it."""
    configuration = QuicConfiguration(is_client=False, alpn_protocols=[_ALPN])
    configuration.load_cert_chain(chain, key)
    streams: set[asyncio.Task[None]] = set()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read())
        writer.write_eof()

    def opened(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        streams.add(asyncio.ensure_future(echo(reader, writer)))

    await serve(address, port, configuration=configuration, stream_handler=opened)
    print("ready", flush=True)
    await asyncio.Event().wait()


async def ask_quic(address: str, port: int, roots: str) -> None:
    """Prints what comes back of "abc"."""
    configuration = QuicConfiguration(alpn_protocols=[_ALPN], server_name=SERVER_NAME)
    configuration.load_verify_locations(roots)
    async with connect(address, port, configuration=configuration) as client:
        reader, writer = await client.create_stream()
        writer.write(b"abc")
        writer.write_eof()
        print((await reader.read()).decode())


def serve_stun(address: str, port: int) -> None:
    """Answers binding requests."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((address, port))
    print("ready", flush=True)
    while True:
        data, peer = sock.recvfrom(2000)
        request = STUN(data)
        assert request.stun_message_type == _BINDING_REQUEST, "whatever is no STUN should not have come"
        sock.sendto(bytes(STUN(stun_message_type=_BINDING_RESPONSE, transaction_id=request.transaction_id)), peer)


def ask_stun(address: str, port: int) -> None:
    """Prints "abc" when the answer is one to the request."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(5)
    request = STUN(stun_message_type=_BINDING_REQUEST, transaction_id=0xABC)
    sock.sendto(bytes(request), (address, port))
    answer = STUN(sock.recv(2000))
    assert (answer.stun_message_type, answer.transaction_id) == (_BINDING_RESPONSE, 0xABC)
    print("abc")


def serve_dtls(address: str, port: int, chain: str, key: str) -> None:
    """``openssl s_server``, which ends with its standard input: it gets one that does not end."""
    read_end, write_end = os.pipe()
    os.set_inheritable(write_end, True)
    os.dup2(read_end, 0)
    print("ready", flush=True)
    where = f"{address}:{port}"
    os.execvp("openssl", ["openssl", "s_server", "-dtls", "-accept", where, "-cert", chain, "-key", key])


def ask_dtls(address: str, port: int, roots: str) -> None:
    """A handshake and its end. Prints "abc" when the server's certificate is good."""
    command = ["openssl", "s_client", "-dtls", "-brief", "-connect", f"{address}:{port}", "-CAfile", roots]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=15)
    assert "Verification: OK" in done.stderr, done.stderr
    print("abc")


def main(kind: str, what: str, address: str, port: str, *files: str) -> None:
    """See the module's docstring."""
    if kind == "quic":
        asyncio.run((serve_quic if what == "serve" else ask_quic)(address, int(port), *files))
    elif kind == "dtls":
        (serve_dtls if what == "serve" else ask_dtls)(address, int(port), *files)
    else:
        (serve_stun if what == "serve" else ask_stun)(address, int(port))


if __name__ == "__main__":
    main(*sys.argv[1:])
