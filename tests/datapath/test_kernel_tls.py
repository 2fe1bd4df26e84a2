# SPDX-License-Identifier: Apache-2.0
"""TLS by the kernel: the bytes of its structures, the order of the calls, and a stream over a socket that plays one."""

from __future__ import annotations

import asyncio
import ctypes
import socket
from collections import deque
from typing import Any

import pytest

from accord.datapath import kernel_tls
from accord.datapath.kernel_tls import KernelTlsCarrier, crypto_info, install
from accord.wire.constants import Reason
from accord.wire.errors import AccordError

KEY128, KEY256, IV = bytes(range(16)), bytes(range(32)), bytes(range(100, 112))


class Info(ctypes.Structure):
    """``struct tls_crypto_info`` of linux/tls.h."""

    _fields_ = (("version", ctypes.c_uint16), ("cipher_type", ctypes.c_uint16))


class Gcm128(ctypes.Structure):
    """``struct tls12_crypto_info_aes_gcm_128``."""

    _fields_ = (
        ("info", Info),
        ("iv", ctypes.c_ubyte * 8),
        ("key", ctypes.c_ubyte * 16),
        ("salt", ctypes.c_ubyte * 4),
        ("rec_seq", ctypes.c_ubyte * 8),
    )


class Gcm256(ctypes.Structure):
    """``struct tls12_crypto_info_aes_gcm_256``."""

    _fields_ = (
        ("info", Info),
        ("iv", ctypes.c_ubyte * 8),
        ("key", ctypes.c_ubyte * 32),
        ("salt", ctypes.c_ubyte * 4),
        ("rec_seq", ctypes.c_ubyte * 8),
    )


class ChaCha(ctypes.Structure):
    """``struct tls12_crypto_info_chacha20_poly1305``, whose salt has no bytes."""

    _fields_ = (
        ("info", Info),
        ("iv", ctypes.c_ubyte * 12),
        ("key", ctypes.c_ubyte * 32),
        ("rec_seq", ctypes.c_ubyte * 8),
    )


@pytest.mark.parametrize(
    ("cipher", "layout", "number", "key", "nonce"),
    [
        ("TLS_AES_128_GCM_SHA256", Gcm128, 51, KEY128, (IV[4:], IV[:4])),
        ("TLS_AES_256_GCM_SHA384", Gcm256, 52, KEY256, (IV[4:], IV[:4])),
        ("TLS_CHACHA20_POLY1305_SHA256", ChaCha, 54, KEY256, (IV, b"")),
    ],
)
def test_each_suite_has_the_bytes_of_the_kernels_own_structure(
    cipher: str, layout: Any, number: int, key: bytes, nonce: tuple[bytes, bytes]
) -> None:
    data = crypto_info(cipher, key, IV, 0x0102030405060708)
    assert len(data) == ctypes.sizeof(layout)
    read = layout.from_buffer_copy(data)
    assert (read.info.version, read.info.cipher_type) == (0x0304, number)
    assert bytes(read.key) == key
    assert (bytes(read.iv), bytes(getattr(read, "salt", b""))) == nonce
    assert bytes(read.rec_seq) == bytes(range(1, 9))


def test_a_suite_that_the_kernel_has_not_is_no_structure_at_all() -> None:
    with pytest.raises(ValueError, match="TLS_AES_128_CCM"):
        crypto_info("TLS_AES_128_CCM_SHA256", KEY128, IV, 0)


class Recorded:
    """A socket that notes its options; ``fails``: the call at which it has had enough."""

    def __init__(self, fails: int | None = None) -> None:
        self.calls: list[tuple[int, int, bytes]] = []
        self.fails = fails

    def setsockopt(self, level: int, option: int, value: bytes) -> None:
        if self.fails == len(self.calls):
            raise OSError(95, "Operation not supported")
        self.calls.append((level, option, value))


