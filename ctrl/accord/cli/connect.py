# SPDX-License-Identifier: Apache-2.0
"""``accord connect``: a pipe over the negotiated stack, as ``openssl s_client`` is one over TLS."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
import threading
import tomllib
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import click

from accord.api.association import Association
from accord.api.connect import EARLY_MOST, parse_remote
from accord.api.connect import connect as open_association
from accord.controller.bridge import bridge
from accord.controller.ladder import render
from accord.controller.peers.memory import Learnt
from accord.datapath.stream import SocketCarrier
from accord.wire.constants import Party, Reason
from accord.wire.errors import AccordError, error

_CHUNK = 65536
_UNIX_MOST = 107
"""Bytes of a path; unix(7), one less for the zero behind it."""


def describe(report: dict[str, Any]) -> str:
    """What came up, in a line."""
    way = "negotiated" if report["negotiated"] else f"plain connection ({report['reason']})"
    path = f"{report['back_end']}, attach {report['attach_mode']}"
    return f"{'/'.join(report['stack'])} to {report['peer']}, {way}, ready in {report['ready_ms']:.1f} ms, {path}"


_FAULT = {
    Party.NONE: "nobody's fault",
    Party.OURS: "this program's fault",
    Party.PEER: "the peer's fault",
    Party.PATH: "the path's fault",
    Party.HOST: "this host's fault",
    Party.USER: "as this host was told",
}
_REMEMBERED = {
    Learnt.ANSWERED: "the peer answers proposals",
    Learnt.REFUSED: "the peer speaks Accord, and set up no stack",
    Learnt.LATE_ANSWER: "the peer answers proposals, only later than its SYN-ACK",
    Learnt.WAITED_IN_VAIN: "waiting for this peer's answer was in vain",
    Learnt.SILENT: "the peer did not answer the proposal",
    Learnt.NO_SYN_WORKED: "TCP without a SYN works to this peer",
    Learnt.NO_SYN_STALLED: "TCP without a SYN stalls to this peer",
    Learnt.ADOPTED_MARKED: "the SYN's connection was adopted",
    Learnt.ADOPTED_UNMARKED: "the SYN's connection was adopted, but its SYN-ACK did not say that it would be",
    Learnt.FORCED_FALLBACK: "the peer speaks Accord, as its TLS says",
    Learnt.OPTION_PASSED: "SYNs with the option get through",
    Learnt.OPTION_SYN_LOST: "the SYN with the option was lost",
}


def explain(report: dict[str, Any]) -> list[str]:
    """Why there is no negotiated stack, or what the path did to it, whose fault that is, and what is remembered of the
    peer; a line each."""
    lines = []
    reason = Reason[report.get("reason", Reason.OK.name)]
    if not report["negotiated"] or reason is not Reason.OK:
        why = f"{reason.text}: {report['detail']}" if report["detail"] else reason.text
        what = "negotiated, but" if report["negotiated"] else "not negotiated:"
        lines.append(f"{what} {why} ({_FAULT[reason.party]})")
    if report["remembered"]:
        lines.append("remembered: " + "; ".join(_REMEMBERED[Learnt(what)] for what in report["remembered"]))
    return lines


def inside_lines(report: dict[str, Any]) -> list[str]:
    """What was agreed inside each node of the stack, top first; a line each."""
    found = []
    for name in report["stack"]:
        agreed = report["inside"].get(name)
        if agreed:
            found.append(f"inside {name}: " + ", ".join(_option(key, value) for key, value in agreed.items()))
    return found


def _option(key: str, value: object) -> str:
    word = key.replace("_", " ")
    if isinstance(value, bool) or value is None:
        return word if value else f"no {word}"
    return f"{word} {value}" if value != "" else f"no {word}"


def _word(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    """``--preference`` as the policy's table. What its words mean the policy says."""
    pairs = [text.partition("=") for text in given]
    for name, equals, word in pairs:
        if not (name and equals and word):
            raise click.BadParameter("write PROTOCOL=WORD, as quic=avoid")
    return {name: word for name, _, word in pairs}


