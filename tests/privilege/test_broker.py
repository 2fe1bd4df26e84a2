# SPDX-License-Identifier: Apache-2.0
"""The broker believes nobody: what is not as agreed or not allowed is refused and counted, and it goes on."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import socket
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accord.datapath import privilege, tcp_state
from accord.datapath._core import ffi, lib
from accord.datapath.port import Rung
from accord.datapath.privilege import ALL_PORTS, Broker
from accord.datapath.probe import assign_reqsk
from accord.wire.constants import Reason
from accord.wire.errors import HostError
from tests.privilege.conftest import in_worker


class Talk:
    """A worker's end of the pair, in the hands of a test."""

    def __init__(self, interface: str | None = None, rungs: set[Rung] | None = None, ports: frozenset[int] = ALL_PORTS):
        ours, self.sock = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.setblocking(False)
        self.broker = Broker(ours, interface, {Rung.UDP} if rungs is None else rungs, ports, None)

    def __enter__(self) -> Talk:
        return self

    def __exit__(self, *_: object) -> None:
        self.broker.close()
        self.sock.close()

    def ask(self, request: bytes, *fds: int) -> tuple[int, bytes, list[int]]:
        """Result, detail or data, descriptors."""
        socket.send_fds(self.sock, [request], list(fds))
        if (pending := self.broker.step()) is not None:
            self.broker.answer(b"python")
            assert pending.kind >= lib.ACCORD_ASK_BOUNDARY
        answer, got, _, _ = socket.recv_fds(self.sock, 16384, 4)
        (result,) = struct.unpack_from("=i", answer)
        return result, answer[4:] if result < 0 else answer[ffi.sizeof("struct accord_reply") :], got

    def refusals(self) -> int:
        return self.broker.counts()[1]


def head(kind: int, number: int = 0, mode: int = 0, reserved: int = 0) -> bytes:
    return struct.pack("=IIII", kind, number, mode, reserved)


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@settings(max_examples=400, deadline=None)
@given(st.binary(min_size=1, max_size=200), st.integers(0, 3))
def test_no_bytes_upset_it(data: bytes, fds: int) -> None:
    """Whatever comes, there is one answer, and no descriptor of the request or of its own making stays open."""
    with Talk() as talk, open(os.devnull) as file:
        before = open_descriptors()
        result, _, got = talk.ask(data, *[file.fileno()] * fds)
        for fd in got:
            os.close(fd)
        assert open_descriptors() == before
        # Nothing is configured but sockets: of the requests of the C core only harmless ones are carried out.
        kind = struct.unpack_from("=I", data)[0] if len(data) >= 16 else 0
        if kind == 0:
            assert result < 0
            assert talk.refusals() == 1


@settings(max_examples=400, deadline=None)
@given(
    st.integers(0, lib.ACCORD_ASK_BOUNDARY - 1),
    st.integers(0, 0xFFFFFFFF),
    st.integers(0, 0xFFFFFFFF),
    st.binary(max_size=100),
    st.integers(0, 2),
)
def test_known_requests_with_any_content_are_answered_or_refused(
    kind: int, number: int, mode: int, data: bytes, fds: int
) -> None:
    with Talk() as talk, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        before = open_descriptors()
        _, _, got = talk.ask(head(kind, number, mode) + data, *[sock.fileno()] * fds)
        for fd in got:
            os.close(fd)
        assert open_descriptors() == before


@pytest.mark.parametrize("kind", range(1, lib.ACCORD_ASK_BOUNDARY))
def test_every_request_of_another_length_or_with_other_descriptors_is_refused(kind: int) -> None:
    with Talk("lo", set(Rung)) as talk, open(os.devnull) as file:
        for request, fds in (
            (head(kind) + b"x", 0),
            (head(kind) + bytes(1000), 0),
            (head(kind, reserved=1), 0),
            (head(kind)[:-1], 0),
            (head(kind), 2),
            (head(kind) + bytes(16384), 0),
        ):
            before = talk.refusals()
            result, _, got = talk.ask(request, *[file.fileno()] * fds)
            assert (result < 0, talk.refusals(), got) == (True, before + 1, []), (len(request), fds)


