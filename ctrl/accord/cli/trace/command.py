# SPDX-License-Identifier: Apache-2.0
"""``accord trace``: its sub-commands, each loaded when it is called."""

from __future__ import annotations

import importlib

import click

_TRACERS = {
    "stages": "How long each stage of a negotiation takes, as histograms.",
    "tcp": "State changes, retransmissions and resets of negotiated TCP connections.",
    "verdicts": "What the XDP program does with each packet, and why.",
}


class _Tracers(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_TRACERS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _TRACERS:
            return None
        command = getattr(importlib.import_module(f"accord.cli.trace.{cmd_name}"), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_TRACERS.items()))


@click.group(cls=_Tracers)
def trace() -> None:
    """Ask a running host a new question, by bcc: the daemon is not touched and does not notice.

    Needs root, Debian's python3-bpfcc and the running kernel's headers; nothing else of Accord needs a compiler.
    """
