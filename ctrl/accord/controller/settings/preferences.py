# SPDX-License-Identifier: Apache-2.0
"""What a policy says of protocols, word by word, and what that comes to for a stack (docs/POLICY.md, "Preferences").

The five words are those of RFC 9622, section 6.2 (Prohibit, Avoid, No Preference, Prefer, Require). Those of the
initiator travel with its proposal (TLV WORD), so the responder weighs both sides' alike: it does not matter which of
them avoids a protocol, nor which of them prefers it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from accord.controller.settings.stacks import APPLICATIONS, LAYERS, SECURE, StackIds, format_stack
from accord.controller.settings.toml import Table
from accord.negotiation.choice import CandidateStack
from accord.wire.constants import Protocol, Reason, Word, protocol_name

Words = tuple[tuple[int, Word], ...]
"""Protocol ID and word, by ascending ID; what is not in it is neutral."""

WORDS: Final[Mapping[str, Word]] = {word.name.lower(): word for word in Word}
_ADDED: Final = (Word.PREFERRED, Word.REQUIRED)


def read_words(table: Table, base: Words, identify: Callable[[str], int]) -> Words:
    """``base``, with what the table ``preferences`` says in place of it, protocol by protocol.

    ``identify``: a protocol's ID by its name; raises ``ValueError`` for what is no protocol.
    """
    inner = table.table("preferences")
    if inner is None:
        return base
    words = dict(base)
    for key in inner.names():
        try:
            number = identify(key)
        except ValueError as wrong:
            inner.note(key, str(wrong))
            inner.discard(key)
            continue
        word = inner.choice(key, WORDS, Word.NEUTRAL)
        if number in APPLICATIONS and word is Word.FORBIDDEN:
            inner.note(key, "is the application's own node, on top of every stack", "it cannot be forbidden")
        words[number] = word
    inner.finish()
    return tuple(sorted((number, word) for number, word in words.items() if word is not Word.NEUTRAL))


def objection(words: Words, stack: CandidateStack, present: Iterable[int] = ()) -> tuple[Reason, str] | None:
    """Which word of this host's policy excludes the stack; None when none does.

    ``present``: protocols that are there although the stack does not name them, the application's node for example.
    """
    for number, word in words:
        if word is Word.FORBIDDEN and number in stack.protocols:
            theirs = _peers_word(stack, number)
            return Reason.POLICY, f"{protocol_name(number)} is forbidden by this host's policy{theirs}"
    missing = lacking(words, (*stack.protocols, *present))
    if missing is None:
        return None
    return Reason.REQUIRED_MISSING, f"{protocol_name(missing)}, which this host's policy requires, is not in it"


def lacking(words: Words, protocols: Iterable[int]) -> int | None:
    """A required protocol that is not among these; None when there is none."""
    have = frozenset(protocols)
    return next((number for number, word in words if word is Word.REQUIRED and number not in have), None)


def weigh(words: Words, stack: CandidateStack) -> tuple[int, int]:
    """How often a word of either side's says of a protocol of the stack to avoid it; and, negative, to prefer it.

    Smaller is better, the first before the second. Adding the two sides up makes the outcome the same from either.
    """
    if not words and not stack.words:
        return 0, 0
    own = dict(words)
    said = [own[number] for number in stack.protocols if number in own]
    said += [Word(word) for word in stack.words]
    return said.count(Word.AVOID), -said.count(Word.PREFERRED)


def with_layers(wanted: Iterable[StackIds], words: Words, *, compress_encrypted: bool) -> list[StackIds]:
    """The stacks to propose when words ask for what rides on other protocols: compression, framing.

    A layer that is required is put on each stack that lacks it, one that is preferred on a copy, which comes first.
    """
    asked = {number: word for number, word in words if number in LAYERS and word in _ADDED}
    found: list[StackIds] = []
    for stack in wanted:
        variants = [stack]
        for layer in LAYERS:
            if layer not in asked or layer in stack:
                continue
            made = [_put_on(variant, layer) for variant in variants]
            made = [each for each in made if compress_encrypted or not compresses_encrypted(each)]
            variants = made if asked[layer] is Word.REQUIRED else made + variants
        found += variants
    return list(dict.fromkeys(found))


def without_layers(stack: StackIds, words: Words) -> StackIds:
    """The stack without the layers that ``with_layers`` may have put on it."""
    asked = {number for number, word in words if number in LAYERS and word in _ADDED}
    return tuple(number for number in stack if number not in asked) if asked else stack


def compresses_encrypted(stack: StackIds, *, secure: bool = False) -> bool:
    """Whether what is compressed is encrypted afterwards, so that its length tells of its contents (CRIME).

    ``secure``: one of its protocols secures it. One that is not known here counts as below the compression.
    """
    if Protocol.COMPRESSION not in stack:
        return False
    known = [place for place, number in enumerate(stack) if number in SECURE]
    return any(place < stack.index(Protocol.COMPRESSION) for place in known) or (secure and not known)


def describe(words: Words, protocols: Mapping[str, int]) -> str:
    """For people: ``quic avoid, framing required``; empty when nothing is said."""
    return ", ".join(f"{format_stack((number,), protocols)} {word.name.lower()}" for number, word in words)


def _put_on(stack: StackIds, layer: int) -> StackIds:
    """Below the layers that belong above it, on top of everything else."""
    above = LAYERS[LAYERS.index(layer) + 1 :]
    place = next((place for place, number in enumerate(stack) if number in above), len(stack))
    return (*stack[:place], layer, *stack[place:])


def _peers_word(stack: CandidateStack, number: int) -> str:
    if not stack.words:
        return ""
    word = Word(stack.words[stack.protocols.index(number)])
    return f" (the peer's says: {word.name.lower()})" if word is not Word.NEUTRAL else ""
