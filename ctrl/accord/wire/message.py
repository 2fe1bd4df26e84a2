# SPDX-License-Identifier: Apache-2.0
"""Messages: the node descriptors that one side sends in one step (HotNets 2009, section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass

from accord.wire.constants import Limit
from accord.wire.node import Node, encode_descriptor

Encoded = tuple[int, int, bytes]
"""Node ID, protocol ID, descriptor: what the engine is given for one node."""


@dataclass(frozen=True, slots=True)
class Message:
    """One step's nodes, in the order in which they are to be sent; the first is the context."""

    step: int
    nodes: tuple[Node, ...]

    def encode(self) -> tuple[Encoded, ...]:
        """Each node's descriptor. Raises ``ValueError`` when the message has none or breaks a limit."""
        encoded = tuple([(node.id, node.protocol, encode_descriptor(node)) for node in self.nodes])
        length = sum([len(descriptor) for _, _, descriptor in encoded])
        if not 0 < len(encoded) <= Limit.MAX_NODES or length > Limit.MAX_MESSAGE_BYTES:
            raise ValueError(f"a message of {len(encoded)} nodes and {length} bytes cannot be sent")
        if not 0 <= self.step < Limit.MAX_STEPS:
            raise ValueError(f"step {self.step} does not exist")
        return encoded
