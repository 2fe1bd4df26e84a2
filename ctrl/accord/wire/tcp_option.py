# SPDX-License-Identifier: Apache-2.0
"""The TCP option that names a negotiation (docs/PROTOCOL.md, section 10; RFC 6994).

::

    | kind = 254 |length = 16 |           ExID            |
    |             transaction ID, 12 bytes                |

The same bytes are the payload of an adopted TCP node, and the preface of its connection.
"""

from __future__ import annotations

import struct
from typing import Final

from accord.wire.constants import Packet, TcpOption

OPTION_BYTES: Final = int(TcpOption.BYTES)

_OPTION = struct.Struct(f"!BBH{int(Packet.TRANSACTION_BYTES)}s")
_EX_IDS: Final = (TcpOption.EXID, TcpOption.EXID_ADOPT)


def encode(ex_id: TcpOption, transaction: bytes) -> bytes:
    """The option's 16 bytes. ``ex_id``: ``EXID`` (FALLBACK) or ``EXID_ADOPT``. Raises ``ValueError`` for others, and
    for an ID that is not 12 bytes long."""
    if ex_id not in _EX_IDS or len(transaction) != Packet.TRANSACTION_BYTES:
        raise ValueError(f"no option with ExID {ex_id:#06x} and an ID of {len(transaction)} bytes")
    return _OPTION.pack(TcpOption.KIND, OPTION_BYTES, ex_id, transaction)


def decode(data: bytes) -> tuple[TcpOption, bytes] | None:
    """ExID and transaction ID, if ``data`` is the option and nothing else."""
    if len(data) != OPTION_BYTES:
        return None
    kind, length, ex_id, transaction = _OPTION.unpack(data)
    if kind != TcpOption.KIND or length != OPTION_BYTES or ex_id not in _EX_IDS:
        return None
    return TcpOption(ex_id), transaction