OTHERS_INTERFACE = 99999


@pytest.mark.parametrize(
    ("request_", "interface", "rungs"),
    [
        (head(lib.ACCORD_ASK_LOAD), None, set(Rung)),
        (head(lib.ACCORD_ASK_LOAD), "lo", {Rung.UDP, Rung.PACKET}),
        (head(lib.ACCORD_ASK_ATTACH, 1, 2), "lo", set(Rung)),  # nothing is loaded
        (head(lib.ACCORD_ASK_STEER, 443, 1), "lo", set(Rung)),
        (head(lib.ACCORD_ASK_HEARD), "lo", set(Rung)),
        (head(lib.ACCORD_ASK_COUNTERS), "lo", set(Rung)),
        (head(lib.ACCORD_ASK_RING), "lo", {Rung.PACKET}),
        (head(lib.ACCORD_ASK_PACKET, 1), "lo", {Rung.UDP}),
        (head(lib.ACCORD_ASK_PACKET, OTHERS_INTERFACE), "lo", set(Rung)),
        (head(lib.ACCORD_ASK_PACKET, 1), "no-such", set(Rung)),
        (head(lib.ACCORD_ASK_PACKET, 0), "lo", set(Rung)),
        (head(lib.ACCORD_ASK_DIRECT, socket.AF_INET), None, {Rung.UDP}),
        (head(lib.ACCORD_ASK_DIRECT, socket.AF_UNIX), "lo", set(Rung)),
    ],
)
def test_what_the_configuration_does_not_want_is_refused(
    request_: bytes, interface: str | None, rungs: set[Rung]
) -> None:
    with Talk(interface, rungs) as talk:
        result, detail, got = talk.ask(request_)
        assert result < 0
        assert b"refuses request" in detail
        assert (talk.refusals(), got) == (1, [])


@pytest.mark.root
def test_the_configured_interface_is_given() -> None:
    """The good twin of those above."""
    with Talk("lo", set(Rung)) as talk:
        for request in (
            head(lib.ACCORD_ASK_PACKET, 1),
            head(lib.ACCORD_ASK_DIRECT, socket.AF_INET),
            head(lib.ACCORD_ASK_RING),
            head(lib.ACCORD_ASK_BELL),
            head(lib.ACCORD_ASK_LOAD),
            head(lib.ACCORD_ASK_HEARD),
        ):
            result, detail, got = talk.ask(request)
            assert result >= 0, detail
            assert len(got) == 1
            os.close(got[0])
        assert talk.refusals() == 0


def bind_request(port: int, family: int = 4) -> bytes:
    return head(lib.ACCORD_ASK_BIND) + struct.pack("=BBHI16s", family, 0, port, 0, socket.inet_aton("127.0.0.1"))


@pytest.mark.root
def test_ports_are_bound_that_the_configuration_has_and_no_others() -> None:
    with Talk(ports=frozenset({443, 8443})) as talk, socket.socket() as tcp, socket.socket(socket.AF_UNIX) as unix:
        for request, fd in (
            (bind_request(22), tcp.fileno()),
            (bind_request(0), tcp.fileno()),
            (bind_request(443, 6), tcp.fileno()),
            (bind_request(443, 9), tcp.fileno()),
            (bind_request(443), unix.fileno()),
        ):
            result, _, _ = talk.ask(request, fd)
            assert result < 0
        assert talk.refusals() == 5
        result, detail, _ = talk.ask(bind_request(443), tcp.fileno())
        assert result == 0, detail
        assert tcp.getsockname() == ("127.0.0.1", 443)


def state(**fields: int) -> bytes:
    wanted = {"local_port": 443, "remote_port": 9999, "remote_mss": 1460, "local_window": 1000, "remote_window": 1000}
    return bytes(ffi.buffer(tcp_state.state(("127.0.0.1", 0), ("127.0.0.1", 0), **{**wanted, **fields})))