async def pipe(association: Association, *, to_the_end: bool = False) -> None:
    """Standard input to the peer, the peer to standard output; ends when the peer has finished.

    ``to_the_end``: not before all of standard input was sent, unless that is a terminal.
    """
    loop = asyncio.get_running_loop()
    pieces: asyncio.Queue[bytes] = asyncio.Queue(4)

    def read_input() -> None:  # a thread, since a file cannot be polled; a daemon one, since a read cannot be stopped
        try:
            while True:
                data = os.read(sys.stdin.fileno(), _CHUNK)
                asyncio.run_coroutine_threadsafe(pieces.put(data), loop).result()
                if not data:
                    return
        except (OSError, RuntimeError, CancelledError):
            return

    async def send() -> None:
        while data := await pieces.get():
            await association.write(data)
        await association.finish()

    threading.Thread(target=read_input, daemon=True).start()
    sender = asyncio.create_task(send())
    try:
        while data := await association.read():
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        if sender.done() or (to_the_end and not sys.stdin.isatty()):
            await sender
    finally:
        sender.cancel()


def local_listener(address: str) -> tuple[socket.socket, Path | None]:
    """A listening socket, and its path if it has one. Raises ``UserError`` when it cannot be had."""
    try:
        if address.startswith("unix:"):
            path = Path(address.removeprefix("unix:"))
            if address == "unix:" or len(os.fsencode(path)) > _UNIX_MOST:
                raise error(Reason.BAD_CONFIG, f"{address} names no socket", f"a path of 1 to {_UNIX_MOST} bytes")
            _clear(path)
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            listener.bind(os.fspath(path))
            listener.listen(64)
            return listener, path
        host, port = parse_remote(address)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family), None
    except OSError as refusal:
        raise error(
            Reason.BAD_CONFIG, f"cannot listen on {address}: {refusal.strerror}", "choose another --listen address"
        ) from refusal


def _clear(path: Path) -> None:
    """Remove a socket that nobody listens on: one that was killed could not."""
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)


async def _serve(address: str, options: dict[str, Any], remote: str, *, verbose: bool, as_json: bool) -> None:
    """Each connection to ``address`` (unix:PATH or HOST:PORT) becomes one negotiated stack."""
    listener, path = local_listener(address)
    listener.setblocking(False)
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    async def one(local: socket.socket) -> None:
        near = SocketCarrier(local)
        try:
            far = await open_association(remote, **options)
        except (AccordError, OSError) as failure:
            near.abort()
            click.echo(f"accord: {failure}", err=True)
            return
        if as_json:
            click.echo(json.dumps(far.report), err=True)
        if verbose:
            for line in (describe(far.report), *inside_lines(far.report), *explain(far.report)):
                click.echo(line, err=True)
        await bridge(near, far.carrier)

    try:
        click.echo(f"listening on {address}; each connection goes to {remote}", err=True)
        while True:
            local, _ = await loop.sock_accept(listener)
            task = asyncio.create_task(one(local))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
    finally:
        listener.close()
        if path is not None:
            path.unlink(missing_ok=True)


@click.command()
@click.argument("remote", metavar="HOST:PORT")
@click.option("-v", "--verbose", is_flag=True, help="Print what came up and why, and the ladder of what happened.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as a line of JSON on standard error.")
@click.option("--secure", type=click.Choice(["required", "preferred", "no"]), help="Policy: is security needed?")
@click.option("--prefer", multiple=True, metavar="STACK", help="Policy: tls/tcp, quic or tcp; best first, repeatable.")
@click.option("--only", is_flag=True, help="Policy: nothing but the stacks named by --prefer.")
@click.option(
    "--preference",
    "preferences",
    multiple=True,
    metavar="PROTOCOL=WORD",
    callback=_word,
    help="Policy: required, preferred, neutral, avoid or forbidden, as quic=avoid; repeatable.",
)
@click.option(
    "--policy",
    "lines",
    multiple=True,
    metavar="TOML",
    help="Policy: any keys as a policy file has them, as 'tcp_options.sack = \"required\"'; repeatable.",
)
@click.option(
    "--fallback",
    type=click.Choice(["parallel", "delayed", "never"]),
    help="Policy: is a plain SYN sent at once, only when no answer comes, or never?",
)
@click.option("--context", type=click.Choice(["udp", "direct"]), help="Policy: negotiate over UDP, or IP protocol 253?")
@click.option(
    "--tcp",
    type=click.Choice(["auto", "no-syn", "parallel-syn"]),
    help="Policy: is negotiated TCP installed without a SYN, or does it take the connection of one sent meanwhile?",
)
@click.option("--inner", type=click.Choice(["no", "required"]), help="Policy: is what is above security sealed?")
@click.option("--key", metavar="BASE64", help="Policy: what it is sealed to, as the peer's accord keys show has it.")
@click.option("--defer", multiple=True, metavar="PROTOCOL", help="Policy: not shown before the peer has answered.")
@click.option("--choose", multiple=True, metavar="PROTOCOL", help="Policy: for the peer to offer, for us to choose.")
@click.option("--early", type=click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=True), metavar="FILE",
              help="A request that may be repeated without harm, to travel in the first message.")  # fmt: skip
