# SPDX-License-Identifier: Apache-2.0
"""Opening, the ladder, and what is left when a port goes: by close, by kill, by hanging."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path as FilePath

import pytest

from accord.datapath.engine import EventKind
from accord.datapath.port import Port, Rung, Spare
from accord.wire.constants import Limit, Reason
from accord.wire.errors import AccordError, HostError, UserError
from tests.datapath.netns import Host
from tests.datapath.sides import PORT, Side, packet, transaction_id, until

XDP = [Rung.XDP_NATIVE, Rung.XDP_GENERIC]


def open_fds() -> dict[int, int]:
    """This process's descriptors and their flags."""
    found = {}
    for entry in os.listdir("/proc/self/fdinfo"):
        try:
            text = FilePath("/proc/self/fdinfo", entry).read_text()
        except FileNotFoundError:  # the listing's own
            continue
        found[int(entry)] = int(text.split("flags:")[1].split()[0], 8)
    return found


def test_without_an_interface_the_udp_rung_is_reached_and_the_others_say_why_not() -> None:
    with Port.open() as port:
        assert port.report.rung is Rung.UDP
        assert port.fds() == []
        assert {rung: refusal.reason for rung, refusal in port.report.refusals.items()} == {
            Rung.XDP_NATIVE: Reason.NO_INTERFACE,
            Rung.XDP_GENERIC: Reason.NO_INTERFACE,
            Rung.PACKET: Reason.NO_INTERFACE,
        }


@pytest.mark.parametrize("name", ["no-such-if0", "x" * 40])
def test_an_interface_that_is_not_there_is_the_users_fault(name: str) -> None:
    with pytest.raises(UserError, match=name[:15]) as raised:
        Port.open(name, Rung.XDP_NATIVE, Rung.PACKET)
    assert raised.value.reason is Reason.NO_INTERFACE


def test_no_rung_between_first_and_last_is_refused() -> None:
    with pytest.raises(AccordError) as raised:
        Port.open(None, Rung.UDP, Rung.PACKET)
    assert raised.value.reason is Reason.BAD_CONFIG


def test_a_closed_port_says_so() -> None:
    port = Port.open()
    port.close()
    port.close()
    with pytest.raises(ValueError, match="closed"):
        port.datagrams()


@pytest.mark.root
def test_a_missing_bpf_object_is_named_and_the_ladder_goes_on(far: Host, tmp_path: FilePath) -> None:
    missing = tmp_path / "missing.o"
    port = far.run(lambda: Port.open(far.interface, object_path=missing))
    with port:
        assert port.report.rung is Rung.PACKET
        assert port.report.refusals[Rung.XDP_NATIVE].reason is Reason.LOAD_FAILED
        assert str(missing)[:60] in port.report.refusals[Rung.XDP_NATIVE].detail


@pytest.mark.root
def test_a_bpf_object_that_is_not_one_is_refused_with_libbpf_silent(
    far: Host, tmp_path: FilePath, capfd: pytest.CaptureFixture[str]
) -> None:
    garbage = tmp_path / "garbage.o"
    garbage.write_bytes(b"\x7fELF" + bytes(200))
    with pytest.raises(HostError) as raised:
        far.run(lambda: Port.open(far.interface, Rung.XDP_NATIVE, Rung.XDP_NATIVE, object_path=garbage))
    assert raised.value.reason is Reason.LOAD_FAILED
    assert capfd.readouterr() == ("", "")


@pytest.mark.root
def test_an_interface_without_native_xdp_gets_generic(far: Host) -> None:
    port = far.run(lambda: Port.open("lo"))
    with port:
        assert port.report.rung is Rung.XDP_GENERIC
        assert port.report.refusals[Rung.XDP_NATIVE].reason is Reason.NO_KERNEL_SUPPORT


@pytest.mark.root
def test_an_interface_without_ethernet_headers_gets_the_udp_rung(far: Host) -> None:
    far.command("ip", "tuntap", "add", "tun9", "mode", "tun")
    port = far.run(lambda: Port.open("tun9"))
    with port:
        assert port.report.rung is Rung.UDP
        assert "no Ethernet" in port.report.refusals[Rung.PACKET].detail


@pytest.mark.root
def test_every_receive_queue_gets_a_ring(far: Host, near: Host) -> None:
    far.command("ip", "link", "add", "many0", "numrxqueues", "3", "numtxqueues", "3", "type", "veth",
                "peer", "many1", "numrxqueues", "3", "numtxqueues", "3")  # fmt: skip
    port = far.run(lambda: Port.open("many0", Rung.XDP_NATIVE, Rung.XDP_NATIVE))
    with port:
        assert port.report.queues == len(port.ring_statistics()) == 3


@pytest.mark.root
@pytest.mark.parametrize("rung", XDP, ids=lambda rung: rung.name)
def test_close_takes_the_program_away_and_leaves_no_descriptor(far: Host, rung: Rung) -> None:
    before = set(open_fds())
    with Side(far, rung) as side:
        assert far.xdp_id() == side.port.report.program_id != 0
    assert far.xdp_id() == 0
    assert set(open_fds()) == before


@pytest.mark.root
@pytest.mark.parametrize("rung", list(Rung), ids=lambda rung: rung.name)
def test_every_descriptor_of_a_port_is_closed_on_exec(far: Host, rung: Rung) -> None:
    before = set(open_fds())
    with Side(far, rung):
        mine = {fd: flags for fd, flags in open_fds().items() if fd not in before}
        assert mine
        assert all(flags & os.O_CLOEXEC for flags in mine.values())


