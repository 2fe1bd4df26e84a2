# SPDX-License-Identifier: Apache-2.0
"""Files of the host's keys for inner negotiations: one for each, named after its ID, for its owner's eyes alone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from accord.controller.certificate import STATE_DIRECTORY
from accord.controller.control import DEFAULT_PATH
from accord.controller.settings.config import DaemonConfig
from accord.protocols.sealed.host_keys import HostKey, parse
from accord.wire.constants import Reason
from accord.wire.errors import AccordError, UserError, error

DIRECTORY = STATE_DIRECTORY / "keys"
_SUFFIX = ".key"
_MAX_FILE = 8192
_MAX_FILES = 64


def directory_of(config: DaemonConfig, environment: Mapping[str, str]) -> Path | None:
    """Where a daemon's keys lie: as configured, else in the state directory of the host's own daemon.

    A daemon with a control socket of its own is one of several, and has no keys but those that it is given; nor has one
    that is not root and was given none.
    """
    if config.keys.directory is not None or config.control not in (None, DEFAULT_PATH):
        return config.keys.directory
    if directories := environment.get("STATE_DIRECTORY"):
        return Path(directories.partition(":")[0]) / DIRECTORY.name
    return DIRECTORY if os.geteuid() == 0 else None


def read_text(directory: Path | None) -> str:
    """All files of the directory, an empty line after each; nothing where there is none.

    Raises ``HostError`` (NO_PRIVILEGE) when one cannot be read, ``UserError`` (BAD_CONFIG) for one that is no key.
    """
    found = []
    for path in _files(directory):
        try:
            text = path.read_text()[:_MAX_FILE]
        except (OSError, UnicodeDecodeError) as refusal:
            raise error(Reason.NO_PRIVILEGE, f"{path}: {refusal}", "run as the user that made it") from refusal
        try:
            parse(text)
        except AccordError as wrong:
            raise UserError(wrong.reason, f"{path}: {wrong.detail}", wrong.mend) from wrong
        found.append(text)
    return "\n".join(found)


def parse_all(text: str) -> list[HostKey]:
    """The keys of what ``read_text`` gave. Raises ``UserError`` (BAD_CONFIG)."""
    return [parse(each) for each in text.split("\n\n") if each.strip()]


def write(directory: Path, key: HostKey) -> Path:
    """Keep a key. Raises ``HostError`` (NO_PRIVILEGE) when the directory is not to be had."""
    path = directory / f"{key.configuration.id.hex()}{_SUFFIX}"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(key.text())
    except OSError as refusal:
        raise error(Reason.NO_PRIVILEGE, f"{path}: {refusal.strerror}", "give --directory, or be root") from refusal
    return path


def remove(directory: Path, key_id: str) -> None:
    """Forget the key of this ID, in hexadecimal; what was sealed to it opens no more. Raises ``UserError``."""
    path = next((each for each in _files(directory) if each.stem == key_id), None)
    if path is None:
        raise error(Reason.BAD_CONFIG, f"no key {key_id} in {directory}", "see: accord keys show")
    try:
        path.unlink()
    except OSError as refusal:
        raise error(Reason.NO_PRIVILEGE, f"{path}: {refusal.strerror}", "be its owner") from refusal


def _files(directory: Path | None) -> list[Path]:
    if directory is None:
        return []
    try:
        found = sorted(directory.glob(f"*{_SUFFIX}"))
    except OSError as refusal:
        raise error(Reason.NO_PRIVILEGE, f"{directory}: {refusal.strerror}", "be its owner") from refusal
    if len(found) > _MAX_FILES:
        raise error(Reason.BAD_CONFIG, f"{directory}: {len(found)} keys", f"keep no more than {_MAX_FILES}")
    return found
