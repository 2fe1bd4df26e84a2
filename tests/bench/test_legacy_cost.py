# SPDX-License-Identifier: Apache-2.0
"""What a contact with a peer without Accord costs where somebody waits for it, in functions called.

Three stretches of it are on the way to a plain connection's TLS: from the call until the SYN leaves, from the SYN-ACK
until the ClientHello does, from the server's flight until data may be sent. All else happens while packets travel. The
peer is in another thread, and silent on UDP.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import gc
import socket
import ssl
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from accord.controller.controller import Controller
from accord.controller.settings.config import DaemonConfig
from accord.protocols.authority import issue, make_ca
from accord.protocols.services import Security
from tests.controller.pairs import believe_silent
from tests.controller.test_forgotten import for_the_collector

NAME = "server.accord.test"


class Stretch(enum.Enum):
    TO_SYN = "from the call until the SYN leaves"
    TO_HELLO = "from the SYN-ACK until the ClientHello leaves"
    TO_READY = "from the server's flight until data may be sent"
    TRAVEL = "while packets travel"


_BEGINS = {"Opening._writable": Stretch.TO_HELLO, "Greeting._readable": Stretch.TO_READY}
_REST = {"Engine.round_trip", "Negotiation.stop"}
"""Of a negotiation that has lost: it goes on for a while to find out who is silent, or ends."""
_WATCHED = {"Opening.__init__", "route", "prepare", "Contest._win", *_REST}
_ENDS = {(Stretch.TO_SYN, "connect"), (Stretch.TO_HELLO, "send")}


class Count:
    """A profile function: calls in each stretch, Python's and C's."""

    def __init__(self) -> None:
        self.stretch = Stretch.TO_SYN
        self.calls: Counter[Stretch] = Counter()
        self.order: list[str] = []
        """Names of the functions in ``_WATCHED``, as they were called."""

    def __call__(self, frame: Any, event: str, argument: Any) -> None:
        if event == "call":
            name = frame.f_code.co_qualname
            self.stretch = _BEGINS.get(name, self.stretch)
            if name in _WATCHED:
                self.order.append(name)
        self.calls[self.stretch] += event in ("call", "c_call")
        if event == "call" and frame.f_code.co_qualname == "Contest._win":
            self.stretch = Stretch.TRAVEL
        elif event in ("c_return", "c_exception"):
            connection = getattr(argument, "__self__", None)
            tcp = isinstance(connection, socket.socket) and connection.type & socket.SOCK_STREAM
            if tcp and (self.stretch, argument.__name__) in _ENDS:
                self.stretch = Stretch.TRAVEL


@contextlib.contextmanager
def legacy_peer(directory: Path) -> Iterator[int]:
    """Its port: TLS by a thread, and a UDP socket that swallows everything."""
    files = issue(directory, [NAME])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.private_key)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                accepted, _ = listener.accept()
                accepted.settimeout(10)
                with contextlib.suppress(OSError), context.wrap_socket(accepted, server_side=True) as secured:
                    secured.recv(1)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    port = int(listener.getsockname()[1])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as hole:
        hole.bind(("127.0.0.1", port))
        try:
            yield port
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            thread.join(10)


@pytest.fixture(scope="module")
def contacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Count]:
    """Of one controller: the third ``first`` contact, as what is made once is made by then, and one in which the peer
    is ``known`` to be silent."""
    directory = tmp_path_factory.mktemp("legacy")
    trusting = Security(server_name=NAME, ca_file=make_ca(directory).certificate)

    async def counted(client: Controller, port: int, reason: str) -> Count:
        count = Count()
        before = sys.getprofile()
        sys.setprofile(count)
        try:
            association = await client.connect("127.0.0.1", port, security=trusting, ladder=False)
            await asyncio.sleep(0.05)
        finally:
            sys.setprofile(before)
        report = association.report
        assert (report.negotiated, report.stack, report.reason) == (False, ["tls", "tcp"], reason)
        await association.carrier.close()
        return count

    async def work(port: int) -> dict[str, Count]:
        client = Controller(DaemonConfig(back_end="udp"))
        try:
            for _ in range(3):
                first = await counted(client, port, "LEGACY_FIRST")
                client.peers.flush()
                client.proposals.clear()
            believe_silent(client.peers, "127.0.0.1", port, source="127.0.0.1")
            await counted(client, port, "KNOWN_LEGACY")
            return {"first": first, "known": await counted(client, port, "KNOWN_LEGACY")}
        finally:
            client.close()

    with legacy_peer(directory) as port:
        return asyncio.run(work(port))


# As counted, and a twentieth. (Plain TCP and TLS by the same library, a task and a time-out with it: 52, 128 and 169.)
@pytest.mark.parametrize(
    ("contact", "stretch", "ceiling"),
    [
        ("first", Stretch.TO_SYN, 64),
        ("first", Stretch.TO_HELLO, 103),
        ("first", Stretch.TO_READY, 212),
        ("known", Stretch.TO_SYN, 80),
    ],
)
def test_a_contact_with_a_legacy_peer_is_not_more_work_than_it_was(
    contacts: dict[str, Count], contact: str, stretch: Stretch, ceiling: int
) -> None:
    calls = contacts[contact].calls[stretch]
    assert 0 < calls <= ceiling, f"{calls} calls {stretch.value}"


def test_everything_else_is_done_when_nobody_waits_for_it(contacts: dict[str, Count]) -> None:
    order, calls = contacts["first"].order, contacts["first"].calls
    assert order[:4] == ["Opening.__init__", "route", "prepare", "Contest._win"], "the SYN first"
    assert _REST & set(order[4:]), "the rest of the negotiation last"
    assert calls[Stretch.TRAVEL] > 10 * calls[Stretch.TO_READY], "making the proposal"


def test_the_syn_to_a_peer_that_is_known_to_be_silent_leaves_first_and_nothing_else_does(
    contacts: dict[str, Count],
) -> None:
    assert contacts["known"].order == ["Opening.__init__", "route", "Contest._win"]


def test_first_contacts_leave_nothing_for_the_collector_which_would_find_it_in_the_middle_of_another_one(
    tmp_path: Path,
) -> None:
    trusting = Security(server_name=NAME, ca_file=make_ca(tmp_path).certificate)

    async def work(port: int) -> Counter[str]:
        client = Controller(DaemonConfig(back_end="udp"))
        try:
            gc.collect()
            gc.disable()
            for _ in range(3):
                association = await client.connect("127.0.0.1", port, security=trusting)
                await asyncio.sleep(0.05)  # one is made ahead
                await association.carrier.close()
                client.peers.flush()
                client.proposals.clear()
            while client.endpoint.in_flight:
                await asyncio.sleep(0.05)
            return for_the_collector()
        finally:
            gc.enable()
            client.close()

    with legacy_peer(tmp_path) as port:
        assert asyncio.run(work(port)) == {}
