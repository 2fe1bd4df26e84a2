# SPDX-License-Identifier: Apache-2.0
"""Stacks by name, as policies write them: ``tls/tcp``, top first, the application node left out.

Inside, a stack is the tuple of its protocol IDs from bottom to top, as in ``CandidateStack``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from accord.wire.constants import Protocol, protocol_name

StackIds = tuple[int, ...]

PROTOCOLS: Final[Mapping[str, int]] = {
    "tcp": int(Protocol.TCP),
    "tls": int(Protocol.TLS13),
    "quic": int(Protocol.QUIC),
    "http": int(Protocol.HTTP),
    "inner": int(Protocol.INNER),
    "compression": int(Protocol.COMPRESSION),
    "framing": int(Protocol.FRAMING),
    "sctp": int(Protocol.SCTP),
    "mptcp": int(Protocol.MPTCP),
    "wireguard": int(Protocol.WIREGUARD),
}
"""The protocols that come with Accord."""
SECURE: Final[frozenset[int]] = frozenset({int(Protocol.TLS13), int(Protocol.QUIC)})
"""Those of them whose sessions authenticate the peer and encrypt what is above them."""
APPLICATIONS: Final[frozenset[int]] = frozenset({int(Protocol.HTTP), int(Protocol.INNER)})
"""The application's part of a stack, or what hides it: a policy's ``tls/tcp`` means ``http/tls/tcp`` too."""
LAYERS: Final[StackIds] = (int(Protocol.COMPRESSION), int(Protocol.FRAMING))
"""What rides on any stream, lower ones first: in no stack unless a policy asks for it."""
USUAL: Final[tuple[StackIds, ...]] = (
    (int(Protocol.TCP), int(Protocol.TLS13)),
    (int(Protocol.QUIC),),
    (int(Protocol.TCP),),
)
"""What is tried, in this order, after the stacks that a policy prefers."""

_MAX_HEIGHT: Final = 8


def parse_stack(text: str, protocols: Mapping[str, int] = PROTOCOLS) -> StackIds:
    """``"tls/tcp"`` as IDs from bottom to top. Raises ``ValueError``: what is wrong, and what is allowed.

    A protocol without a plug-in here is written as its ID: ``0x7e000001/tcp``.
    """
    names = text.split("/")
    if len(names) > _MAX_HEIGHT:
        raise ValueError(f"{text!r} has more than {_MAX_HEIGHT} protocols; write top/.../bottom")
    ids = []
    for name in names:
        ids.append(parse_protocol(name, protocols, f" in {text!r}"))
    if len(set(ids)) != len(ids):
        raise ValueError(f"{text!r} names a protocol twice; write top/.../bottom, each once")
    return tuple(reversed(ids))


def parse_protocol(name: str, protocols: Mapping[str, int] = PROTOCOLS, where: str = "") -> int:
    """A protocol's ID by its name, or as it is. Raises ``ValueError``, which says ``where`` the name stands."""
    number = protocols.get(name)
    if number is None:
        number = _parse_id(name)
    if number is None:
        allowed = ", ".join(protocols)
        raise ValueError(f"{name!r}{where} is no protocol; allowed: {allowed}, or an ID as 0x7e000001")
    return number


def format_stack(stack: StackIds, protocols: Mapping[str, int] = PROTOCOLS) -> str:
    """The inverse of ``parse_stack``."""
    names = {number: name for name, number in protocols.items()}
    return "/".join(names.get(number) or protocol_name(number) for number in reversed(stack))


def may_become(stack: StackIds, wanted: StackIds) -> bool:
    """Whether a stack with placeholders for subgraphs, each one protocol or more, may turn out to be another one."""
    if not stack or not wanted:
        return stack == wanted
    if stack[0] != Protocol.SUBGRAPH:
        return stack[0] == wanted[0] and may_become(stack[1:], wanted[1:])
    return may_become(stack, wanted[1:]) or may_become(stack[1:], wanted[1:])


def without_application(stack: StackIds) -> StackIds:
    """The stack below its application nodes."""
    while stack and stack[-1] in APPLICATIONS:
        stack = stack[:-1]
    return stack


def split_at_security(stack: StackIds, secure: Collection[int] = SECURE) -> tuple[StackIds, StackIds]:
    """The stack up to its topmost security protocol, and what is above that."""
    cut = max((place + 1 for place, number in enumerate(stack) if number in secure), default=0)
    return stack[:cut], stack[cut:]


def usable(stacks: Collection[StackIds], available: Collection[int]) -> list[StackIds]:
    """Those of which every protocol is available, in order."""
    return [stack for stack in stacks if stack and all(number in available for number in stack)]


def _parse_id(text: str) -> int | None:
    if not text.startswith("0x") or not text.isascii() or not 3 <= len(text) <= 10:
        return None
    try:
        return int(text, 16)
    except ValueError:
        return None
