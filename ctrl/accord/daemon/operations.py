# SPDX-License-Identifier: Apache-2.0
"""What programs may ask of the daemon over the control socket."""

from __future__ import annotations

import asyncio
import binascii
import contextlib
import ipaddress
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from accord import __version__
from accord.controller.association import Association
from accord.controller.bridge import bridge
from accord.controller.control import Channel, failure_message, peer_credentials
from accord.controller.controller import Controller
from accord.controller.exposed import Exposed
from accord.controller.held import hold
from accord.controller.names import host_name
from accord.controller.peers.keeper import PeersKeeper
from accord.controller.settings.config import LOOPS, ExposeConfig
from accord.controller.settings.destination import without_zone
from accord.controller.settings.policy import Secure
from accord.controller.stats import collect
from accord.controller.status import status
from accord.daemon.meeting import met
from accord.daemon.memory import limit, taken
from accord.daemon.peers_operations import PeersOperations
from accord.daemon.standing import standing
from accord.datapath.stream import SocketCarrier
from accord.negotiation.interface import Role
from accord.protocols.services import Security
from accord.wire.constants import Reason
from accord.wire.errors import error

log = logging.getLogger("accord.daemon")

_BRIDGE_END_SECONDS = 1.0
"""Cancelled bridges end in a turn or two of the loop; one that does not is not waited for."""


def _take(message: dict[str, Any], name: str, kind: type | tuple[type, ...], default: Any = None) -> Any:
    value = message.get(name, default)
    if value is not None and (not isinstance(value, kind) or (isinstance(value, bool) and kind is int)):
        raise error(Reason.BAD_CONFIG, f"control message: {name!r} is not of the right type")
    return default if value is None else value


def _port(message: dict[str, Any]) -> int:
    port = _take(message, "port", int, 0)
    if not 0 < port < 65536:
        raise error(Reason.BAD_CONFIG, f"port {port}", "ports are 1..65535")
    return int(port)


_FILES = {
    "connect": ("ca_file",),
    "listen": ("certificate", "private_key"),
    "renew": ("certificate", "private_key"),
    "rendezvous": ("ca_file", "certificate", "private_key"),
}
"""What a program may pass with a message, by its ``op``: open files, in this order, those that the message names."""


def _files(message: dict[str, Any], fds: Sequence[int]) -> list[Path | None]:
    names = _FILES.get(str(message.get("op")), ())
    shown = [_take(message, name, str) for name in names]
    if len(fds) != sum(name is not None for name in shown):
        raise error(
            Reason.BAD_CONFIG,
            f"control message: {len(fds)} descriptors for {', '.join(names) or 'nothing'}",
            "pass each file that is named, open for reading",
        )
    left = iter(fds)
    return [None if name is None else hold(next(left), name) for name in shown]


def _socket(fd: int) -> socket.socket | None:
    own = os.dup(fd)
    try:
        return socket.socket(fileno=own)
    except OSError:  # it is none
        os.close(own)
        return None


def _secure(message: dict[str, Any]) -> Secure | None:
    word = _take(message, "secure", str)
    try:
        return None if word is None else Secure(word)
    except ValueError:
        raise error(Reason.BAD_CONFIG, f"secure = {word!r}", f"allowed: {', '.join(Secure)}") from None


async def _pair_soon() -> tuple[socket.socket, socket.socket]:
    return _pair()


def _close_pair(made: asyncio.Task[tuple[socket.socket, socket.socket]]) -> None:
    """Nobody needs it after all."""

    def close(task: asyncio.Task[tuple[socket.socket, socket.socket]]) -> None:
        if not task.cancelled() and task.exception() is None:
            for end in task.result():
                end.close()

    made.add_done_callback(close)


