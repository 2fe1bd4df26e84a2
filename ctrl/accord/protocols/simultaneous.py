# SPDX-License-Identifier: Apache-2.0
"""What a protocol makes of two sides that initiate at once (HotNets 2009, section 2.3).

A plug-in says it by its attribute ``simultaneous``; one that says nothing has ROLES. Which stack it is, and which side
leads, is the same for all protocols (``negotiation.merge``).
"""

from __future__ import annotations

import enum


class Simultaneous(enum.Enum):
    """The choice rule of one protocol."""

    NEVER = "never"
    """Stacks with it are not offered to a peer that may propose as well."""
    ROLES = "roles"
    """It has two roles: the side that leads has the initiator's, and what the other has proposed is dropped."""
    BOTH = "both"
    """What both sides proposed makes the connection, as in TCP's simultaneous open (RFC 9293, section 3.5)."""


def rule_of(plugin: object) -> Simultaneous:
    """The rule of a plug-in."""
    rule = getattr(plugin, "simultaneous", Simultaneous.ROLES)
    return rule if isinstance(rule, Simultaneous) else Simultaneous.ROLES
