# SPDX-License-Identifier: Apache-2.0
"""The daemon as two processes: the broker keeps the capabilities, the worker does the work without them.

    broker   answers the worker's requests (``datapath.privilege``), each by what the configuration allows;
             passes signals on; reads no packet, runs no plug-in, ends no TLS, has no event loop
    worker   everything else: a user of its own, no capabilities, no new privileges, under seccomp

Neither outlives the other: the kernel ends the worker with the broker, and the broker ends when the worker has, with
the same exit code. The XDP program hangs on the broker, its heartbeat on the worker. (docs/OPERATIONS.md, Privileges)
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import pickle
import resource
import select
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from accord.controller import keys
from accord.controller.certificate import own_certificate
from accord.controller.control import control_path
from accord.controller.known import known_protocols
from accord.controller.peers.state_file import Kept, StateFile
from accord.controller.settings.config import DaemonConfig, cookies_path, load_config, state_path
from accord.daemon.life import ALIVE, READY, STOPPING, SUCCEEDED
from accord.daemon.notify import notify
from accord.daemon.successor import start_successor
from accord.daemon.tunnels import Tunnels
from accord.datapath import kernel_tls, privilege, seccomp
from accord.datapath.attach import allowed_rungs
from accord.datapath.attached import attached
from accord.datapath.cgroup import own_cgroup
from accord.datapath.port import Rung, Spare
from accord.datapath.privilege import Ask, Broker, Pending
from accord.protocols.registry import load_plugins
from accord.wire.constants import Protocol, Reason
from accord.wire.errors import AccordError, error

log = logging.getLogger("accord.broker")

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2, signal.SIGCHLD)
_PASSED_ON = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
_LOST = 70
"""EX_SOFTWARE of sysexits.h: a worker that failed in an unforeseen way."""
_HOST_LACKS = 71
"""EX_OSERR: the worker could not give up its privileges, and trying again will not help."""
_MAX_PATH = 4096


class Split:
    """One life of the daemon. ``work`` runs in the worker: given its socket for signs of life, returns the exit code.

    ``life``: the supervisor's, to which they are passed on; None: they go to the service manager. ``leave`` closes in
    the broker what is the worker's.
    """

    def __init__(
        self,
        config: DaemonConfig,
        config_file: Path | None,
        work: Callable[[socket.socket], int],
        life: socket.socket | None,
        spare: Spare | None,
        leave: Callable[[], None],
    ) -> None:
        self._config = config
        self._config_file = config_file
        self._work = work
        self._life = life
        self._spare = spare
        self._leave = leave
        self._files = _files_of(config)
        kept = {Kept.PEERS: state_path(config, os.environ), Kept.COOKIES: cookies_path(config, os.environ)}
        self._states = {int(which): StateFile(path) for which, path in kept.items() if path is not None}
        self._keys = keys.directory_of(config, os.environ)
        self._tunnels = Tunnels(config.policy.names(Protocol.WIREGUARD))
        self._told = 0
        self._succeeded = False
        self._successor: subprocess.Popen[bytes] | None = None

    def run(self) -> int:
        """Fork the worker and serve it to its end; its exit code. A signal that ends it ends this process too."""
        user = worker_user(self._config)
        kernel_tls.load()  # which the worker could not make it do
        asked, asking = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        signs, sign = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        wake, woken = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            for ours in (asked, signs, wake, woken, *([self._life] if self._life else [])):
                ours.close()
            self._become_worker(asking, sign, user)
        self._leave()
        asking.close()
        sign.close()
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        for number in _SIGNALS:
            signal.signal(number, lambda *_: None)
        signs.setblocking(False)
        rungs = allowed_rungs(self._config.back_end, self._config.attach) if self._config.interface else {Rung.UDP}
        ports = self._config.ports or privilege.ALL_PORTS
        broker = Broker(asked, self._config.interface, rungs, ports, self._spare, _cgroup())
        try:
            status = self._serve(broker, signs, woken, pid)
        finally:
            broker.close()
            self._tunnels.close()
        code = os.waitstatus_to_exitcode(status)
        if code < 0:
            signal.signal(-code, signal.SIG_DFL) if -code not in (signal.SIGKILL, signal.SIGSTOP) else None
            os.kill(os.getpid(), -code)
        return code

    # ---- the broker ----

    def _serve(self, broker: Broker, signs: socket.socket, woken: socket.socket, pid: int) -> int:
        waiting = [signs, woken, *([self._life] if self._life else [])]
        gone = False
        while True:
            if not gone:
                try:
                    pending = broker.serve([each.fileno() for each in waiting])
                except EOFError:  # the worker's end comes next
                    gone = True
                else:
                    if pending is not None:
                        self._answer(broker, pending)
                self._tell_refusals(broker)
            readable = select.select(waiting, [], [], None if gone else 0)[0]
            if signs in readable and not self._pass_signs(signs):
                waiting.remove(signs)
            if self._life in readable:  # the supervisor is gone: nobody would start us again
                waiting.remove(self._life)
                log.error("the supervisor is gone: the daemon ends")
                os.kill(pid, signal.SIGTERM)
            if woken in readable:
                for number in self._signals(woken):
                    if number in _PASSED_ON:
                        os.kill(pid, number)
                    elif number == signal.SIGUSR2:
                        self._upgrade()
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    return status

    @staticmethod
    def _signals(woken: socket.socket) -> set[int]:
        with contextlib.suppress(BlockingIOError):
            return set(woken.recv(4096))
        return set()

    def _pass_signs(self, signs: socket.socket) -> bool:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            words = signs.recv(4096)
            if not words:
                return False
            if self._life is not None:
                with contextlib.suppress(OSError):
                    self._life.send(words, socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
                return True
            if READY in words:
                notify(f"MAINPID={os.getpid()}", "READY=1")
            if ALIVE in words and not self._succeeded:
                notify("WATCHDOG=1")
            if STOPPING in words and not self._succeeded:
                notify("STOPPING=1")
            self._succeeded |= SUCCEEDED in words
        return True

    def _upgrade(self) -> None:
        if self._life is not None:
            log.warning("SIGUSR2 is for the supervisor, pid %d", os.getppid())
        elif not self._succeeded:
            self._successor = start_successor()

    def _tell_refusals(self, broker: Broker) -> None:
        """Powers of two only: whoever floods us does not flood the log."""
        _, refused = broker.counts()
        if refused > self._told and refused & (refused - 1) == 0:
            log.warning("refused %d requests of the worker: not as agreed, or against the configuration", refused)
            self._told = refused

    def _answer(self, broker: Broker, pending: Pending) -> None:
        try:
            data, fds = self._act(broker, pending)
        except AccordError as refusal:
            broker.answer(failure=refusal)
        except Exception as failure:  # the worker learns of it, and this process goes on
            log.exception("request %d", pending.kind)
            broker.answer(failure=error(Reason.NO_PRIVILEGE, f"the privileged process failed: {failure}"))
        else:
            broker.answer(data, tuple(fds))
            for fd in fds:
                os.close(fd)

    def _act(self, broker: Broker, pending: Pending) -> tuple[bytes, list[int]]:
        if pending.kind == Ask.COUNTS and not pending.data:
            return " ".join(str(number) for number in (os.getpid(), *broker.counts())).encode(), []
        if pending.kind == Ask.FILE and 0 < len(pending.data) <= _MAX_PATH and b"\0" not in pending.data:
            path = Path(os.fsdecode(pending.data))
            if path in self._files:
                return b"", [_open(path)]
            raise error(Reason.NO_PRIVILEGE, f"{path} is no file of the configuration", "name it there")
        if pending.kind == Ask.OWN_CERTIFICATE and not pending.data:
            certificate, key = own_certificate()
            return os.fsencode(certificate), [_open(certificate), _open(key)]
        if pending.kind == Ask.KEYS and not pending.data:
            return b"", [_memory("keys", keys.read_text(self._keys).encode())]
        if pending.kind == Ask.CONFIGURATION and not pending.data and self._config_file is not None:
            return b"", [self._read_configuration(self._config_file)]
        if pending.kind == Ask.REMOVE_CONTROL_SOCKET and not pending.data:
            control_path(self._config.control).unlink(missing_ok=True)
            return b"", []
        if pending.kind == Ask.TUNNEL and self._tunnels.allowed:
            self._tunnels.add(pending.data)
            return b"", []
        if pending.kind == Ask.NO_TUNNEL and not pending.data and self._tunnels.remove(pending.number):
            return b"", []
        if pending.kind == Ask.WHOSE_PROGRAM and broker.knows(pending.number):
            other = attached(pending.number)
            return (b"" if other is None else other.whose().encode()[:_MAX_PATH]), []
        if (state := self._states.get(pending.number)) is not None and not pending.data:
            if pending.kind == Ask.STATE:
                return b"", [fd] if (fd := state.open()) is not None else []
            if pending.kind == Ask.NEW_STATE:
                return b"", [state.begin()]
            if pending.kind == Ask.STATE_WRITTEN:
                state.finish()
                return b"", []
        log.warning("refused request %d of the worker", pending.kind)
        raise error(Reason.NO_PRIVILEGE, f"the privileged process knows no such request: {pending.kind}")

    def _read_configuration(self, path: Path) -> int:
        found: DaemonConfig | str
        try:
            found = load_config(path, known_protocols())
        except AccordError as wrong:
            found = wrong.detail
        else:
            self._files |= _files_of(found)
            self._tunnels.allowed = found.policy.names(Protocol.WIREGUARD)
            self._keys = keys.directory_of(replace(found, control=self._config.control), os.environ)
            control_path(self._config.control).chmod(0o666 if found.users else 0o600)
        return _memory("configuration", pickle.dumps(found))

    # ---- the worker ----

    def _become_worker(self, asking: socket.socket, sign: socket.socket, user: tuple[int, int]) -> NoReturn:
        """Never returns into the broker's own frames: whatever happens, the process ends here."""
        code = _LOST
        try:
            load_plugins()  # the worker's user may not be able to read where they are
            if self._config.peers.dns_hints:
                importlib.import_module("accord.controller.peers.dns_lookup")
            if self._spare is not None:
                self._spare.close()
            limited = _lift_memory_limit()
            on_xdp = self._config.interface is not None and self._config.back_end in ("auto", "af_xdp")
            privilege.drop(*user, keep_memlock=limited and on_xdp and self._config.attach != "none")
            privilege.ask_from(asking)
            if (missing := seccomp.confine()) is not None:
                log.warning("no seccomp filter: %s", missing)
            code = self._work(sign)
        except AccordError as failure:
            print(f"accord: {failure}", file=sys.stderr)
            code = _HOST_LACKS
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except KeyboardInterrupt:
            code = 130
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


def _memory(name: str, contents: bytes) -> int:
    descriptor = os.memfd_create(name)
    with os.fdopen(descriptor, "wb", closefd=False) as file:
        file.write(contents)
    return descriptor


def worker_user(config: DaemonConfig) -> tuple[int, int]:
    """User and group ID of the worker; a broker that is not root can only give its own."""
    return config.user if os.geteuid() == 0 else (os.getuid(), os.getgid())


def _cgroup() -> Path | None:
    """Where the sockops program goes; None: nowhere, and the worker finds out by itself why."""
    try:
        return own_cgroup()
    except AccordError:
        return None


def _lift_memory_limit() -> bool:
    """UMEMs are pinned. True: the limit on that stays, and without CAP_IPC_LOCK it would count."""
    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except (ValueError, OSError):
        return True
    return False


def _files_of(config: DaemonConfig) -> set[Path]:
    """What the worker may have opened for it."""
    named = [config.certificate, config.private_key, config.ca_file, config.limits.cookie_keys]
    for exposed in config.expose:
        named += [exposed.certificate, exposed.private_key]
    return {path for path in named if path is not None}


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as refusal:
        raise error(Reason.BAD_CONFIG, f"{path}: {refusal.strerror}", "name a readable PEM file") from refusal