@click.option("--renegotiate", is_flag=True, help="Policy: either side can change the stack later, whatever it is.")
@click.option("--server-name", help="Name that the certificate must be for, when it is not HOST.")
@click.option("--ca", "ca_file", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Roots to trust.")
@click.option("--insecure", is_flag=True, help="Do not verify the certificate.")
@click.option("-4", "family", flag_value=4, type=int, help="IPv4 only.")
@click.option("-6", "family", flag_value=6, type=int, help="IPv6 only.")
@click.option("--listen", "address", metavar="ADDRESS", help="Serve unix:PATH or HOST:PORT instead of the terminal.")
@click.option("--control", type=click.Path(path_type=Path), help="Control socket of the daemon.")
def connect(
    remote: str,
    verbose: bool,
    as_json: bool,
    secure: str | None,
    prefer: tuple[str, ...],
    only: bool,
    preferences: dict[str, str],
    lines: tuple[str, ...],
    fallback: str | None,
    context: str | None,
    tcp: str | None,
    inner: str | None,
    key: str | None,
    defer: tuple[str, ...],
    choose: tuple[str, ...],
    early: Path | None,
    renegotiate: bool,
    server_name: str | None,
    ca_file: Path | None,
    insecure: bool,
    family: int | None,
    address: str | None,
    control: Path | None,
) -> None:
    """Open a negotiated stack to HOST:PORT and pipe it to standard input and output.

    With --listen, serve local programs instead: curl --unix-socket PATH http://HOST/ then goes over the
    negotiated stack.
    """
    if address is not None and early is not None:
        raise click.UsageError("--early is for one connection, --listen serves many")
    try:
        policy: dict[str, Any] = tomllib.loads("\n".join(lines))
    except tomllib.TOMLDecodeError as wrong:
        raise click.BadParameter(f"no TOML: {wrong}", param_hint="--policy") from wrong
    if secure:
        policy["secure"] = secure
    if prefer:
        policy["prefer"] = list(prefer)
    if only:
        policy["only"] = True
    if preferences:
        policy["preferences"] = {**policy.get("preferences", {}), **preferences}
    if fallback:
        policy["fallback"] = fallback
    if context:
        policy["context"] = context
    if tcp:
        policy["tcp"] = tcp
    if inner:
        policy["inner"] = inner
    if key:
        policy["key"] = key
    if defer:
        policy["defer"] = list(defer)
    if choose:
        policy["choose"] = list(choose)
    if renegotiate:
        policy["renegotiate"] = True
    request = b""
    if early is not None:
        policy["early"] = "idempotent"
        with contextlib.nullcontext(sys.stdin.buffer) if str(early) == "-" else early.open("rb") as file:
            request = file.read(EARLY_MOST + 1)  # one too many is told, and not what else /dev/zero has
    options: dict[str, Any] = {
        "policy": policy,
        "server_name": server_name,
        "ca_file": ca_file,
        "verify": not insecure,
        "family": family,
        "control": control,
    }
    open_association(remote, **options)  # says what of it cannot be read, before anything is begun

    async def run() -> None:
        if address is not None:
            await _serve(address, options, remote, verbose=verbose, as_json=as_json)
            return
        try:
            async with open_association(remote, early=request, ladder=verbose, **options) as association:
                if as_json:
                    click.echo(json.dumps(association.report), err=True)
                if verbose:
                    report = association.report
                    for line in (describe(report), *inside_lines(report), *explain(report)):
                        click.echo(line, err=True)
                    click.echo(render(association.report["ladder"]), err=True)
                await pipe(association)
        except AccordError as failure:
            if verbose and failure.trace:
                click.echo(render(failure.trace), err=True)
            raise
        except ConnectionError as broken:
            raise error(Reason.STREAM_BROKEN, f"{remote}: {broken.strerror}") from broken

    asyncio.run(run())
