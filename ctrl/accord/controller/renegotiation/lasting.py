# SPDX-License-Identifier: Apache-2.0
"""A byte stream that outlasts the stack it began on: ``table`` says what is done, and here it is done.

On the next stack each direction begins so, and goes on with the data:

    hello    32 bytes, ``Identity.hello``
    count    u64, big-endian: bytes of data that this direction has carried before, over all stacks

The hello is said as soon as the table says so, the count when the sender moves. The old direction is ended behind that,
with the old stack's own means; so the receiver knows from the stack which byte is the last, and from the count whether
it has that one. Nothing here depends on what arrives first.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import socket
from collections.abc import Callable, Coroutine
from typing import Any, Final

from accord.controller.renegotiation.identity import HELLO_BYTES, Identity, peer_of
from accord.controller.renegotiation.table import Do, Event, State, Turn
from accord.negotiation.interface import Role
from accord.protocols.services import Carrier
from accord.wire.constants import Limit, Reason
from accord.wire.errors import AccordError, error

log = logging.getLogger("accord.renegotiation")

COUNT_BYTES: Final = 8
HELLO_SECONDS: Final = Limit.MAX_LIFETIME_MS / 1000
"""An initiator that has not heard the responder's hello by then calls the change off."""
_CLOSE_SECONDS: Final = HELLO_SECONDS + 5.0
_DOUBT_SECONDS: Final = 10.0
"""A doubtful end of the stream is held for so long, in which the initiator may say what it was."""


