# SPDX-License-Identifier: Apache-2.0
"""`./build.py fuzz`: which targets there are, their share of the time, and what they have found.

Three kinds: programs of libFuzzer (dataplane_c/fuzz), modules that atheris drives with the same options (fuzz/targets),
and the campaign of frames through the XDP program (dataplane_c/campaign). docs/FUZZING.md says more.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

from buildtools.console import BUILD, INTERRUPT_SECONDS, LOGS, ROOT, BuildFailure, as_root, live, relative, say, step
from buildtools.environment import PYTHON
from buildtools.stamps import build_lock, files

XDP = "xdp"
C_BUILD = BUILD / "dataplane_c"
FINDINGS = BUILD / "findings"
CORPUS = BUILD / "corpus"
"""What the fuzzers found worth keeping here; what is committed lies beside the targets."""

# Shares of the time. Parsers alone run a hundred times as often in a second as what has to be set up and taken down.
# So shared, ten minutes on two processors come to the 10^8 executions that are asked for at half of their speed, too.
SHARES = {"descriptor": 12.0, "frame": 12.0, "header": 2.0, "cookie": 2.0}
MAX_INPUT_BYTES = {
    "packet": 4096,
    "header": 1400,
    "descriptor": 1300,
    "frame": 1400,
    "cookie": 256,
    "flight": 1024,
    "slots": 1024,
    "unkept": 1024,
    "tls": 600,
}
MAX_SEED_BYTES = 1300
"""Of an input that is committed."""
INPUT_SECONDS = 20
"""An input that takes longer is a finding: everything here is bounded."""
_PROGRESS_SECONDS = 1.0
_SLOW_PROGRESS_SECONDS = 30.0
_INVARIANT = re.compile(r"Invariant: (.*?)(?:\n\s*\*?\s*\n|\*/|\"\"\")", re.DOTALL)


@dataclass(frozen=True)
class Target:
    """One thing that reads foreign bytes."""

    name: str
    source: Path

    @property
    def invariant(self) -> str:
        """The sentence that its source begins with."""
        found = _INVARIANT.search(self.source.read_text(encoding="utf-8"))
        if found is None:
            raise BuildFailure(f"{relative(self.source)} does not begin with its invariant")
        return re.sub(r"\s*\n\s*\*?\s*", " ", found[1]).strip()

    @property
    def is_c(self) -> bool:
        """A program of libFuzzer's."""
        return self.source.suffix == ".c" and self.name != XDP

    @property
    def needs_root(self) -> bool:
        """It asks the kernel's BPF."""
        return "NEEDS_ROOT = True" in self.source.read_text(encoding="utf-8") or self.name == XDP

    @property
    def seeds(self) -> Path:
        """Inputs that are committed."""
        return (ROOT / "dataplane_c/fuzz/corpus" if self.is_c else ROOT / "fuzz/corpus") / self.name

    def fuzzer(self, *options: str) -> List[str]:
        """The command that runs it, with libFuzzer's options and files."""
        if self.is_c:
            return [str(C_BUILD / f"fuzz_{self.name}"), *options]
        return [str(PYTHON), "-m", "fuzz", self.name, *options]


def targets() -> List[Target]:
    """All, by name."""
    c = [Target(path.stem[len("fuzz_") :], path) for path in files("dataplane_c/fuzz/fuzz_*.c")]
    python = [Target(path.stem, path) for path in files("fuzz/targets/*.py") if path.stem != "__init__"]
    return sorted([*c, *python, Target(XDP, ROOT / "dataplane_c/campaign/main.c")], key=lambda target: target.name)


@dataclass
class Finding:
    """An input that breaks an invariant."""

    target: str
    what: str
    path: str
    again: str
    """The command that shows it once more."""


