# SPDX-License-Identifier: Apache-2.0
"""Where the running kernel keeps its fields: BTF, which is right whatever headers a host has installed."""

from __future__ import annotations

from accord.datapath._core import lib
from accord.wire.constants import Reason
from accord.wire.errors import error


def bit_offset(structure: str, path: str) -> int:
    """Offset in bits of ``path`` ("a.b" for a field of a field) in a struct of the kernel.

    Raises ``HostError`` when the kernel has no such field, or no type information at all.
    """
    offset = int(lib.accord_btf_offset(structure.encode(), path.encode()))
    if offset < 0:
        raise error(
            Reason(-offset),
            f"no struct {structure} with {path} in /sys/kernel/btf/vmlinux",
            "needs CONFIG_DEBUG_INFO_BTF",
        )
    return offset


def byte_offset(structure: str, path: str) -> int:
    """The same in bytes, of a field that begins at one."""
    bits = bit_offset(structure, path)
    assert bits % 8 == 0, f"{path} is a bit field"
    return bits // 8
