# SPDX-License-Identifier: Apache-2.0
"""The daemon's configuration file. docs/POLICY.md is its reference.

A file is read whole or not at all: every error of it is reported at once, and nothing of a bad one is used.
"""

from __future__ import annotations

import ipaddress
import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from accord.controller.certificate import STATE_DIRECTORY
from accord.controller.control import DEFAULT_PATH
from accord.controller.peers.memory import DAY, LIMIT, MAX_EXPIRY
from accord.controller.settings.policy import EffectivePolicy, Policy, Secure, load_policy, read_policy
from accord.controller.settings.stacks import PROTOCOLS
from accord.controller.settings.toml import Document, Table
from accord.wire.constants import Limit
from accord.wire.errors import AccordError

ATTACH: Final = ("auto", "native", "generic", "none")
PRIVILEGES: Final = ("drop", "keep")
BACK_ENDS: Final = ("auto", "af_xdp", "af_packet", "udp")

STATE_NAME: Final = "peers.jsonl"
COOKIES_NAME: Final = "cookies.keys"

_NOBODY: Final = 65534
_MAX_ID: Final = 0xFFFFFFFE
_MAX_INTERFACE: Final = 15
"""Bytes: IFNAMSIZ without its final NUL."""
_MAX_EARLY: Final = 65536
_MAX_BUSY_POLL_US: Final = 1000
_MAX_TRANSACTIONS: Final = 1 << 20
_MAX_BUFFERS: Final = 1 << 20
_MAX_PLUGIN_MS: Final = 10_000
_MAX_PER_PREFIX: Final = 1 << 20
_MAX_MEMORY_MIB: Final = 1 << 20
_MAX_SLOTS: Final = 1 << 20
_MAX_PEERS: Final = 1 << 14
_MAX_WINDOW_S: Final = 600
_MAX_STRANGERS: Final = 1_000_000
_COOKIE_S: Final = (Limit.COOKIE_SLOTS + 1) * Limit.COOKIE_SLOT_S
_MIN_PERIOD_S: Final = 10
_MAX_PERIOD_S: Final = 30 * 86400


def default_user() -> tuple[int, int]:
    """``accord`` where there is such a user, else ``nobody``."""
    for name in ("accord", "nobody"):
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        return found.pw_uid, found.pw_gid
    return _NOBODY, _NOBODY


LOOPS: Final = "is the exposed port itself"
NOT_WITH_A_LISTENER: Final = "does not go together with a port whose own program gets the connections"
MEND_OF_A_LISTENER: Final = "leave it out: certificate, early requests and messages are that program's business"


@dataclass(frozen=True, slots=True)
class ExposeConfig:
    """One ``[[expose]]``: a local plain service that peers reach over negotiated stacks."""

    listen: int
    """Port that peers name."""
    to: tuple[str, int] | None
    """Address and port of the service, plain TCP; None: connections go to the program that asked."""
    certificate: Path | None = None
    """None: that of [tls], else one that the daemon makes."""
    private_key: Path | None = None
    early_limit: int = 0
    """Bytes of early request that are served; 0: none. Whoever sees one may replay it."""
    plain: bool = True
    """Hosts without Accord are served on the same TCP port."""
    secure: Secure | None = None
    """None: as the policy says for the peer."""
    messages: bool = False
    """The program that connections go to sends and receives messages, and frames them itself."""
    share_udp: bool = False
    """The UDP port of this number is another program's; of what comes to it only negotiation packets are taken."""
    to_listener: bool = False
    """The TCP port is another program's, which is given the negotiated connections as it is given others."""

    @property
    def contradiction(self) -> str | None:
        """What does not go together with ``to_listener``; None: all does."""
        if not self.to_listener:
            return None
        has = {
            "to": self.to is not None,
            "certificate": self.certificate is not None or self.private_key is not None,
            "early_limit": self.early_limit > 0,
            "messages": self.messages,
            "secure": self.secure not in (None, Secure.NO),
        }
        found = next((name for name, stands in has.items() if stands), None)
        return None if found is None else f"{found} {NOT_WITH_A_LISTENER}"

    @property
    def loops(self) -> bool:
        """Whether the service is the exposed port itself: it would be its own client, until no descriptor is left."""
        return self.plain and self.to is not None and self.to[1] == self.listen and _is_loopback(self.to[0])


