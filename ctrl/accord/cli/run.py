# SPDX-License-Identifier: Apache-2.0
"""``accord run``: an unmodified program in a cgroup of its own, whose connections the daemon negotiates for."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import secrets
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from accord.api.connect import parse_remote
from accord.controller.control import Channel, call, control_path
from accord.datapath.cgroup import MOUNT, own_cgroup
from accord.wire.constants import Reason
from accord.wire.errors import AccordError, error

_PREFIX = "accord-run-"
_PASSED_ON = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT)
_NOT_FOUND, _NOT_EXECUTABLE = 127, 126
"""As a shell says it."""
_PAUSES = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
"""Seconds before a daemon is asked for again."""


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option(
    "--peer",
    "peers",
    multiple=True,
    metavar="HOST:PORT",
    help="Speaks Accord: its first SYN is held already, not only those after it has answered. May be repeated.",
)
@click.option("--control", type=click.Path(path_type=Path), help="Control socket of the daemon.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(peers: tuple[str, ...], control: Path | None, command: tuple[str, ...]) -> None:
    """Run an unmodified program; its TCP connections to peers that speak Accord are negotiated, without a SYN.

    The first connection to a peer of which nothing is known is a plain one; the peer is asked beside it. While there is
    no daemon all are plain; the next one is asked as soon as it is there. The exit code is the program's. Needs a
    cgroup of one's own: root, or systemd-run --user --scope -p Delegate=yes accord run ...

    Example: accord run -- curl http://server:8080/
    """
    found = [each for peer in peers for each in _resolved(peer)]
    with _cgroup() as cgroup:
        sys.exit(asyncio.run(_run(control_path(control), cgroup, found, command)))


def _resolved(peer: str) -> list[tuple[str, int]]:
    host, port = parse_remote(peer)
    try:
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as unknown:
        raise error(
            Reason.UNREACHABLE, f"{host}: {unknown.strerror}", "check the name, or give an address"
        ) from unknown
    return list(dict.fromkeys((str(address[0]).partition("%")[0], port) for *_, address in infos))


async def _run(control: Path, cgroup: Path, peers: list[tuple[str, int]], command: Sequence[str]) -> int:
    directory = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        channel = await _ask(control, directory, peers)
        pid = _start(cgroup, command)
        asked = asyncio.create_task(_ask_again(channel, control, directory, peers))
        try:
            return await _wait(pid)
        finally:
            asked.cancel()
            await asyncio.wait({asked})
    finally:
        os.close(directory)


async def _ask(control: Path, directory: int, peers: list[tuple[str, int]]) -> Channel:
    """A daemon takes SYNs of the cgroup over, as long as the channel is open. Raises ``AccordError``, ``OSError``."""
    channel = call(control)
    try:
        await channel.ask({"op": "run", "peers": peers}, [directory])
    except BaseException:
        channel.close()
        raise
    return channel


async def _ask_again(channel: Channel, control: Path, directory: int, peers: list[tuple[str, int]]) -> None:
    """Whenever the daemon is gone, the next one, until this is cancelled. Meanwhile connections are plain ones, and
    what the program shows is its own: nothing is said of it here."""
    while True:
        try:
            await _closed(channel)
        finally:
            channel.close()
        for pause in itertools.chain(_PAUSES, itertools.repeat(_PAUSES[-1])):
            await asyncio.sleep(pause)
            try:
                channel = await _ask(control, directory, peers)
                break
            except (AccordError, OSError):
                continue


async def _closed(channel: Channel) -> None:
    """Until the daemon has closed it."""
    with contextlib.suppress(AccordError, OSError):
        while (said := await channel.receive()) is not None:
            for descriptor in said[1]:
                os.close(descriptor)


def _start(cgroup: Path, command: Sequence[str]) -> int:
    """The program's process ID: it is in the cgroup before it is the program."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    pid = os.fork()
    if pid:
        return pid
    code = _NOT_EXECUTABLE
    try:
        (cgroup / "cgroup.procs").write_text("0", encoding="ascii")
        for number in (signal.SIGINT, *_PASSED_ON, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        os.execvp(command[0], list(command))
    except OSError as refusal:
        code = _NOT_FOUND if isinstance(refusal, FileNotFoundError) else _NOT_EXECUTABLE
        os.write(2, f"accord: {command[0]}: {refusal.strerror}\n".encode(errors="replace"))
    finally:
        os._exit(code)


async def _wait(pid: int) -> int:
    """The program's exit code, 128 and the signal's number where one ended it. Ctrl-C goes to it as well."""
    before = {signal.SIGINT: signal.signal(signal.SIGINT, lambda *_: None)}
    for number in _PASSED_ON:
        before[number] = signal.signal(number, lambda number, _: _pass_on(pid, number))
    try:
        await _ended(pid)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return code if code >= 0 else 128 - code


async def _ended(pid: int) -> None:
    loop, process = asyncio.get_running_loop(), os.pidfd_open(pid)
    ended = asyncio.Event()
    loop.add_reader(process, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(process)
        os.close(process)


def _pass_on(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


@contextlib.contextmanager
def _cgroup() -> Iterator[Path]:
    """One below this process's own; what is still in it at the end moves up. Raises ``AccordError``."""
    above = own_cgroup()
    _sweep(above)
    made = above / f"{_PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
    try:
        made.mkdir()
    except OSError as refusal:
        mend = "run as root, or: systemd-run --user --scope -p Delegate=yes accord run ..."
        denied = isinstance(refusal, PermissionError)
        raise error(
            Reason.NO_PRIVILEGE if denied else Reason.NO_KERNEL_SUPPORT,
            f"a cgroup below {above}: {refusal.strerror}",
            mend if denied else MOUNT,
        ) from refusal
    try:
        yield made
    finally:
        _remove(made, above)


def _remove(made: Path, above: Path) -> None:
    """Children that the program has left behind go on, as programs that nobody runs."""
    with contextlib.suppress(OSError):
        for pid in (made / "cgroup.procs").read_text(encoding="ascii").split():
            with contextlib.suppress(OSError):
                (above / "cgroup.procs").write_text(pid, encoding="ascii")
    with contextlib.suppress(OSError):
        made.rmdir()


def _sweep(above: Path) -> None:
    """Cgroups of those that were killed: an occupied one cannot be removed."""
    for left in above.glob(f"{_PREFIX}*"):
        pid = left.name.removeprefix(_PREFIX).partition("-")[0]
        if pid.isdecimal() and not Path(f"/proc/{pid}").exists():
            with contextlib.suppress(OSError):
                left.rmdir()
