# SPDX-License-Identifier: Apache-2.0
"""Sealing, key configurations, host keys and inner messages: vectors, a second HPKE, truncated and hostile twins."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from cryptography.hazmat.bindings._rust import openssl as rust_openssl
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hpke import MLKEM768X25519PrivateKey, Suite
from hypothesis import given, settings
from hypothesis import strategies as st

from accord.negotiation.interface import Role
from accord.protocols.sealed import configuration, messages, sealing
from accord.protocols.sealed.configuration import AEAD_OF, KDF_OF, KEM_OF, Aead, Kem, KeyConfiguration
from accord.protocols.sealed.host_keys import DAY, HostKeys, make, parse
from accord.protocols.sealed.sealing import PAD_BYTES, Channel
from accord.wire.constants import Reason
from accord.wire.errors import AccordError, PeerError, UserError
from tests.protocols import hpke_by_hand

NOW = 1_800_000_000
VECTORS = json.loads((Path(__file__).parent / "hpke_vectors.json").read_text())
KEYS = {kem: make(kem, Aead.CHACHA20_POLY1305, NOW) for kem in Kem}
SUITES = [(kem, aead) for kem in Kem for aead in Aead]


def raw_of(vector: dict[str, str]) -> bytes:
    """The hybrid's 32 bytes are expanded by SHAKE256 (draft-irtf-cfrg-concrete-hybrid-kems)."""
    raw = bytes.fromhex(vector["skRm"])
    return hashlib.shake_256(raw).digest(96) if vector["kem_id"] == Kem.HYBRID else raw


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["source"][:20] for vector in VECTORS])
def test_the_library_and_the_hand_written_hpke_open_the_published_vectors(vector: dict[str, str]) -> None:
    raw = raw_of(vector)
    info, sealed, aad = (bytes.fromhex(text) for text in (vector["info"], vector["enc"] + vector["ct"], vector["aad"]))
    kem, kdf, aead = (int(vector[name]) for name in ("kem_id", "kdf_id", "aead_id"))
    x25519 = X25519PrivateKey.from_private_bytes(raw[-32:])
    private: sealing.PrivateKey = x25519
    if kem == Kem.HYBRID:
        private = MLKEM768X25519PrivateKey(MLKEM768PrivateKey.from_seed_bytes(raw[:64]), x25519)
    suite = Suite(KEM_OF[kem], KDF_OF[kdf], AEAD_OF[aead])
    # The library's public interface has no associated data, and the vectors have.
    opened = rust_openssl.hpke._decrypt_with_aad(suite, sealed, private, info, aad)
    assert opened.hex() == vector["pt"] == hpke_by_hand.unseal(kem, aead, raw, info, sealed, aad).hex()


@pytest.mark.parametrize(("kem", "aead"), SUITES)
def test_what_is_sealed_opens_with_the_private_key_and_by_the_hand_written_hpke(kem: Kem, aead: Aead) -> None:
    key = make(kem, aead, NOW)
    sealed = sealing.seal(key.configuration, b"place", b"contents")
    assert len(sealed) == sealing.sealed_bytes(key.configuration, len(b"contents"))
    assert sealing.unseal(key.configuration, key.private, b"place", sealed) == b"contents"
    assert sealing.unpad(hpke_by_hand.unseal(kem, aead, key.raw, b"place", sealed)) == b"contents"


@pytest.mark.parametrize("kem", list(Kem))
def test_nothing_opens_that_is_cut_changed_for_another_place_or_key(kem: Kem) -> None:
    key = KEYS[kem]
    sealed = sealing.seal(key.configuration, b"place", b"contents")
    twins = [sealed[:cut] for cut in (0, 1, 31, 32, 1119, 1120, len(sealed) - 1) if cut < len(sealed)] + [
        sealed + b"\0"
    ]
    twins += [sealed[:at] + bytes((sealed[at] ^ 0x80,)) + sealed[at + 1 :] for at in range(0, len(sealed), 97)]
    for twin in twins:
        with pytest.raises(PeerError) as refused:
            sealing.unseal(key.configuration, key.private, b"place", twin)
        assert refused.value.reason is Reason.WRONG_KEY
    other = make(kem, Aead.CHACHA20_POLY1305, NOW)
    for private, info in ((key.private, b"elsewhere"), (other.private, b"place")):
        with pytest.raises(PeerError):
            sealing.unseal(key.configuration, private, info, sealed)