@pytest.mark.root
def test_connections_are_expected_for_listeners_on_allowed_ports_once_the_program_is_attached() -> None:
    if not assign_reqsk().ok:
        pytest.skip(assign_reqsk().reason)
    listening, expect, end = lib.ACCORD_ASK_LISTENING, lib.ACCORD_ASK_BIRTH, lib.ACCORD_ASK_BIRTH_END
    with Talk("lo", ports=frozenset({443})) as talk:
        early = (head(listening, 443), head(expect) + state(), head(end) + state())
        assert [talk.ask(request)[0] < 0 for request in early] == [True] * 3
        assert talk.refusals() == 3
        result, detail, _ = talk.ask(head(lib.ACCORD_ASK_BIRTHS))
        assert result == 0, detail
        for request in (
            head(listening, 22),
            head(listening, 65536 + 443),
            head(expect) + state(local_port=22),
            head(expect) + state(remote_port=0),
            head(expect) + state(timestamp=1),
            head(end) + state(local_port=22),
        ):
            assert talk.ask(request)[0] < 0
        assert talk.refusals() == 9
        result, answer, _ = talk.ask(head(end, mode=1) + state())
        assert (result, answer) == (0, bytes(ffi.sizeof("struct accord_birth")))
    with Talk(None) as talk:
        result, detail, _ = talk.ask(head(lib.ACCORD_ASK_BIRTHS))
        assert result == -Reason.NO_INTERFACE, detail


@pytest.mark.root
def test_a_connection_is_installed_on_an_allowed_port_or_on_that_which_its_socket_has() -> None:
    ask = head(lib.ACCORD_ASK_TCP_INSTALL)
    with Talk(ports=frozenset({443})) as talk, socket.socket() as free, socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        with socket.create_server(("127.0.0.1", 0)) as listener:
            for data, sock in (
                (state(service=1, local_port=22), free),
                (state(service=1, local_port=443), bound),
                (state(service=0, local_port=443), bound),
                (state(service=0, local_port=port), free),
                (state(service=0, local_port=port, remote_port=0), bound),
                (state(service=2, local_port=443), free),
                (state(service=0, local_port=port, timestamp=1), bound),
                (state(service=0, local_port=listener.getsockname()[1]), listener),
            ):
                result, detail, _ = talk.ask(ask + data, sock.fileno())
                assert result < 0
                assert b"refuses" in detail
        assert talk.refusals() == 8
        result, detail, _ = talk.ask(ask + state(service=1), free.fileno())
        assert result == 0, detail
        assert free.getpeername() == ("127.0.0.1", 9999)
        # What was installed is ended without a segment, and comes back as an ordinary socket.
        result, detail, _ = talk.ask(head(lib.ACCORD_ASK_TCP_SILENCE), free.fileno())
        assert result == 0, detail
        assert free.getsockopt(socket.IPPROTO_TCP, 19) == 0
        with pytest.raises(OSError, match="not connected"):
            free.getpeername()


def installing(sock: socket.socket, **fields: int) -> tcp_state.Installing:
    wanted = {"local_port": 443, "remote_port": 9999, "remote_mss": 1460, "local_window": 1000, "remote_window": 1000}
    both = ("127.0.0.1", 0), ("127.0.0.1", 0)
    return tcp_state.Installing(tcp_state.state(*both, **{**wanted, "service": 1, **fields}), sock)


