# SPDX-License-Identifier: Apache-2.0
"""The heartbeat of an attached XDP program, out of reach of the scheduler.

To the program a daemon is dead that gave no sign of life for 450 ms, and then the kernel gets the packets. A test that
sends a packet for the rings, on a machine that does not run the test for so long, would lose it: nobody sends it again.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
import time

from accord.datapath._core import ffi

_libc = ctypes.CDLL(None, use_errno=True)

_SYS_BPF = {"x86_64": 321}.get(os.uname().machine, 280)  # 280: <asm-generic/unistd.h>
_BPF_PROG_GET_FD_BY_ID, _BPF_MAP_GET_FD_BY_ID, _BPF_OBJ_GET_INFO_BY_FD = 13, 14, 15  # <linux/bpf.h>
_MAX_MAPS = 32
_MAPS_AT = 52
"""Of nr_map_ids in struct bpf_prog_info; the address of map_ids follows."""
_YEARS_NS = 10**18


def _bpf(command: int, attributes: bytes) -> int:
    buffer = ctypes.create_string_buffer(attributes, 128)
    result: int = _libc.syscall(_SYS_BPF, command, buffer, len(buffer))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"bpf({command})")
    return result


def _info(fd: int, info: ctypes.Array[ctypes.c_char]) -> None:
    _bpf(_BPF_OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", fd, len(info), ctypes.addressof(info)))


def _map_ids(program: int) -> list[int]:
    fd = _bpf(_BPF_PROG_GET_FD_BY_ID, struct.pack("=I", program))
    try:
        ids = (ctypes.c_uint32 * _MAX_MAPS)()
        info = ctypes.create_string_buffer(_MAPS_AT + 12)
        struct.pack_into("=IQ", info, _MAPS_AT, _MAX_MAPS, ctypes.addressof(ids))
        _info(fd, info)
        (count,) = struct.unpack_from("=I", info, _MAPS_AT)
        return list(ids[:count])
    finally:
        os.close(fd)


def hold(program: int) -> None:
    """The program of this ID sees a living daemon until somebody writes another heartbeat. Raises ``OSError``."""
    for identity in _map_ids(program):
        fd = _bpf(_BPF_MAP_GET_FD_BY_ID, struct.pack("=I", identity))
        try:
            info = ctypes.create_string_buffer(40)  # struct bpf_map_info: six words, then the name
            _info(fd, info)
            if info.raw[24:].rstrip(b"\0") == b"settings":
                with mmap.mmap(fd, mmap.PAGESIZE) as settings:
                    alive = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + _YEARS_NS
                    offset = ffi.offsetof("struct accord_settings", "heartbeat_ns")
                    with memoryview(settings) as words, words.cast("Q") as longs:
                        longs[offset // 8] = alive
                return
        finally:
            os.close(fd)
    raise LookupError(f"the XDP program {program} has no map of settings")
