# SPDX-License-Identifier: Apache-2.0
"""The processes of a lab's two hosts: daemons, a plain service behind ``accord expose``, a stock TLS server."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accord.lab.lab import Lab
from accord.lab.namespace import Namespace
from accord.protocols.authority import issue, make_ca
from accord.wire.constants import Reason
from accord.wire.errors import error

SERVER_NAME = "server.accord.test"
"""The name that the server's certificate is for, beside its addresses."""
PORT = 443
"""Where the server exposes its service."""
TLS_PORT = 8443
"""Where a stock TLS server of the same host serves the same files."""
HTTP_PORT = 8080
"""The plain service, on the server's loopback."""

_ACCORD = (sys.executable, "-m", "accord.cli.main")
_START_SECONDS = 30


class Hosts:
    """Starts processes in a lab and ends them all. ``directory`` gets logs, certificates, sockets, captures.

    ``site`` is what the servers serve: file name to contents. Raises ``OurError`` with the process's own
    words when one does not start.
    """

    def __init__(
        self,
        lab: Lab,
        directory: Path,
        attach: str = "auto",
        back_end: str = "auto",
        site: Mapping[str, bytes] | None = None,
    ) -> None:
        self.lab = lab
        self.directory = directory
        self._data_path = ["--attach", attach, "--back-end", back_end]
        # The lab's network is known to pass connections without a SYN, which is what is counted here.
        self._config = directory / "lab.toml"
        self._config.write_text('[policy.default]\ntcp = "no-syn"\n')
        self._stack = contextlib.ExitStack()
        self._logs = 0
        self.ca = make_ca(directory).certificate
        server = issue(directory, [SERVER_NAME, lab.server.address4, lab.server.address6])
        self.certificate, self.key = server.certificate, server.private_key
        self.site = directory / "site"
        self.site.mkdir()
        for name, contents in (site or {}).items():
            (self.site / name).write_bytes(contents)

    def control(self, host: Namespace) -> Path:
        """Control socket of a host's daemon: the one that programs in that namespace look for."""
        return Path(host.environment["ACCORD_CONTROL"])

    def start(
        self, host: Namespace, argv: Sequence[str], *, ready: str | None = None, cwd: Path | None = None
    ) -> subprocess.Popen[bytes]:
        """A process in a namespace, its output in a log; waits for a line that contains ``ready``."""
        self._logs += 1
        log = self.directory / f"{self._logs}.log"
        with log.open("wb") as output:
            process = host.popen(list(argv), stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=cwd)
        self._stack.callback(_end, process)
        deadline = time.monotonic() + _START_SECONDS
        while ready is not None and ready not in log.read_text(errors="replace"):
            if process.poll() is not None or time.monotonic() > deadline:
                raise error(Reason.BACKEND_FAILED, f"{' '.join(argv[:5])} did not start:\n{log.read_text()}")
            time.sleep(0.02)
        return process

    def daemon(self, host: Namespace, *more: str) -> subprocess.Popen[bytes]:
        """``accord daemon`` on a host, attached to its interface."""
        command = [*_ACCORD, "daemon", "--config", str(self._config), "--iface", host.interface]
        command += ["--control", str(self.control(host))]
        return self.start(host, [*command, *self._data_path, *more], ready="daemon ready")

    def serve_plain(self) -> None:
        """A stock HTTP server on the server's loopback: what is exposed."""
        command = ["busybox", "httpd", "-f", "-p", f"127.0.0.1:{HTTP_PORT}", "-h", str(self.site)]
        self.start(self.lab.server, command)

    def serve_tls(self) -> subprocess.Popen[bytes]:
        """A stock TLS 1.3 server with the same files and certificate."""
        command = ["openssl", "s_server", "-accept", str(TLS_PORT), "-tls1_3", "-WWW"]
        command += ["-cert", str(self.certificate), "-cert_chain", str(self.certificate), "-key", str(self.key)]
        return self.start(self.lab.server, command, ready="ACCEPT", cwd=self.site)

    def expose(self, *more: str) -> subprocess.Popen[bytes]:
        """``accord expose`` on the server, early requests allowed."""
        command = [*_ACCORD, "expose", "--listen", str(PORT), "--to", f"127.0.0.1:{HTTP_PORT}"]
        command += ["--certificate", str(self.certificate), "--private-key", str(self.key), "--early-limit", "4096"]
        command += ["--secure", "preferred"]
        command += ["--control", str(self.control(self.lab.server)), *more]
        return self.start(self.lab.server, command, ready="exposed")

    def connect(self, *arguments: str, stdin: bytes = b"", timeout: float = 60) -> subprocess.CompletedProcess[bytes]:
        """``accord connect`` on the client, with the lab's roots; not checked."""
        command = [*_ACCORD, "connect", "--control", str(self.control(self.lab.client)), "--ca", str(self.ca)]
        return self.lab.client.run([*command, *arguments], input=stdin, capture_output=True, timeout=timeout)

    def status(self, host: Namespace) -> dict[str, Any]:
        """``accord status --json`` of a host's daemon."""
        command = [*_ACCORD, "status", "--json", "--control", str(self.control(host))]
        result: dict[str, Any] = json.loads(host.run(command, check=True, capture_output=True, text=True).stdout)
        return result

    def logs(self) -> str:
        """Everything that the processes have said, for error messages."""
        logs = sorted(self.directory.glob("*.log"))
        return "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')}" for log in logs)

    def close(self) -> None:
        """End what was started, last first."""
        self._stack.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