@pytest.mark.root
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_answers_that_are_waited_for_later_find_who_asked_whatever_is_asked_in_between(order: tuple[int, ...]) -> None:
    def act() -> None:
        with contextlib.ExitStack() as closing:
            socks = [closing.enter_context(socket.socket()) for _ in range(3)]
            ports = (443, 22, 443)  # the second is not allowed
            begun = [
                installing(sock, local_port=port, remote_port=9000 + at)
                for at, (sock, port) in enumerate(zip(socks, ports, strict=True))
            ]
            assert tcp_state.numbers(tcp_state.state(("127.0.0.1", 0), ("127.0.0.1", 0)))[0] > 0
            for at in order:
                for _ in range(2):  # an answer stays
                    with contextlib.nullcontext() if ports[at] == 443 else pytest.raises(HostError, match="refuses"):
                        begun[at].wait()
            assert [sock.getpeername()[1] for sock in (socks[0], socks[2])] == [9000, 9002]
            # Sent by nobody else's leave: a service's connections do not keep its port from a new listener.
            assert socks[0].getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 1
            for sock in (socks[0], socks[2]):
                tcp_state.silence(sock)

    assert in_worker(act, ports=frozenset({443})) == (6, 1)


@pytest.mark.root
def test_what_nobody_waits_for_any_more_is_answered_all_the_same() -> None:
    def act() -> None:
        with socket.socket() as one, socket.socket() as other:
            for sock, port in ((one, 9000), (other, 9001)):
                installing(sock, remote_port=port)  # forgotten
                gc.collect()
            tcp_state.silence(one)
            tcp_state.silence(other)

    assert in_worker(act, ports=frozenset({443})) == (4, 0)


@pytest.mark.root
def test_a_broker_that_is_gone_is_told_of_by_whoever_waits() -> None:
    def act() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        privilege.ask_from(theirs)
        with socket.socket() as sock:
            begun = installing(sock)
            ours.close()
            for each in (begun, installing(sock)):
                with pytest.raises(HostError, match="asking the privileged process"):
                    each.wait()

    assert in_worker(act) == (0, 0)


@pytest.mark.root
def test_a_socket_that_could_not_be_installed_is_not_left_in_repair_mode() -> None:
    with Talk() as talk, socket.socket() as sock:
        wanted = tcp_state.state(("203.0.113.1", 0), ("127.0.0.1", 0), service=1, local_port=443, remote_port=9)
        result, detail, _ = talk.ask(head(lib.ACCORD_ASK_TCP_INSTALL) + bytes(ffi.buffer(wanted)), sock.fileno())
        assert result < 0
        assert b"bind(203.0.113.1" in detail
        assert talk.refusals() == 0
        assert sock.getsockopt(socket.IPPROTO_TCP, 19) == 0


def test_a_worker_that_asks_and_does_not_listen_loses_its_answers_only() -> None:
    with Talk() as talk:
        for _ in range(5):
            sent = 0
            with contextlib.suppress(BlockingIOError):
                while talk.sock.send(head(lib.ACCORD_ASK_ATTACHED)):
                    sent += 1
            assert sent > 0
            assert talk.broker.step() is None
        with contextlib.suppress(BlockingIOError):
            while talk.sock.recv(16384):
                pass
        result, _, _ = talk.ask(head(lib.ACCORD_ASK_ATTACHED))
        assert result == 0
        assert talk.refusals() == 0


def test_its_worker_gone_it_says_so() -> None:
    talk = Talk()
    talk.sock.close()
    with pytest.raises(EOFError):
        talk.broker.step()
    talk.broker.close()


@pytest.mark.root
def test_a_flood_of_nonsense_is_survived_and_counted() -> None:
    rounds = 2000

    def flood() -> None:
        lib.accord_privilege_from(-1)
        sock = next(found for fd in range(3, 1024) if (found := as_pair(fd)) is not None)
        for number in range(rounds):
            sock.send(head(number % 7, 1, 1, 1))
            sock.recv(16384)

    asked, refused = in_worker(flood)
    assert (asked, refused) == (rounds, rounds)


def as_pair(fd: int) -> socket.socket | None:
    """The worker's end of the pair, found as an intruder would find it."""
    try:
        sock = socket.socket(fileno=os.dup(fd))
    except OSError:
        return None
    return sock if (sock.family, sock.type) == (socket.AF_UNIX, socket.SOCK_SEQPACKET) else None
