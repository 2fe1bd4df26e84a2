# SPDX-License-Identifier: Apache-2.0
"""Simulated hosts: a kernel, and lives of a daemon on it that end by a crash, a power failure or in order."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import json
import socket
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any, Final, TypeVar

from accord.controller.acceptor import Acceptor
from accord.controller.association import Association
from accord.controller.controller import Controller
from accord.controller.settings.config import DaemonConfig, ExposeConfig, KeysConfig, LimitsConfig
from accord.controller.settings.policy import Policy, parse_policy
from accord.datapath.cookies import KEY_BYTES, CookieKey
from accord.datapath.engine import Level
from accord.datapath.path import Path
from accord.datapath.stream import SocketCarrier
from accord.negotiation import events
from accord.negotiation.machine import Machine
from accord.protocols import tls as real_tls
from accord.protocols.compression import CompressionPlugin
from accord.protocols.framing import FramingPlugin
from accord.protocols.http import HttpPlugin
from accord.protocols.inner import InnerPlugin
from accord.protocols.quic import QuicPlugin
from accord.protocols.sealed import host_keys
from accord.protocols.sealed.configuration import Aead, Kem
from accord.protocols.services import Carrier, Security
from accord.protocols.tcp import TcpPlugin
from accord.protocols.tls import TlsPlugin
from accord.wire.constants import Protocol
from accord.wire.errors import AccordError
from sim.chance import Entropy
from sim.kernel import Kernel, SimSocket
from sim.loop import INCARNATION
from sim.port import SimPort
from sim.record import Served
from sim.scenario import POLICIES, PORT, HostSpec
from sim.standin import StandInPlugin, StandInTls

if TYPE_CHECKING:
    from sim.world import World

T = TypeVar("T")
NAME: Final = "sim.example"
_LAST_TURNS_SECONDS: Final = 0.0005
"""Less than any host is away for."""
_PARSED: dict[int, Policy] = {}
HOST_KEY: Final = host_keys._of(Kem.X25519, Aead.AES_128_GCM, bytes(range(32)), 1 << 32)
"""That of every host with the plug-in ``inner``: what is sealed to it differs from run to run, its length does not."""
EARLY_WINDOW_SECONDS: Final = 2
_UNKEPT: Final = LimitsConfig(strangers_per_second=1000, strangers_percent=100, slots=16, least_level=int(Level.ANSWER))


def policy(number: int) -> Policy:
    """One of ``POLICIES``."""
    if number not in _PARSED:
        _PARSED[number] = parse_policy(POLICIES[number]) if POLICIES[number] else Policy()
    return _PARSED[number]


@dataclasses.dataclass(frozen=True, slots=True)
class Identity:
    """Files of the certificate that all simulated hosts have."""

    certificate: FilePath
    private_key: FilePath


class Host:
    """One machine. ``life`` is the daemon on it; None while it is away."""

    def __init__(self, world: World, index: int, spec: HostSpec, identity: Identity) -> None:
        self.world, self.index, self.spec, self.identity = world, index, spec, identity
        self.address = f"10.0.0.{index + 1}" if world.scenario.family == 4 else f"fd00::{index + 1}"
        self.skew = 0
        self.lives = 0
        self.life: Life | None = None
        self.kernel = self._kernel()
        self.policy = spec.policy

    def _kernel(self) -> Kernel:
        world = self.world
        entropy = Entropy(world.scenario.seed, self.index, self.lives, 1)
        first = self.kernel.next_port if self.lives else 0
        return Kernel(world.loop, self.address, entropy, lambda segment: world.segment(self, segment), first)

    def start(self) -> None:
        """The daemon begins."""
        self.lives += 1
        self.life = Life(self)
        self.kernel.suppresses = self.spec.accord and self.spec.xdp
        self.kernel.silent_since = None
        self.life.run(self.life.begin)

    def stand_still(self) -> None:
        """SIGSTOP, of the daemon and of the applications: the kernel goes on, and so does time."""
        if self.life is not None:
            self.world.loop.stand_still(self.life)
            self.kernel.silent_since = self.world.loop.now_us

    def go_on(self) -> None:
        """SIGCONT."""
        self.world.loop.go_on(self.life)
        self.kernel.silent_since = None

    def kill(self) -> None:
        """SIGKILL."""
        if self.life is not None:
            self.life.die()
            self.kernel.close_sockets()
            self.life = None

    def power_off(self) -> None:
        """Everything goes, and comes back with nothing of before."""
        if self.life is not None:
            self.life.die()
            self.life = None
        self.kernel.power_off()
        self.kernel = self._kernel()

    def stop(self) -> None:
        """SIGTERM, and SIGCONT: the loop turns a few more times before the process is gone."""
        self.go_on()
        life, self.life = self.life, None
        if life is not None:
            life.run(life.close)
            self.world.loop.later(_LAST_TURNS_SECONDS, self._stopped, life)

    def _stopped(self, life: Life) -> None:
        life.die()
        self.kernel.close_sockets()


class Life:
    """A daemon from its start to its end, and the applications that use it."""

    def __init__(self, host: Host) -> None:
        self.host, self.spec, self.kernel, self.world = host, host.spec, host.kernel, host.world
        scenario = self.world.scenario
        self.number = host.lives
        self.entropy = Entropy(scenario.seed, host.index, self.number, 2)
        real = scenario.real_tls
        self.tls: Any = real_tls if real else StandInTls(self.entropy)
        all_plugins: dict[str, Any] = {
            "tcp": TcpPlugin(),
            "tls": TlsPlugin() if real else StandInPlugin(scenario.flight, retries=scenario.retries),
            "quic": QuicPlugin(),
            "framing": FramingPlugin(),
            "compression": CompressionPlugin(),
            "http": HttpPlugin(),
            "inner": InnerPlugin(),
        }
        self.plugins = {name: all_plugins[name] for name in self.spec.plugins}
        self.controller: Controller | None = None
        self.port: SimPort | None = None
        self.dead = False
        self.serving: set[asyncio.Task[None]] = set()
        self._listener: SimSocket | None = None
        self._acceptor: Acceptor | None = None
        self._queue: asyncio.Queue[Association]

    def now_us(self) -> int:
        """CLOCK_BOOTTIME of this host, which goes on in suspend."""
        return self.world.loop.now_us + self.host.skew + 1

    def run(self, what: Callable[..., T], *arguments: Any) -> T:
        """Call it as this life of the host."""

        def inside() -> T:
            INCARNATION.set(self)
            return what(*arguments)

        return contextvars.Context().run(inside)

    def begin(self) -> None:
        """Expose the port."""
        if not self.spec.accord:
            self._listen()
            return
        identity, scenario = self.host.identity, self.world.scenario
        config = DaemonConfig(
            policy=policy(self.host.policy),
            certificate=identity.certificate,
            private_key=identity.private_key,
            ca_file=identity.certificate,
            transactions=self.spec.transactions,
            unproven=self.spec.unproven,
            buffers=self.spec.buffers,
            limits=_UNKEPT if self.host.index in scenario.unkept else LimitsConfig(strangers_per_second=0, slots=0),
            keys=KeysConfig(early_window_s=EARLY_WINDOW_SECONDS),
        )
        self._queue = asyncio.Queue(64)
        self.controller = Controller(config)
        if "inner" in self.spec.plugins:
            self.controller.recursion.keys.replace([HOST_KEY])
        if self.host.index in scenario.flooded | scenario.unkept:
            self.controller.endpoint.cookies([CookieKey(1, bytes(KEY_BYTES))], 0)
            level = Level.COOKIE if self.host.index in scenario.flooded else Level.ANSWER
            self.controller.endpoint.engine.level(self.now_us(), level)
        self.controller.expose(ExposeConfig(PORT, None), self._queue)
        self.spawn(self._accept())

    def make_port(self) -> SimPort:
        """The controller asks for it."""
        self.port = SimPort(self.kernel, lambda path, data: self.world.datagram(self.host, path, data))
        self.kernel.send_datagram = self._send_datagram
        return self.port

    def _send_datagram(self, source: tuple[str, int], target: tuple[str, int], data: bytes) -> None:
        """In-band, from one of this host's sockets."""
        if not self.dead:
            family = 6 if ":" in target[0] else 4
            self.world.datagram(self.host, Path(family, Protocol.UDP, *source, *target), data)

    def observe(self, machine: Machine, actions: Sequence[events.Action]) -> None:
        """What a negotiation of this life has done."""
        self.world.records.of(self, machine, self.world.loop.now_us).take(actions, self.world.network)

    def reload(self, number: int) -> None:
        """SIGHUP, with another policy."""
        self.host.policy = number
        if self.controller is not None:
            self.controller.reload(dataclasses.replace(self.controller.config, policy=policy(number)))

    def close(self) -> None:
        """In order: peers are told."""
        if self.controller is not None:
            self.controller.close()
        if self._acceptor is not None:
            self._acceptor.close()

    def die(self) -> None:
        """Nothing that this life has begun goes on."""
        self.dead = True
        self.world.loop.end(self)
        if self.port is not None:
            self.port.close()

    # ---- applications ----

    def spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """A task that the applications of this host run."""
        task = self.world.loop.create_task(work)
        self.serving.add(task)
        task.add_done_callback(self.serving.discard)
        return task

    async def connect(self, address: str, wishes: dict[str, Any], early: bytes = b"") -> Association:
        """As an application."""
        assert self.controller is not None
        security = Security(server_name=NAME, alpn=("http/1.1",))
        return await self.controller.connect(address, PORT, overrides=wishes, security=security, early=early)

    async def meet(
        self, where: tuple[str, int], port: int, name: str, wishes: dict[str, Any], seconds: float
    ) -> Association:
        """As an application, on a UDP socket of its own."""
        assert self.controller is not None
        sock = SimSocket(self.kernel, socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("0.0.0.0", port))
        identity = self.host.identity
        security = Security(
            server_name=NAME,
            certificate=identity.certificate,
            private_key=identity.private_key,
            alpn=("http/1.1",),
        )
        return await self.controller.rendezvous(
            sock,  # type: ignore[arg-type]
            [where],
            name=name,
            security=security,
            overrides=wishes,
            seconds=seconds,
        )

    async def _accept(self) -> None:
        while True:
            association = await self._queue.get()
            report = association.report
            inside = inside_words(report.inside)
            self.spawn(
                self.serve(association.carrier, "/".join(report.stack), report.negotiated, inside, report.reason)
            )

    async def serve(self, carrier: Carrier, stack: str, negotiated: bool, inside: str = "", reason: str = "") -> None:
        """Say everything back until the client ends."""
        served = Served(self.host.index, self.number, stack, negotiated, inside, reason)
        self.world.records.served.append(served)
        try:
            async with asyncio.timeout(90):
                while data := await carrier.read():
                    served.heard += data
                    await carrier.write(data)
                await carrier.close()
        except (AccordError, OSError) as failure:
            served.failure = str(failure) or type(failure).__name__
        finally:
            carrier.abort()
            served.over = True

    # ---- a host without Accord ----

    def _listen(self) -> None:
        family = socket.AF_INET6 if ":" in self.kernel.address else socket.AF_INET
        self._listener = SimSocket(self.kernel, family, socket.SOCK_STREAM)
        self._listener.bind(("", PORT))
        self._listener.listen(16)
        self._acceptor = Acceptor(self._listener, self._accepted)  # type: ignore[arg-type]

    def _accepted(self, client: Any) -> None:
        self.spawn(self._greet(SocketCarrier(client)))

    async def _greet(self, bare: SocketCarrier) -> None:
        identity = self.host.identity
        security = Security(certificate=identity.certificate, private_key=identity.private_key, alpn=("http/1.1",))
        try:
            async with asyncio.timeout(20):
                first = await bare.peek()
                carrier = await self.tls.server(bare, security, security.alpn) if first == 0x16 else bare
        except (AccordError, OSError):
            bare.abort()
            return
        await self.serve(carrier, "tls/tcp" if first == 0x16 else "tcp", False)


def inside_words(inside: Mapping[str, object]) -> str:
    """``Report.inside`` as text."""
    return json.dumps(inside, sort_keys=True)
