# SPDX-License-Identifier: Apache-2.0
"""What an INNER session is given by its host, beside the services of every session."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from accord.negotiation.choice import Chooser
from accord.negotiation.initiator import Proposed
from accord.negotiation.interface import Refuse
from accord.negotiation.responder import Accepted
from accord.protocols.sealed.configuration import KeyConfiguration
from accord.protocols.sealed.host_keys import HostKeys


@dataclass(frozen=True, slots=True)
class Proposing:
    """Initiator."""

    transaction: bytes
    """Of the outer negotiation."""
    propose: Callable[[], Sequence[Proposed]]
    """The inner graph; node 0 is of the protocol INNER."""
    chooser: Chooser
    key: KeyConfiguration | None
    """To be sealed to; None: the peer has to be asked."""
    now: Callable[[], float]
    """Unix time, seconds."""
    note: Callable[[str], None]
    """A line for the ladder."""


@dataclass(frozen=True, slots=True)
class Offering:
    """Responder."""

    transaction: bytes
    keys: HostKeys
    supported: Collection[int]
    """Protocol IDs."""
    accept: Callable[[bool], Accepted | Refuse]
    """Given whether an early request may be served."""
    admit: Callable[[bytes, float], bool]
    """Given SHA-256 of sealed bytes and the Unix time of their sealing: whether they come for the first time."""
    note: Callable[[str], None]
