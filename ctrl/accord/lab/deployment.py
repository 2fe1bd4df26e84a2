# SPDX-License-Identifier: Apache-2.0
"""Daemons on the two hosts of a ``pair``, an echo service that the server exposes, and a bystander's traffic."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import accord
from accord.controller.control import MAX_MESSAGE
from accord.lab.pair import PairHost
from accord.protocols.authority import issue, make_ca
from accord.wire.constants import Packet

NAME = "server.accord.test"
PORT = 443
BARE_PORT = 80
"""The same service for peers that want TCP and nothing else."""
_COMPLAINT = re.compile(r"^[\d-]+ [\d:,]+ (WARNING|ERROR|CRITICAL) ")
_START_SECONDS = 30
_STEP_SECONDS = 0.001
_LOOK_SECONDS = 0.5
"""Until the echo service sees that it has been closed."""


class Deployment:
    """``directory`` gets certificates, configurations, control sockets and logs. Processes end with the pair."""

    def __init__(self, client: PairHost, server: PairHost, directory: Path) -> None:
        self.client, self.server = client, server
        self._directory = directory
        self.ca = make_ca(directory).certificate
        self.identity = issue(directory, [NAME, server.address4, server.address6])
        # Connections come faster than one thread of a busy process accepts them.
        self._service = server.call(partial(socket.create_server, ("127.0.0.1", 0), backlog=1024))
        threading.Thread(target=_echo, args=(self._service,), daemon=True).start()

    def close(self) -> None:
        """End the echo service."""
        self._service.close()

    # ---- daemons ----

    def control(self, host: PairHost) -> Path:
        """Control socket of a host's daemon."""
        return self._directory / f"{host.name}.sock"

    def configuration(self, host: PairHost, more: str = "") -> Path:
        """A configuration file: the server's exposes the echo service. ``more``: lines of [daemon]."""
        path = self._directory / f"{host.name}.toml"
        text = f'[daemon]\ninterface = "{host.interface}"\ncontrol = "{self.control(host)}"\n{more}\n'
        text += '[policy.default]\ntcp = "no-syn"\n'
        if host is self.server:
            address, port = self._service.getsockname()
            for listen, secure in ((PORT, "required"), (BARE_PORT, "no")):
                text += f'[[expose]]\nlisten = {listen}\nto = "{address}:{port}"\nsecure = "{secure}"\n'
                text += f'certificate = "{self.identity.certificate}"\nkey = "{self.identity.private_key}"\n'
        path.write_text(text)
        return path

    def launch(self, host: PairHost, *options: str, more: str = "", **popen: Any) -> subprocess.Popen[bytes]:
        """Start a daemon; do not wait for it."""
        command = [sys.executable, "-m", "accord.cli.main", "daemon", "--config", str(self.configuration(host, more))]
        with (self._directory / f"{host.name}.log").open("ab") as log:
            return host.popen([*command, *options], stdin=subprocess.DEVNULL, stdout=log, stderr=log, **popen)

    def daemon(self, host: PairHost, *options: str, more: str = "", **popen: Any) -> subprocess.Popen[bytes]:
        """Start a daemon and wait until it serves. Raises ``RuntimeError`` with its log when it does not."""
        process = self.launch(host, *options, more=more, **popen)
        deadline = time.monotonic() + _START_SECONDS
        while self.status(host) is None:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the daemon of the {host.name} did not start:\n{self.log(host)}")
            time.sleep(0.01)
        return process

    def status(self, host: PairHost) -> dict[str, Any] | None:
        """What ``accord status --json`` says; None when nobody answers. Cheap: it is asked while we measure."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.settimeout(_START_SECONDS)
            try:
                sock.connect(os.fspath(self.control(host)))
                sock.send(b'{"op":"status"}')
                answer = sock.recv(MAX_MESSAGE)
            except OSError:
                return None
        return json.loads(answer) if answer else None

    def wait_for(self, host: PairHost, seconds: float = 20, **wanted: Any) -> dict[str, Any]:
        """The first status that has these values. Raises ``AssertionError`` when none comes."""
        deadline = time.monotonic() + seconds
        while True:
            status = self.status(host)
            if status is not None and all(status.get(name) == value for name, value in wanted.items()):
                return status
            assert time.monotonic() < deadline, f"{wanted} never came, but {status}\n{self.log(host)}"
            time.sleep(0.01)

    def log(self, host: PairHost) -> str:
        """What a host's daemons have said."""
        path = self._directory / f"{host.name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def complaints(self, host: PairHost, most: int = 50) -> list[str]:
        """The last lines of a host's log that are warnings or worse: what somebody there could mend."""
        lines = [line for line in self.log(host).splitlines() if _COMPLAINT.search(line)]
        return lines[-most:]

    # ---- traffic ----

    def connect(self, family: int = 4, port: int = PORT, **policy: Any) -> accord.connect:
        """To the server by the client's daemon, negotiated or not at all; further keys of the policy."""
        address = f"[{self.server.address6}]" if family == 6 else self.server.address4
        wanted = {"fallback": "never", **policy}
        return accord.connect(f"{address}:{port}", wanted, ca_file=self.ca, control=self.control(self.client))

    async def negotiate(self, text: bytes = b"ping", family: int = 4) -> list[str]:
        """One negotiated connection and an echo over it; the stack. Raises ``AccordError``."""
        async with self.connect(family) as association:
            await association.write(text)
            if (echo := await association.read()) != text:
                raise RuntimeError(f"{text!r} came back as {echo!r}")
            return list(association.stack)

    @contextlib.contextmanager
    def bystander(self, **popen: Any) -> Iterator[dict[str, int]]:
        """Others' traffic while the block runs; what it suffered is in the dictionary afterwards. ``popen``: as of
        ``subprocess.Popen``."""
        script = [sys.executable, "-I", "-S", str(Path(__file__).with_name("bystander.py"))]
        # Of their own session: a Ctrl-C is for whoever measures, and they end with their input.
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        pipes = {"start_new_session": True, **pipes, **popen}
        serving = self.server.popen([*script, "serve", self.server.address4], **pipes)
        assert serving.stdout is not None
        udp_port, tcp_port = serving.stdout.readline().split()
        asking = self.client.popen([*script, "ask", self.server.address4, udp_port, tcp_port], **pipes)
        assert asking.stdout is not None
        if asking.stdout.readline().strip() != "running":
            raise RuntimeError("the bystander's connection did not come up")
        result: dict[str, int] = {}
        try:
            yield result
        finally:
            answer, _ = asking.communicate(timeout=20)
            result.update(json.loads(answer))
            serving.communicate(timeout=10)


