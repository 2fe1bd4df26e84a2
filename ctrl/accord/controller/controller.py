# SPDX-License-Identifier: Apache-2.0
"""The Controller (HotNets 2009, section 4): decides to negotiate, in which context, and what may come of it."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accord.controller import files, initiating, rendezvous, responding
from accord.controller.association import Association
from accord.controller.counts import Counts
from accord.controller.endpoint import Endpoint, EndpointConfig
from accord.controller.exchange import Exchange
from accord.controller.exposed import Deliver, Exposed, forward, give, service_policy
from accord.controller.given import Given
from accord.controller.held import HeldPath
from accord.controller.host import HostFetch
from accord.controller.link import LinkKeeper
from accord.controller.peers.dns_hints import DnsHints
from accord.controller.peers.lessons import Lessons
from accord.controller.peers.memory import Peers
from accord.controller.plugin_guard import PluginGuard
from accord.controller.prefixes import Prefixes
from accord.controller.prepared import STOCK_LIMIT, STOCK_SECONDS, Prepared, Target, discard
from accord.controller.race.fallback_log import FallbackLog
from accord.controller.race.head_start import FirstSyns
from accord.controller.race.losers import Losers
from accord.controller.recursion import Recursion
from accord.controller.renegotiation.associations import Associations
from accord.controller.service import LocalService
from accord.controller.settings.config import MEND_OF_A_LISTENER, DaemonConfig, ExposeConfig
from accord.controller.settings.destination import without_zone
from accord.controller.settings.policy import EffectivePolicy
from accord.controller.stack import call_later
from accord.controller.stock import Stock
from accord.controller.strangers.strangers import Strangers
from accord.controller.unmodified.clients import Clients
from accord.datapath import clock, privilege
from accord.datapath.births import Births
from accord.datapath.engine import Event, Level
from accord.datapath.port import Port, Rung, Spare
from accord.datapath.syn_option import SynOptions
from accord.datapath.tcp_repair import TcpRepair
from accord.negotiation.interface import Role
from accord.protocols.certificates import check_roots, load_identity
from accord.protocols.registry import load_plugins
from accord.protocols.services import Security
from accord.wire.constants import Protocol, Reason
from accord.wire.errors import AccordError, error

log = logging.getLogger("accord.controller")

_RENEW_SECONDS = 60.0
"""Between two looks at the files of certificates that the broker reads for us; SIGHUP has one at once."""
_POLICIES_REMEMBERED = 1024
"""Of peers and wishes together; asked for another one, all are forgotten."""
_BACK_ENDS = {
    Rung.XDP_NATIVE: ("af_xdp", "native"),
    Rung.XDP_GENERIC: ("af_xdp", "generic"),
    Rung.PACKET: ("af_packet", "none"),
    Rung.UDP: ("udp", "none"),
}


class Controller:
    """One data path, the plug-ins, the policy, the exposed ports. Lives on the running event loop."""

    def __init__(self, config: DaemonConfig, *, attached: bool = True, spare: Spare | None = None) -> None:
        """``attached``: on the interface from the start; otherwise negotiate over sockets until ``attach``.

        ``spare``: an XDP program that was loaded in advance.
        """
        self.config = config
        self.plugins, broken = load_plugins()
        for name, reason in broken.items():
            log.warning("plug-in %s is left out: %s", name, reason)
        self.guard = PluginGuard(clock.now, config.plugin_ms / 1000)
        self.prefixes = Prefixes(
            clock.now, associations=config.prefix_associations, commits=config.prefix_commits_per_second
        )
        self.tcp_refusal = _tcp_refusal()
        if self.tcp_refusal is not None:
            log.warning("TCP without a SYN is not to be had: %s", self.tcp_refusal)
        self.exposed: dict[int, Exposed] = {}
        self.meetings: dict[int, rendezvous.Rendezvous] = {}
        """Where peers may propose to this host while it proposes to them, by the index of the UDP socket."""
        self.counts = Counts()
        self.peers = Peers(clock.now, limit=config.peers.limit, expiry=config.peers.expiry_s)
        self.lessons = Lessons(self.peers)
        self.hints = _hints() if config.peers.dns_hints else None
        """None: the DNS is asked for addresses alone."""
        self.recursion = Recursion(config.keys.early_window_s)
        self.recursion.read_keys(config)
        self.losers = Losers()
        self.associations = Associations(self)
        self._fallbacks = FallbackLog(clock.now)
        supported = [int(Protocol.UDP), int(Protocol.SUBGRAPH), *(plugin.protocol for plugin in self.plugins.values())]
        self.endpoint = Endpoint(
            EndpointConfig(
                interface=config.interface,
                back_end=config.back_end,
                attach=config.attach,
                any_port=config.any_port,
                busy_poll_us=config.busy_poll_us,
                transactions=config.transactions,
                unproven=config.unproven,
                buffers=config.buffers,
                slots=config.limits.slots,
                strangers_per_second=config.limits.strangers_per_second,
                unproven_per_network=config.limits.unproven_per_network,
                proven_per_network=config.limits.proven_per_network,
                least_level=Level(config.limits.least_level),
                sockets_only=not attached,
                spare=spare,
            ),
            supported,
            self._opened,
        )
        self.syn_options: SynOptions | None
        self.syn_options, self.syn_refusal = _syn_options(self.endpoint.port)
        if self.syn_refusal is not None:
            log.warning("SYNs leave without the option: %s", self.syn_refusal)
        self.endpoint.reopened = self._hear
        self._births: Births | None = None
        self.clients = Clients(self)
        self.strangers = Strangers(self, config.limits.strangers_percent / 100)
        self.endpoint.met_stranger = self.strangers.met
        self._roots_read: Path | None = None
        self._renewal: asyncio.TimerHandle | None = None
        if privilege.asks():
            self._renewal = asyncio.get_running_loop().call_later(_RENEW_SECONDS, self._renew_again)
        self._policies: dict[tuple[str, int, str, str], EffectivePolicy] = {}
        self.proposals: Stock[Target, Prepared] = Stock(
            clock.now, call_later, discard(self), limit=STOCK_LIMIT, seconds=STOCK_SECONDS
        )
        self.first_syns = FirstSyns(tuple(self.plugins))
        self.link: LinkKeeper | None = None
        if attached and config.interface is not None:
            self.link = LinkKeeper(self.endpoint, config.interface)

    @property
    def back_end(self) -> str:
        """Of the rung that the data path stands on now, as the configuration calls it."""
        return _BACK_ENDS[self.endpoint.port.report.rung][0]

    @property
    def attach_mode(self) -> str:
        """How the XDP program is attached now."""
        return _BACK_ENDS[self.endpoint.port.report.rung][1]

    def attach(self) -> None:
        """Onto the interface, and stay there; does nothing when it is there already."""
        if self.config.interface is not None and self.link is None:
            self.link = LinkKeeper(self.endpoint, self.config.interface, attached=False)

    def detach(self) -> None:
        """Off the interface: the kernel delivers everything to the sockets, which are served as before."""
        if self.link is not None:
            self.link.close()
            self.link = None
        self.endpoint.reopen(None, sockets_only=True)

    # ---- what programs ask for ----

    async def connect(
        self,
        host: str,
        port: int,
        *,
        overrides: Mapping[str, Any] | None = None,
        security: Security | None = None,
        early: bytes = b"",
        family: int | None = None,
        messages: bool = False,
        ladder: bool = True,
    ) -> Association:
        """A stack to a peer. ``messages``: the program frames messages itself. ``ladder``: the report is to have one.

        Raises ``AccordError``.
        """

        wishes = overrides or {}

        def policy_for(address: str) -> EffectivePolicy:
            policy = self.policy_for(host, port, address, wishes)
            return policy.for_messages() if messages else policy

        security = security or Security(server_name=without_zone(host))
        security = self._trusting(security)
        check_roots(security)
        attempt = initiating.Attempt(self, host, port, policy_for, wishes, security, early)
        try:
            association = await attempt.run(family)
        except AccordError as failure:
            self.counts.failed(Role.INITIATOR, failure.reason)
            failure.trace = attempt.ladder.as_dicts()
            raise
        if ladder:
            association.report.ladder = attempt.ladder.as_dicts()
        self.counts.came_up(Role.INITIATOR, association.report)
        if association.report.reason != Reason.OK.name:
            self._fallbacks.say(association.report)
        return association

    async def rendezvous(
        self,
        sock: socket.socket,
        candidates: Sequence[tuple[str, int]],
        *,
        name: str,
        security: Security,
        overrides: Mapping[str, Any] | None = None,
        seconds: float = 30.0,
    ) -> Association:
        """A stack to a peer that calls the same at about the same time, on a bound UDP socket, ours from now on.

        ``candidates``: addresses, textual, and ports at which the peer may be; ``name``: as both call the meeting.
        ``security`` has what either role needs: a certificate and key, and the name that the peer's is for.
        Raises ``AccordError``: TIMEOUT when it was not met in so many ``seconds``.
        """
        try:
            security = self._trusting(security)
            check_roots(security)
            load_identity(security)
        except BaseException:
            sock.close()
            raise
        wishes = overrides or {}
        return await rendezvous.meet(
            self,
            sock,
            candidates,
            name,
            lambda address: self.policy_for(address, 0, address, wishes),
            security,
            seconds,
        )

    def expose(
        self,
        config: ExposeConfig,
        accepted: asyncio.Queue[Association] | None = None,
        given: Sequence[socket.socket] = (),
    ) -> Exposed:
        """Offer a port: forwarded to ``config.to``, or left to the program that listens on it (``to_listener``), else
        put on ``accepted``. ``given``: sockets that it has already.

        Raises ``AccordError``.
        """
        if config.listen in self.exposed:
            raise error(Reason.BAD_CONFIG, f"port {config.listen} is exposed already", "see: accord status")
        if (config.certificate is None) != (config.private_key is None):
            raise error(Reason.BAD_CONFIG, f"port {config.listen}", "give the certificate and its private key together")
        certificate, key = config.certificate, config.private_key
        if certificate is None:
            certificate, key = self.config.certificate, self.config.private_key
        if certificate is None or key is None:
            certificate, key = files.own_certificate()
            if not config.to_listener:
                log.warning("port %d: no certificate was given, peers are shown %s", config.listen, certificate)
        source = None if isinstance(certificate, HeldPath) else (certificate, key)
        certificate, key = files.readable(certificate), files.readable(key)
        security = Security(certificate=certificate, private_key=key, key_log=self.config.key_log, alpn=("http/1.1",))
        load_identity(security)
        if config.contradiction is not None:
            raise error(Reason.BAD_CONFIG, f"port {config.listen}: {config.contradiction}", MEND_OF_A_LISTENER)
        service = None if config.to is None else LocalService(config.to)
        left = Given(self._births_here(), config.listen) if config.to_listener else None
        exposed = Exposed(
            port=config.listen,
            service=service,
            security=security,
            secure=config.secure,
            policy=service_policy(
                self.config.policy, config.secure, messages=config.messages, to_listener=config.to_listener
            ),
            messages=config.messages,
            source=source,
            early_limit=config.early_limit,
            deliver=self._deliver(left, service, accepted),
            counts=self.counts,
            given=left,
        )
        exposed.open(
            self.endpoint,
            plain=config.plain and left is None,
            share_udp=config.share_udp,
            given=given,
            options=self.syn_options,
        )
        if exposed.adopter is not None:
            exposed.adopter.answered = self.strangers.awaits
            exposed.adopter.may_be_unknown = self.config.limits.strangers_per_second > 0
        self.exposed[config.listen] = exposed
        return exposed

    def withdraw(self, exposed: Exposed) -> None:
        """Take an exposed port back."""
        if self.exposed.get(exposed.port) is exposed:
            del self.exposed[exposed.port]
            exposed.close(self.endpoint)

    def reload(self, config: DaemonConfig) -> None:
        """Take over what can change at run time: policy, certificates for new ports, roots."""
        self.config = dataclasses.replace(
            self.config,
            policy=config.policy,
            ca_file=config.ca_file,
            certificate=config.certificate,
            private_key=config.private_key,
            users=config.users,
            peers=config.peers,
            keys=config.keys,
            limits=dataclasses.replace(self.config.limits, cookie_keys=config.limits.cookie_keys),
        )
        self.recursion.read_keys(self.config)
        self.peers.configure(config.peers.limit, config.peers.expiry_s)
        self._roots_read = None
        self.proposals.clear()
        self._policies.clear()
        self.renew()
        for exposed in self.exposed.values():
            exposed.policy = service_policy(
                config.policy, exposed.secure, messages=exposed.messages, to_listener=exposed.given is not None
            )
        self.associations.policy_changed()

    @property
    def busy(self) -> bool:
        """A negotiation is in flight, or an association of an exposed port is up."""
        return bool(self.endpoint.in_flight) or any(exposed.tasks for exposed in self.exposed.values())

    def stop(self) -> None:
        """Tell the peers of all negotiations in flight that this host stops; whoever waits for one is told too."""
        self.endpoint.stop()

    def close(self) -> None:
        """Stop: peers told, exposed ports back, program detached, memory freed."""
        if self._renewal is not None:
            self._renewal.cancel()
        self.clients.close()
        self.associations.close()
        for exposed in list(self.exposed.values()):
            self.withdraw(exposed)
        self.proposals.clear()
        self.losers.close()
        if self.link is not None:
            self.link.close()
        self.endpoint.close()
        if self.syn_options is not None:
            self.syn_options.close()
        if self._births is not None:
            self._births.close()

    def _births_here(self) -> Births:
        """The TC program, from the first port on that asks for it. Raises ``AccordError``."""
        if self._births is None:
            self._births = Births(self.config.interface)
        return self._births

    def _deliver(
        self, left: Given | None, service: LocalService | None, accepted: asyncio.Queue[Association] | None
    ) -> Deliver:
        if left is not None:
            return give(left, self.counts)
        return forward(service, self.counts) if service is not None else _enqueue(accepted)

    def _hear(self) -> None:
        """Another XDP program than before may be attached: its proposals are those that SYN-ACKs are marked for."""
        try:
            if self.syn_options is not None:
                self.syn_options.hear(self.endpoint.port)
        except AccordError as refusal:
            log.warning("SYN-ACKs are not marked: %s", refusal)

    def policy_for(self, host: str, port: int, address: str, wishes: Mapping[str, Any]) -> EffectivePolicy:
        """Remembered, because reading what an application wishes takes as long as a proposal that is ready."""
        key = (host, port, address, repr(wishes))
        policy = self._policies.get(key)
        if policy is None:
            policy = self.config.policy.for_destination(host, port, address).override(wishes)
            if len(self._policies) >= _POLICIES_REMEMBERED:
                self._policies.clear()
            self._policies[key] = policy
        return policy

    def _trusting(self, security: Security) -> Security:
        """With this host's roots where the program names none, and the key log."""
        ca_file, key_log = security.ca_file or self._roots(), self.config.key_log
        if (ca_file, key_log) == (security.ca_file, security.key_log):
            return security
        return dataclasses.replace(security, ca_file=ca_file, key_log=key_log)

    def _roots(self) -> Path | None:
        """Those of the configuration, read once until it is read again."""
        if self._roots_read is None and self.config.ca_file is not None:
            self._roots_read = files.readable(self.config.ca_file)
        return self._roots_read

    def renew(self) -> None:
        """Take over certificates that the configuration's files hold now. What cannot be read stays as it was."""
        for exposed in self.exposed.values():
            if (source := exposed.source) is None:
                continue
            try:
                exposed.show(*(files.readable(path) for path in source))
            except AccordError as wrong:
                log.warning("port %d: certificate not renewed: %s", exposed.port, wrong)

    def _renew_again(self) -> None:
        self.renew()
        self._renewal = asyncio.get_running_loop().call_later(_RENEW_SECONDS, self._renew_again)

    # ---- what peers ask for ----

    def _opened(self, event: Event) -> Exchange:
        path = event.path
        assert path is not None, "an OPENED event bears its path"
        if self.meetings and (bound := self.endpoint.sockets.of(path)) and (meeting := self.meetings.get(bound.index)):
            return meeting.opened(event)
        return responding.respond(self, event.handle, event.transaction, path, event.syn_first)


def _hints() -> DnsHints:
    # Most daemons do without, and the library is a third of a start.
    from accord.controller.peers.dns_lookup import Https

    return DnsHints(clock.now, Https())


def _tcp_refusal() -> str | None:
    """Why this process cannot make kernel TCP connections without a SYN; None when it can."""
    try:
        TcpRepair("127.0.0.1", "127.0.0.1").reserve().release()
    except AccordError as refusal:
        return str(refusal)
    return None


def _syn_options(port: Port) -> tuple[SynOptions | None, str | None]:
    """The option on the SYN, or why it is not to be had here."""
    try:
        return SynOptions(port), None
    except AccordError as refusal:
        return None, str(refusal)


def _enqueue(accepted: asyncio.Queue[Association] | None) -> Deliver:
    assert accepted is not None, "a port is forwarded or accepted"

    async def deliver(association: Association, fetch: HostFetch | None) -> None:
        try:
            accepted.put_nowait(association)
        except asyncio.QueueFull:
            log.warning("%s: the listening program does not accept; closed", association.report.peer)
            association.carrier.abort()

    return deliver
