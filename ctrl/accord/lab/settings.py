# SPDX-License-Identifier: Apache-2.0
"""What a link does to packets, either way, with units and bounds.

Up is from the client to the server, down from the server to the client. The meaning of each setting is
that of Linux's netem, and the same for both kinds of link.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from accord.wire.constants import Reason
from accord.wire.errors import UserError

T = TypeVar("T")
Both: TypeAlias = T | tuple[T, T]
"""One value for both directions, or the pair (up, down)."""

_FRAME_BITS = 1514 * 8
_UNLIMITED_FRAMES = 20_000
_QUEUE_SECONDS = 0.1
_LEAST_FRAMES = 64
MOST_DELAY = 60.0
MOST_RATE = 30_000_000_000  # netem counts bytes per second in 32 bits


def _wrong(what: str, allowed: str) -> UserError:
    return UserError(Reason.BAD_CONFIG, what, f"allowed: {allowed}")


@dataclass(frozen=True, slots=True)
class Direction:
    """One way through the link. Raises ``UserError(BAD_CONFIG)`` for values that make no sense."""

    delay: float = 0.0
    """Seconds."""
    jitter: float = 0.0
    """Seconds; the delay of each packet is uniform in delay - jitter .. delay + jitter. Packets that are
    less than it apart may overtake each other."""
    loss: float = 0.0
    """Probability that a packet is dropped, 0..1, each by itself."""
    duplicate: float = 0.0
    """Probability that a packet comes twice."""
    reorder: float = 0.0
    """Probability that a packet skips the delay, and so overtakes those before it."""
    rate: int | None = None
    """Bits per second, of whole Ethernet frames; None: no limit."""
    mtu: int | None = None
    """Longest IP packet that gets through, bytes; longer ones are lost without a word. None: as the interfaces'.
    Our own link only."""
    limit: int | None = None
    """Packets in the link at once, more are dropped. None: 20,000, or with a rate as many full frames as it
    sends in the delay and 100 ms more (a router's queue), at least 64."""

    def __post_init__(self) -> None:
        if not 0 <= self.delay <= MOST_DELAY:
            raise _wrong(f"a delay of {self.delay} s", f"0 to {MOST_DELAY:.0f} s each way")
        if not 0 <= self.jitter <= self.delay:
            raise _wrong(f"a jitter of {self.jitter} s", f"0 to the delay of that direction, {self.delay} s")
        for name in ("loss", "duplicate", "reorder"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise _wrong(f"{name} {value}", "a probability, 0 to 1")
        if self.rate is not None and not 8 <= self.rate <= MOST_RATE:
            raise _wrong(f"a rate of {self.rate} bit/s", f"8 to {MOST_RATE} bit/s")
        if self.mtu is not None and not 576 <= self.mtu <= 65535:
            raise _wrong(f"an MTU of {self.mtu} bytes", "576 to 65535 bytes")
        if self.limit is not None and not 1 <= self.limit <= 1_000_000:
            raise _wrong(f"a limit of {self.limit} packets", "1 to 1000000")

    @property
    def packets(self) -> int:
        """``limit``, or what stands for it."""
        if self.limit is not None:
            return self.limit
        if self.rate is None:
            return _UNLIMITED_FRAMES
        queue = math.ceil(self.rate * (self.delay + self.jitter + _QUEUE_SECONDS) / _FRAME_BITS)
        return min(max(queue, _LEAST_FRAMES), _UNLIMITED_FRAMES)


_NAMES = tuple(field.name for field in dataclasses.fields(Direction) if field.name != "delay")


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """Both directions."""

    up: Direction = Direction()
    down: Direction = Direction()

    @property
    def rtt(self) -> float:
        """Seconds that a packet and its answer spend in the link, without jitter and rate."""
        return self.up.delay + self.down.delay

    def changed(self, **settings: Any) -> LinkSettings:
        """These settings with some replaced.

        ``rtt`` (seconds, half of it each way), ``up`` and ``down`` (seconds, that direction's delay; they
        win over ``rtt``; None: not given), and each field of ``Direction`` but the delay: one value for both
        directions or the pair (up, down).
        """
        up: dict[str, Any] = {}
        down: dict[str, Any] = {}
        rtt, delay_up, delay_down = (settings.pop(name, None) for name in ("rtt", "up", "down"))
        if rtt is not None:
            up["delay"] = down["delay"] = rtt / 2
        if delay_up is not None:
            up["delay"] = delay_up
        if delay_down is not None:
            down["delay"] = delay_down
        for name, value in settings.items():
            if name not in _NAMES:
                raise _wrong(f"no link setting is called {name}", ", ".join(("rtt", "up", "down", *_NAMES)))
            up[name], down[name] = value if isinstance(value, tuple) else (value, value)
        return LinkSettings(dataclasses.replace(self.up, **up), dataclasses.replace(self.down, **down))

    def to_json(self) -> dict[str, dict[str, Any]]:
        """For the state file; ``from_json`` reads it back."""
        return {"up": dataclasses.asdict(self.up), "down": dataclasses.asdict(self.down)}

    @classmethod
    def from_json(cls, value: dict[str, dict[str, Any]]) -> LinkSettings:
        """Raises ``TypeError`` or ``KeyError`` if it is not what ``to_json`` made."""
        return cls(Direction(**value["up"]), Direction(**value["down"]))