@pytest.mark.root
def test_a_port_opened_right_after_another_was_closed_reaches_the_same_rung(far: Host) -> None:
    for _ in range(10):
        with Side(far, Rung.XDP_NATIVE) as side:
            assert side.port.report.refusals == {}


HOLDER = """
import sys
from accord.datapath.port import Port, Rung
port = Port.open(sys.argv[1], Rung(int(sys.argv[2])), Rung(int(sys.argv[2])), any_port=True)
port.heartbeat()
print(port.report.program_id, flush=True)
sys.stdin.read()
"""


@pytest.mark.root
@pytest.mark.parametrize("rung", XDP, ids=lambda rung: rung.name)
def test_when_the_process_is_killed_the_program_goes_and_the_kernel_gets_the_packets(
    near: Host, far: Host, rung: Rung
) -> None:
    paths = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    holder = far.run(
        lambda: subprocess.Popen(
            [sys.executable, "-c", HOLDER, far.interface, str(int(rung))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=paths,
        )
    )
    try:
        assert holder.stdout is not None
        assert int(holder.stdout.readline()) == far.xdp_id() != 0
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    give_up = time.monotonic() + 5
    while far.xdp_id() and time.monotonic() < give_up:
        time.sleep(0.01)
    assert far.xdp_id() == 0
    with far.udp(4, PORT) as listener, near.udp(4) as plain:
        listener.setblocking(True)
        listener.settimeout(5)
        whole = packet(transaction_id())
        plain.sendto(whole, (far.address4, PORT))
        assert listener.recv(2000) == whole
    with Side(far, rung):
        assert far.xdp_id() != 0


@pytest.mark.root
@pytest.mark.parametrize("rung", XDP, ids=lambda rung: rung.name)
def test_a_daemon_that_hangs_loses_the_packets_to_the_kernel_until_it_is_back(
    near: Host, far: Host, rung: Rung
) -> None:
    with Side(far, rung) as side, near.udp(4) as plain, far.udp(4, PORT, "0.0.0.0") as listener:
        index = side.port.add_socket(listener)
        plain.sendto(packet(transaction_id()), (far.address4, PORT))
        until(lambda: side.of(EventKind.OPENED), [side])
        assert side.port.counters()[Reason.STEERED] == 1

        side.port.remove_socket(index)
        keeper = side.port.add_socket(listener)
        far.run(side.port.heartbeat)
        time.sleep(Limit.HEARTBEAT_MS / 1000 + 0.05)
        whole = packet(transaction_id())
        plain.sendto(whole, (far.address4, PORT))
        listener.setblocking(True)
        listener.settimeout(5)
        assert listener.recv(2000, socket.MSG_PEEK) == whole
        assert side.port.counters()[Reason.STALE_HEARTBEAT] == 1
        # And the port finds it there, when it runs again.
        until(lambda: len(side.of(EventKind.OPENED)) == 2, [side])

        side.beat()
        plain.sendto(packet(transaction_id()), (far.address4, PORT))
        until(lambda: len(side.of(EventKind.OPENED)) == 3, [side])
        assert side.port.counters()[Reason.STEERED] == 2
        side.port.remove_socket(keeper)


@pytest.mark.root
@pytest.mark.parametrize("rung", list(Rung), ids=lambda rung: rung.name)
def test_when_the_interface_is_deleted_the_port_goes_on_with_its_sockets(near: Host, far: Host, rung: Rung) -> None:
    with Side(far, rung) as side, near.udp(4) as plain, far.udp(4, 0, "127.0.0.1") as local:
        side.bind(4, PORT, "0.0.0.0")
        plain.sendto(packet(transaction_id()), (far.address4, PORT))
        until(lambda: side.of(EventKind.MESSAGE), [side])
        near.command("ip", "link", "del", near.interface)
        side.answer(side.of(EventKind.OPENED)[0])
        until(lambda: side.errors, [side])  # by the socket, which has no route
        local.sendto(packet(transaction_id()), ("127.0.0.1", PORT))
        until(lambda: len(side.of(EventKind.OPENED)) == 2, [side])
        readable, _, _ = select.select(side.port.fds(), [], [], 0)
        assert readable == []


@pytest.mark.root
@pytest.mark.parametrize("rung", XDP)
def test_a_program_that_was_loaded_in_advance_is_used_once_and_belongs_to_the_port(far: Host, rung: Rung) -> None:
    def body() -> None:
        spare = Spare()
        before = len(open_fds())
        with Port.open(far.interface, rung, rung, spare=spare) as port:
            assert port.report.rung is rung
            first = port.report.program_id
            assert far.xdp_id() == first
            spare.close()  # nothing of it is left to unload
            assert far.xdp_id() == first
            with pytest.raises(AccordError):
                Port.open(far.interface, rung, rung, spare=spare)
        assert len(open_fds()) < before
        with Port.open(far.interface, rung, rung, spare=spare) as port:
            assert port.report.program_id not in (0, first)

    far.run(body)


@pytest.mark.root
def test_a_rung_without_xdp_leaves_a_loaded_program_where_it_is() -> None:
    spare = Spare()
    with Port.open(spare=spare) as port:
        assert port.report.rung is Rung.UDP
    with Port.open(spare=spare):
        pass
    spare.close()
    spare.close()