def _is_loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return address.is_loopback or address.is_unspecified


@dataclass(frozen=True, slots=True)
class PeersConfig:
    """``[peers]``: the memory of peers."""

    file: Path | None = None
    """None: see ``state_path``."""
    limit: int = LIMIT
    """Peers; 0: nothing is remembered."""
    expiry_s: int = int(DAY)
    """How long good news last, seconds."""
    dns_hints: bool = False
    """Ask for HTTPS records beside addresses."""


@dataclass(frozen=True, slots=True)
class KeysConfig:
    """``[keys]``: what inner negotiations with this host are sealed to."""

    directory: Path | None = None
    """None: see ``controller.keys.directory_of``."""
    early_window_s: int = 30
    """A sealed request is served early within so many seconds, and not in the first so many of a daemon."""


@dataclass(frozen=True, slots=True)
class LimitsConfig:
    """``[limits]``, as far as strangers go: peers whose address is not proven. Zeros leave the engine its own."""

    strangers_per_second: int = 200
    """So many are answered without being kept, when there is no place; 0: none."""
    strangers_percent: int = 15
    """Of one processor, that these answers may take."""
    slots: int = 2500
    """Answers that wait for their commits at most."""
    unproven_per_network: int = 0
    proven_per_network: int = 0
    least_level: int = 0
    cookie_keys: Path | None = None
    """A ring of keys that several hosts behind one address share; None: this daemon makes its own."""
    cookie_period_s: int = 3600
    cookie_lifetime_s: int = 7200


@dataclass(frozen=True, slots=True)
class DaemonConfig:
    """The whole file. Limits of 0 leave the engine its own."""

    interface: str | None = None
    user: tuple[int, int] = field(default_factory=default_user)
    """User and group ID of the process that does the work."""
    privileges: str = "drop"
    ports: frozenset[int] = frozenset()
    """Local ports that may be exposed at all; none named: every one."""
    attach: str = "auto"
    back_end: str = "auto"
    control: Path | None = None
    any_port: bool = False
    busy_poll_us: int = 0
    """How long the kernel may poll the receive queues for us, microseconds; 0: interrupts alone."""
    users: frozenset[int] = frozenset()
    """User IDs that may use the control socket, beside root and the daemon's own."""
    certificate: Path | None = None
    private_key: Path | None = None
    ca_file: Path | None = None
    key_log: Path | None = None
    expose: tuple[ExposeConfig, ...] = ()
    policy: Policy = field(default_factory=Policy)
    peers: PeersConfig = field(default_factory=PeersConfig)
    keys: KeysConfig = field(default_factory=KeysConfig)
    transactions: int = 0
    unproven: int = 0
    buffers: int = 0
    plugin_ms: int = 500
    """That one call of a plug-in may take; 0: any time."""
    prefix_associations: int = 1024
    """Of one network (/24, /56), through the daemon, at once; 0: any number."""
    prefix_commits_per_second: int = 500
    """Stacks that one network may commit to; 0: any number."""
    memory_mib: int = 768
    """That the daemon may take beside what it takes at its start; 0: as the host allows."""
    limits: LimitsConfig = field(default_factory=LimitsConfig)

    def override(self, **values: Any) -> DaemonConfig:
        """This configuration with the values that are not None, as command line options give them."""
        return replace(self, **{name: value for name, value in values.items() if value is not None})


def state_path(config: DaemonConfig, environment: Mapping[str, str]) -> Path | None:
    """Where the memory of peers is kept: as configured, else in the state directory of the host's own daemon.

    A daemon with a control socket of its own is one of several, and has no file unless it is given one. systemd(1)
    names the directory by $STATE_DIRECTORY; a user's is that of the XDG base directory specification.
    """
    if config.peers.limit == 0:
        return None
    return config.peers.file or _in_state_directory(STATE_NAME, config, environment)


