# SPDX-License-Identifier: Apache-2.0
"""The command ``accord``. Each subcommand is a module of its own, loaded when it is called."""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys

import click

from accord import __version__
from accord.cli.complaint import EXIT, complain
from accord.wire.constants import Party
from accord.wire.errors import AccordError

# name: (module, attribute, first line of help)
_COMMANDS = {
    "connect": ("accord.cli.connect", "connect", "Open a negotiated stack to HOST:PORT and pipe it to the terminal."),
    "daemon": ("accord.cli.daemon", "daemon", "Run the daemon of this host."),
    "doctor": ("accord.cli.doctor", "doctor", "Say what this host's kernel and NIC support, and why not."),
    "expose": ("accord.cli.expose", "expose", "Offer a local plain service over negotiated stacks."),
    "keys": ("accord.cli.keys", "keys", "Make and show this host's keys for sealed negotiations."),
    "lab": ("accord.cli.lab", "lab", "Two hosts and a slow link between them, in network namespaces."),
    "meet": ("accord.cli.meet", "meet", "Meet a peer that calls this host too, each perhaps behind a NAT."),
    "peers": ("accord.cli.peers", "peers", "Show what is remembered of peers, or have it forgotten."),
    "renegotiate": (
        "accord.cli.renegotiate",
        "renegotiate",
        "Give running associations another stack, or new keys, while data flows.",
    ),
    "run": ("accord.cli.run", "run", "Run an unmodified program; its connections are negotiated for."),
    "stats": ("accord.cli.stats", "stats", "Show every counter, by reason: a table, JSON, or for Prometheus."),
    "status": ("accord.cli.status", "status", "Show what the daemon has, does and counted."),
    "trace": ("accord.cli.trace.command", "trace", "Ask a running host a new question, by bcc."),
}


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""What a full disk, a quota, a limit or a broken disk say: the host's fault, and no trace of ours explains it."""


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, attribute, _ = _COMMANDS[cmd_name]
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_line) for name, (_, _, help_line) in _COMMANDS.items()])


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def accord() -> None:
    """Set up a whole protocol stack between two hosts in one round trip."""


def _terminate(signum: int, frame: object) -> None:
    sys.exit(128 + signum)


def _drop_output() -> None:
    """What is still in the buffer cannot be written either: the interpreter would try it again, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run(command: click.Command) -> None:
    """Run a command; an ``AccordError`` becomes one line and an exit code that says whose fault it was.

    SIGTERM, and SIGHUP unless it is ignored (nohup), unwind as Ctrl-C does, so that whatever a command made goes with
    it.
    """
    signal.signal(signal.SIGTERM, _terminate)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, _terminate)
    try:
        command(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as wrong:
        wrong.show()
        sys.exit(wrong.exit_code)
    except AccordError as failure:
        sys.exit(complain(failure))
    except OSError as failure:
        if failure.errno not in _FULL:
            raise
        click.echo(f"accord: writing {failure.filename or 'the output'}: {failure.strerror}", err=True)
        _drop_output()
        sys.exit(EXIT[Party.HOST])
    except KeyboardInterrupt:
        sys.exit(130)


def main() -> None:
    """Entry point of ``accord``."""
    run(accord)


if __name__ == "__main__":
    main()
