# SPDX-License-Identifier: Apache-2.0
"""The words that a policy's keys take (docs/POLICY.md)."""

from __future__ import annotations

import enum


class Secure(enum.StrEnum):
    """What is asked of a stack's security, weakest first."""

    NO = "no"
    PREFERRED = "preferred"
    REQUIRED = "required"


class Context(enum.StrEnum):
    """What the negotiation packets travel in."""

    UDP = "udp"
    DIRECT = "direct"


class Fallback(enum.StrEnum):
    """When the plain connection is tried, for peers without Accord."""

    PARALLEL = "parallel"
    DELAYED = "delayed"
    NEVER = "never"


class TcpOpen(enum.StrEnum):
    """How the connection of a negotiated TCP comes to be."""

    AUTO = "auto"
    NO_SYN = "no-syn"
    PARALLEL_SYN = "parallel-syn"


class Early(enum.StrEnum):
    """Whether the first request may travel in the proposal."""

    NEVER = "never"
    IDEMPOTENT = "idempotent"


class OnForcedFallback(enum.StrEnum):
    """What becomes of a plain connection whose two ends speak Accord, as its TLS says."""

    REPORT = "report"
    REFUSE = "refuse"


class Inner(enum.StrEnum):
    """Whether what is above the security node is negotiated inside of it, sealed."""

    NO = "no"
    REQUIRED = "required"
