# SPDX-License-Identifier: Apache-2.0
"""A lab with a path, the processes of its hosts, and someone in it who makes connections."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from accord.controller.control import call, raise_failure
from accord.lab.hosts import SERVER_NAME, Hosts
from accord.lab.lab import Lab
from accord.lab.namespace import Namespace
from accord.wire.errors import AccordError, UserError

BENCH = Path(__file__).resolve().parent
ACCORD_PORT = 443
"""Of a server with a daemon: the ledger behind it, over whatever stack is negotiated, or plain TLS."""
BARE_PORT = 80
"""The same with ``secure = "no"``."""
LEGACY_PORT = 8443
"""The ledger as a plain TLS server, of which no daemon knows."""
LEGACY_BARE_PORT = 8080
_SERVICE_PORT = 7000
EARLY_WINDOW_S = 2
"""A sealed request is served within it, and not in the first one of a daemon."""


class Worker:
    """``bench/_contact.py`` or another program that answers JSON lines by JSON lines, in a namespace."""

    def __init__(self, where: Namespace, log: Path, *argv: str, path: str) -> None:
        """``path``: PYTHONPATH."""
        with log.open("ab") as errors:
            self.process = where.popen(
                [sys.executable, *argv],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                # Ctrl-C is for the bench, which then ends this.
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": path},
            )
        self._log = log

    def ask(self, order: object) -> dict[str, Any]:
        """One line there, one line back. Raises ``RuntimeError`` when the worker has ended."""
        self.tell(order)
        return self.read()

    def tell(self, order: object) -> None:
        """One line there."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(order).encode() + b"\n")
            self.process.stdin.flush()

    def read(self) -> dict[str, Any]:
        """The next line. Raises ``RuntimeError`` when the worker has ended."""
        assert self.process.stdout is not None
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{' '.join(map(str, self.process.args))[:200]}:\n{self._log.read_text()[-2000:]}")  # type: ignore[arg-type]
        found: dict[str, Any] = json.loads(answer)
        return found

    def wait_ready(self) -> None:
        """Until it has said so."""
        assert self.process.stdout is not None
        if self.process.stdout.readline().strip() != b"ready":
            raise RuntimeError(self._log.read_text()[-2000:])

    def close(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


_PATHS = (str(BENCH), str(BENCH.parent / "ctrl"), *filter(None, [os.environ.get("PYTHONPATH")]))


class Site:
    """Server and client(s) of a lab: a ledger behind TLS without Accord; daemons where asked for.

    Processes end with it, or with the lab at the latest.
    """

    def __init__(
        self,
        lab: Lab,
        directory: Path,
        attach: str = "auto",
        policy: str = "",
        plugins: Path | None = None,
        *,
        ipv6: bool = False,
    ) -> None:
        """``plugins``: where its processes find packages with more protocols. ``ipv6``: connections to the server are
        over that, else over IPv4."""
        self.lab = lab
        self.address = lab.server.address6 if ipv6 else lab.server.address4
        self.directory = directory
        self.hosts = Hosts(lab, directory)
        self._attach = attach
        self._path = os.pathsep.join([*([str(plugins)] if plugins else []), *_PATHS])
        self._plugins = plugins
        self._policy = policy
        self._stack = contextlib.ExitStack()
        self._stack.callback(self.hosts.close)
        tls = {"certificate": str(self.hosts.certificate), "key": str(self.hosts.key)}
        address = self.address
        spec = [
            {"address": "127.0.0.1", "port": _SERVICE_PORT},
            {"address": address, "port": LEGACY_BARE_PORT},
            {"address": address, "port": LEGACY_PORT, **tls},
        ]
        self.ledger = self.worker(lab.server, "_ledger.py", json.dumps(spec))
        self.ledger.wait_ready()

    def worker(self, where: Namespace, script: str, *arguments: str) -> Worker:
        """A script of this folder, in a namespace."""
        made = Worker(where, self.directory / "workers.log", str(BENCH / script), *arguments, path=self._path)
        self._stack.callback(made.close)
        return made

    def daemon(self, host: Namespace) -> subprocess.Popen[bytes]:
        """Start a host's daemon; the server's exposes the ledger, with and without the need for security."""
        path = self.directory / f"{host.name}.toml"
        text = f'[daemon]\ninterface = "{host.interface}"\nattach = "{self._attach}"\n'
        text += f'control = "{self.hosts.control(host)}"\n{self._policy}\n'
        if host.name == self.lab.server.name:
            text += f"[keys]\nearly_window_s = {EARLY_WINDOW_S}\n"
            for port, secure in ((ACCORD_PORT, "preferred"), (BARE_PORT, "no")):
                text += f'[[expose]]\nlisten = {port}\nto = "127.0.0.1:{_SERVICE_PORT}"\nsecure = "{secure}"\n'
                text += f'certificate = "{self.hosts.certificate}"\nkey = "{self.hosts.key}"\n'
        path.write_text(text)
        command = [sys.executable, "-m", "accord.cli.main", "daemon", "--config", str(path)]
        if self._plugins is not None:
            command = ["env", f"PYTHONPATH={self._path}", *command]
        return self.hosts.start(host, command, ready="daemon ready")

    def order(self, way: str, port: int, **more: Any) -> dict[str, Any]:
        """For ``_contact.py``: a connection to the server."""
        return {
            "way": way,
            "host": self.address,
            "port": port,
            "server_name": SERVER_NAME,
            "ca_file": str(self.hosts.ca),
            "control": str(self.hosts.control(self.lab.client)),
            "policy": {},
            **more,
        }

    def daemon_says(self, host: Namespace, **message: Any) -> dict[str, Any]:
        """What a daemon answers to a control message. Raises ``AccordError``."""

        async def ask() -> dict[str, Any]:
            channel = call(self.hosts.control(host))
            try:
                await channel.send(message)
                answer = await channel.receive()
            finally:
                channel.close()
            if answer is None:
                raise RuntimeError(f"the daemon of {host.name} is gone:\n{self.hosts.logs()[-3000:]}")
            raise_failure(answer[0])
            return answer[0]

        return asyncio.run(ask())

    def flush(self, host: Namespace) -> bool:
        """Make a host's daemon forget its peers; False when it has no memory of them."""
        try:
            self.daemon_says(host, op="flush_peers")
        except UserError:
            return False
        except AccordError as failure:
            raise RuntimeError(f"flushing: {failure}") from failure
        return True

    def close(self) -> None:
        """End what was started, last first."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