def test_a_point_of_small_order_is_refused_by_whoever_would_seal_to_it() -> None:
    weak = KeyConfiguration(Kem.X25519, Aead.AES_128_GCM, bytes(32), NOW + DAY)
    with pytest.raises(PeerError) as refused:
        sealing.seal(weak, b"", b"")
    assert refused.value.reason is Reason.WRONG_KEY


@given(st.binary(max_size=3 * PAD_BYTES))
def test_padding_hides_all_but_the_step_of_a_length_and_has_one_form(contents: bytes) -> None:
    padded = sealing.pad(contents)
    assert len(padded) % PAD_BYTES == 0
    assert 0 <= len(padded) - 4 - len(contents) < PAD_BYTES
    assert sealing.unpad(padded) == contents
    for twin in (padded[:-1], padded + bytes(PAD_BYTES), padded[:-1] + b"\1" if padded[-1] == 0 else padded[:-1]):
        with pytest.raises(ValueError, match="padding"):
            sealing.unpad(twin)


def test_a_channel_opens_each_step_once_in_its_place_and_for_its_own_negotiation() -> None:
    secret, sealed = bytes(range(32)), b"first message"
    here, there = Role.RESPONDER, Role.INITIATOR
    near, far = (Channel(role, Aead.AES_128_GCM, secret, sealed, b"place") for role in (here, there))
    said, more = near.seal(b"answer"), near.seal(b"another")
    strangers = [
        Channel(there, Aead.AES_128_GCM, secret, sealed, b"elsewhere"),
        Channel(there, Aead.AES_128_GCM, secret, b"another message", b"place"),
        Channel(there, Aead.AES_128_GCM, bytes(32), sealed, b"place"),
        Channel(there, Aead.AES_256_GCM, secret, sealed, b"place"),
        Channel(here, Aead.AES_128_GCM, secret, sealed, b"place"),
    ]
    wrong = [(far, more), (far, said[:-1]), (far, b""), *[(stranger, said) for stranger in strangers]]
    for channel, data in wrong:
        with pytest.raises(PeerError) as refused:
            channel.unseal(data)
        assert refused.value.reason is Reason.HANDSHAKE_FAILED
    assert [far.unseal(each) for each in (said, more)] == [b"answer", b"another"]
    assert near.unseal(far.seal(b"commit")) == b"commit"
    with pytest.raises(PeerError):
        far.unseal(said)


# ---- key configurations ----

configurations = st.builds(
    KeyConfiguration,
    kem=st.sampled_from([*Kem, 0x0010]),
    aead=st.sampled_from([*Aead, 0xFFFF]),
    public_key=st.sampled_from([KEYS[kem].configuration.public_key for kem in Kem] + [b"", b"short"]),
    not_after=st.integers(0, 2**64 - 1),
)


@given(st.lists(configurations, max_size=3))
def test_a_list_of_configurations_is_read_as_it_was_written(wanted: list[KeyConfiguration]) -> None:
    assert configuration.decode_list(configuration.encode_list(wanted)) == tuple(wanted)


@given(st.lists(configurations, min_size=1, max_size=3), st.data())
def test_a_list_that_breaks_off_is_refused_unless_a_configuration_ends_there(
    wanted: list[KeyConfiguration], data: st.DataObject
) -> None:
    whole = configuration.encode_list(wanted)
    cut = data.draw(st.integers(0, len(whole) - 1))
    ends = {len(configuration.encode_list(wanted[:count])): count for count in range(len(wanted))}
    if cut in ends:
        assert configuration.decode_list(whole[:cut]) == tuple(wanted[: ends[cut]])
    else:
        with pytest.raises(ValueError, match="break off"):
            configuration.decode_list(whole[:cut])


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_random_bytes_are_a_list_or_a_value_error(data: bytes) -> None:
    try:
        found = configuration.decode_list(data)
    except ValueError:
        return
    assert configuration.encode_list(found) in data or not found


def test_other_versions_and_algorithms_are_passed_over_and_what_is_over_is_not_sealed_to() -> None:
    good = KEYS[Kem.X25519].configuration
    unknown_version = b"\xfe\x0d\x00\x03abc"
    unknown_kem = KeyConfiguration(0x0010, Aead.AES_128_GCM, good.public_key, NOW + DAY)
    listed = configuration.decode_list(unknown_version + unknown_kem.encode() + good.encode())
    assert listed == (unknown_kem, good)
    assert configuration.best(listed, NOW) == good
    assert configuration.best(listed, good.not_after) is None


