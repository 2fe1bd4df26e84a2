#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
""":"
# Two languages, one file. To the shell, the line above is the command ":", and what follows is run; to Python all
# of this is a string. A minimal Debian has no python3: then install it, and in any case go on there.
if ! command -v python3 >/dev/null 2>&1; then
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "accord: python3 is missing: install Python 3.11 or later, then run it again" >&2
        exit 1
    fi
    as_root=
    if [ "$(id -u)" != 0 ]; then
        if ! command -v sudo >/dev/null 2>&1; then
            echo "accord: python3 is missing, and there is no sudo: as root, apt-get install python3" >&2
            exit 1
        fi
        as_root=sudo
    fi
    echo "[accord] python3 is missing: installing it with apt-get" >&2
    $as_root apt-get -q update || exit 1
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Dpkg::Use-Pty=0 \
        install --no-install-recommends python3 || exit 1
fi
exec python3 "$0" "$@"
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from pathlib import Path

# Started as root or not, leave no bytecode behind that the other one could not remove.
sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))

from buildtools import bare, checks, clean, environment, fuzzing, minimal, model, vm, vm_box  # noqa: E402
from buildtools.console import ROOT, BuildFailure, as_root, replace, say  # noqa: E402

DESCRIPTION = """Set up, build, run and check Accord. Every command first does what the ones above it do, as far as
something changed; nothing is downloaded but Debian and Python packages."""


DEMO = "accord.cli.demo"
SIMULATOR = "sim"


def command_setup(_: argparse.Namespace) -> int:
    environment.setup()
    say("set up: Debian packages, .venv, Python packages")
    return 0


def command_build(_: argparse.Namespace) -> int:
    environment.build()
    say("built: the C core, the BPF objects and .venv/bin/accord")
    return 0


def command_demo(arguments: argparse.Namespace) -> int:
    # With --json standard output is one object, whatever had to be built before.
    with contextlib.redirect_stdout(sys.stderr):
        environment.build()
    replace_by_module(DEMO, arguments.rest)
    return 0


class OwnHelp(argparse.Action):
    """A program's own options come from the program itself, ``const``, once there is one to ask."""

    def __call__(self, sub: argparse.ArgumentParser, *_: object) -> None:
        sub.print_help()
        sys.stdout.flush()
        if environment.PYTHON.exists():
            print("\nIts own options:\n", flush=True)
            replace([str(environment.PYTHON), "-m", str(self.const), "--help"], {"PYTHONPATH": str(ROOT)})
        sub.exit()


def command_test(arguments: argparse.Namespace) -> int:
    environment.build()
    return checks.run(arguments.quick, arguments.k, arguments.rest, arguments.fuzz_seconds)


def command_bench(arguments: argparse.Namespace) -> int:
    if arguments.help and arguments.name is None:
        arguments.parser.print_help()
        return 0
    existing = sorted(path.stem for path in (ROOT / "bench").glob("*.py") if not path.stem.startswith("_"))
    listing = ", ".join(existing) or "none yet"
    if arguments.name is None:
        print(f"benchmarks: {listing}")
        return 0
    if arguments.name not in existing:
        raise BuildFailure(f"there is no benchmark {arguments.name!r} in bench/; there is: {listing}")
    # Standard output is the benchmark's alone: with --json it is one object, whatever had to be built before.
    with contextlib.redirect_stdout(sys.stderr):
        environment.build()
    command = [str(environment.PYTHON), f"bench/{arguments.name}.py"]
    replace([*command, "--help"] if arguments.help else as_root([*command, *arguments.rest]))
    return 0