def cookies_path(config: DaemonConfig, environment: Mapping[str, str]) -> Path | None:
    """Where this daemon's cookie keys are kept: beside the memory of peers, or not at all."""
    if config.peers.file is not None:
        return config.peers.file.with_name(COOKIES_NAME)
    return _in_state_directory(COOKIES_NAME, config, environment)


def _in_state_directory(name: str, config: DaemonConfig, environment: Mapping[str, str]) -> Path | None:
    if config.control not in (None, DEFAULT_PATH):
        return None
    if directories := environment.get("STATE_DIRECTORY"):
        return Path(directories.partition(":")[0]) / name
    if os.geteuid() == 0:
        return STATE_DIRECTORY / name
    base = Path(environment.get("XDG_STATE_HOME", ""))
    if not base.is_absolute():  # as the specification has it: such a value is ignored
        base = Path(os.path.expanduser("~")) / ".local/state"
    return base / "accord" / name if base.is_absolute() else None


def load_config(path: Path, protocols: Mapping[str, int] = PROTOCOLS) -> DaemonConfig:
    """The configuration of a file; relative paths in it start at its directory. ``protocols``: IDs by name.

    Raises ``UserError`` (BAD_CONFIG), with a line of text for everything that is wrong with the file.
    """
    return _read(Document.read(path), path.parent, protocols)


def parse_config(
    text: str, name: str = "configuration", directory: Path = Path(), protocols: Mapping[str, int] = PROTOCOLS
) -> DaemonConfig:
    """As ``load_config``, of a text that errors call ``name``."""
    return _read(Document(text, name), directory, protocols)


def _read(document: Document, directory: Path, protocols: Mapping[str, int]) -> DaemonConfig:
    top = document.top
    config = DaemonConfig()
    if (table := top.table("daemon")) is not None:
        config = replace(
            config,
            interface=table.converted("interface", _interface, None),
            attach=table.choice("attach", {name: name for name in ATTACH}, config.attach),
            back_end=table.choice("back_end", {name: name for name in BACK_ENDS}, config.back_end),
            user=table.converted("user", _worker, config.user),
            privileges=table.choice("privileges", {name: name for name in PRIVILEGES}, config.privileges),
            ports=frozenset().union(*table.strings("ports", _ports, ())),
            control=_path(table, "control", directory),
            any_port=table.boolean("any_port", config.any_port),
            busy_poll_us=table.integer("busy_poll_us", 0, _MAX_BUSY_POLL_US, config.busy_poll_us),
        )
        if config.busy_poll_us and config.back_end in ("af_packet", "udp"):
            table.note("busy_poll_us", f'needs AF_XDP, not back_end = "{config.back_end}"', "leave out one of the two")
        table.finish()
    if (table := top.table("control")) is not None:
        config = replace(config, users=_users(table))
        table.finish()
    if (table := top.table("tls")) is not None:
        certificate, private_key = _certificate(table, directory)
        config = replace(
            config,
            certificate=certificate,
            private_key=private_key,
            ca_file=_path(table, "ca", directory),
            key_log=_path(table, "key_log", directory),
        )
        table.finish()
    if (table := top.table("limits")) is not None:
        config = replace(
            config,
            transactions=table.integer("transactions", 1, _MAX_TRANSACTIONS, 0),
            unproven=table.integer("unproven", 1, _MAX_TRANSACTIONS, 0),
            buffers=table.integer("buffers", 1, _MAX_BUFFERS, 0),
            plugin_ms=table.integer("plugin_ms", 0, _MAX_PLUGIN_MS, config.plugin_ms),
            prefix_associations=table.integer("prefix_associations", 0, _MAX_PER_PREFIX, config.prefix_associations),
            prefix_commits_per_second=table.integer(
                "prefix_commits_per_second", 0, _MAX_PER_PREFIX, config.prefix_commits_per_second
            ),
            memory_mib=table.integer("memory_mib", 0, _MAX_MEMORY_MIB, config.memory_mib),
            limits=_limits(table, directory),
        )
        if config.transactions and config.unproven > config.transactions:
            table.note(
                "unproven", f"{config.unproven} of {config.transactions} transactions", "no more than transactions"
            )
        table.finish()
    if (table := top.table("peers")) is not None:
        known = config.peers
        config = replace(
            config,
            peers=PeersConfig(
                file=_path(table, "file", directory),
                limit=table.integer("limit", 0, _MAX_PEERS, known.limit),
                expiry_s=table.integer("expiry_s", 1, int(MAX_EXPIRY), known.expiry_s),
                dns_hints=table.boolean("dns_hints", known.dns_hints),
            ),
        )
        table.finish()
    if (table := top.table("keys")) is not None:
        window = table.integer("early_window_s", 1, _MAX_WINDOW_S, config.keys.early_window_s)
        config = replace(config, keys=KeysConfig(_path(table, "directory", directory), window))
        table.finish()
    config = replace(config, expose=_exposed(top, directory), policy=_policy(top, directory, protocols))
    top.finish()
    document.finish()
    return config


