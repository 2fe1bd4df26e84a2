# SPDX-License-Identifier: Apache-2.0
"""The common exchange of three steps."""

from __future__ import annotations

from collections.abc import Iterator

from _stage import Once, Stage, case


@case("basic", minimum=1)
def basic(stage: Stage) -> Iterator[Once]:
    """TLS over TCP in proposal, answer and commit."""
    contact = stage.contact()
    yield lambda: stage.connection(contact, secure="required", prefer=["tls/tcp"], tcp="no-syn")


@case("basic-quic", minimum=1)
def basic_quic(stage: Stage) -> Iterator[Once]:
    """QUIC on the 5-tuple of the negotiation."""
    contact = stage.contact()
    yield lambda: stage.connection(contact, secure="required", prefer=["quic"])
