# SPDX-License-Identifier: Apache-2.0
"""What this process may do: its own account for ``accord status``, as the kernel has it (proc(5))."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from accord.datapath import privilege
from accord.datapath.privilege import Ask
from accord.wire.errors import AccordError

_CAPABILITIES = ("CapPrm", "CapEff", "CapBnd", "CapAmb", "CapInh")


def standing() -> dict[str, Any]:
    """``split`` is false for one process with all privileges; sets are hexadecimal; ``seccomp`` 2: filtered."""
    lines = (line.partition(":") for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines())
    fields = {name: value.strip() for name, _, value in lines}
    found: dict[str, Any] = {
        "split": privilege.asks(),
        "user": int(fields["Uid"].split()[0]),
        "capabilities": {name: fields[name] for name in _CAPABILITIES if name in fields},
        "no_new_privs": fields.get("NoNewPrivs") == "1",
        "seccomp": int(fields.get("Seccomp", "0")),
    }
    if privilege.asks():
        try:
            counts = privilege.ask(Ask.COUNTS)[0].split()
        except AccordError as gone:
            found["broker"] = str(gone)
        else:
            found |= zip(("broker_pid", "broker_asked", "broker_refused"), map(int, counts), strict=True)
    return found
