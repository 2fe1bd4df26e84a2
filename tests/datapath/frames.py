# SPDX-License-Identifier: Apache-2.0
"""The C core's frame functions, for tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from accord.datapath._core import ffi, lib
from accord.datapath.path import Path
from accord.wire.constants import Reason


@dataclass(frozen=True)
class Parsed:
    """What ``accord_frame_parse`` found; path, link and packet are empty when the reason is not OK."""

    reason: Reason
    path: Path | None = None
    link: bytes = b""
    packet: bytes = b""


def parse(frame: bytes, tag: tuple[int, int] = (0, 0)) -> Parsed:
    """Parse a frame that is alone in its memory; ``tag`` is the (type, control) that the kernel took out of it."""
    memory = ffi.new("uint8_t[]", frame or b"\0")
    path = ffi.new("struct accord_path *")
    packet = ffi.new("const uint8_t **")
    length = ffi.new("uint32_t *")
    result = lib.accord_frame_parse(memory, len(frame), tag, path, packet, length)
    if result < 0:
        return Parsed(Reason(-result))
    start = int(ffi.cast("uintptr_t", packet[0])) - int(ffi.cast("uintptr_t", memory))
    assert 0 <= start <= start + length[0] <= len(frame)
    return Parsed(
        Reason.OK,
        Path.from_c(path),
        bytes(path.link[0 : path.link_length]),
        bytes(ffi.buffer(packet[0], length[0])) if length[0] else b"",
    )


def build(path: Path, link: bytes, packet: bytes, room: int = 10_000) -> bytes | Reason:
    """Build a frame with this link header."""
    c_path: Any = path.to_c()
    c_path.link_length = len(link)
    ffi.memmove(c_path.link, link, len(link))
    frame = ffi.new("uint8_t[]", room or 1)
    result = lib.accord_frame_build(c_path, packet, len(packet), frame, room)
    return bytes(ffi.buffer(frame, result)) if result >= 0 else Reason(-result)
