# SPDX-License-Identifier: Apache-2.0
"""Which protocols this host has: the plug-ins of every installed package.

A package adds one by an entry point in the group ``accord.protocols``, whose value names a class that is called without
arguments (``services.Plugin``). The built-in ones come first and are found without metadata too, so the package runs
from a source tree. A plug-in that cannot be loaded, or claims a name or protocol ID that another one has, is left out
and reported; the others work.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final

from accord.protocols.services import Plugin
from accord.wire.constants import Protocol, Reason
from accord.wire.errors import AccordError, error

GROUP: Final = "accord.protocols"

BUILT_IN: Final = tuple(
    EntryPoint(name, f"accord.protocols.{name}:{name.capitalize()}Plugin", GROUP)
    for name in ("tcp", "tls", "quic", "http", "compression", "framing", "inner", "sctp", "mptcp", "wireguard")
)

_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,31}")
# Contexts, padding and placeholders are no plug-ins' business (wire.h).
_RESERVED: Final = (Protocol.PADDING, Protocol.UDP, Protocol.DIRECT, Protocol.SUBGRAPH)
_GREASE_MASK: Final = 0x0F0F0F0F


def load_plugins(
    installed: Iterable[EntryPoint] | None = None, built_in: Sequence[EntryPoint] = BUILT_IN
) -> tuple[dict[str, Plugin], dict[str, AccordError]]:
    """Import and check every plug-in: the usable ones by name, and what is wrong with the others.

    ``installed``: entry points; None: those of the packages of this Python. The errors (``OurError``,
    ``PLUGIN_FAILED``) are by the entry point's name, with its value behind it when two have one name.
    """
    others = entry_points(group=GROUP) if installed is None else installed
    known = {(point.name, point.value) for point in built_in}
    # A path that is searched twice yields an entry point twice; packages come in no order of their own.
    extra = sorted({(point.name, point.value) for point in others} - known)
    plugins: dict[str, Plugin] = {}
    broken: dict[str, AccordError] = {}
    for point in (*built_in, *(EntryPoint(name, value, GROUP) for name, value in extra)):
        try:
            plugin = _open(point)
            _check(plugin, point, plugins.values())
        except AccordError as problem:
            broken[point.name if point.name not in broken else f"{point.name} ({point.value})"] = problem
        else:
            plugins[plugin.name] = plugin
    return plugins, broken


def _open(point: EntryPoint) -> Plugin:
    try:
        made: Any = point.load()()
        name, protocol, opener = made.name, made.protocol, made.open
    except Exception as failure:  # somebody else's code, imported: it may raise anything
        raise _problem(point, f"{type(failure).__name__}: {failure}") from failure
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise _problem(point, f"its name {name!r} is not a short lower-case word")
    if not isinstance(protocol, int) or isinstance(protocol, bool) or not 0 < protocol < 1 << 32:
        raise _problem(point, f"its protocol ID {protocol!r} is no number of 32 bits")
    if protocol in _RESERVED or protocol & _GREASE_MASK == Protocol.GREASE:
        raise _problem(point, f"its protocol ID {protocol:#x} is reserved by the wire format")
    if not callable(opener):
        raise _problem(point, "its open is no method")
    plugin: Plugin = made
    return plugin


def _check(plugin: Plugin, point: EntryPoint, others: Iterable[Plugin]) -> None:
    for other in others:
        if plugin.protocol == other.protocol:
            raise _problem(point, f"protocol ID {plugin.protocol:#x} is {other.name}'s, of {type(other).__module__}")
        if plugin.name == other.name:
            raise _problem(point, f"the name {plugin.name!r} is taken by {type(other).__module__}")


def _problem(point: EntryPoint, cause: str) -> AccordError:
    return error(
        Reason.PLUGIN_FAILED,
        f"protocol plug-in {point.name} ({point.value}): {cause}",
        "mend or uninstall the package that brings it; the other protocols work",
    )
