# SPDX-License-Identifier: Apache-2.0
"""The daemon: one controller on one interface, and a control socket for the programs of the host."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import gc
import logging
import os
import signal
import socket
import stat
import subprocess
from collections.abc import Coroutine, Iterable
from pathlib import Path
from typing import Any

import click

from accord.controller import files
from accord.controller.acceptor import Acceptor
from accord.controller.association import Association
from accord.controller.control import Channel, control_path, failure_message, peer_credentials
from accord.controller.controller import Controller
from accord.controller.exposed import Exposed
from accord.controller.load.keeper import CookieKeeper
from accord.controller.load.ring import KeyRing
from accord.controller.peers.keeper import PeersKeeper
from accord.controller.peers.network import NetworkWatch
from accord.controller.peers.state_file import Kept, state_file
from accord.controller.settings.config import DaemonConfig, ExposeConfig, cookies_path, state_path
from accord.controller.status import attach_notes, headline
from accord.daemon.admission import Admission, turn_away
from accord.daemon.life import Life
from accord.daemon.memory import Reserve, limited
from accord.daemon.operations import Operations
from accord.daemon.successor import start_successor
from accord.daemon.takeover import DRAIN_SECONDS, Predecessor, Succession, running
from accord.datapath import privilege
from accord.datapath.attach import consequence, plan
from accord.datapath.port import Rung, Spare
from accord.datapath.privilege import Ask
from accord.protocols.certificates import check_roots, load_identity
from accord.protocols.services import Security
from accord.protocols.tls_context import open_key_log
from accord.wire.constants import Reason
from accord.wire.errors import AccordError, error

log = logging.getLogger("accord.daemon")

_GC_OBJECTS = 20_000
"""Objects made between two collections, about ten negotiations' worth; Python's own 700 is several to each."""


_GC_OLDER = (2, 2)
"""Collections of the younger objects to one of the older. A negotiation lives on for ten seconds after its end, so all
of them get old; with Python's own 10 and 10 what refers to itself is found after thousands of them, and all at once."""

_FOR_OPERATORS = {"takeover": "take over", "flush_peers": "have peers forgotten"}
"""By the message's ``op``: what only root and the daemon's own user may."""
_CLIENTS_END_SECONDS = 1.0
"""Cancelled handlers end in a turn or two of the loop; one that does not is not waited for."""

_SILENT_SECONDS = 30.0
"""For a program to say what it wants; it may then keep the connection as long as it likes."""
_HEAR_SECONDS = 2.0
"""After a take-over, for a program whose connection was accepted before it to say what it wants."""


