# SPDX-License-Identifier: Apache-2.0
"""The packaged unit of systemd on the server: start, reload, hang, crash, live upgrade, stop; and a reboot."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from accord.lab.hosts import PORT
from vagrant.host_cases import Columns, Findings, page, tls_over_tcp
from vagrant.machines import (
    CLIENT_HOST,
    PATIENCE,
    SERVER_HOST,
    WORK,
    Failed,
    start_daemon,
    start_server,
)

ROOT: Final = Path(__file__).resolve().parent.parent

SERVICE: Final = f"""[daemon]
interface = "eth1"

[tls]
certificate = "{WORK}/server.pem"
key = "{WORK}/server.key"

[[expose]]
listen = {PORT}
to = "127.0.0.1:8080"
early_limit = 4096
secure = "preferred"
"""


def _install() -> None:
    """The unit, its configuration and certificates on the server; a daemon on the client."""
    SERVER_HOST.stop("vm-expose", "vm-daemon", "vm-carry")
    start_daemon(CLIENT_HOST)
    unit = (ROOT / "packaging/accord.service").read_bytes()
    SERVER_HOST.run("cat > /etc/systemd/system/accord.service; systemctl daemon-reload", stdin=unit)
    # Certificates where a service without access to /home and to others' /tmp can read them.
    SERVER_HOST.run(f"mkdir -p /etc/accord; cp {WORK}/server.pem {WORK}/server.key /etc/accord/")
    text = SERVICE.replace(WORK, "/etc/accord")
    SERVER_HOST.run("cat > /etc/accord/accord.toml", stdin=text.encode())
    # The tree that it runs from is in a home directory, which the unit hides.
    home = "[Service]\nProtectHome=read-only\n"
    drop_in = "/etc/systemd/system/accord.service.d"
    command = f"mkdir -p {drop_in}; cat > {drop_in}/tree.conf; systemctl daemon-reload"
    SERVER_HOST.run(command, stdin=home.encode())


def service(findings: Findings) -> Columns:
    """The unit that is packaged: start, reload, hang, crash, live upgrade, stop."""
    _install()
    steps = []
    try:
        SERVER_HOST.run("systemctl start accord", timeout=180)
        steps.append(_serves("start"))
        SERVER_HOST.run("systemctl reload accord")
        steps.append(_serves("reload"))
        for what, signal in (("hang", "STOP"), ("crash", "KILL")):
            before = SERVER_HOST.status()["pid"]
            SERVER_HOST.run(f"kill -{signal} {before}")
            _wait(lambda before=before: SERVER_HOST.status()["pid"] != before, f"another daemon after {what}")  # type: ignore[misc]
            steps.append(_serves(what))
        before = SERVER_HOST.status()["pid"]
        SERVER_HOST.run("systemctl kill --signal=USR2 --kill-whom=main accord")
        _wait(lambda: SERVER_HOST.status()["pid"] != before, "another daemon after the upgrade")
        steps.append(_serves("upgrade"))
        SERVER_HOST.run("systemctl stop accord", timeout=60)
        if SERVER_HOST.run("ip -d link show dev eth1 | grep -c prog/xdp || true").strip() != "0":
            raise Failed("the XDP program stayed after the stop")
        steps.append("stop")
    except Failed as failure:
        raise Failed(f"after {', '.join(steps) or 'nothing'}: {failure}; {SERVER_HOST.log('accord', 15)}") from failure
    return {"steps": steps}


def reboot(findings: Findings) -> Columns:
    """The service comes back with its host, and serves, without a hand's help but the routes of this test."""
    _install()
    SERVER_HOST.run("systemctl enable accord")
    before = SERVER_HOST.run("cat /proc/sys/kernel/random/boot_id")
    network = (ROOT / "vagrant/network.sh").read_bytes()
    with contextlib.suppress(Failed):
        SERVER_HOST.run("systemctl reboot", timeout=20)
    try:
        _wait(lambda: SERVER_HOST.run("cat /proc/sys/kernel/random/boot_id", timeout=20) != before, "a reboot", 300)
        SERVER_HOST.run("sh -s server", stdin=network)
        SERVER_HOST.run(f"mkdir -p {WORK}/site")
        start_server()
        _wait(lambda: bool(SERVER_HOST.status()["pid"]), "the daemon")
        # The certificate in /etc is of the authority from before: the client is given that one's again.
        SERVER_HOST.run(f"cp {WORK}/server.pem {WORK}/server.key /etc/accord/ && systemctl reload-or-restart accord")
        _wait(lambda: bool(SERVER_HOST.status()["pid"]), "the daemon")
        return {"steps": [_serves("reboot")]}
    finally:
        SERVER_HOST.run("systemctl disable --now accord; rm -rf /etc/systemd/system/accord.service* /etc/accord; "
                        "systemctl daemon-reload", timeout=60)  # fmt: skip


def _serves(step: str) -> str:
    """A connection is negotiated with the service, as it is now; ``step`` again."""
    last = Failed("never tried")
    deadline = time.monotonic() + 30 * PATIENCE
    while time.monotonic() < deadline:
        try:
            tls_over_tcp(page({"secure": "required", "prefer": ["tls/tcp"], "tcp": "no-syn", "fallback": "never"}))
            return step
        except Failed as failure:
            last = failure
            time.sleep(0.5)
    raise Failed(f"{step}: {last}")


def _wait(until: Callable[[], bool], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds * PATIENCE
    while time.monotonic() < deadline:
        with contextlib.suppress(Failed, json.JSONDecodeError):
            if until():
                return
        time.sleep(0.5)
    raise Failed(f"waited {seconds * PATIENCE:g} s for {what}")


CASES: Final[dict[str, Callable[[Findings], Columns]]] = {"service": service, "reboot": reboot}