def _echo(listener: socket.socket) -> None:
    """Whatever comes in goes back, until the listener is closed. One thread for all connections; whoever sends faster
    than it reads gets one of its own."""

    def serve(client: socket.socket, rest: bytes) -> None:
        with client, contextlib.suppress(OSError):
            client.settimeout(None)
            client.sendall(rest)
            while data := client.recv(65536):
                client.sendall(data)

    def answer(client: socket.socket) -> None:
        data, sent = b"", 0
        with contextlib.suppress(OSError):
            data = client.recv(65536)
            sent = client.send(data)
        if data and sent == len(data):
            return
        poll.unregister(client)
        del clients[client.fileno()]
        if data:
            threading.Thread(target=serve, args=(client, data[sent:]), daemon=True).start()
        else:
            client.close()

    clients: dict[int, socket.socket] = {}
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    with contextlib.suppress(OSError, ValueError):  # of the closed listener
        while True:
            for fd, _ in poll.poll(_LOOK_SECONDS):
                if fd in clients:
                    answer(clients[fd])
                    continue
                client, _ = listener.accept()
                client.setblocking(False)
                clients[client.fileno()] = client
                poll.register(client, select.EPOLLIN)
            if listener.fileno() < 0:
                break
    for client in clients.values():
        client.close()


# Version 4, step 7, no flags, the magic cookie, a transaction that nobody has (docs/PROTOCOL.md, packet header).
_PACKET = bytes([4, 7, 0, 0]) + Packet.MAGIC.to_bytes(4, "big") + bytes(20)


class SteeredProbe:
    """Negotiation packets to a port that a program of others has, while the daemon steers every port (``any_port``).

    As long as the XDP program redirects them they are the daemon's; as soon as it passes them they arrive here. What
    arrives in neither place is lost: that is the black hole that is measured. The packets are well-formed headers of
    transactions that nobody has.
    """

    def __init__(self, client: PairHost, server: PairHost) -> None:
        self._sink = server.call(_udp, server.address4)
        self._source = client.call(_udp, client.address4)
        self._source.connect(self._sink.getsockname())
        self._sent: list[float] = []

    def close(self) -> None:
        """End."""
        self._sink.close()
        self._source.close()

    def until_passed(self, act: Any, limit: float = 5.0) -> float:
        """Call ``act``, then send every millisecond; seconds from there until the first packet left that the kernel
        delivered. Raises ``AssertionError`` when none was within ``limit``."""
        while True:
            try:
                self._sink.recv(64)
            except BlockingIOError:
                break
        self._sent.clear()
        start = time.monotonic()
        act()
        while True:
            now = time.monotonic()
            self._source.send(_PACKET + len(self._sent).to_bytes(4, "big"))
            self._sent.append(now)
            time.sleep(_STEP_SECONDS)
            with contextlib.suppress(BlockingIOError):
                number = int.from_bytes(self._sink.recv(64)[-4:], "big")
                return self._sent[number] - start
            assert now < start + limit, f"nothing was passed to the kernel for {limit} s"


def _udp(address: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    sock.bind((address, 0))
    return sock


def kill(pid: int) -> None:
    """As the out-of-memory killer does it."""
    os.kill(pid, signal.SIGKILL)
