# SPDX-License-Identifier: Apache-2.0
"""The one gate for calls of plug-ins: whatever a session does there, its caller gets an outcome (threat model, row 30).

    raises an error of its own      Refuse with that error's reason
    raises anything else, rubbish   Refuse PLUGIN_FAILED
    runs out of memory              Refuse PLUGIN_MEMORY, once what it held on to is gone
    does not come back in time      Refuse PLUGIN_TIMEOUT, where somebody raises ``Overrun`` inside it

What is no ``Exception`` and no end of a generator or program is not a plug-in's to raise (KeyboardInterrupt,
CancelledError): it passes.

Time is not measured here. Whoever has a timer makes a subclass that arms it and, when it fires and ``serial`` has not
moved since, raises ``Overrun`` in the thread that is ``running`` a call: two stores are all that a call costs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Final, TypeVar

from accord.negotiation.interface import Answer, Defer, Outcome, Refuse, Session, Wait
from accord.wire.constants import Reason
from accord.wire.errors import AccordError

T = TypeVar("T")

_MOST_WORDS: Final = 400
"""Characters of a plug-in's own words in a log or a ladder."""


class Overrun(BaseException):
    """Raised inside a call that takes too long. No ``Exception``: plug-ins that catch those do not keep it."""


class Guard:
    """Calls sessions. One serves any number of negotiations, one after another, not one within another."""

    def __init__(self) -> None:
        self.calls: defaultdict[tuple[int, str], int] = defaultdict(int)
        """How many there were, by protocol and method."""
        self.running = False
        self.serial = 0
        """Of the latest call."""
        self.armed = True
        """Nobody has to be woken to watch."""
        self.troubled = False
        """Successes are worth telling."""

    def ask(self, session: Session, method: str, call: Callable[[], Outcome]) -> Outcome:
        """What a session said. ``method`` is the name of the one that ``call`` calls."""
        return self._run(session, method, call, _outcome)

    def tell(self, session: Session, method: str, call: Callable[[], object]) -> Refuse | None:
        """Call for its effect. What went wrong, if anything did."""
        return self._run(session, method, call, _nothing)

    def export(self, session: Session) -> bytes | Refuse | None:
        """``Session.exporter``: a key of any length; None: there is none."""
        return self._run(session, "exporter", session.exporter, _key)

    # ---- for who watches ----

    def arm(self) -> None:
        """A call has begun, and nobody is ``armed``."""

    def failed(self, protocol: int, method: str, refusal: Refuse) -> None:
        """The plug-in of a protocol did what no plug-in should."""

    def refused(self, protocol: int, method: str, refusal: Refuse) -> None:
        """A session of a protocol refused by itself, as it may."""

    def succeeded(self, protocol: int, method: str) -> None:
        """It came back as it should; told while somebody is ``troubled``."""

    # ---- the gate ----

    def _run(
        self, session: object, method: str, call: Callable[[], object], check: Callable[[object], T]
    ) -> T | Refuse:
        protocol, broken = 0, Reason.OK
        words = ""
        self.serial += 1
        try:
            try:
                self.running = True
                if not self.armed:
                    self.arm()
                protocol = session.protocol  # type: ignore[attr-defined]
                found: T | Refuse = check(call())
            except AccordError as fault:
                found = _refusal(fault)
                if found.reason is Reason.PLUGIN_FAILED:
                    broken, words = found.reason, found.detail
            except MemoryError:
                # Nothing that needs memory before the traceback is gone, and with it what its frames hold.
                broken = Reason.PLUGIN_MEMORY
            except (Exception, GeneratorExit, SystemExit) as fault:
                broken, words = Reason.PLUGIN_FAILED, _words(fault)
            finally:
                self.running = False
        except Overrun:
            # Also when it comes while one of the clauses above is busy with what the plug-in raised just in time.
            self.running = False
            if not self.watches:
                raise
            broken, words = Reason.PLUGIN_TIMEOUT, "it was stopped"
        key = (int(protocol) if isinstance(protocol, int) else 0, method)
        self.calls[key] += 1
        if broken is Reason.OK:
            if self.troubled:
                self.succeeded(*key)
            if type(found) is Refuse:
                self.refused(*key, found)
            return found
        refusal = Refuse(broken, f"{method}: {words}" if words else method)
        self.failed(*key, refusal)
        return refusal

    watches = False
    """It is this one that has ``Overrun`` raised; else that is for another, further out."""


class Unsound(Exception):
    """A plug-in returned what none may."""


def _outcome(said: object) -> Outcome:
    """Raises ``Unsound``. By exact types: what only claims to be ``bytes`` may have any length, or two."""
    if type(said) is Answer:
        if type(said.payload) is bytes and type(said.more) is bool and (said.confirm is None or callable(said.confirm)):
            return said
    elif type(said) is Refuse:
        return _sound_refusal(said)
    elif type(said) is Wait:
        if type(said.detail) is str:
            return said
    elif type(said) is Defer and type(said.after) is frozenset and all(isinstance(node, int) for node in said.after):
        return said
    raise Unsound(f"answered with {type(said).__name__}")


def _sound_refusal(refusal: Refuse) -> Refuse:
    if type(refusal.reason) is Reason and refusal.reason is not Reason.OK and type(refusal.detail) is str:
        return refusal if len(refusal.detail) <= _MOST_WORDS else Refuse(refusal.reason, refusal.detail[:_MOST_WORDS])
    raise Unsound("refused for no reason")


def _nothing(_: object) -> None:
    return None


def _key(key: object) -> bytes | None:
    if key is None or type(key) is bytes:
        return key
    raise Unsound(f"has {type(key).__name__} for a key")


def _refusal(fault: AccordError) -> Refuse:
    try:
        return _sound_refusal(Refuse(fault.reason, fault.detail))
    except Exception as wrong:  # a class of its own
        return Refuse(Reason.PLUGIN_FAILED, _words(wrong))


def _words(fault: BaseException) -> str:
    try:
        return f"{type(fault).__name__}: {fault}"[:_MOST_WORDS]
    except Exception:  # its __str__ is the plug-in's too
        return type(fault).__name__


UNGUARDED: Final = Guard()
"""Of machines that are given no other: nobody watches the time."""
