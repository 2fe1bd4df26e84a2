# SPDX-License-Identifier: Apache-2.0
"""One association that can be re-negotiated: what is known of it at its end, and who begins a change.

Begun by whoever asks the daemon, by the policy's timer, or by a policy that no longer wants the stack. The initiator's
end proposes; the responder's sends its wish to where the initiator's proposal came from, and the initiator proposes.
A wish that does not arrive, because a translator or a firewall has forgotten that path, is an error with a reason; the
stack stays, and the next occasion is the next try.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from accord.controller.proposal import APPLICATION
from accord.controller.renegotiation.lasting import LastingCarrier
from accord.controller.settings.policy import EffectivePolicy
from accord.controller.stack import stack_names
from accord.datapath import clock
from accord.negotiation import events
from accord.negotiation.choice import CandidateStack
from accord.negotiation.interface import Refuse
from accord.wire.constants import Protocol, Reason, protocol_name
from accord.wire.errors import AccordError, error

if TYPE_CHECKING:
    from accord.controller.controller import Controller
    from accord.controller.renegotiation.responder_end import ResponderEnd

log = logging.getLogger("accord.renegotiation")

GRACE_SECONDS: Final = 30.0
"""A stack that the policy forbids by now goes on for so long while another one is tried for."""
_RETRY_SECONDS: Final = 5.0
_BUSY_SECONDS: Final = 5.0
"""For so long a peer that is not through with the change before is asked again."""
_FIRST_PAUSE: Final = 0.05
_HEARD: Final = 4096
"""Far more than an end has to say while a stack lasts; it needs the key to say any."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What a stack is, and what it was chosen by."""

    protocols: tuple[int, ...]
    """IDs, bottom to top."""
    secure: bool
    policy: EffectivePolicy
    names: list[str]
    """The whole stack, top first, with what was agreed inside of its nodes."""

    @classmethod
    def of(cls, committed: events.Committed, policy: EffectivePolicy) -> Standing:
        """A stack that is committed."""
        secure = any(session.secure for session in committed.sessions)
        return cls(committed.protocols, secure, policy, stack_names(committed))

    @property
    def below(self) -> tuple[str, ...]:
        """Bottom to top, without the application's node and an inner negotiation's."""
        hidden = (Protocol.HTTP, Protocol.INNER)
        return tuple(protocol_name(protocol) for protocol in self.protocols if protocol not in hidden)

    @property
    def candidate(self) -> CandidateStack:
        """As a policy judges it."""
        return CandidateStack(tuple(range(1, len(self.protocols) + 1)), self.protocols, self.secure)


