# SPDX-License-Identifier: Apache-2.0
"""Accord: a whole protocol stack between two hosts in one round trip.

    import accord

    async with accord.connect("host:443", {"secure": "required"}) as conn:
        await conn.write(b"...")

The application's interface is ``accord.api``; see docs/ARCHITECTURE.md for the rest of the house.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from accord.api import Association, Listener, connect, listen, rendezvous
    from accord.wire.errors import AccordError

__version__ = "0.1.0"
__all__ = ["AccordError", "Association", "Listener", "connect", "listen", "rendezvous"]


def __getattr__(name: str) -> Any:
    """The interface is loaded when it is first used: ``accord.wire`` alone needs none of it (PEP 562)."""
    if name == "AccordError":
        from accord.wire.errors import AccordError

        return AccordError
    if name in __all__:
        import accord.api

        return getattr(accord.api, name)
    raise AttributeError(f"module 'accord' has no attribute {name!r}")