def _limits(table: Table, directory: Path) -> LimitsConfig:
    plain = LimitsConfig()
    period = table.integer("cookie_period_s", _MIN_PERIOD_S, _MAX_PERIOD_S, plain.cookie_period_s)
    lifetime = table.integer("cookie_lifetime_s", _MIN_PERIOD_S, 3 * _MAX_PERIOD_S, 2 * period)
    # A ring has four places, and a cookie of the last moment of a key is to be taken for as long as cookies are.
    if not period + _COOKIE_S <= lifetime <= 3 * period:
        table.note(
            "cookie_lifetime_s",
            f"{lifetime} s beside a period of {period} s",
            f"from {_COOKIE_S} s more than that to three times it",
        )
    return LimitsConfig(
        strangers_per_second=table.integer("strangers_per_second", 0, _MAX_STRANGERS, plain.strangers_per_second),
        strangers_percent=table.integer("strangers_percent", 1, 100, plain.strangers_percent),
        slots=table.integer("slots", 0, _MAX_SLOTS, plain.slots),
        unproven_per_network=table.integer("unproven_per_network", 1, _MAX_TRANSACTIONS, 0),
        proven_per_network=table.integer("proven_per_network", 1, _MAX_TRANSACTIONS, 0),
        least_level=table.integer("least_level", 0, 2, plain.least_level),
        cookie_keys=_path(table, "cookie_keys", directory),
        cookie_period_s=period,
        cookie_lifetime_s=lifetime,
    )


def _policy(top: Table, directory: Path, protocols: Mapping[str, int]) -> Policy:
    table = top.table("policy")
    if table is None:
        return Policy(EffectivePolicy(protocols=protocols))
    path = _path(table, "file", directory)
    if path is None:
        policy = read_policy(table, protocols)
    else:
        policy = Policy()
        for key in ("default", "destination"):
            if key in table:
                table.note(key, "stands beside file", "give the policy here or in a file of its own")
                table.discard(key)
        try:
            policy = load_policy(path, protocols)
        except AccordError as wrong:
            table.document.include(wrong.detail)
    table.finish()
    return policy