class LastingCarrier:
    """A ``Carrier`` over the association's stack of the moment. Owns it, and the next one."""

    def __init__(self, carrier: Carrier, role: Role, identity: Callable[[], Identity]) -> None:
        """``identity`` of the first stack, worked out when it is first asked for."""
        self.role: Final = role
        self.generation = 1
        """Of the stack that data is sent over: 1 for the first."""
        self.sent = 0
        self.received = 0
        """Bytes of data, over all stacks."""
        self.on_moved: Callable[[], None] = _nothing
        """Data is sent over the next stack from now on, and the association has another identity."""
        self.on_called_off: Callable[[Identity], None] = _to_nobody
        """Initiator: the responder is to be told that this stack will not follow."""
        self.on_ended: Callable[[], None] = _nothing
        """Closed or aborted, whoever did it."""
        self.on_replaced: Callable[[], None] = _nothing
        """Another stack is there in the place of the first one, and the association has another identity."""
        self.failure: AccordError | None = None
        """Why the latest change came to nothing."""
        self._turn = Turn(role)
        self._identity = identity
        self._known: Identity | None = None
        self._reading = self._writing = carrier
        self._old: Carrier | None = None
        """In MOVED: the stack before."""
        self._next: Carrier | None = None
        self.following: Identity | None = None
        """Of the next stack, from when it is up here; also when that failed, as long as it is in doubt."""
        self._sending = asyncio.Lock()
        self._turned = asyncio.Event()
        self._finished = self._ended = self._closing = self._closed = False
        self._writes_next = self._reads_next = False
        """In MOVED: which directions have gone over."""
        self._change: asyncio.Task[None] | None = None
        self._anew: asyncio.Task[None] | None = None
        self._retiring: set[asyncio.Task[None]] = set()

    # ---- the stream ----

    @property
    def kernel_socket(self) -> socket.socket | None:
        """None: there may be another one soon."""
        return None

    async def read(self, limit: int = 65536) -> bytes:
        """As ``Carrier.read``, across changes. Raises ``PeerError`` (``STREAM_BROKEN``) when data is missing."""
        while not self._ended:
            stack = self._reading
            try:
                data = await stack.read(limit)
            except (AccordError, OSError):
                await self._made_anew()
                if self._anew is None or self._reading is stack:
                    raise
                continue
            if data:
                self.received += len(data)
                return data
            await self._at_end()
        return b""

    async def write(self, data: bytes) -> None:
        """As ``Carrier.write``."""
        async with self._sending:
            await self._made_anew()
            await self._writing.write(data)
            self.sent += len(data)

    async def finish(self) -> None:
        """As ``Carrier.finish``; the end too goes over to the next stack."""
        async with self._sending:
            self._finished = True
            await self._made_anew()
            await self._writing.finish()

    async def close(self) -> None:
        """As ``Carrier.close``. A change that is half made is made first: the peer would not know what it read. So is
        one that the initiator still negotiates, for the responder may have committed to it."""
        if self._closing or self._closed:
            return
        self._closing = True
        try:
            if self._turn.state is State.NEGOTIATING and self.role is Role.INITIATOR:
                with contextlib.suppress(AccordError, OSError):
                    await self.finish()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_CLOSE_SECONDS):
                        while self._turn.state is State.NEGOTIATING:
                            await self._turned.wait()
            if self._change is not None:
                await asyncio.wait({self._change}, timeout=_CLOSE_SECONDS)
            self._closed = True
            self._take(Event.LOST)
            self._stop_tasks()
            if self._next is not None and self._next is not self._writing:
                self._next.abort()
            for carrier in {self._reading, self._writing}:
                await carrier.close()
            if self._retiring:
                await asyncio.wait(self._retiring)
        finally:
            self._over()

    def abort(self) -> None:
        """As ``Carrier.abort``: every stack that there is."""
        self._closed = True
        self._take(Event.LOST)
        self._stop_tasks()
        for task in self._retiring:
            task.cancel()
        for carrier in {self._reading, self._writing, self._old or self._reading, self._next or self._reading}:
            carrier.abort()
        self._over()

    # ---- what the controller tells ----

    @property
    def state(self) -> State:
        """See ``table``."""
        return self._turn.state

    @property
    def identity(self) -> Identity:
        """Of the association, with the stack that this end sends over."""
        if self._known is None:
            self._known = self._identity()
        return self._known

    def begin(self) -> bool:
        """A proposal is made, or has come. False: not now."""
        if self._closing or self._closed:
            return False
        do = self._take(Event.BEGIN)
        if do is Do.DROP_AND_BEGIN:
            self._drop()
        return do in (Do.BEGIN, Do.DROP_AND_BEGIN)

    def begin_anew(self, make: Callable[[], Coroutine[Any, Any, tuple[Carrier, Identity]]]) -> bool:
        """Initiator: the responder has nothing of the first stack. ``make`` makes another in its place, for which
        reading and writing wait; what it raises they raise. False: the first one has been used."""
        used = self.sent or self.received or self._finished or self._ended or self._sending.locked()
        if used or self.generation > 1 or self._anew is not None or not self.begin():
            return False
        self._anew = asyncio.create_task(self._begin_anew(make))
        self._anew.add_done_callback(lambda task: None if task.cancelled() else task.exception())
        self._reading.abort()
        return True

    async def _begin_anew(self, make: Callable[[], Coroutine[Any, Any, tuple[Carrier, Identity]]]) -> None:
        try:
            carrier, identity = await make()
        finally:
            self._take(Event.FAILED)  # as far as the change of stacks goes: it is the first one still
        if self._closed:
            carrier.abort()
            return
        self._reading = self._writing = carrier
        self._known = identity
        self.on_replaced()

    async def _made_anew(self) -> None:
        """Return at once where the first stack is, or was, what it should be."""
        if self._anew is not None:
            await asyncio.wait({self._anew})
            if self._anew.cancelled():
                raise error(Reason.CLOSED, "the stream was closed on this side")
            self._anew.result()

    def failed(self, failure: AccordError) -> None:
        """The negotiation that was begun came to nothing: the stack that there is goes on."""
        if self._turn.state is State.NEGOTIATING:
            self.failure = failure
            self._take(Event.FAILED)

    def came_up(self, carrier: Carrier, identity: Identity) -> None:
        """What was begun is committed here."""
        if self._closed or self._take(Event.UP) not in (Do.SAY_HELLO, Do.AWAIT_HELLO):
            carrier.abort()
            return
        self._next, self.following = carrier, identity
        self._change = asyncio.create_task(self._go_over(carrier, identity))
        self._change.add_done_callback(lambda task: None if task.cancelled() else task.exception())

    def called_off(self) -> None:
        """Responder: the initiator says that it has not moved."""
        if self._take(Event.OFF) is Do.DROP:
            self._drop()
        self.following = None

    async def steady(self) -> None:
        """Return when no change is under way, or the association is over."""
        while self._turn.state not in (State.STEADY, State.DOUBTFUL, State.BROKEN):
            await self._turned.wait()

    async def past(self, generation: int) -> None:
        """Return when a change has been made since ``generation``, or the association is over."""
        while self.generation == generation and self._turn.state is not State.BROKEN:
            await self._turned.wait()

    # ---- the change ----

    async def _go_over(self, following: Carrier, identity: Identity) -> None:
        before = self.identity
        try:
            await self._greet(following, before, identity)
        except Exception as failure:  # a plug-in's own too: the old stack goes on
            self._greeting_failed(following, identity, failure)
            return
        if self._next is not following:
            return  # another change has taken its place
        do = self._take(Event.GREETED)
        if do not in (Do.MOVE, Do.SAY_HELLO_AND_MOVE):
            return
        self._old, self._writes_next, self._reads_next = self._writing, False, False
        try:
            if do is Do.SAY_HELLO_AND_MOVE:
                await following.write(before.hello(self.role, identity))
            # Where nobody reads any more the count is looked at here.
            following_too = (self._follow(),) if self._ended else ()
            await asyncio.gather(self._move(following, identity), *following_too)
        except Exception as failure:
            log.info("the next stack broke: %s", failure)
            self.failure = _named(failure)
            if self._take(Event.FAILED) is Do.BREAK:
                self.abort()

    async def _greet(self, following: Carrier, before: Identity, identity: Identity) -> None:
        if self.role is Role.RESPONDER:
            await following.write(before.hello(Role.RESPONDER, identity))
        async with asyncio.timeout(HELLO_SECONDS if self.role is Role.INITIATOR else None):
            hello = await _exactly(following, HELLO_BYTES)
        if not hmac.compare_digest(hello, before.hello(peer_of(self.role), identity)):
            raise error(Reason.BAD_MAC, "the next stack's hello is not the other end's")

    def _greeting_failed(self, following: Carrier, identity: Identity, failure: Exception) -> None:
        if self._next is not following:
            return
        self.failure = _named(failure)
        do = self._take(Event.FAILED)
        self._drop()
        if do is Do.CALL_OFF:
            self.on_called_off(identity)

    async def _move(self, following: Carrier, identity: Identity) -> None:
        async with self._sending:
            old, self._writing = self._writing, following
            # First: until the old one has ended nobody reads the next one, which may have little room.
            await old.finish()
            await following.write(self.sent.to_bytes(COUNT_BYTES, "big"))
            if self._finished:
                await following.finish()
        self._known, self.following = identity, None
        self.generation += 1
        self.on_moved()
        self._writes_next = True
        self._resume()

    async def _at_end(self) -> None:
        """The stack that is read has ended in this direction: the data has, or goes on, or nobody knows yet."""
        if self._turn.state is State.MOVED and self._reads_next:
            self._ended = True  # of the next stack, while this end has still to move: nothing follows
            return
        while True:
            do = self._take(Event.END)
            if do is Do.END:
                self._ended = True
                return
            if do is Do.FOLLOW:
                await self._follow()
                return
            if do is not Do.HOLD:
                raise error(Reason.CLOSED, "the stream was closed on this side")
            doubtful = self._turn.state is State.DOUBTFUL
            try:
                async with asyncio.timeout(_DOUBT_SECONDS if doubtful else None):
                    await self._turned.wait()
            except TimeoutError:
                raise error(
                    Reason.STREAM_BROKEN, "the stack ended while the next one failed: data may be missing"
                ) from None

    async def _follow(self) -> None:
        following = self._next
        assert following is not None, "nothing else is followed to"
        count = int.from_bytes(await _exactly(following, COUNT_BYTES), "big")
        if count != self.received:
            raise error(
                Reason.STREAM_BROKEN, f"{self.received} bytes have come over the stacks before, the peer sent {count}"
            )
        self._reading, self._reads_next = following, True
        self._resume()

    def _resume(self) -> None:
        if self._reads_next and self._writes_next and self._take(Event.RESUMED) is Do.RETIRE:
            old, self._old, self._next = self._old, None, None
            assert old is not None, "a stack was moved from"
            task = asyncio.create_task(_close(old))
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)

    # ---- ends ----

    def _take(self, event: Event) -> Do:
        before = self._turn.state
        do = self._turn.take(event)
        if self._turn.state is not before:
            turned, self._turned = self._turned, asyncio.Event()
            turned.set()
        return do

    def _drop(self) -> None:
        following, self._next = self._next, None
        if following is not None:
            following.abort()

    def _stop_tasks(self) -> None:
        for task in (self._change, self._anew):
            if task is not None and task is not asyncio.current_task():
                task.cancel()

    def _over(self) -> None:
        ended, self.on_ended = self.on_ended, _nothing
        self.on_called_off = _to_nobody
        self.on_moved = self.on_replaced = _nothing  # else only the collector would find whoever owns this one
        ended()


def _to_nobody(following: Identity) -> None:
    """Who might tell the responder is gone."""


def _nothing() -> None:
    """To be told."""


async def _exactly(carrier: Carrier, count: int) -> bytes:
    gathered = b""
    while len(gathered) < count:
        piece = await carrier.read(count - len(gathered))
        if not piece:
            raise error(Reason.STREAM_BROKEN, f"the next stack ended after {len(gathered)} of {count} bytes")
        gathered += piece
    return gathered


async def _close(carrier: Carrier) -> None:
    try:
        with contextlib.suppress(AccordError, OSError):
            await carrier.close()
    except BaseException:
        carrier.abort()
        raise


def _named(failure: Exception) -> AccordError:
    if isinstance(failure, AccordError):
        return failure
    if not isinstance(failure, OSError):
        return error(Reason.PLUGIN_FAILED, f"{type(failure).__name__}: {failure}")
    if isinstance(failure, TimeoutError) and failure.errno is None:
        return error(Reason.TIMEOUT, f"no hello on the next stack in {HELLO_SECONDS:g} s")
    return error(Reason.STREAM_BROKEN, failure.strerror or str(failure))
