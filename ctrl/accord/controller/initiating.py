# SPDX-License-Identifier: Apache-2.0
"""Connecting to a peer: the negotiation, the plain connection, and the race between them."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from accord.controller import legacy
from accord.controller.association import Association, Report
from accord.controller.exchange import Exchange
from accord.controller.ladder import Ladder, Way
from accord.controller.policy import EffectivePolicy, Fallback, Secure
from accord.controller.prepared import ORDER_SECONDS, Target, prepare
from accord.controller.resolver import resolve
from accord.controller.stack import build_carrier
from accord.datapath import clock
from accord.datapath.zone import host_of, socket_address
from accord.negotiation import events
from accord.negotiation.interface import Role
from accord.protocols.services import Security
from accord.wire.constants import Reason, protocol_name
from accord.wire.errors import AccordError, PathError, error

if TYPE_CHECKING:
    from accord.controller.controller import Controller

# With fallback = "delayed": how long a peer may be silent before the plain connection is tried after all. Two
# probe time-outs without an estimate of the round trip (RFC 9002, section 6.2.2) lose a lone packet twice.
_SILENCE_SECONDS = 3.0
_IPV6, _IP_MTU, _IPV6_MTU = socket.IPPROTO_IPV6, 14, 24  # linux/in.h, linux/in6.h
_FINAL = frozenset(
    {
        Reason.BAD_CERTIFICATE,
        Reason.CERTIFICATE_EXPIRED,
        Reason.CERTIFICATE_NAME,
        Reason.BAD_MAC,
        Reason.BAD_TRANSCRIPT,
        Reason.DOWNGRADE,
        Reason.BAD_CONFIG,
    }
)
"""Failures of a negotiation after which nothing weaker is tried."""


class Attempt:
    """One call of ``connect``: tries the host's addresses in the resolver's order."""

    def __init__(
        self,
        controller: Controller,
        host: str,
        port: int,
        policy_for: Callable[[str], EffectivePolicy],
        security: Security,
        early: bytes,
    ) -> None:
        self._controller = controller
        self._host = host
        self._port = port
        self._policy_for = policy_for
        self._policy = policy_for(host)
        self._security = security
        self._early = b""
        """Travels in the proposal, in clear."""
        self._request = early
        self.ladder = Ladder(clock.now)

    async def run(self, family: int | None) -> Association:
        """The association. Raises the last address's ``AccordError`` when none of them works."""
        failure: AccordError | None = None
        for address in await self._resolve(family):
            try:
                return await self._to(address)
            except PathError as unreachable:
                self.ladder.note(Way.HERE, f"{address}: {unreachable}")
                failure = unreachable
        assert failure is not None, "a resolver that finds nothing raises"
        raise failure

    async def _resolve(self, family: int | None) -> list[str]:
        wanted = {None: socket.AF_UNSPEC, 4: socket.AF_INET, 6: socket.AF_INET6}.get(family)
        if wanted is None:
            raise error(Reason.BAD_CONFIG, f"address family {family}", "4, 6 or none")
        with contextlib.suppress(ValueError):  # an address needs no resolver, nor the thread that asks it
            literal = ipaddress.ip_address(self._host)
            if family not in (None, literal.version):
                raise error(Reason.BAD_CONFIG, f"{self._host} is no IPv{family} address")
            if isinstance(literal, ipaddress.IPv6Address) and literal.is_link_local and not literal.scope_id:
                raise error(Reason.BAD_CONFIG, f"{self._host} is on every link", f"name one: {self._host}%eth0")
            return [self._host]
        try:
            found = await resolve(self._host, self._port, wanted)
        except (socket.gaierror, UnicodeError) as unknown:  # UnicodeError: a label that is empty or too long
            why = unknown.strerror if isinstance(unknown, OSError) else "no name"
            raise error(Reason.UNREACHABLE, f"{self._host}: {why}", "check the name, or give an address") from unknown
        return list(dict.fromkeys(host_of(address) for address in found))

    # ---- the negotiation, the plain connection, and which of them ----

    async def _to(self, address: str) -> Association:
        self._policy = self._policy_for(address)
        self._early = self._request if self._policy.early_in_clear else b""
        self.ladder.note(
            Way.HERE,
            f"to {address} port {self._port}, security {self._policy.secure}, fallback {self._policy.fallback}",
        )
        match self._policy.fallback:
            case Fallback.PARALLEL:
                winner = await self._race(address)
            case Fallback.DELAYED:
                winner = await self._one_after_the_other(address)
            case _:
                winner = await self._negotiate(address)
        # Not before it is decided: a request that is not idempotent must not travel twice.
        if self._request and not (winner.report.negotiated and self._early):
            try:
                await winner.carrier.write(self._request)
            except OSError as broken:
                winner.carrier.abort()
                raise error(Reason.STREAM_BROKEN, f"{address}: {broken.strerror}") from broken
            except BaseException:
                winner.carrier.abort()
                raise
        return winner

    async def _one_after_the_other(self, address: str) -> Association:
        """The plain connection once the negotiation has failed, or was silent for too long."""
        failure: AccordError
        try:
            async with asyncio.timeout(_SILENCE_SECONDS):
                return await self._negotiate(address)
        except TimeoutError:
            failure = error(Reason.TIMEOUT, f"{address} said nothing in {_SILENCE_SECONDS:g} s")
        except AccordError as refusal:
            if not _may_fall_back(refusal):
                raise
            failure = refusal
        association = await self._plain_after(address, failure)
        self._explain(association.report, failure)
        return association

    async def _race(self, address: str) -> Association:
        """Whichever is ready first: a negotiated stack needs one round trip, TLS over plain TCP two."""
        plain = asyncio.create_task(self._plain(address))
        negotiating = asyncio.create_task(self._negotiate(address))
        winner: Association | None = None
        try:
            pending: set[asyncio.Task[Association]] = {negotiating, plain}
            while pending:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                if negotiating in done and not _may_fall_back(negotiating.exception()):
                    winner = negotiating.result()
                    return winner
                if plain in done and plain.exception() is None:
                    if negotiating in pending and self._policy.secure is not Secure.REQUIRED:
                        # Bare TCP is ready before any answer to a proposal can be: as long again for the answer.
                        await asyncio.wait(pending, timeout=self.ladder.elapsed())
                        if negotiating.done() and not _may_fall_back(negotiating.exception()):
                            winner = negotiating.result()
                            return winner
                    winner = plain.result()
                    self._explain(winner.report, negotiating.exception() if negotiating.done() else None)
                    return winner
            raise _more_telling(negotiating.exception(), plain.exception())
        finally:
            await _dispose(negotiating, winner)
            await _dispose(plain, winner)

    async def _plain_after(self, address: str, failure: AccordError) -> Association:
        try:
            return await self._plain(address)
        except AccordError as refusal:
            raise _more_telling(failure, refusal) from refusal

    @staticmethod
    def _explain(report: Report, failure: BaseException | None) -> None:
        """Why the plain connection was taken: the negotiation's own failure, or (None) that it was slower."""
        if failure is None:
            report.reason = Reason.LEGACY_FIRST.name
        elif isinstance(failure, AccordError):
            silent = failure.reason in (Reason.UNREACHABLE, Reason.TIMEOUT)
            report.reason = Reason.LEGACY_PEER.name if silent else failure.reason.name
            report.detail = str(failure)
        else:
            report.reason = Reason.PLUGIN_FAILED.name
            report.detail = f"{type(failure).__name__}: {failure}"

    # ---- the plain connection ----

    async def _plain(self, address: str) -> Association:
        carrier, stack = await legacy.connect((address, self._port), self._policy.secure, self._security, self.ladder)
        return Association(carrier, self._report(address, stack))

    def _report(self, address: str, stack: list[str]) -> Report:
        controller = self._controller
        return Report(
            peer=f"{address} port {self._port}",
            stack=stack,
            ready_ms=round(self.ladder.elapsed() * 1000, 3),
            back_end=controller.back_end,
            attach_mode=controller.attach_mode,
            ladder=self.ladder.as_dicts(),
        )

    # ---- the negotiation ----

    async def _negotiate(self, address: str) -> Association:
        controller, endpoint = self._controller, self._controller.endpoint
        source, mtu = _route(address, self._port)
        target = Target(source, address, self._port, self._policy, self._security, mtu)
        ready = controller.proposals.take(target) if not self._early else None
        prepared = ready or prepare(controller, target, self._early)
        in_use = contextlib.ExitStack()  # the socket goes when the negotiation and all in-band data have ended
        if prepared.bound is not None:
            in_use.callback(endpoint.unbind, prepared.bound)
        try:
            handle = endpoint.engine.open(clock.now_us(), prepared.transaction, prepared.path)
        except BaseException:
            prepared.machine.receive(events.Stop(Reason.CLOSED))
            in_use.close()
            raise
        channel = prepared.channel
        exchange = Exchange(
            endpoint,
            handle,
            self.ladder,
            Role.INITIATOR,
            lambda: None if channel is not None and channel.in_use else in_use.close(),
        )
        if channel is not None:
            channel.ended = lambda: in_use.close() if exchange.over else None
        exchange.believes_icmp = self._policy.fallback is not Fallback.NEVER
        endpoint.adopt(handle, exchange)
        prepared.clock.go()
        try:
            exchange.run(prepared.machine, prepared.actions)
            endpoint.pump()
            committed = await exchange.committed
        except asyncio.CancelledError:
            exchange.feed(events.Stop(Reason.LEGACY_FIRST))
            if _has_result(exchange.committed):  # the stack came up in the same moment; nobody else will close it
                build_carrier(exchange.committed.result().sessions).abort()
            raise
        except BaseException:
            exchange.give_up()
            raise
        association = Association(build_carrier(committed.sessions), self._negotiated(address, committed, exchange))
        exchange.on_refused = lambda failure: association.carrier.abort()
        if exchange.refused is not None:
            association.carrier.abort()
            raise exchange.refused
        controller.proposals.order(target, lambda: prepare(controller, target), ORDER_SECONDS)
        return association

    def _negotiated(self, address: str, committed: events.Committed, exchange: Exchange) -> Report:
        report = self._report(address, [protocol_name(protocol) for protocol in reversed(committed.protocols)])
        report.negotiated = True
        top = committed.sessions[-1]
        report.alpn = getattr(top, "alpn_selected", None) or ""
        report.early = bool(getattr(top, "taken", False))
        figures = exchange.figures()
        if figures is not None:
            report.packets_sent, report.packets_received = figures.packets_sent, figures.packets_received
            report.bytes_sent, report.bytes_received = figures.bytes_sent, figures.bytes_received
            report.retransmitted = figures.retransmitted
        return report


