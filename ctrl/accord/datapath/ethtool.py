# SPDX-License-Identifier: Apache-2.0
"""Questions to a network driver through the ethtool ioctl (linux/ethtool.h), in the caller's network namespace.

Rather than /sys, which goes on showing the namespace that it was mounted in.
"""

from __future__ import annotations

import array
import fcntl
import socket
import struct

_SIOCETHTOOL = 0x8946  # linux/sockios.h
_GDRVINFO = 0x3
_GCHANNELS = 0x3C


def _ask(interface: str, request: bytes) -> bytes | None:
    """One ETHTOOL_* question by its structure; None where the driver has no answer."""
    asked = array.array("B", request)
    ifreq = struct.pack("16sP16x", interface.encode(), asked.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        try:
            fcntl.ioctl(control, _SIOCETHTOOL, ifreq)
        except OSError:
            return None
    return asked.tobytes()


def driver(interface: str) -> str:
    """The driver's name, ``unknown`` where it does not tell. ``struct ethtool_drvinfo``: bytes 4 to 35 of 196."""
    answer = _ask(interface, struct.pack("=I192x", _GDRVINFO))
    name = b"" if answer is None else answer[4:36].rstrip(b"\0")
    return name.decode("ascii", "replace") or "unknown"


def receive_queues(interface: str) -> int | None:
    """``struct ethtool_channels``: command, four maxima, then receive, transmit, other, combined."""
    answer = _ask(interface, struct.pack("=I32x", _GCHANNELS))
    if answer is None:
        return None
    channels = struct.unpack("=9I", answer)
    return int(channels[5] + channels[8]) or None
