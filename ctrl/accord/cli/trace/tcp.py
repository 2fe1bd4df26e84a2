# SPDX-License-Identifier: Apache-2.0
"""``accord trace tcp``: the life of negotiated TCP connections, from the kernel's tracepoints."""

from __future__ import annotations

import enum
import ipaddress
import struct
from dataclasses import dataclass
from pathlib import Path

import click

from accord.cli.trace.in_order import InOrder
from accord.cli.trace.rings import Rings
from accord.cli.trace.session import compile_text, epoch, network_namespace, options, run, say, wall
from accord.datapath.kernel_types import bit_offset, byte_offset
from accord.datapath.tcp_numbers import SCRATCH_PORT

_EVENT = struct.Struct("=QQQIHHHBBBB16s16s")
"""``struct event`` of tcp.bcc.c."""
_AF_INET6 = 10
_SEND_RESET = Path("/sys/kernel/tracing/events/tcp/tcp_send_reset/format")


class What(enum.IntEnum):
    """``enum what`` of tcp.bcc.c."""

    STATE = 1
    RETRANSMITTED = 2
    RESET_SENT = 3
    RESET_RECEIVED = 4


class State(enum.IntEnum):
    """include/net/tcp_states.h, the states of RFC 9293 and Linux's own."""

    ESTABLISHED = 1
    SYN_SENT = 2
    SYN_RECV = 3
    FIN_WAIT1 = 4
    FIN_WAIT2 = 5
    TIME_WAIT = 6
    CLOSE = 7
    CLOSE_WAIT = 8
    LAST_ACK = 9
    LISTEN = 10
    CLOSING = 11
    NEW_SYN_RECV = 12


@dataclass(frozen=True, slots=True)
class Change:
    """One event: addresses are text, times CLOCK_BOOTTIME in nanoseconds; states are 0 unless ``what`` is STATE."""

    at_ns: int
    since_ns: int
    socket: int
    namespace: int
    local: str
    local_port: int
    remote: str
    remote_port: int
    what: What
    negotiated: bool
    before: int
    after: int


def decode(data: bytes) -> Change:
    """``struct event``. Raises ``struct.error``, ``ValueError`` for what is none."""
    at_ns, since_ns, sock, namespace, family, local_port, remote_port, what, negotiated, before, after, *addresses = (
        _EVENT.unpack_from(data)
    )
    size = 16 if family == _AF_INET6 else 4
    local, remote = (str(ipaddress.ip_address(packed[:size])) for packed in addresses)
    return Change(
        at_ns, since_ns, sock, namespace, local, local_port, remote, remote_port, What(what), bool(negotiated),
        before, after,
    )  # fmt: skip


@click.command()
@click.option("--all", "every", is_flag=True, help="Also connections that began with a SYN.")
@click.option("--all-namespaces", is_flag=True, help="Of every network namespace, not only of this one.")
@options
def tcp(every: bool, all_namespaces: bool, seconds: float | None, as_json: bool) -> None:
    """State changes, retransmissions and resets of negotiated TCP connections, as they happen.

    A connection is known as negotiated from the moment its socket is installed, by its repair mode: those that were
    installed before the tracer are left out.
    """
    macros = {
        "REPAIR_BYTE": bit_offset("tcp_sock", "repair") // 8,
        "REPAIR_MASK": 1 << bit_offset("tcp_sock", "repair") % 8,
        "SOCK_NET": byte_offset("sock", "__sk_common.skc_net.net"),
        "NET_INUM": byte_offset("net", "ns.inum"),
        "SCRATCH_PORT": SCRATCH_PORT,
    }
    if every:
        macros["ALL"] = 1
    if not all_namespaces:
        macros["NAMESPACE"] = network_namespace()
    bpf = compile_text("tcp", macros)
    lost = 0

    def on_loss(count: int) -> None:
        nonlocal lost
        lost += count

    try:
        if _SEND_RESET.exists() and "skaddr;\toffset:16;" in _SEND_RESET.read_text():
            bpf.attach_tracepoint(tp="tcp:tcp_send_reset", fn_name="send_reset")
        else:
            click.echo("accord: this kernel does not tell which connection a reset is sent for", err=True)
        changes = InOrder[Change](lambda change: show(change, as_json))

        def received(data: bytes) -> None:
            change = decode(data)
            changes.add(change.at_ns, change)

        with Rings(received, on_loss) as rings:
            rings.join(bpf["events"])
            what = "TCP connections" if every else "negotiated TCP connections"
            run(what, as_json, lambda patience: changes.round(rings.poll, patience), seconds)
        changes.finish()
        if lost:
            click.echo(f"{lost} events came too fast and are missing", err=True)
    finally:
        bpf.cleanup()


def state(number: int) -> str:
    """A state's name; the number of one that is not known."""
    return State(number).name if number in State.__members__.values() else str(number)


def show(change: Change, as_json: bool) -> None:
    """One line."""
    if as_json:
        states = {"before": state(change.before), "after": state(change.after)} if change.what is What.STATE else {}
        say(
            {
                "event": change.what.name.lower(),
                "at": epoch(change.at_ns),
                "age_ms": round((change.at_ns - change.since_ns) / 1e6, 3),
                "namespace": change.namespace,
                "socket": f"{change.socket:x}",
                "local": change.local,
                "local_port": change.local_port,
                "remote": change.remote,
                "remote_port": change.remote_port,
                "negotiated": change.negotiated,
                **states,
            }
        )
        return
    ends = " -> ".join(
        f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        for address, port in ((change.local, change.local_port), (change.remote, change.remote_port))
    )
    what = change.what.name.lower().replace("_", " ")
    if change.what is What.STATE:
        what = f"{state(change.before)} -> {state(change.after)}"
    how = "negotiated" if change.negotiated else "SYN"
    say(f"{wall(change.at_ns)}  {ends}  {how}, {(change.at_ns - change.since_ns) / 1e6:.1f} ms old  {what}")