class Member:
    """One end. ``associations`` has all of a host's."""

    def __init__(
        self, controller: Controller, handle: str, peer: str, carrier: LastingCarrier, standing: Standing
    ) -> None:
        """``handle``: eight digits that both hosts call it by."""
        self._controller = controller
        self.handle: Final = handle
        self.peer: Final = peer
        self.carrier: Final = carrier
        self.standing = standing
        self._heard: dict[bytes, None] = {}
        """Transaction IDs of messages about the association with this stack."""
        self.name = b""
        """``Identity.name``, as ``Associations`` knows it."""
        self._following: Standing | None = None
        self._since = clock.now()
        self._running: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._enforcing: asyncio.Task[None] | None = None
        self.arm()

    # ---- what differs between the ends ----

    def policy_now(self) -> EffectivePolicy:
        """What holds for the association by the policy of now."""
        raise NotImplementedError

    async def attempt(self, wishes: Mapping[str, Any]) -> None:
        """Have the stack changed, once. Raises ``AccordError`` when it was not."""
        raise NotImplementedError

    def admit(self, claim: bytes, transaction: bytes, port: int, *, notice: bool) -> ResponderEnd | Refuse:
        """A message with RENEGOTIATES that names this association, as for ``Associations.admit``."""
        raise NotImplementedError

    def moved(self) -> None:
        """Data is sent over the next stack."""

    # ---- both ----

    def fresh(self, transaction: bytes) -> bool:
        """Whether a message that is the other end's says something for the first time."""
        if transaction in self._heard:
            return False
        if len(self._heard) >= _HEARD:
            del self._heard[next(iter(self._heard))]
        self._heard[transaction] = None
        return True

    def expect(self, standing: Standing) -> None:
        """What the stack is that is about to come up."""
        self._following = standing

    def on_moved(self) -> None:
        """``LastingCarrier.on_moved``."""
        assert self._following is not None, "what comes up was expected"
        self.standing, self._following = self._following, None
        self._since = clock.now()
        self._heard.clear()
        self._controller.counts.renegotiated(self.carrier.role, Reason.OK)
        log.info("%s, %s: now %s", self.handle, self.peer, "/".join(self.standing.names))
        self.moved()
        self.arm()

    def renegotiate(self, wishes: Mapping[str, Any] | None = None) -> asyncio.Task[None]:
        """Begin a change, or join the one that has begun. The task goes on without whoever waits for it."""
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._renegotiate(wishes or {}))
            self._running.add_done_callback(lambda task: task.cancelled() or task.exception())
        elif wishes:
            raise error(Reason.RENEGOTIATING, f"association {self.handle}", "ask again when that is over")
        return self._running

    async def _renegotiate(self, wishes: Mapping[str, Any]) -> None:
        pause, patience = _FIRST_PAUSE, clock.now() + _BUSY_SECONDS
        while True:
            try:
                await self.attempt(wishes)
                return
            except AccordError as failure:
                if failure.reason is not Reason.RENEGOTIATING or clock.now() > patience:
                    self._controller.counts.renegotiated(self.carrier.role, failure.reason)
                    log.info("%s, %s: not re-negotiated: %s", self.handle, self.peer, failure)
                    raise
            await asyncio.sleep(pause)
            pause *= 2

    def arm(self) -> None:
        """Set the timer that the policy asks for, from now on."""
        if self._timer is not None:
            self._timer.cancel()
        seconds = self.standing.policy.renegotiate_s
        self._timer = asyncio.get_running_loop().call_later(seconds, self._time) if seconds else None

    def _time(self) -> None:
        self.renegotiate().add_done_callback(lambda task: None if task.cancelled() else self.arm())

    def judge(self) -> None:
        """The policy has changed: see whether it still wants the stack."""
        policy, before = self.policy_now(), self.standing
        if policy == before.policy:
            return
        self.standing = replace(before, policy=policy)
        self.arm()
        if not policy.order([before.candidate]):
            if self._enforcing is None or self._enforcing.done():
                self._enforcing = asyncio.create_task(self._enforce())
        elif self._likes(policy) != self._likes(before.policy) and self._likes(policy) not in (None, before.below):
            self.renegotiate()

    def _likes(self, policy: EffectivePolicy) -> tuple[str, ...] | None:
        """The best stack, bottom to top; None where the policy leaves that to the peer."""
        if not policy.prefer:
            return None
        return next(iter(policy.stacks_wanted(set(self._controller.plugins) - {APPLICATION})), None)

    async def _enforce(self) -> None:
        """The stack is forbidden by now: another one, or the end."""
        until = clock.now() + GRACE_SECONDS
        while not self.policy_now().order([self.standing.candidate]):
            if clock.now() >= until:
                failure = error(Reason.POLICY, f"{'/'.join(self.standing.names)} is forbidden by now")
                self._controller.counts.renegotiated(self.carrier.role, Reason.POLICY)
                log.warning("%s, %s: closed: %s", self.handle, self.peer, failure)
                self.carrier.abort()
                return
            tried = self.renegotiate()
            await asyncio.wait({tried})
            if tried.cancelled() or tried.exception() is not None:
                await asyncio.sleep(max(0.0, min(_RETRY_SECONDS, until - clock.now())))

    async def changed(self, generation: int) -> None:
        """Return when the stack is another one than that of ``generation``. Raises why it is not."""
        await self.carrier.steady()
        if self.carrier.generation == generation:
            raise self.carrier.failure or error(Reason.CLOSED, f"association {self.handle} is over")

    def close(self) -> None:
        """The association is over, or the daemon is."""
        if self._timer is not None:
            self._timer.cancel()
        for task in (self._running, self._enforcing):
            if task is not None and task is not asyncio.current_task():
                task.cancel()

    def row(self) -> dict[str, Any]:
        """For ``accord status``."""
        return {
            "association": self.handle,
            "role": self.carrier.role.value,
            "peer": self.peer,
            "stack": self.standing.names,
            "generation": self.carrier.generation,
            "for_s": round(clock.now() - self._since, 1),
            "state": self.carrier.state.value,
            "sent": self.carrier.sent,
            "received": self.carrier.received,
        }


def strict(policy: EffectivePolicy, standing: Standing) -> EffectivePolicy:
    """For the next stack of an association: a secure one is never followed by an insecure one."""
    return policy.at_least_secure() if standing.secure else policy
