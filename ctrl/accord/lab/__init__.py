# SPDX-License-Identifier: Apache-2.0
"""Two hosts and the link between them, as network namespaces of this machine.

``Lab`` and what goes with it are loaded at first use, so that its small helper processes start quickly.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from accord.lab.forwarder import Counters as Counters
    from accord.lab.lab import Lab as Lab
    from accord.lab.lab import Rtt as Rtt
    from accord.lab.namespace import Namespace as Namespace
    from accord.lab.settings import Direction as Direction
    from accord.lab.settings import LinkSettings as LinkSettings

_HOME = {
    "Counters": "accord.lab.forwarder",
    "Direction": "accord.lab.settings",
    "Lab": "accord.lab.lab",
    "LinkSettings": "accord.lab.settings",
    "Namespace": "accord.lab.namespace",
    "Rtt": "accord.lab.lab",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