def command_fuzz(arguments: argparse.Namespace) -> int:
    targets = {target.name: target for target in fuzzing.targets()}
    if arguments.list:
        for name, target in targets.items():
            print(f"{name:<14}{target.invariant}")
        return 0
    named = arguments.target or arguments.option
    if named is not None and named not in targets:
        raise BuildFailure(f"no fuzz target {named}; there is: {', '.join(targets)}")
    if arguments.packets is not None and named != fuzzing.XDP:
        raise BuildFailure(f"--packets goes with the target {fuzzing.XDP}: ./build.py fuzz {fuzzing.XDP}")
    if arguments.replay and named is None:
        raise BuildFailure("--replay goes with one target: ./build.py fuzz TARGET --replay FILE")
    chosen = list(targets.values()) if named is None else [targets[named]]
    # With --json standard output is one object, whatever had to be built before.
    with contextlib.redirect_stdout(sys.stderr) if arguments.json else contextlib.nullcontext():
        environment.build()
        if arguments.replay:
            return fuzzing.replay(chosen[0], arguments.replay)
        if arguments.keep:
            for target in chosen:
                if target.name != fuzzing.XDP:
                    fuzzing.keep(target)
            return 0
        if arguments.packets is not None:
            return fuzzing.campaign(arguments.packets, arguments.seed)
        fuzzing.build(chosen)
        at_once = min(arguments.at_once or os.cpu_count() or 1, len(chosen))
        shares = fuzzing.shared(chosen, arguments.seconds, at_once)
        runs = [fuzzing.Run(target, arguments.each or shares[target.name], arguments.seed) for target in chosen]
        say(f"fuzzing {len(chosen)} target{'s' * (len(chosen) != 1)}, {at_once} at a time")
        started = time.monotonic()
        try:
            fuzzing.run(runs, at_once)
        finally:
            spent = time.monotonic() - started
            total = sum(run.executions for run in runs)
            findings = sum(len(run.findings) for run in runs)
            say(f"{total:,} executions in {spent:.0f} s, {findings} findings")
        measured = None if arguments.no_coverage or named is not None else fuzzing.coverage()
        if measured is not None:
            say(f"the C parsers, replayed: {measured['lines']} % of lines, {measured['branches']} % of branches")
    if arguments.json:
        print(json.dumps(fuzzing.report(runs, spent, measured), indent=1))
    return 1 if findings else 0


def command_bare(arguments: argparse.Namespace) -> int:
    names = list(bare.ACCOUNTS) if arguments.account is None else [arguments.account]
    return bare.run(names, arguments.k, arguments.whole, arguments.directory, arguments.keep)


def command_model(arguments: argparse.Namespace) -> int:
    return model.run(arguments.name, arguments.large, arguments.mistakes, arguments.json)


def command_sim(arguments: argparse.Namespace) -> int:
    # As for a benchmark: with --json standard output is one object.
    with contextlib.redirect_stdout(sys.stderr):
        environment.build()
    replace([str(environment.PYTHON), "-m", SIMULATOR, *arguments.rest], {"PYTHONPATH": str(ROOT)})
    return 0


def command_vm(arguments: argparse.Namespace) -> int:
    kernels = arguments.kernel or ["6.1"]
    if arguments.rest and arguments.action in ("up", "down", "doctor"):
        raise BuildFailure(f"vm {arguments.action} does not know {' '.join(arguments.rest)}: ./build.py vm --help")
    if arguments.action == "up":
        if len(kernels) > 1:
            raise BuildFailure("vm up: one kernel at a time; vm test takes several")
        return vm.up(kernels[0], arguments.accelerator)
    if arguments.action == "doctor":
        return vm.doctor(arguments.kernel or list(vm_box.KERNELS), arguments.accelerator)
    if arguments.action == "ssh":
        return vm.ssh(arguments.rest[0] if arguments.rest else "client", arguments.rest[1:])
    if arguments.action == "test":
        return vm.test(kernels, arguments.accelerator, arguments.keep, arguments.rest)
    return vm.down()


def command_clean(_: argparse.Namespace) -> int:
    clean.run()
    return 0


def replace_by_module(module: str, arguments: list[str]) -> None:
    """Become ``python -m module`` as root: its Ctrl-C, its exit code."""
    # The demo's ladder is drawn for the terminal that sudo would make it forget.
    terminal = {name: os.environ[name] for name in ("TERM", "COLUMNS", "NO_COLOR", "LANG") if name in os.environ}
    replace(as_root([str(environment.PYTHON), "-m", module, *arguments], terminal))


def positive(text: str) -> int:
    """A number above zero, for argparse."""
    number = int(text)
    if number <= 0:
        raise ValueError(text)
    return number


