# SPDX-License-Identifier: Apache-2.0
"""Files that the configuration names, which the worker itself may not be able to read: the broker opens them."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

from accord.controller import certificate, keys
from accord.controller.held import HeldPath, hold
from accord.controller.known import known_protocols
from accord.controller.settings.config import DaemonConfig, load_config
from accord.datapath import privilege
from accord.datapath.privilege import Ask
from accord.protocols.sealed.host_keys import HostKey
from accord.wire.constants import Reason
from accord.wire.errors import error


def readable(path: Path) -> Path:
    """A path by which this process can read it, as it is now. Raises ``AccordError``."""
    if isinstance(path, HeldPath) or not privilege.asks():
        return path
    _, fds = privilege.ask(Ask.FILE, data=os.fsencode(path))
    return _held(fds, [str(path)])[0]


def own_certificate() -> tuple[Path, Path]:
    """As ``certificate.own_certificate``, by the broker where there is one: the authority's key stays there."""
    if not privilege.asks():
        return certificate.own_certificate()
    name, fds = privilege.ask(Ask.OWN_CERTIFICATE)
    chain, key = _held(fds, [os.fsdecode(name), os.fsdecode(name) + ", its key"])
    return chain, key


def host_keys(config: DaemonConfig) -> list[HostKey]:
    """This host's keys for inner negotiations; none where none were made. Raises ``AccordError``."""
    if not privilege.asks():
        return keys.parse_all(keys.read_text(keys.directory_of(config, os.environ)))
    _, fds = privilege.ask(Ask.KEYS)
    with open(fds[0], "rb") as file:
        file.seek(0)
        return keys.parse_all(file.read().decode())


def configuration(path: Path) -> DaemonConfig:
    """The configuration file, read again. Raises ``UserError`` (``BAD_CONFIG``)."""
    if not privilege.asks():
        return load_config(path, known_protocols())
    _, fds = privilege.ask(Ask.CONFIGURATION)
    with open(fds[0], "rb") as file:
        file.seek(0)
        found = pickle.load(file)  # written by the broker, which has more rights than this process
    if not isinstance(found, DaemonConfig):
        raise error(Reason.BAD_CONFIG, str(found))
    return found


def _held(fds: list[int], names: list[str]) -> list[Path]:
    try:
        return [hold(fd, name) for fd, name in zip(fds, names, strict=True)]
    finally:
        for fd in fds:
            os.close(fd)
