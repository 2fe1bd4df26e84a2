# SPDX-License-Identifier: Apache-2.0
"""The daemon: one controller on one interface, and a control socket for the programs of the host."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import logging
import os
import signal
import socket
import stat
from pathlib import Path

import click

from accord.controller.config import DaemonConfig, load_config
from accord.controller.control import Channel, control_path, failure_message, peer_credentials
from accord.controller.controller import Controller
from accord.daemon.life import Life
from accord.daemon.operations import Operations
from accord.datapath.attach import consequence, plan
from accord.datapath.port import Rung
from accord.wire.constants import Reason
from accord.wire.errors import AccordError, error

log = logging.getLogger("accord.daemon")

_GC_OBJECTS = 20_000
"""Objects made between two collections, about ten negotiations' worth; Python's own 700 is several to each."""


_CLIENTS_END_SECONDS = 1.0
"""Cancelled handlers end in a turn or two of the loop; one that does not is not waited for."""


class Daemon:
    """Runs until SIGINT or SIGTERM; SIGHUP reads the configuration again (a bad one is refused, the old one stays)."""

    def __init__(self, config: DaemonConfig, config_file: Path | None, supervisor: socket.socket | None = None) -> None:
        """``supervisor`` is the socket to it, for signs of life."""
        self._config = config
        self._config_file = config_file
        self._supervisor = supervisor
        self._failure = ""
        self._stop = asyncio.Event()
        self._clients: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Start, say so, serve, clean up. Raises ``AccordError`` when it cannot start; nothing is attached then.

        Raises ``OurError`` (``PLUGIN_FAILED``) after the clean-up when it had to end by itself.
        """
        loop = asyncio.get_running_loop()
        control = control_path(self._config.control)
        listener = self._listen(control)
        try:
            self._announce()
            controller = Controller(self._config)
        except BaseException:
            listener.close()
            control.unlink(missing_ok=True)
            raise
        operations = Operations(controller)
        life = Life(self._supervisor, self._end)
        try:
            for signum in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(signum, self._stop.set)
            loop.add_signal_handler(signal.SIGHUP, self._reload, controller)
            for exposed in self._config.expose:
                service = controller.expose(exposed).service
                if service is not None:
                    await service.check()
            # What was loaded stays: the collector need not look through it in the middle of a negotiation.
            gc.collect()
            gc.freeze()
            gc.set_threshold(_GC_OBJECTS)
            for note in controller.attach_notes():
                click.echo(note)
            click.echo(f"accord daemon ready: {controller.describe()}, control socket {control}")
            accepting = asyncio.create_task(self._accept(listener, operations))
            life.ready()
            await self._stop.wait()
            life.stopping()
            accepting.cancel()
        finally:
            life.close()
            # First the peers of what is in flight, then this host's programs, then the streams between the two; the
            # sockets by which peers are told go last.
            controller.stop()
            for client in list(self._clients):
                client.cancel()
            if self._clients:
                await asyncio.wait(self._clients, timeout=_CLIENTS_END_SECONDS)
            await operations.close()
            controller.close()
            listener.close()
            with contextlib.suppress(OSError):
                control.unlink()
            click.echo("accord daemon stopped")
        if self._failure:
            raise error(Reason.PLUGIN_FAILED, self._failure, "see the log above; a supervisor starts a new daemon")

    def _end(self, why: str) -> None:
        """Stop, and say that something went wrong."""
        log.error("%s: the daemon ends", why)
        self._failure = why
        self._stop.set()

    def _announce(self) -> None:
        """What native XDP costs others is said before it is done: the terminal may hang on that very link."""
        config = self._config
        intended = plan(config.back_end, config.attach, config.interface)
        if config.interface is not None and intended.rungs[0] is Rung.XDP_NATIVE:
            click.echo(f"attaching natively to {config.interface}: {consequence(Rung.XDP_NATIVE, intended.driver)}")

    def _listen(self, path: Path) -> socket.socket:
        """The control socket, mode 0600, or 0666 with users named (the kernel's credentials then decide)."""
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
                try:
                    sock.connect(os.fspath(path))
                except ConnectionRefusedError:
                    path.unlink()  # left by a daemon that was killed
                else:
                    raise error(Reason.BAD_CONFIG, f"a daemon already answers at {path}", "stop it, or give --control")
                sock.close()
                sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            before = os.umask(0o177)
            try:
                sock.bind(os.fspath(path))
            finally:
                os.umask(before)
            if self._config.users:
                path.chmod(0o666)
            sock.listen(64)
        except OSError as refusal:
            sock.close()
            raise error(Reason.NO_PRIVILEGE, f"control socket {path}: {refusal.strerror}", "run with sudo") from refusal
        except BaseException:
            sock.close()
            raise
        return sock

    async def _accept(self, listener: socket.socket, operations: Operations) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                client, _ = await loop.sock_accept(listener)
            except OSError as refusal:  # out of descriptors: the next one may find some
                log.warning("control socket: %s", refusal)
                await asyncio.sleep(0.1)
                continue
            task = asyncio.create_task(self._serve(client, operations))
            self._clients.add(task)
            task.add_done_callback(self._clients.discard)

    async def _serve(self, client: socket.socket, operations: Operations) -> None:
        channel = Channel(client)
        try:
            _, uid, _ = peer_credentials(client)
            if uid not in (0, os.geteuid()) and uid not in self._config.users:
                log.warning("user %d was refused at the control socket", uid)
                await channel.send(
                    failure_message(error(Reason.NOT_PERMITTED, f"user {uid}", "name the user in [control] users"))
                )
                return
            while True:
                try:
                    received = await channel.receive()
                    if received is None:
                        return
                    message, fds = received
                    for fd in fds:
                        os.close(fd)
                    await operations.handle(message, channel)
                except AccordError as failure:
                    await channel.send(failure_message(failure))
        except ConnectionError:
            return
        except Exception:
            log.exception("control connection")
            with contextlib.suppress(OSError):
                await channel.send(
                    failure_message(error(Reason.PLUGIN_FAILED, "the daemon met an error", "see the daemon's log"))
                )
        finally:
            channel.close()

    def _reload(self, controller: Controller) -> None:
        if self._config_file is None:
            log.warning("SIGHUP: there is no configuration file to read again")
            return
        try:
            config = load_config(self._config_file)
            controller.reload(config)
            self._config = dataclasses.replace(self._config, users=config.users)
            control_path(self._config.control).chmod(0o666 if config.users else 0o600)
        except AccordError as wrong:
            log.error("configuration not reloaded, the old one stays: %s", wrong)
        else:
            log.warning("policy and certificates reloaded; interface and back end change with a restart")