def _has_result(future: asyncio.Future[events.Committed]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None


def _may_fall_back(failure: BaseException | None) -> bool:
    """A peer without Accord, or without a common stack, is reached as always; a forged or broken one is not.

    A certificate that does not verify, or a transcript that was changed, is no reason to try again with less.
    None, no failure, is no reason either.
    """
    if failure is None:
        return False
    return not isinstance(failure, AccordError) or failure.reason not in _FINAL


def _more_telling(negotiation: BaseException | None, plain: BaseException | None) -> BaseException:
    """Of two failures: the plain connection's is what a host without Accord would see, unless the peer's answer to
    the negotiation says why."""
    if isinstance(negotiation, AccordError) and negotiation.reason not in (Reason.UNREACHABLE, Reason.TIMEOUT):
        return negotiation
    assert plain is not None, "both have failed"
    return plain


async def _dispose(task: asyncio.Task[Association], winner: Association | None) -> None:
    """End the loser of the race; what it had already opened is closed without ceremony."""
    if not task.done():
        task.cancel()
        await asyncio.wait({task})
    if not task.cancelled() and task.exception() is None and task.result() is not winner:
        task.result().carrier.abort()


def _route(address: str, port: int) -> tuple[str, int]:
    """The own address that the kernel would send from, and the route's MTU in bytes with the IP header.

    Raises ``PathError`` when there is no route.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
        try:
            probe.connect(socket_address(address, port))
            level, option = (_IPV6, _IPV6_MTU) if family == socket.AF_INET6 else (socket.IPPROTO_IP, _IP_MTU)
            return host_of(probe.getsockname()), min(probe.getsockopt(level, option), 0xFFFF)
        except OSError as refusal:
            raise error(Reason.UNREACHABLE, f"{address}: {refusal.strerror}") from refusal