def _exposed(top: Table, directory: Path) -> tuple[ExposeConfig, ...]:
    found: list[ExposeConfig] = []
    for table in top.tables("expose"):
        to_listener = table.boolean("to_listener", False)
        for key in ("listen",) if to_listener else ("listen", "to"):
            if key not in table:
                table.note(key, "is missing", 'an exposed service needs listen = 443 and to = "127.0.0.1:8080"')
        listen = table.integer("listen", 1, 65535, 0)
        if listen and any(other.listen == listen for other in found):
            table.note("listen", f"port {listen} is exposed twice", "each port once")
        to = table.converted("to", _address_and_port, None)
        certificate, private_key = _certificate(table, directory)
        exposed = ExposeConfig(
            listen=listen,
            to=to,
            certificate=certificate,
            private_key=private_key,
            early_limit=table.integer("early_limit", 0, _MAX_EARLY, 0),
            plain=table.boolean("plain", True),
            secure=table.choice("secure", {member.value: member for member in Secure}, None),
            share_udp=table.boolean("share_udp", False),
            to_listener=to_listener,
        )
        if exposed.contradiction is not None:
            table.note("to_listener", f"is true: {exposed.contradiction}", MEND_OF_A_LISTENER)
        if exposed.loops:
            table.note("to", LOOPS, "the service needs a port of its own")
        found.append(exposed)
        table.finish()
    return tuple(found)


def _users(table: Table) -> frozenset[int]:
    """Names and numbers; a name is looked up now, so that a misspelt one is found now."""
    return frozenset(table.strings("users", _user, ()))


def _worker(text: str) -> tuple[int, int]:
    """A name or a number; one that is no user of this host has a group of the same number."""
    try:
        found = pwd.getpwuid(int(text)) if text.isascii() and text.isdecimal() else pwd.getpwnam(text)
    except (KeyError, ValueError, OverflowError) as wrong:
        if not text.isascii() or not text.isdecimal() or int(text) > _MAX_ID:
            raise ValueError(
                f"{text!r} is no user of this host; a name (getent passwd) or a number in quotes"
            ) from wrong
        found = None
    user, group = (int(text), int(text)) if found is None else (found.pw_uid, found.pw_gid)
    if user == 0:
        raise ValueError('the worker cannot be root; privileges = "keep" leaves them all, for debugging')
    return user, group


def _ports(text: str) -> frozenset[int]:
    first, dash, last = text.partition("-")
    if not all(word.isascii() and word.isdecimal() and len(word) <= 5 for word in ([first, last] if dash else [first])):
        raise ValueError(f'{text!r} is no port; write "443" or "8000-8999"')
    low, high = int(first), int(last if dash else first)
    if not 0 < low <= high < 65536:
        raise ValueError(f"{text!r}: ports are 1..65535, the lower one first")
    return frozenset(range(low, high + 1))


def _user(text: str) -> int:
    if text.isascii() and text.isdecimal():
        return int(text)
    try:
        return pwd.getpwnam(text).pw_uid
    except (KeyError, ValueError) as wrong:
        raise ValueError(f"{text!r} is no user of this host; a name (getent passwd) or a number in quotes") from wrong


def _certificate(table: Table, directory: Path) -> tuple[Path | None, Path | None]:
    certificate, key = _path(table, "certificate", directory), _path(table, "key", directory)
    if (certificate is None) != (key is None):
        table.note("certificate" if key is None else "key", "stands alone", "certificate and key go together")
    return certificate, key


def _path(table: Table, key: str, directory: Path) -> Path | None:
    text = table.text(key)
    if text is None:
        return None
    if "\0" in text:
        table.note(key, "has a NUL character in it", "a path belongs here")
        return None
    return directory / text


def _interface(text: str) -> str:
    if (
        len(text.encode()) > _MAX_INTERFACE
        or "/" in text
        or text in (".", "..")
        or not text.isprintable()
        or " " in text
    ):
        raise ValueError(f"{text!r} cannot be an interface's name; names are in: ip -br link")
    return text


def _address_and_port(text: str) -> tuple[str, int]:
    host, colon, digits = text.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    wrong = ValueError(f'{text!r} is no address with a port; write "127.0.0.1:8080" or "[::1]:8080"')
    if not colon or not digits.isascii() or not digits.isdecimal() or len(digits) > 5 or not 0 < int(digits) < 65536:
        raise wrong
    if (":" in bare) != (host == f"[{bare}]"):
        raise wrong
    if bare != "localhost":
        try:
            ipaddress.ip_address(bare)
        except ValueError:
            raise wrong from None
    return bare, int(digits)