def parser() -> argparse.ArgumentParser:
    """The command line; what a command does not know goes to the program that it starts."""
    top = argparse.ArgumentParser(prog="./build.py", description=DESCRIPTION)
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def add(
        name: str, function: object, summary: str, more: str = "", own_help: bool = True
    ) -> argparse.ArgumentParser:
        description = f"{summary[0].upper()}{summary[1:]}. {more}".strip()
        sub = commands.add_parser(name, help=summary, description=description, add_help=own_help, allow_abbrev=False)
        sub.set_defaults(function=function, forwards=False)
        return sub

    add("setup", command_setup, "install Debian packages, make .venv, install Python packages")
    add("build", command_build, "compile the C core and the BPF objects, install the command accord in .venv")
    demo = add(
        "demo",
        command_demo,
        "negotiate whole stacks between two namespaces and measure them",
        "Needs root (asks sudo). All arguments go to the demo, for instance --rtt 50 or --json.",
        own_help=False,
    )
    demo.add_argument("-h", "--help", action=OwnHelp, const=DEMO, nargs=0, help="show this and the options of the demo")
    demo.set_defaults(forwards=True)
    test = add(
        "test",
        command_test,
        "run all checks and tests; pytest's summary comes last",
        "pytest as root (asks sudo), and beside it, at the lowest priority, the C core under sanitizers, ruff, mypy, "
        "clang-format, clang-tidy and a slice of fuzzing. Other arguments go to pytest; with any, or with -k, only "
        "pytest runs.",
    )
    test.add_argument("--quick", action="store_true", help="leave out fuzzing and clang-tidy")
    test.add_argument("-k", metavar="EXPRESSION", help="only the pytest tests that match")
    test.add_argument(
        "--fuzz-seconds", type=int, default=20, metavar="N", help="of each fuzz target (default %(default)s)"
    )
    test.set_defaults(forwards=True)
    bench = add(
        "bench",
        command_bench,
        "run a benchmark of bench/ as root (asks sudo)",
        "Without a name: list what there is. Other arguments go to the benchmark: see its own --help.",
        own_help=False,
    )
    bench.add_argument("-h", "--help", action="store_true", help="show this; after a name: what that one takes")
    bench.add_argument("name", metavar="NAME", nargs="?", help="which")
    bench.set_defaults(forwards=True, parser=bench)
    fuzz = add(
        "fuzz",
        command_fuzz,
        "fuzz everything that reads foreign bytes",
        "C parsers and engine under sanitizers (libFuzzer), Python readers and whole negotiations (atheris), the XDP "
        "program against an oracle of its own, and all readings of the same bytes against each other. What a target "
        "holds is the first sentence of its source, and --list prints them. Needs root for the XDP program (asks "
        "sudo). See docs/FUZZING.md.",
    )
    fuzz.add_argument("target", metavar="TARGET", nargs="?", help="only this one")
    fuzz.add_argument("--target", metavar="T", dest="option", help=argparse.SUPPRESS)
    fuzz.add_argument(
        "--seconds", type=positive, default=60, metavar="N", help="in all, shared by the targets (default %(default)s)"
    )
    fuzz.add_argument("--each", type=positive, metavar="N", help="instead: so many seconds of each target")
    fuzz.add_argument("--at-once", type=positive, metavar="N", help="targets side by side (default: the processors)")
    fuzz.add_argument("--replay", nargs="+", metavar="FILE", help="run these inputs once, with all that is said")
    fuzz.add_argument("--keep", action="store_true", help="add what was found here and is new to the committed corpora")
    fuzz.add_argument("--no-coverage", action="store_true", help="do not measure what of the C parsers was run")
    fuzz.add_argument("--json", action="store_true", help="one object: executions, findings, coverage")
    fuzz.add_argument(
        "--packets", type=positive, metavar="N", help="xdp: so many of each family, however long it takes"
    )
    fuzz.add_argument("--seed", type=positive, metavar="N", help="the same mutations again (default: others each time)")
    fuzz.add_argument("--list", action="store_true", help="list the targets and their invariants")
    bare_start = add(
        "bare",
        command_bare,
        "run build, demo and test from a fresh clone on a minimal Debian 12",
        "Makes a root file system with mmdebstrap from this host's apt sources, for root without sudo and for a user "
        "with it, clones the last commit into it, runs the commands there and removes it again, also after Ctrl-C. "
        "Needs root (asks sudo), 4 GB of disk, a package mirror, and some ten minutes.",
    )
    bare_start.add_argument("--as", dest="account", choices=list(bare.ACCOUNTS), help="only as this one")
    bare_start.add_argument("-k", metavar="EXPRESSION", default=bare.SLICE, help="the tests to run (a slice of all)")
    bare_start.add_argument("--whole", action="store_true", help="run ./build.py test with nothing left out")
    bare_start.add_argument(
        "--directory", type=Path, default=Path("/var/tmp"), help="where the root is made (default %(default)s)"
    )
    bare_start.add_argument("--keep", action="store_true", help="do not remove the root")
    models = add(
        "model",
        command_model,
        "check the models of docs/model with spin",
        "All states of each, safety and then liveness; docs/model/README.md says what they are. A violation is printed "
        "as the steps that lead to it. Needs Debian's spin and gcc, nothing else of the project.",
    )
    models.add_argument("name", metavar="MODEL", nargs="?", help=f"only this one: {', '.join(model.models())}")
    models.add_argument("--large", action="store_true", help="more losses, duplicates and troubles: minutes, gigabytes")
    models.add_argument("--mistakes", action="store_true", help="also put in each mistake, and see that it is caught")
    models.add_argument("--json", action="store_true", help="one list of verdicts")
    sim = add(
        "sim",
        command_sim,
        "run the deterministic simulator: random negotiations and faults, in virtual time",
        "Needs no root. All arguments go to the simulator, for instance --seeds 2000 --json, or --seed 7 --trace. "
        "See docs/SIMULATOR.md.",
        own_help=False,
    )
    sim.add_argument("-h", "--help", action=OwnHelp, const=SIMULATOR, nargs=0, help="show this and its options")
    sim.set_defaults(forwards=True)
    machines = add(
        "vm",
        command_vm,
        "run the cases of vagrant/ between virtual machines with Debian's kernels",
        "up: build the box, start router, server and client. ssh [HOST] [COMMAND]: a shell on one of them. test "
        "[--smoke] [--rtt MS] [--netem WORDS] [--family 4|6] [--case PATTERN] [--repeats N] [--bytes N] [--json]: "
        "bring them up, run the suite, take them down, also after Ctrl-C; once for each --kernel. doctor: write "
        "docs/COMPATIBILITY.md. down: end them. Needs root (asks sudo), 10 GB of disk and 3 GB of memory; "
        "nothing of the host is changed but its packages. See vagrant/README.md.",
    )
    machines.add_argument("action", choices=["up", "ssh", "test", "doctor", "down"])
    machines.add_argument(
        "--kernel",
        choices=list(vm_box.KERNELS),
        action="append",
        help="Debian 12's 6.1 (the default) or backports' 6.12; test and doctor take several (doctor: all of them)",
    )
    machines.add_argument(
        "--accelerator",
        choices=["auto", "kvm", "tcg"],
        default="auto",
        help="auto takes KVM on a machine that is not virtual itself, else QEMU's own translation",
    )
    machines.add_argument("--keep", action="store_true", help="test: leave the machines up")
    machines.set_defaults(forwards=True)
    add("clean", command_clean, "remove everything that was built, and .venv")
    return top


def main() -> int:
    """Returns the exit code: 0, 1 for a failure, 2 for a wrong command line, 130 after Ctrl-C."""
    top = parser()
    arguments, rest = top.parse_known_args()
    if rest and not arguments.forwards:
        top.error(f"unrecognized arguments: {' '.join(rest)}")
    arguments.rest = [argument for argument in rest if argument != "--"]
    os.chdir(ROOT)
    try:
        with minimal.terminable():
            code: int = arguments.function(arguments)
    except BuildFailure as error:
        print(f"accord: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\naccord: interrupted", file=sys.stderr)
        return 130
    return code


if __name__ == "__main__":
    sys.exit(main())
