# SPDX-License-Identifier: Apache-2.0
"""``accord keys``: the keys of this host that its peers seal inner negotiations to."""

from __future__ import annotations

import base64
import datetime
import json
import time
from pathlib import Path

import click

from accord.controller import keys as files
from accord.controller.names import host_name
from accord.controller.peers.dns_hints import INNER_KEY
from accord.protocols.sealed.configuration import Aead, Kem, encode_list
from accord.protocols.sealed.host_keys import DEFAULT_DAYS, HostKey, HostKeys
from accord.protocols.sealed.host_keys import make as make_key
from accord.wire.constants import Reason
from accord.wire.errors import error

_KEMS = {"hybrid": Kem.HYBRID, "x25519": Kem.X25519}
_AEADS = {"chacha20": Aead.CHACHA20_POLY1305, "aes128": Aead.AES_128_GCM, "aes256": Aead.AES_256_GCM}
_MAX_DAYS = 3660

_directory = click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=files.DIRECTORY,
    show_default=True,
    help="Where the keys lie; [keys] directory of the daemon's configuration.",
)


def _until(key: HostKey) -> str:
    moment = min(key.configuration.not_after, int(time.time()) + _MAX_DAYS * 86400)
    return datetime.datetime.fromtimestamp(moment, datetime.UTC).strftime("%Y-%m-%d")


@click.group()
def keys() -> None:
    """Make and show this host's keys for sealed negotiations.

    A daemon reads them when it starts and on SIGHUP. Of each algorithm peers are given the newest one, and the others
    still open what was sealed to them until they are over: to rotate, make a new one, and remove the old one when
    peers have had the time to learn the new one. A request that was sealed in a first message can be read later by
    whoever then gets the key: it is removed, with that in mind, rather sooner than later.
    """


@keys.command()
@_directory
@click.option("--kem", type=click.Choice(list(_KEMS)), default="hybrid", show_default=True,
              help="X25519 with ML-KEM-768, or X25519 alone.")  # fmt: skip
@click.option("--aead", type=click.Choice(list(_AEADS)), default="chacha20", show_default=True, help="What encrypts.")
@click.option("--days", type=click.IntRange(1, _MAX_DAYS), default=DEFAULT_DAYS, show_default=True, help="Valid for.")
def make(directory: Path, kem: str, aead: str, days: int) -> None:
    """Make a key, which is the one of its algorithm that peers are given from then on."""
    made = make_key(_KEMS[kem], _AEADS[aead], time.time(), days)
    path = files.write(directory, made)
    click.echo(f"{path}: {made.configuration.name}, until {_until(made)}; tell the daemon by SIGHUP")


@keys.command()
@_directory
@click.option("--dns", metavar="NAME", help="Print an HTTPS record of NAME that brings the published keys.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show(directory: Path, dns: str | None, as_json: bool) -> None:
    """Show the keys, and what a peer's policy pins: key = "..."."""
    found = files.parse_all(files.read_text(directory))
    if not found:
        raise error(Reason.BAD_CONFIG, f"no keys in {directory}", "make one with: accord keys make")
    held = HostKeys(found, time.time)
    published = held.published
    pinned = base64.b64encode(encode_list(published)).decode()
    if as_json:
        listed = [
            {
                "id": key.configuration.id.hex(),
                "kem": Kem(key.configuration.kem).name.lower(),
                "aead": Aead(key.configuration.aead).name.lower(),
                "not_after": key.configuration.not_after,
                "published": key.configuration in published,
            }
            for key in found
        ]
        click.echo(json.dumps({"keys": listed, "pin": pinned}))
        return
    if dns is not None:
        escaped = "".join(f"\\{byte:03d}" for byte in encode_list(published))
        click.echo(f'{host_name(dns).rstrip(".")}. HTTPS 1 . key{INNER_KEY}="{escaped}"')
        return
    for key in sorted(found, key=lambda each: -each.configuration.not_after):
        state = "published" if key.configuration in published else "still opens"
        if time.time() >= key.configuration.not_after:
            state = "over"
        click.echo(f"{key.configuration.name}  until {_until(key)}  {state}")
    click.echo(f'key = "{pinned}"')


@keys.command()
@_directory
@click.argument("key_id", metavar="ID")
def remove(directory: Path, key_id: str) -> None:
    """Remove the key of this ID: what was sealed to it opens no more."""
    files.remove(directory, key_id)
    click.echo(f"removed {key_id}; tell the daemon by SIGHUP")
