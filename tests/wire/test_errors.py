# SPDX-License-Identifier: Apache-2.0
"""Errors say whose fault it is and name the mend."""

from __future__ import annotations

import pickle

import pytest

from accord.wire.constants import Party, Reason
from accord.wire.errors import AccordError, HostError, OurError, PathError, PeerError, UserError, error

CLASSES = {
    Party.NONE: AccordError,
    Party.OURS: OurError,
    Party.PEER: PeerError,
    Party.PATH: PathError,
    Party.HOST: HostError,
    Party.USER: UserError,
}


@pytest.mark.parametrize("reason", Reason)
def test_an_error_is_of_the_class_of_the_party_at_fault(reason: Reason) -> None:
    assert type(error(reason)) is CLASSES[reason.party]


def test_an_error_reads_as_one_sentence_with_cause_detail_and_mend() -> None:
    text = str(error(Reason.NO_PRIVILEGE, "CAP_NET_ADMIN", "run it with sudo"))
    assert text == "A privilege is missing: CAP_NET_ADMIN (run it with sudo)"


def test_an_error_without_detail_is_its_reason() -> None:
    assert str(error(Reason.TIMEOUT)) == "No answer in time"


def test_an_error_survives_being_pickled() -> None:
    again = pickle.loads(pickle.dumps(error(Reason.BAD_MAC, "node 2", "none")))
    assert (type(again), again.reason, again.detail, again.mend) == (PeerError, Reason.BAD_MAC, "node 2", "none")