@dataclass
class Run:
    """One target for so many seconds, in a process of its own."""

    target: Target
    seconds: int
    seed: Optional[int] = None
    executions: int = 0
    spent: float = 0.0
    findings: List[Finding] = field(default_factory=list)
    ended: bool = False

    @property
    def log(self) -> Path:
        """Everything that it says. Another command in this tree may run the same target meanwhile."""
        return LOGS / (f"fuzz-{self.target.name}.log" if self.ended else f"fuzz-{self.target.name}-{os.getpid()}.log")

    def begin(self) -> None:
        """Start it."""
        for directory in (LOGS, FINDINGS, CORPUS / self.target.name):
            directory.mkdir(parents=True, exist_ok=True)
        self.log.unlink(missing_ok=True)
        self._started = time.monotonic()
        command = self._command()
        with self.log.open("wb") as output:
            output.write(f"$ {shlex.join(command)}\n".encode())
            output.flush()
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'ctrl'}"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Ours to interrupt, in order; but sudo's only to who sits at its terminal.
                start_new_session=os.geteuid() == 0 or not self.target.needs_root,
            )

    def _command(self) -> List[str]:
        name = self.target.name
        if name == XDP:
            seed = [] if self.seed is None else ["--seed", str(self.seed)]
            # Half of the time for each of the two families.
            return as_root([*CAMPAIGN, "--json", "--seconds", str(max(1, self.seconds // 2)), *seed])
        options = [
            f"-max_total_time={self.seconds}", f"-timeout={INPUT_SECONDS}", "-print_final_stats=1",
            f"-max_len={MAX_INPUT_BYTES.get(name, 4096)}", "-rss_limit_mb=3072", f"-artifact_prefix={FINDINGS / name}-",
        ]  # fmt: skip
        dictionary = self.target.source.parent / f"{name}.dict"
        if dictionary.exists():
            options.append(f"-dict={dictionary}")
        if self.seed is not None:
            options.append(f"-seed={self.seed}")
        corpora = [str(CORPUS / name), *([str(self.target.seeds)] if self.target.seeds.is_dir() else [])]
        command = self.target.fuzzer(*options, *corpora)
        path = {"PYTHONPATH": f"{ROOT}:{ROOT / 'ctrl'}", "PYTHONDONTWRITEBYTECODE": "1"}
        return as_root(command, path) if self.target.needs_root else command

    @property
    def over(self) -> bool:
        """It has ended; its figures are read then."""
        if self._process.poll() is None:
            return False
        self._read()
        return True

    def interrupt(self) -> None:
        """Let it say its figures and end."""
        with contextlib.suppress(PermissionError):
            self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(INTERRUPT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._read(interrupted=True)

    def so_far(self) -> int:
        """Executions, as the log last said."""
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - 4096))
            tail = log.read().decode(errors="replace")
        found = re.findall(r"^#(\d+)\s", tail, re.MULTILINE)
        return int(found[-1]) if found else 0

    def _read(self, interrupted: bool = False) -> None:
        self.spent = time.monotonic() - self._started
        # Its first line is the command.
        text = self.log.read_text(encoding="utf-8", errors="replace").partition("\n")[2]
        running, self.ended = self.log, True
        os.replace(running, self.log)
        if self.target.name == XDP:
            found = re.findall(r'"packets": (\d+)', text)
            self.executions = sum(map(int, found))
        else:
            stated = re.search(r"stat::number_of_executed_units:\s*(\d+)", text)
            last = re.findall(r"^#(\d+)\s", text, re.MULTILINE)
            self.executions = int(stated[1] if stated else last[-1] if last else 0)
        if self._process.returncode != 0 and not interrupted:
            self.findings.append(self._finding(text))

    def _finding(self, text: str) -> Finding:
        name = self.target.name
        found = re.search(r"^\w*(?:Error|Exception): .*$|^.*ERROR: .*$|^xdp campaign: .*$", text, re.MULTILINE)
        what = found[0].strip() if found else f"exit code {self._process.returncode}"
        written = re.search(r"Test unit written to (\S+)", text)
        path = relative(Path(written[1])) if written else ""
        again = f"./build.py fuzz {name} --replay {path}" if path else f"less {relative(self.log)}"
        if name == XDP:
            options = re.search(r"again: (.*)", text)
            again = f"{shlex.join(CAMPAIGN)} {options[1]}" if options else again
        return Finding(name, what, path, again)


CAMPAIGN = ["build/campaign/xdp-campaign", "--object", "ctrl/accord/datapath/accord_xdp.bpf.o"]


def build(chosen: Sequence[Target]) -> None:
    """Compile what is needed. Raises BuildFailure."""
    names = [f"{C_BUILD}/fuzz_{target.name}" for target in chosen if target.is_c]
    with build_lock():
        if names:
            step("fuzz-build", ["make", f"-j{os.cpu_count() or 1}", "-C", "dataplane_c", f"BUILD={C_BUILD}", *names])
        if any(target.name == XDP for target in chosen):
            step("fuzz-xdp-build", ["make", "-C", "dataplane_c/campaign"])


def shared(chosen: Sequence[Target], seconds: int, at_once: int) -> Dict[str, int]:
    """Seconds of each target, so that all of them end after ``seconds`` when ``at_once`` run at any time."""
    left, time_left = list(chosen), float(seconds * min(at_once, len(chosen)))
    found: Dict[str, int] = {}
    while left:
        whole = sum(SHARES.get(target.name, 1.0) for target in left)
        given = {target.name: time_left * SHARES.get(target.name, 1.0) / whole for target in left}
        over = [target for target in left if given[target.name] > seconds]
        for target in over or left:
            found[target.name] = seconds if over else max(1, int(given[target.name]))
        time_left -= seconds * len(over)
        left = [target for target in left if target.name not in found]
    return found


def run(runs: Sequence[Run], at_once: int) -> None:
    """All of them, the longest first; what they come to is in them. After Ctrl-C what runs ends in order."""
    waiting = sorted(runs, key=lambda each: -each.seconds)
    running: List[Run] = []
    terminal = sys.stdout.isatty()
    started = last = time.monotonic()
    try:
        while waiting or running:
            for each in [each for each in running if each.over]:
                running.remove(each)
                _tell(each, terminal)
            while waiting and len(running) < at_once:
                running.append(waiting.pop(0))
                running[-1].begin()
            now = time.monotonic()
            if now - last > (_PROGRESS_SECONDS if terminal else _SLOW_PROGRESS_SECONDS):
                last = now
                shown = ", ".join(f"{each.target.name} {_short(each.so_far())}" for each in running)
                ended = f"{len(runs) - len(waiting) - len(running)} of {len(runs)} targets done"
                line = f"[accord] {now - started:.0f} s, {ended}; executions: {shown}"
                print(f"\r\033[K{line}" if terminal else line, end="" if terminal else "\n", flush=True)
            time.sleep(0.1)
    except KeyboardInterrupt:
        for each in running:
            each.interrupt()
            _tell(each, terminal)
        raise


def _tell(each: Run, terminal: bool) -> None:
    if terminal:
        print("\r\033[K", end="")
    rate = each.executions / each.spent if each.spent else 0.0
    verdict = "FOUND SOMETHING" if each.findings else "nothing found"
    say(f"  {each.target.name}: {each.executions:,} executions in {each.spent:.0f} s ({rate:,.0f}/s), {verdict}")
    for finding in each.findings:
        print(
            f"    {finding.what}\n    the same again: {finding.again}\n    all it said: {relative(each.log)}",
            flush=True,
        )


def _short(count: int) -> str:
    return f"{count / 1e6:.1f}M" if count >= 1_000_000 else f"{count / 1e3:.0f}k" if count >= 1000 else str(count)


def report(runs: Sequence[Run], seconds: float, coverage: Optional[Dict[str, Any]]) -> Dict[str, Any]:
    """What `--json` prints."""
    return {
        "executions": sum(each.executions for each in runs),
        "findings": sum(len(each.findings) for each in runs),
        "seconds": round(seconds, 1),
        "targets": [
            {
                "name": each.target.name,
                "invariant": each.target.invariant,
                "executions": each.executions,
                "seconds": round(each.spent, 1),
                "per_second": round(each.executions / each.spent) if each.spent else 0,
                "findings": [vars(finding) for finding in each.findings],
            }
            for each in sorted(runs, key=lambda each: each.target.name)
        ],
        **({} if coverage is None else {"coverage": coverage}),
    }


def replay(target: Target, paths: Sequence[str]) -> int:
    """Run inputs once, on the terminal. Returns the exit code."""
    if target.name == XDP:
        raise BuildFailure("a frame of the XDP campaign is named by its seed and number: see --packets and --seed")
    build([target])
    command = target.fuzzer(f"-timeout={INPUT_SECONDS}", *(str(Path(path).resolve()) for path in paths))
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'ctrl'}"}
    return live(as_root(command, environment) if target.needs_root else command, environment)


def keep(target: Target) -> None:
    """Add to what is committed the inputs found here that reach something new. Raises BuildFailure."""
    if target.name == XDP:
        raise BuildFailure("the XDP campaign makes its frames from a seed, and keeps none")
    build([target])
    target.seeds.mkdir(parents=True, exist_ok=True)
    before = set(target.seeds.iterdir())
    # What runs where nothing else did, not how often: else there would be thousands.
    options = [
        "-merge=1",
        "-use_counters=0",
        f"-max_len={MAX_SEED_BYTES}",
        str(target.seeds),
        str(CORPUS / target.name),
    ]
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'ctrl'}"}
    command = target.fuzzer(*options)
    step(f"fuzz-keep-{target.name}", as_root(command, environment) if target.needs_root else command, environment)
    new = set(target.seeds.iterdir()) - before
    say(
        f"  {target.name}: {len(new)} new in {relative(target.seeds)}, {sum(path.stat().st_size for path in new)} bytes"
    )


def campaign(packets: int, seed: Optional[int]) -> int:
    """The XDP campaign over so many frames of each family, its progress on the terminal. Returns the exit code."""
    step("fuzz-xdp-build", ["make", "-C", "dataplane_c/campaign"])
    return live(as_root([*CAMPAIGN, "--packets", str(packets), *([] if seed is None else ["--seed", str(seed)])]))


# ---- coverage of the C parsers ----

PARSERS = (
    "acknowledge", "ackrange", "checksum", "cookie", "descriptor", "flight", "frame", "packet", "partial", "pieces",
    "reassembly", "receive", "slots", "stranger", "unkept",
)  # fmt: skip
"""Sources that read what came off the wire. docs/FUZZING.md says which others do not, and what reads for them."""


def coverage() -> Dict[str, Any]:
    """Lines and branches of the parsers that a replay of all inputs runs. Raises BuildFailure."""
    step("fuzz-coverage", ["make", f"-j{os.cpu_count() or 1}", "-C", "dataplane_c", f"BUILD={C_BUILD}",
                           f"FOUND={CORPUS}", "fuzz-coverage"])  # fmt: skip
    data = json.loads((C_BUILD / "cov/fuzz.json").read_text(encoding="utf-8"))["data"][0]
    chosen = {f"{name}.c" for name in PARSERS}
    parsers = [each for each in data["files"] if Path(each["filename"]).name in chosen]
    total = {kind: [sum(each["summary"][kind][what] for each in parsers) for what in ("covered", "count")]
             for kind in ("lines", "branches")}  # fmt: skip
    return {
        "lines": _percent(*total["lines"]),
        "branches": _percent(*total["branches"]),
        "files": {
            Path(each["filename"]).name: {
                kind: _percent(each["summary"][kind]["covered"], each["summary"][kind]["count"])
                for kind in ("lines", "branches")
            }
            for each in parsers
        },
        "uncovered": {Path(each["filename"]).name: missed for each in parsers if (missed := _missed(each))},
    }


def _percent(covered: int, count: int) -> float:
    return round(100 * covered / count, 2) if count else 100.0


def _missed(each: Dict[str, Any]) -> List[str]:
    """Lines with a branch that was never, or always, taken: ``LINE:COLUMN never true``."""
    found = []
    for line, column, _, _, true, false, *_ in each.get("branches", []):
        if not true or not false:
            word = "never reached" if not true and not false else "never true" if not true else "never false"
            found.append(f"{line}:{column} {word}")
    return found
