# SPDX-License-Identifier: Apache-2.0
"""How a failure looks at the command line: one line, and an exit code that says whose fault it was."""

from __future__ import annotations

import click

from accord.wire.constants import Party
from accord.wire.errors import AccordError

# sysexits.h, for scripts.
EXIT = {Party.USER: 64, Party.HOST: 71, Party.PEER: 76, Party.PATH: 69, Party.OURS: 70, Party.NONE: 1}


def complain(failure: AccordError) -> int:
    """Say it on standard error; the exit code."""
    click.echo(f"accord: {failure} [{failure.reason.name}, {failure.party.name.lower()}]", err=True)
    return EXIT[failure.party]
