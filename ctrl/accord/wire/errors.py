# SPDX-License-Identifier: Apache-2.0
"""Errors, split by whose fault they are, as the reasons are.

``error(reason, detail, mend)`` makes the one of the right class. Catch ``AccordError`` for all of them, or
the class of a party for what only that party can mend.
"""

from __future__ import annotations

from typing import ClassVar

from accord.wire.constants import Party, Reason


class AccordError(Exception):
    """Something named by a ``Reason``; ``str()`` is one sentence: cause, detail, mend.

    ``detail`` says what exactly was seen, ``mend`` what whoever is at fault can do about it. Both are
    clauses without a full stop, and may be empty.
    """

    party: ClassVar[Party] = Party.NONE

    def __init__(self, reason: Reason, detail: str = "", mend: str = "") -> None:
        super().__init__(reason, detail, mend)
        self.reason = reason
        self.detail = detail
        self.mend = mend
        self.trace: list[dict[str, object]] = []
        """What led to it, for people; mostly empty."""

    def __str__(self) -> str:
        sentence = self.reason.text or self.reason.name
        sentence = sentence[0].upper() + sentence[1:]
        if self.detail:
            sentence += f": {self.detail}"
        if self.mend:
            sentence += f" ({self.mend})"
        return sentence


class OurError(AccordError):
    """This implementation's fault, or a limit of it that was reached."""

    party = Party.OURS


class PeerError(AccordError):
    """The peer broke the protocol, or cannot do what was asked."""

    party = Party.PEER


class PathError(AccordError):
    """Something between the two hosts: loss, a translator, a router's ICMP."""

    party = Party.PATH


class HostError(AccordError):
    """This host's kernel, NIC or privileges."""

    party = Party.HOST


class UserError(AccordError):
    """What the user or the operator asked for cannot be had, or is forbidden by the policy."""

    party = Party.USER


_CLASS_OF: dict[Party, type[AccordError]] = {
    Party.NONE: AccordError,
    Party.OURS: OurError,
    Party.PEER: PeerError,
    Party.PATH: PathError,
    Party.HOST: HostError,
    Party.USER: UserError,
}


def error_of(party: Party, reason: Reason, detail: str = "", mend: str = "") -> AccordError:
    """The error of a party's class, where that is not the one of the reason: what the peer called its own fault."""
    return _CLASS_OF[party](reason, detail, mend)


def error(reason: Reason, detail: str = "", mend: str = "") -> AccordError:
    """The error of the class that ``reason.party`` calls for; not raised."""
    return _CLASS_OF[reason.party](reason, detail, mend)