class Daemon:
    """Runs until SIGINT or SIGTERM; SIGHUP reads the configuration again (a bad one is refused, the old one stays);
    SIGUSR2 has what is installed now take over."""

    def __init__(
        self,
        config: DaemonConfig,
        config_file: Path | None,
        supervisor: socket.socket | None = None,
        *,
        takeover: bool = False,
        drain_seconds: float = DRAIN_SECONDS,
        spare: Spare | None = None,
    ) -> None:
        """``supervisor`` is the socket to it, for signs of life. ``takeover``: from the daemon that runs, if one does,
        which may then keep its associations for ``drain_seconds``. ``spare``: an XDP program loaded in advance."""
        self._config = config
        self._config_file = config_file
        self._supervisor = supervisor
        self._takeover = takeover
        self._drain_seconds = drain_seconds
        self._spare = spare
        self._control = control_path(config.control)
        self._owner = os.geteuid()
        self._before: Channel | None = None
        self._listener: socket.socket | None = None
        self._accepting: Acceptor | None = None
        self._attaching: asyncio.Task[None] | None = None
        self._life: Life | None = None
        self._keeper: PeersKeeper | None = None
        self._cookies: CookieKeeper | None = None
        self._successor: subprocess.Popen[bytes] | None = None
        self._failure = ""
        self._stop = asyncio.Event()
        self._clients: set[asyncio.Task[None]] = set()
        self._admission = Admission(frozenset({0, self._owner}))
        self._unheard: set[Channel] = set()
        """Programs that were accepted and have not said what they want."""

    def open(self) -> None:
        """What has to be done while there is the privilege to: make the control socket, or call who has it; open the
        key log. Raises ``AccordError``. Twice does no harm."""
        if self._config.key_log is not None:
            open_key_log(self._config.key_log)
        self._before = running(self._control) if self._takeover else None
        if self._before is None:
            self._listener = self._listen(self._control)
        self._look_at_files()

    def _look_at_files(self) -> None:
        """Say at the start what would be found at the first connection. No reason to stay away: a certificate may be
        half renewed just when a daemon is started anew."""
        named = Security(
            certificate=self._config.certificate, private_key=self._config.private_key, ca_file=self._config.ca_file
        )
        for check in (load_identity, check_roots) if named.certificate is not None else (check_roots,):
            try:
                check(named)
            except AccordError as wrong:
                log.warning("[tls]: %s", wrong)

    def reports_to(self, supervisor: socket.socket | None, spare: Spare | None) -> None:
        """Set before ``run``, what the constructor could not know yet."""
        self._supervisor, self._spare = supervisor, spare

    def leave(self) -> None:
        """In the process that has forked another to ``run``: close this one's copies of what ``open`` made."""
        if self._listener is not None:
            self._listener.close()
        if self._before is not None:
            self._before.close()

    async def run(self) -> None:
        """Start, say so, serve, clean up. Raises ``AccordError`` when it cannot start; nothing is attached then.

        Raises ``OurError`` (``DAEMON_FAILED``) after the clean-up when it had to end by itself.
        """
        loop = asyncio.get_running_loop()
        if self._listener is None and self._before is None:
            self.open()
        try:
            self._announce()
            controller = Controller(self._config, attached=self._before is None, spare=self._spare)
        except BaseException:
            self._close_listener()
            raise
        keeper = PeersKeeper(controller.peers, state_path(self._config, os.environ))
        cookies = self._cookies = self._cookie_keeper(controller)
        network = NetworkWatch(controller.peers.network_changed)
        operations = Operations(controller, keeper)
        life = self._life = Life(self._supervisor, self._end)
        bounds = contextlib.ExitStack()
        try:
            for signum in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(signum, self._stop.set)
            loop.add_signal_handler(signal.SIGHUP, self._reload, controller)
            loop.add_signal_handler(signal.SIGUSR2, self._upgrade)
            # What was loaded stays: the collector need not look through it in the middle of a negotiation.
            gc.collect()
            gc.freeze()
            gc.set_threshold(_GC_OBJECTS, *_GC_OLDER)
            bounds.enter_context(limited(self._config.memory_mib))
            bounds.enter_context(controller.guard.watching())
            if self._before is not None:
                before = await Predecessor.ask(self._before, self._drain_seconds)
                before.recall(keeper, cookies)
                await self._succeed(before, controller, operations)
            else:
                keeper.load()
                cookies.load()
                self._expose(controller, self._config.expose)
            for note in attach_notes(controller):
                click.echo(note)
            click.echo(f"accord daemon ready: {headline(controller)}, control socket {self._control}")
            self._keeper = keeper
            self._accept_clients(controller, operations)
            keeper.start()
            cookies.start()
            network.start()
            self._keep_reserve(controller)
            life.ready()
            await self._stop.wait()
            life.stopping()
        finally:
            if self._accepting is not None:
                self._accepting.close()
            life.close()
            network.close()
            # First the peers of what is in flight, then this host's programs, then the streams between the two; the
            # sockets by which peers are told go last.
            controller.stop()
            for client in list(self._clients):
                client.cancel()
            if self._clients:
                await asyncio.wait(self._clients, timeout=_CLIENTS_END_SECONDS)
            await operations.close()
            controller.close()
            cookies.close()
            keeper.close()
            self._close_listener()
            bounds.close()
            click.echo("accord daemon stopped")
        if self._failure:
            raise error(Reason.DAEMON_FAILED, self._failure, "see the log above; a supervisor starts a new daemon")

    def _cookie_keeper(self, controller: Controller) -> CookieKeeper:
        limits = self._config.limits
        path = cookies_path(self._config, os.environ)
        own = None if path is None else state_file(path, Kept.COOKIES)
        ring = KeyRing(limits.cookie_period_s, limits.cookie_lifetime_s, os.urandom)
        return CookieKeeper(ring, controller.endpoint.cookies, own, limits.cookie_keys)

    @staticmethod
    def _keep_reserve(controller: Controller) -> None:
        endpoint = controller.endpoint
        usage = endpoint.engine.usage()
        reserve = Reserve(usage.unproven_limit + usage.transactions_limit // 4)
        endpoint.beaten = lambda: reserve.look(endpoint.in_flight)

    @staticmethod
    def _expose(controller: Controller, configs: Iterable[ExposeConfig]) -> None:
        for config in configs:
            exposed = controller.expose(config)
            if exposed.service is not None:
                exposed.spawn(exposed.service.tell())
            if exposed.given is not None:
                exposed.given.tell()

    # ---- live upgrade ----

    async def _succeed(self, before: Predecessor, controller: Controller, operations: Operations) -> None:
        """Take over: ports that the configuration has by its words, others as the old daemon had them."""
        configured = {config.listen: config for config in self._config.expose}
        try:
            before.inherit(controller.endpoint.engine)
            for port in before.ports:
                config = configured.pop(port.config.listen, None)
                if config is None and port.program is None:
                    port.close()  # the configuration no longer has it
                    continue
                accepted: asyncio.Queue[Association] = asyncio.Queue(64)
                wanted = config or port.config
                exposed = controller.expose(wanted, None if wanted.to else accepted, port.sockets)
                port.sockets = []
                while port.lent:
                    transaction, connection = port.lent.pop()
                    exposed.take(connection, transaction)
                if port.program is not None:
                    self._spawn_client(self._keep(operations, exposed, accepted, port.program))
                    port.program = None
            self._expose(controller, configured.values())
            await before.taken()
        except BaseException:
            before.close()
            raise
        self._listener, before.listener = before.listener, socket.socket(socket.AF_UNIX)
        self._listener.setblocking(False)
        log.warning("took over from the daemon with pid %d", before.pid)
        self._attaching = self._spawn_client(self._attach_later(before, controller))

    async def _attach_later(self, before: Predecessor, controller: Controller) -> None:
        """The program on the interface would steer packets of the old daemon's negotiations to us: it waits."""
        try:
            await before.drained()
        finally:
            before.close()
        log.info("the daemon with pid %d has no negotiation in flight any more", before.pid)
        if self._listener is not None:  # else yet another one has taken over from us
            controller.attach()

    @staticmethod
    async def _keep(
        operations: Operations, exposed: Exposed, accepted: asyncio.Queue[Association], program: Channel
    ) -> None:
        try:
            with contextlib.suppress(ConnectionError, AccordError):
                await operations.keep(exposed, accepted, program)
        finally:
            program.close()

    async def _give_way(
        self, message: dict[str, Any], channel: Channel, controller: Controller, operations: Operations
    ) -> None:
        """Another daemon takes over: hand it everything, finish what is in flight, end."""
        seconds = message.get("drain_seconds", DRAIN_SECONDS)
        if self._listener is None or self._accepting is None or self._life is None:
            raise error(Reason.BAD_CONFIG, "another daemon has taken over already", "ask that one")
        if not isinstance(seconds, int | float) or not seconds >= 0:
            raise error(Reason.BAD_CONFIG, "control message: 'drain_seconds' is no number of seconds")
        assert self._keeper is not None, "made before there were clients"
        assert self._cookies is not None, "made with it"
        succession = Succession(controller, operations, self._listener, self._keeper, self._cookies)
        self._accepting.close()
        try:
            await succession.give(channel)
        except BaseException as failure:
            log.error("no take-over: %s", failure)
            self._accept_clients(controller, operations)
            raise
        listener, self._listener = self._listener, None
        listener.close()
        self._life.succeeded()
        log.warning("another daemon has taken over; this one ends with what it has in flight")
        if self._attaching is not None:  # our own predecessor's negotiations are in the newcomer's way as well
            await asyncio.wait({self._attaching})
        loop = asyncio.get_running_loop()
        late = loop.time() + _HEAR_SECONDS
        await succession.drain(channel, seconds, lambda: bool(self._unheard) and loop.time() < late)
        self._stop.set()

    # ---- the control socket ----

    def _accept_clients(self, controller: Controller, operations: Operations) -> None:
        assert self._listener is not None

        def serve(client: socket.socket) -> None:
            user = peer_credentials(client)[1]
            if (full := self._admission.enter(user)) is not None:
                turn_away(client, full)
                return
            task = self._spawn_client(self._serve(client, controller, operations))

            # A task that is cancelled before its first step runs none of its own clean-up.
            def over(_: asyncio.Task[None]) -> None:
                client.close()
                self._admission.leave(user)

            task.add_done_callback(over)

        self._accepting = Acceptor(self._listener, serve)

    def _close_listener(self) -> None:
        """After a take-over the path is another's."""
        if self._listener is not None:
            self._listener.close()
            with contextlib.suppress(OSError, AccordError):
                if privilege.asks():
                    privilege.ask(Ask.REMOVE_CONTROL_SOCKET)
                else:
                    self._control.unlink()

    def _spawn_client(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._clients.add(task)
        task.add_done_callback(self._clients.discard)
        return task

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
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
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
            # "path too long" has no number.
            what = f"control socket {path}: {refusal.strerror or refusal}"
            if refusal.errno in (errno.EACCES, errno.EPERM):
                raise error(Reason.NO_PRIVILEGE, what, "run with sudo") from refusal
            raise error(Reason.BAD_CONFIG, what, "give another --control path") from refusal
        except BaseException:
            sock.close()
            raise
        return sock

    async def _serve(self, client: socket.socket, controller: Controller, operations: Operations) -> None:
        channel = Channel(client)
        try:
            _, uid, _ = peer_credentials(client)
            if uid not in (0, self._owner) and uid not in self._config.users:
                log.warning("user %d was refused at the control socket", uid)
                await channel.send(
                    failure_message(error(Reason.NOT_PERMITTED, f"user {uid}", "name the user in [control] users"))
                )
                return
            self._unheard.add(channel)
            while True:
                try:
                    received = await self._heard(channel)
                    self._unheard.discard(channel)
                    if received is None:
                        return
                    message, fds = received
                    wish = _FOR_OPERATORS.get(str(message.get("op")))
                    if wish is not None and uid not in (0, self._owner):
                        for fd in fds:
                            os.close(fd)
                        raise error(Reason.NOT_PERMITTED, f"user {uid} cannot {wish}", "run with sudo")
                    if message.get("op") == "takeover":
                        for fd in fds:
                            os.close(fd)
                        await self._give_way(message, channel, controller, operations)
                        return
                    await operations.handle(message, channel, fds)
                except AccordError as failure:
                    await channel.send(failure_message(failure))
        except ConnectionError:
            return
        except Exception:
            log.exception("control connection")
            with contextlib.suppress(OSError):
                await channel.send(
                    failure_message(error(Reason.DAEMON_FAILED, "the daemon met an error", "see the daemon's log"))
                )
        finally:
            self._unheard.discard(channel)
            channel.close()

    async def _heard(self, channel: Channel) -> tuple[dict[str, Any], list[int]] | None:
        """The next message; None: the end, or nothing at all since the connection was made."""
        try:
            async with asyncio.timeout(_SILENT_SECONDS if channel in self._unheard else None):
                return await channel.receive()
        except TimeoutError:
            return None

    def _upgrade(self) -> None:
        if self._supervisor is not None:
            log.warning("SIGUSR2 is for the supervisor, pid %d", os.getppid())
        elif self._listener is not None:
            self._successor = start_successor()

    def _reload(self, controller: Controller) -> None:
        if self._config_file is None:
            log.warning("SIGHUP: there is no configuration file to read again")
            return
        try:
            config = files.configuration(self._config_file)
            controller.reload(config)
            if self._cookies is not None:
                self._cookies.share(config.limits.cookie_keys)
            self._config = dataclasses.replace(self._config, users=config.users)
            if not privilege.asks():
                self._control.chmod(0o666 if config.users else 0o600)
        except AccordError as wrong:
            log.error("configuration not reloaded, the old one stays: %s", wrong)
        else:
            log.warning("policy and certificates reloaded; interface and back end change with a restart")
