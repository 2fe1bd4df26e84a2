# SPDX-License-Identifier: Apache-2.0
"""The memory of peers in its file: it comes back as it was, and nothing that anybody wrote there does harm."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accord.controller.peers.keeper import PeersKeeper
from accord.controller.peers.memory import (
    DAY,
    GAP_SECONDS,
    HOUR,
    MAX_EXPIRY,
    NEVER,
    Belief,
    Entry,
    Knowledge,
    Peers,
    Way,
    peer_key,
)
from accord.controller.peers.memory import Learnt as L
from accord.controller.peers.state_file import StateFile
from accord.controller.peers.text import encode, parse
from accord.controller.settings.config import DaemonConfig, PeersConfig, state_path
from accord.protocols.sealed.configuration import Aead, Kem
from accord.protocols.sealed.host_keys import make
from accord.wire.errors import HostError

KEY = make(Kem.HYBRID, Aead.CHACHA20_POLY1305, 1_767_225_600).configuration.encode()
WALL = 1_767_225_600.0
"""The first moment of 2026."""


class Clock:
    now = 5000.0

    def __call__(self) -> float:
        return self.now


def filled(clock: Clock) -> Peers:
    """One of each kind of knowledge."""
    peers = Peers(clock)
    peers.learn("192.0.2.1", 443, L.ANSWERED, protocols=(772, 6), source="10.0.0.1")
    peers.learn("192.0.2.1", 443, L.NO_SYN_WORKED, source="10.0.0.1")
    peers.learn("2001:db8::1", 80, L.ADOPTED_MARKED)
    for _ in range(2):
        clock.now += GAP_SECONDS
        peers.learn("fe80::1%eth0", 80, L.SILENT)
        peers.learn("192.0.2.3", 1, L.OPTION_SYN_LOST)
    peers.learn("192.0.2.4", 65535, L.SILENT)
    peers.learn_key("2001:db8::1", 80, "one.example", KEY)
    return peers


def text_of(peers: Peers, now: float, wall: float = WALL) -> bytes:
    return "".join(encode(peers.entries(), now, wall)).encode()


def knowledge(peers: Peers) -> list[tuple[tuple[str, int], Knowledge]]:
    return [(key, peers.about(entry)) for key, entry in peers.entries()]


def test_what_was_written_is_read_again_with_a_clock_that_began_anew() -> None:
    clock = Clock()
    peers = filled(clock)
    text = text_of(peers, clock.now)
    later = Clock()
    later.now = 3.0  # of a machine that was started a moment ago
    again = Peers(later)
    for key, entry in parse(text, later.now, WALL + 60):
        again.restore(key, entry)
    assert knowledge(again) == knowledge(peers)
    later.now += HOUR - 60 - 1
    assert not again.knows("192.0.2.3", 1).option
    later.now += 2
    assert again.knows("192.0.2.3", 1).option, "the minute in between counts"
    again.learn("192.0.2.3", 1, L.OPTION_SYN_LOST)
    later.now += 2 * HOUR - 1
    assert not again.knows("192.0.2.3", 1).option, "how often it was confirmed is remembered"


def test_every_line_is_json_that_a_person_can_read() -> None:
    clock = Clock()
    lines = [json.loads(line) for line in text_of(filled(clock), clock.now).splitlines()]
    assert lines[0] == {"accord_peers": 1, "peers": 5, "written": "2026-01-01T00:00:00Z"}
    assert lines[1]["address"] == "192.0.2.1"
    assert lines[1]["ways"]["no_syn"] == {"worked_until": "2026-01-01T23:59:58Z"}


moments = st.just(NEVER) | st.integers(-(10**8), int(MAX_EXPIRY)).map(float)
beliefs = st.builds(
    Belief,
    moments,
    st.booleans(),
    st.integers(0, 5),
    moments.filter(lambda when: when <= 0),
    st.integers(0, 16),
    moments,
)
keys = st.tuples(st.ip_addresses().map(str), st.integers(1, 65535))
entries = st.builds(
    Entry,
    st.lists(st.integers(0, 0xFFFFFFFF), max_size=8).map(tuple),
    moments,
    st.just("") | st.ip_addresses().map(str),
    st.none() | st.booleans(),
    st.dictionaries(st.sampled_from(Way), beliefs),
)


@given(st.dictionaries(keys, entries, max_size=5))
@settings(max_examples=60, deadline=None)
def test_any_memory_comes_back_as_it_was_but_for_beliefs_that_are_too_long(found: dict[tuple[str, int], Entry]) -> None:
    for entry in found.values():
        for belief in entry.ways.values():
            belief.broken_until = min(belief.broken_until, DAY)
    peers = Peers(lambda: -2e8)  # so that nothing is over
    for (address, port), entry in found.items():
        peers.restore(peer_key(address, port), entry)
    text = "".join(encode(peers.entries(), 0.0, WALL)).encode()
    assert parse(text, 0.0, WALL) == peers.entries()


def test_a_clock_that_was_set_back_makes_no_belief_longer_than_a_new_one() -> None:
    clock = Clock()
    text = text_of(filled(clock), clock.now)
    for _, entry in parse(text, 0.0, WALL - 1000 * DAY):
        assert entry.speaks_until <= MAX_EXPIRY
        for belief in entry.ways.values():
            assert belief.broken_until <= DAY
            assert belief.missed_at <= 0.0


@pytest.fixture
def text() -> bytes:
    clock = Clock()
    return text_of(filled(clock), clock.now)


def test_a_text_that_breaks_off_anywhere_is_refused_whole(text: bytes) -> None:
    assert len(parse(text, 0.0, WALL)) == 5
    for cut in range(len(text)):
        with pytest.raises(ValueError, match=r"breaks off|another number"):
            parse(text[:cut], 0.0, WALL)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"accord_peers": 1', b'"accord_peers": 2'),
        (b'"peers": 5', b'"peers": 4'),
        (b'"port": 443', b'"port": 0'),
        (b'"port": 443', b'"port": 65536'),
        (b'"port": 443', b'"port": true'),
        (b'"port": 443', b'"port": 1e400'),
        (b'"192.0.2.1"', b'"example.net"'),
        (b'"192.0.2.1"', b'["192.0.2.1"]'),
        (b'"10.0.0.1"', b'"' + b"x" * 5000 + b'"'),
        (b'"10.0.0.1"', b'"10.0.0.256"'),
        (b"[772, 6]", b"[772, -6]"),
        (b"[772, 6]", b"[[[]]]"),
        (b"[772, 6]", b"[" + b"1," * 100 + b"1]"),
        (b'"no_syn"', b'"no_fun"'),
        (b'"worked_until"', b'"worked_for"'),
        (b'"misses": 1', b'"misses": 1000000000'),
        (b'"times": 1', b'"times": 99999'),
        (b'"doubted": true', b'"doubted": 1'),
        (b"2026-01-01", b"2026-13-01"),
        (b"2026-01-01", b"yesterday!"),
        (b'"address": "192.0.2.3", "port": 1', b'"address": "192.0.2.4", "port": 65535'),
        (b'"ways": {', b'"ways": [' + b"[" * 3000 + b"{"),
        (b'"192.0.2.1"', b'"192.0.2.\xff"'),
    ],
)
def test_a_text_with_one_thing_wrong_is_refused_with_its_line(text: bytes, old: bytes, new: bytes) -> None:
    assert old in text
    with pytest.raises(ValueError, match=r"^line [1-6]: "):
        parse(text.replace(old, new), 0.0, WALL)


@pytest.mark.parametrize("year", ["0001", "0621", "1621", "9999"])
def test_a_memory_with_times_of_another_age_can_be_written_and_read_again(year: str) -> None:
    clock = Clock()
    text = re.sub(rb'": "\d{4}-', f'": "{year}-'.encode(), text_of(filled(clock), clock.now))
    peers = parse(text, clock.now, WALL)
    for wall in (WALL, WALL + 3600, WALL - 3600):
        written = "".join(encode(peers, clock.now, wall)).encode()
        assert [key for key, _ in parse(written, clock.now, wall)] == [key for key, _ in peers]


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_text_with_any_bytes_changed_is_refused_or_is_a_memory(data: st.DataObject) -> None:
    clock = Clock()
    text = bytearray(text_of(filled(clock), clock.now))
    for _ in range(data.draw(st.integers(1, 5))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    peers = Peers(clock)
    try:
        found = parse(bytes(text), clock.now, WALL)
    except ValueError:
        return
    for key, entry in found:
        peers.restore(key, entry)
        peers.knows(*key)
        peers.learn(*key, L.SILENT)
    "".join(encode(peers.entries(), clock.now, WALL))


# ---- the keeper ----


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "peers.jsonl"


def keeper(path: Path | None) -> tuple[Peers, PeersKeeper]:
    peers = Peers(time.monotonic)
    return peers, PeersKeeper(peers, path)


def test_a_file_that_is_written_is_read_by_the_next_one_and_is_nobody_elses_to_read(path: Path) -> None:
    peers, keep = keeper(path)
    keep.load()
    peers.learn("192.0.2.1", 443, L.ANSWERED, protocols=(772, 6))
    asyncio.run(keep.write())
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    again, next_one = keeper(path)
    next_one.load()
    assert again.knows("192.0.2.1", 443) == Knowledge(True, (772, 6), answers_late=True)


def test_it_is_written_at_the_end_and_not_when_nothing_has_changed(path: Path) -> None:
    peers, keep = keeper(path)
    keep.close()
    assert not path.exists()
    peers, keep = keeper(path)
    peers.learn("192.0.2.1", 443, L.REFUSED)
    keep.close()
    written = path.stat()
    again, keep = keeper(path)
    keep.load()
    again.knows("192.0.2.1", 443)
    keep.close()
    assert path.stat().st_ino == written.st_ino, "it was not replaced"


@pytest.mark.parametrize("content", [b"", b"\n", b"{}\n", b"\0" * 100, b"[" * 100_000 + b"\n", b"accord\n" * 1000])
def test_a_file_that_is_none_is_told_once_by_its_name_and_replaced(
    path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    peers, keep = keeper(path)
    with caplog.at_level(logging.WARNING):
        keep.load()
    assert len(peers) == 0
    assert [str(path) in record.message for record in caplog.records] == [True]
    peers.learn("192.0.2.1", 443, L.REFUSED)
    keep.close()
    assert len(parse(path.read_bytes(), 0.0, time.time())) == 1


def test_a_pipe_or_a_link_or_a_giant_in_its_place_is_not_read(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.parent.mkdir()
    os.mkfifo(path)
    keeper(path)[1].load()
    path.unlink()
    path.symlink_to("/dev/zero")
    keeper(path)[1].load()
    path.unlink()
    with path.open("wb") as file:
        file.truncate(1 << 40)
    keeper(path)[1].load()
    assert len(caplog.records) == 3


def test_a_writer_that_was_killed_half_way_leaves_the_old_contents(path: Path) -> None:
    peers, keep = keeper(path)
    peers.learn("192.0.2.1", 443, L.REFUSED)
    asyncio.run(keep.write())
    before = path.read_bytes()
    with os.fdopen(StateFile(path).begin(), "wb") as file:
        file.write(b"half a ")
    assert path.read_bytes() == before
    peers.learn("192.0.2.2", 443, L.REFUSED)
    keep.close()
    assert len(parse(path.read_bytes(), 0.0, time.time())) == 2
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_a_place_that_cannot_be_written_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    peers, keep = keeper(tmp_path / "file" / "peers.jsonl")
    for port in (1, 2, 3):
        peers.learn("192.0.2.1", port, L.REFUSED)
        asyncio.run(keep.write())
    keep.close()
    assert len(caplog.records) == 1
    assert "[peers] file" in caplog.text


def test_of_two_daemons_with_one_file_neither_publishes_what_the_other_writes(path: Path) -> None:
    one, other = StateFile(path), StateFile(path)
    os.close(one.begin())
    os.close(other.begin())
    with pytest.raises(HostError, match="another process"):
        one.finish()
    other.finish()


def test_a_memory_that_was_handed_on_is_not_written_by_the_old_daemon_any_more(path: Path) -> None:
    peers, keep = keeper(path)
    peers.learn("192.0.2.1", 443, L.REFUSED)
    keep.release()
    asyncio.run(keep.write())
    keep.close()
    assert not path.exists()


def test_writing_many_peers_leaves_the_loop_to_others(path: Path) -> None:
    peers, keep = keeper(path)
    for port in range(1, 4097):
        peers.learn("192.0.2.1", port, L.SILENT)

    async def both() -> int:
        writing = asyncio.create_task(keep.write())
        turns = 0
        while not writing.done():
            await asyncio.sleep(0)
            turns += 1
        return turns

    assert asyncio.run(both()) >= 4096 / 64
    assert len(parse(path.read_bytes(), 0.0, time.time())) == 4096


# ---- where it is ----


def test_the_hosts_own_daemon_has_the_state_directory_and_another_one_none() -> None:
    config = DaemonConfig()
    assert state_path(config, {"STATE_DIRECTORY": "/var/lib/a:/var/lib/b"}) == Path("/var/lib/a/peers.jsonl")
    assert state_path(config.override(control=Path("/run/other.sock")), {"STATE_DIRECTORY": "/x"}) is None
    named = PeersConfig(file=Path("/srv/p"))
    assert state_path(config.override(control=Path("/run/other.sock"), peers=named), {}) == Path("/srv/p")
    assert state_path(config.override(peers=PeersConfig(file=Path("/srv/p"), limit=0)), {}) is None


def test_a_users_daemon_has_the_place_of_the_xdg_specification(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", "/home/a")
    assert state_path(DaemonConfig(), {"XDG_STATE_HOME": "/s"}) == Path("/s/accord/peers.jsonl")
    for ignored in ({}, {"XDG_STATE_HOME": "relative"}):
        assert state_path(DaemonConfig(), ignored) == Path("/home/a/.local/state/accord/peers.jsonl")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert state_path(DaemonConfig(), {}) == Path("/var/lib/accord/peers.jsonl")