def test_the_protocol_comes_first_then_the_keys_to_send_with_then_those_to_receive_with() -> None:
    recorded = Recorded()
    install(recorded, b"send", b"receive")  # type: ignore[arg-type]
    assert recorded.calls == [(6, 31, b"tls"), (282, 1, b"send"), (282, 2, b"receive")]


@pytest.mark.parametrize(("fails", "words"), [(0, "TCP_ULP"), (1, "TLS_TX"), (2, "TLS_RX")])
def test_a_kernel_that_refuses_is_a_host_error_that_names_the_call(fails: int, words: str) -> None:
    with pytest.raises(AccordError, match=words):
        install(Recorded(fails), b"", b"")  # type: ignore[arg-type]


class Records:
    """A kernel's socket with records: each read is one of them, as recvmsg(2) gives it with its type beside it."""

    def __init__(self, *records: tuple[int | None, bytes] | OSError) -> None:
        self.records = deque(records)
        self.sent: list[tuple[bytes, list[Any]]] = []
        self.ended = False

    def setblocking(self, _: bool) -> None: ...

    def fileno(self) -> int:
        return -1

    def recvmsg(self, limit: int, control: int) -> tuple[bytes, list[tuple[int, int, bytes]], int, None]:
        assert control >= socket.CMSG_SPACE(1), "else the kernel keeps what is no data, and the read fails"
        record = self.records.popleft()
        if isinstance(record, OSError):
            raise record
        kind, data = record
        return data[:limit], [] if kind is None else [(282, 2, bytes((kind,)))], 0, None

    def recv(self, _: int) -> bytes:
        return b""

    def sendmsg(self, data: list[bytes], ancillary: list[Any]) -> int:
        self.sent.append((b"".join(data), ancillary))
        return 2

    def shutdown(self, _: int) -> None:
        self.ended = True

    def close(self) -> None: ...


def carrier(records: Records) -> KernelTlsCarrier:
    return KernelTlsCarrier(records)  # type: ignore[arg-type]


def read_all(records: Records) -> list[bytes]:
    async def read() -> list[bytes]:
        stream, pieces = carrier(records), []
        while piece := await stream.read():
            pieces.append(piece)
        assert await stream.read() == b"", "the end stays the end"
        return pieces

    return asyncio.run(read())


def test_data_comes_through_tickets_are_passed_over_and_close_notify_is_the_end() -> None:
    ticket = (22, b"\x04\x00\x00\x2a" + bytes(42))
    assert read_all(Records(ticket, (23, b"one"), ticket, (23, b"two"), (21, b"\x01\x00"))) == [b"one", b"two"]


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ((None, b""), "without close_notify"),
        ((21, b"\x02\x14"), "alert 20"),
        ((21, b"\x02"), "alert"),
        ((22, b"\x18\x00\x00\x01\x00"), "type 22"),
        ((20, b"\x01"), "type 20"),
        (OSError(74, "Bad message"), "Bad message"),
        (OSError(5, "Input/output error"), "Input/output error"),
    ],
)
def test_whatever_else_comes_is_a_broken_stream_and_never_an_end(
    record: tuple[int | None, bytes] | OSError, words: str
) -> None:
    with pytest.raises(AccordError, match=words) as broken:
        read_all(Records((23, b"one"), record))
    assert broken.value.reason is Reason.STREAM_BROKEN


def test_finish_says_close_notify_once_as_an_alert_and_then_ends_the_connection() -> None:
    records = Records()

    async def finish() -> None:
        stream = carrier(records)
        await stream.finish()
        await stream.finish()
        await stream.close()

    asyncio.run(finish())
    assert records.sent == [(b"\x01\x00", [(282, 1, b"\x15")])]
    assert records.ended


def test_the_trial_says_why_where_this_kernel_has_no_tls_and_carries_a_record_where_it_has() -> None:
    kernel_tls.load()
    for cipher in ("TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256"):
        found = kernel_tls.refusal(cipher)
        assert found is None or "TCP_ULP" in found or "TLS_TX" in found
    assert "no suite" in str(kernel_tls.refusal("TLS_AES_128_CCM_SHA256"))