def _pair() -> tuple[socket.socket, socket.socket]:
    """Two joined sockets. TCP over loopback: a stream that breaks off has to look broken to the program, and a pair
    of Unix sockets knows no reset. Raises ``HostError`` where loopback is down."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            ours = socket.create_connection(listener.getsockname(), timeout=1)
            theirs, caller = listener.accept()
    except OSError as refusal:
        raise error(Reason.CANNOT_INSTALL, f"loopback: {refusal.strerror}", "ip link set lo up") from refusal
    if caller != ours.getsockname():
        ours.close()
        theirs.close()
        raise error(Reason.NOT_PERMITTED, "another program connected to a port that was not its own")
    for end in (ours, theirs):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return ours, theirs


async def _until_gone(channel: Channel) -> None:
    """Until the program at the other end has closed. Raises ``UserError`` (``BAD_CONFIG``) when it says something."""
    received = await channel.receive()
    if received is not None:
        for fd in received[1]:
            os.close(fd)
        raise error(Reason.BAD_CONFIG, "control message: this connection listens", "ask on another connection")


def _peers_of(message: dict[str, Any]) -> list[tuple[str, int]]:
    peers = _take(message, "peers", list, [])
    try:
        return [(str(ipaddress.ip_address(address)), _port({"port": port})) for address, port in peers]
    except (TypeError, ValueError) as wrong:
        raise error(Reason.BAD_CONFIG, f"control message: peers: {wrong}", "an address and a port each") from wrong


class Operations:
    """Handlers by the message's ``op``."""

    def __init__(self, controller: Controller, keeper: PeersKeeper | None = None) -> None:
        self._controller = controller
        self._keeper = keeper
        self._bridges: set[asyncio.Task[None]] = set()
        self._connecting = 0
        self._programs: dict[int, tuple[Exposed, Channel, asyncio.Task[None]]] = {}
        self._runs: set[asyncio.Task[None]] = set()
        """One each until a caller of ``run`` is gone."""
        self._succeeded = False
        self._handlers: dict[str, Callable[[dict[str, Any], Channel, list[Path | None]], Awaitable[None]]] = {
            "connect": self._connect,
            "listen": self._listen,
            "renew": self._renew,
            "rendezvous": self._rendezvous,
            "run": self._run,
            "renegotiate": self._renegotiate,
            "status": self._status,
            "stats": self._stats,
            "peers": self._peers,
            "flush_peers": self._flush_peers,
        }

    async def handle(self, message: dict[str, Any], channel: Channel, fds: Sequence[int] = ()) -> None:
        """Carry out one message and answer it. Raises ``AccordError``, which is the answer then.

        ``fds`` came with it, and are closed here.
        """
        try:
            handler = self._handlers.get(str(message.get("op")))
            if handler is None:
                raise error(
                    Reason.BAD_CONFIG, f"unknown operation {message.get('op')!r}", f"known: {', '.join(self._handlers)}"
                )
            given = 1 if message.get("op") in ("rendezvous", "run") else 0
            files = _files(message, fds[given:])
            message["socket"] = _socket(fds[0]) if message.get("op") == "rendezvous" and fds else None
            message["directory"] = os.dup(fds[0]) if message.get("op") == "run" and fds else -1
        finally:
            for fd in fds:
                os.close(fd)
        await handler(message, channel, files)

    async def _connect(self, message: dict[str, Any], channel: Channel, files: list[Path | None]) -> None:
        host, port = _take(message, "host", str, ""), _port(message)
        try:
            early = binascii.a2b_base64(_take(message, "early", str, ""), strict_mode=True)
        except ValueError as wrong:
            raise error(Reason.BAD_CONFIG, f"control message: 'early' is no base64: {wrong}") from wrong
        security = Security(
            server_name=host_name(_take(message, "server_name", str) or without_zone(host)),
            verify=bool(_take(message, "verify", bool, True)),
            ca_file=files[0],
        )
        made = asyncio.create_task(_pair_soon())  # while the proposal travels
        self._connecting += 1
        try:
            association = await self._controller.connect(
                host,
                port,
                overrides=_take(message, "policy", dict, {}),
                security=security,
                early=early,
                family=_take(message, "family", int),
                messages=bool(_take(message, "messages", bool, False)),
                ladder=bool(_take(message, "ladder", bool, False)),
            )
        except asyncio.CancelledError:  # the daemon ends: whoever waits for an answer gets one
            _close_pair(made)
            with contextlib.suppress(OSError):
                await channel.send(failure_message(error(Reason.SHUTDOWN, f"{host} port {port}", "ask again later")))
            raise
        except BaseException:
            _close_pair(made)
            raise
        finally:
            self._connecting -= 1
        await self._hand_over(Role.INITIATOR, association, channel, {"ok": True}, made)

    async def _hand_over(
        self,
        role: Role,
        association: Association,
        channel: Channel,
        message: dict[str, Any],
        made: asyncio.Task[tuple[socket.socket, socket.socket]] | None = None,
    ) -> None:
        """Give the stream to the caller: the kernel's own socket when it is one, else one end of a pair to it."""
        message = {**message, "report": association.report.as_dict()}
        carrier = association.carrier
        if isinstance(carrier, SocketCarrier):
            if made is not None:
                _close_pair(made)
            with carrier.detach() as connection:
                await channel.send(message, [connection.fileno()])
            self._controller.counts.handed_over(role)
            return
        try:
            ours, theirs = _pair() if made is None else await made
        except BaseException:
            carrier.abort()
            raise
        try:
            await channel.send(message, [theirs.fileno()])
        except BaseException:
            ours.close()
            # Nobody wants it any more. A reset is not repeated when it is lost: the peer would be left with half of it.
            self._controller.losers.retire(association.carrier)
            raise
        finally:
            theirs.close()
        near = SocketCarrier(ours)
        task = asyncio.create_task(self._bridge(role, near, association))
        self._bridges.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._bridges.discard(task)
            if task.cancelled():  # before its first step it runs none of its own clean-up
                near.abort()
                association.carrier.abort()

        task.add_done_callback(ended)

    async def _bridge(self, role: Role, near: SocketCarrier, association: Association) -> None:
        with self._controller.counts.open(role):
            failure = await bridge(near, association.carrier)
        if failure is not None:
            log.info("%s: %s", association.report.peer, failure)

    async def _rendezvous(self, message: dict[str, Any], channel: Channel, files: list[Path | None]) -> None:
        """As long as the program waits for it."""
        meeting = asyncio.create_task(met(self._controller, message, files))
        gone = asyncio.create_task(_until_gone(channel))
        self._connecting += 1
        try:
            await asyncio.wait({meeting, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not meeting.done():
                gone.result()
                return
            association = meeting.result()
        except asyncio.CancelledError:  # the daemon ends: whoever waits for an answer gets one
            with contextlib.suppress(OSError):
                await channel.send(failure_message(error(Reason.SHUTDOWN, "a meeting", "ask again later")))
            raise
        finally:
            self._connecting -= 1
            for task in (meeting, gone):
                task.cancel()
            await asyncio.wait({meeting, gone})
        role = Role(association.report.role)
        await self._hand_over(role, association, channel, {"ok": True})

    async def _run(self, message: dict[str, Any], channel: Channel, files: list[Path | None]) -> None:
        """As long as the caller is connected, SYNs of programs in its cgroup are negotiated for.

        After a take-over it is sent away, and asks the daemon that is there then.
        """
        directory = message["directory"]
        try:
            if directory < 0:
                raise error(Reason.BAD_CONFIG, "control message: no cgroup", "pass its directory, open")
            user = peer_credentials(channel.sock)[1]
            # Whose cgroup it is, is whose programs' SYNs are taken.
            if user not in (0, os.fstat(directory).st_uid):
                raise error(Reason.NOT_PERMITTED, "the cgroup is another user's", "make one of your own")
            serial = self._controller.clients.run(directory, _peers_of(message))
        finally:
            if directory >= 0:
                os.close(directory)
        gone = asyncio.create_task(_until_gone(channel))
        self._runs.add(gone)
        try:
            await channel.send({"ok": True})
            await asyncio.wait({gone})
        finally:
            self._runs.discard(gone)
            gone.cancel()
            self._controller.clients.end(serial)
        if gone.cancelled():
            # What was taken off the wire here is answered by this daemon's program, which the next one's replaces.
            await self._controller.clients.settled()
            raise ConnectionResetError("the program is another daemon's now")
        gone.result()

    async def _listen(self, message: dict[str, Any], channel: Channel, files: list[Path | None]) -> None:
        forward_to = _take(message, "forward_to", list)
        target: tuple[str, int] | None = None
        if forward_to is not None:
            if len(forward_to) != 2 or not isinstance(forward_to[0], str):
                raise error(Reason.BAD_CONFIG, "control message: 'forward_to' is not [address, port]")
            target = (forward_to[0], _port({"port": forward_to[1]}))
        certificate, private_key = files
        config = ExposeConfig(
            listen=_port(message),
            to=target,
            certificate=certificate,
            private_key=private_key,
            early_limit=_take(message, "early_limit", int, 0),
            secure=_secure(message),
            plain=bool(_take(message, "plain", bool, True)),
            messages=bool(_take(message, "messages", bool, False)),
            share_udp=bool(_take(message, "share_udp", bool, False)),
            to_listener=bool(_take(message, "to_listener", bool, False)),
        )
        if config.loops:
            raise error(Reason.BAD_CONFIG, f"port {config.listen} {LOOPS}", "the service needs a port of its own")
        accepted: asyncio.Queue[Association] = asyncio.Queue(64)
        exposed = self._controller.expose(config, None if target else accepted)
        try:
            if exposed.given is not None:
                exposed.given.births.listens(exposed.port)
            answer = {"ok": True, "port": exposed.port, "certificate": str(exposed.certificate)}
            failure = None if exposed.service is None else await exposed.service.check()
            await channel.send(answer if failure is None else {**answer, "warning": str(failure)})
        except BaseException:
            self._controller.withdraw(exposed)
            raise
        await self.keep(exposed, accepted, channel)

    async def _renew(self, message: dict[str, Any], channel: Channel, files: list[Path | None]) -> None:
        """A program has another certificate for the port that it listens on; it, or root, says so on a connection of
        its own."""
        port = _port(message)
        exposed, program, _ = self._programs.get(port, (None, channel, None))
        if exposed is None:
            raise error(Reason.BAD_CONFIG, f"no program listens on port {port}", "see: accord status")
        user = peer_credentials(channel.sock)[1]
        if user not in (0, peer_credentials(program.sock)[1]):
            raise error(Reason.NOT_PERMITTED, f"port {port} is another user's", "renew as that user, or as root")
        certificate, private_key = files
        if certificate is None or private_key is None:
            raise error(Reason.BAD_CONFIG, f"port {port}", "give the certificate and its private key together")
        exposed.show(certificate, private_key)
        await channel.send({"ok": True, "port": port, "certificate": str(certificate)})

    async def keep(self, exposed: Exposed, accepted: asyncio.Queue[Association], channel: Channel) -> None:
        """Keep a port exposed, and hand what is accepted to the program, as long as that stays connected.

        Ends with ``ConnectionResetError``. Once a new daemon has taken over, that one watches the program.
        """
        gone = asyncio.create_task(_until_gone(channel))
        self._programs[exposed.port] = (exposed, channel, gone)
        waiting: asyncio.Task[Association] | None = None
        try:
            while self._succeeded or not gone.done():
                waiting = asyncio.create_task(accepted.get())
                await asyncio.wait(
                    {waiting} if self._succeeded else {waiting, gone}, return_when=asyncio.FIRST_COMPLETED
                )
                if waiting.done():
                    association, waiting = waiting.result(), None
                    await self._hand_over(Role.RESPONDER, association, channel, {"ok": True, "event": "accepted"})
                elif self._succeeded:
                    waiting.cancel()
            gone.result()
        finally:
            self._programs.pop(exposed.port, None)
            self._controller.withdraw(exposed)
            for task in (waiting, gone):
                if task is not None:
                    task.cancel()
                    await asyncio.wait({task})
            if waiting is not None and not waiting.cancelled():
                waiting.result().carrier.abort()
            while not accepted.empty():
                accepted.get_nowait().carrier.abort()
        raise ConnectionResetError("the listening program is gone")

    def program(self, exposed: Exposed) -> Channel | None:
        """The connection of the program that exposed this port; None when the configuration did."""
        found = self._programs.get(exposed.port)
        return None if found is None else found[1]

    def succeeded(self) -> None:
        """A new daemon has taken over, and watches the programs that listen and those that are run."""
        self._succeeded = True
        for gone in (*self._runs, *(gone for _, _, gone in self._programs.values())):
            gone.cancel()

    @property
    def busy(self) -> bool:
        """Streams of programs pass through here, or will."""
        return bool(self._bridges) or self._connecting > 0

    async def close(self) -> None:
        """End what programs hold over this daemon: both ends of a bridge see a stream that broke off."""
        bridges = list(self._bridges)
        for task in bridges:
            task.cancel()
        if bridges:
            await asyncio.wait(bridges, timeout=_BRIDGE_END_SECONDS)

    async def _renegotiate(self, message: dict[str, Any], channel: Channel, files: list[Path | None]) -> None:
        """Have an association changed over to another stack, and say what it has then."""
        member = self._controller.associations.get(_take(message, "association", str, ""))
        # Whoever asked may go away meanwhile; a change that has begun is made.
        await asyncio.shield(member.renegotiate(_take(message, "policy", dict, {})))
        await channel.send({"ok": True, **member.row()})

    async def _status(self, message: dict[str, Any], channel: Channel, files: list[Path | None]) -> None:
        memory = {"data_bytes": taken(), "data_limit_bytes": limit()}
        found = status(self._controller)
        await channel.send({"ok": True, "pid": os.getpid(), "privileges": standing(), **memory, **found})

    async def _stats(self, message: dict[str, Any], channel: Channel, files: list[Path | None]) -> None:
        await channel.send({"ok": True, "pid": os.getpid(), "families": collect(self._controller, __version__)})

    async def _peers(self, message: dict[str, Any], channel: Channel, files: list[Path | None]) -> None:
        await PeersOperations(self._controller.peers, self._keeper).list(message, channel)

    async def _flush_peers(self, message: dict[str, Any], channel: Channel, files: list[Path | None]) -> None:
        # What was made, or is believed, on the strength of it goes as well, of all peers: it comes again soon.
        self._controller.proposals.clear()
        self._controller.endpoint.engine.forget_paths()
        await PeersOperations(self._controller.peers, self._keeper).flush(message, channel)