def test_too_many_configurations_or_too_long_a_list_is_refused() -> None:
    good = KEYS[Kem.X25519].configuration.encode()
    configuration.decode_list(good * configuration.MAX_CONFIGURATIONS)
    with pytest.raises(ValueError, match="too many"):
        configuration.decode_list(good * (configuration.MAX_CONFIGURATIONS + 1))
    with pytest.raises(ValueError, match="more than"):
        configuration.decode_list(bytes(configuration.MAX_LIST_BYTES + 1))


# ---- the host's own ----


@pytest.mark.parametrize("kem", list(Kem))
def test_a_host_key_is_read_from_its_text_and_nothing_else_is(kem: Kem) -> None:
    key = KEYS[kem]
    text = key.text()
    again = parse(text)
    assert (again.configuration, again.raw) == (key.configuration, key.raw)
    sealed = sealing.seal(key.configuration, b"", b"x")
    assert sealing.unseal(again.configuration, again.private, b"", sealed) == b"x"
    first, second = text.splitlines()
    stranger = make(kem, Aead.CHACHA20_POLY1305, NOW).text().splitlines()[1]
    for wrong in ("", first, second, f"{first}\n{stranger}", text.replace("=", "*"), text[:-20], "a: b\nc: d", "x"):
        with pytest.raises(UserError) as refused:
            parse(wrong)
        assert refused.value.reason is Reason.BAD_CONFIG


def test_of_each_algorithm_the_newest_key_is_published_and_older_ones_still_open() -> None:
    time = [float(NOW)]
    old, new = (make(Kem.HYBRID, Aead.AES_128_GCM, NOW, days) for days in (10, 20))
    plain = make(Kem.X25519, Aead.AES_128_GCM, NOW, 30)
    keys = HostKeys([plain, old, new], lambda: time[0])
    assert keys.published == (new.configuration, plain.configuration)
    assert keys.find(old.configuration.id) is old
    time[0] += 11 * DAY
    assert keys.find(old.configuration.id) is None
    assert keys.published == (new.configuration, plain.configuration)
    time[0] += 10 * DAY
    assert keys.published == (plain.configuration,)


def test_a_host_without_keys_makes_one_and_keeps_it() -> None:
    keys = HostKeys([], lambda: NOW)
    (made,) = keys.published
    assert made.kem == Kem.HYBRID
    assert keys.published == (made,)
    assert keys.find(made.id) is not None
    assert keys.find(bytes(8)) is None


# ---- messages ----

nodes = st.lists(st.tuples(st.integers(0, 255), st.integers(0, 2**32 - 1), st.binary(max_size=40)), max_size=5)


@given(st.integers(0, 7), nodes, st.data())
def test_an_inner_message_is_read_as_written_and_no_other_length_of_it(
    step: int, wanted: list[tuple[int, int, bytes]], data: st.DataObject
) -> None:
    message = messages.encode_inner(step, wanted)
    assert messages.decode_inner(message) == (step, wanted)
    for twin in (message[: data.draw(st.integers(0, len(message) - 1))], message + b"\0"):
        with pytest.raises(PeerError) as refused:
            messages.decode_inner(twin)
        assert refused.value.reason is Reason.HANDSHAKE_FAILED


@settings(max_examples=300)
@given(st.binary(max_size=300))
def test_random_bytes_are_a_payload_or_a_handshake_that_failed(data: bytes) -> None:
    for read in (
        messages.kind_of,
        messages.decode_sealed,
        messages.decode_keys,
        messages.decode_first,
        messages.decode_later,
        messages.decode_inner,
    ):
        refused: Reason | None = None
        try:
            read(data)  # type: ignore[operator]
        except AccordError as failure:
            refused = failure.reason
        assert refused in (None, Reason.HANDSHAKE_FAILED)


def test_bindings_have_one_order_and_none_comes_twice() -> None:
    one, other = (6, bytes(32)), (7, bytes(32))
    whole = messages.encode_sealed(b"k" * 8, [one, other], b"sealed")
    assert messages.decode_sealed(whole) == messages.Sealed(b"k" * 8, (one, other), b"sealed")
    for wrong in ([other, one], [one, one]):
        with pytest.raises(PeerError):
            messages.decode_sealed(messages.encode_sealed(b"k" * 8, wrong, b""))
    for cut in range(1 + 8 + 1 + 2 * 36):
        with pytest.raises(PeerError):
            messages.decode_sealed(whole[:cut])
