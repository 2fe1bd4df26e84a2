# SPDX-License-Identifier: Apache-2.0
"""The Promela models of docs/model: what each says of itself, and spin's verdict on it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Dict, List, Optional, Sequence

from buildtools import host
from buildtools.console import ROOT, BuildFailure, say

FOLDER = ROOT / "docs/model"
PACKAGES = ("spin", "gcc", "libc6-dev", "tcc")
DEPTH = 200_000
LINE = re.compile(r"^ \* ((?:MISTAKE|WITNESS)_\d+) (\(liveness\) )?(.+)$", re.MULTILINE)
LARGE = re.compile(r"^ \* LARGE (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Variant:
    """One line of a model's head: a macro, and the sentence beside it."""

    macro: str
    sentence: str
    liveness: bool


@dataclass(frozen=True)
class Verdict:
    """Of one verifier. ``error``: what it found, empty if nothing; ``trail``: the steps that lead there."""

    model: str
    macros: List[str]
    liveness: bool
    states: int
    transitions: int
    seconds: float
    error: str
    trail: str


def models() -> List[str]:
    """Their names."""
    return sorted(path.stem for path in FOLDER.glob("*.pml"))


def variants(model: str, kind: str) -> List[Variant]:
    """Its lines that begin with MISTAKE or WITNESS."""
    head = (FOLDER / f"{model}.pml").read_text(encoding="utf-8").split("*/")[1]
    found = [Variant(macro, sentence, bool(liveness)) for macro, liveness, sentence in LINE.findall(head)]
    return [variant for variant in found if variant.macro.startswith(kind)]


def large(model: str) -> List[str]:
    """The macros of its large size."""
    found = LARGE.search((FOLDER / f"{model}.pml").read_text(encoding="utf-8"))
    return found[1].split() if found else []


def compiler(effort: int) -> List[str]:
    """0: for a search that ends at once, where compiling is most of the work; 1 and 2: for longer ones."""
    if effort == 0 and shutil.which("tcc") is not None:
        return ["tcc", "-w"]
    return ["gcc", f"-O{effort}", "-w"]


def verify(model: str, macros: Sequence[str] = (), liveness: bool = False, effort: int = 1) -> Verdict:
    """Search all states. Raises BuildFailure when no verifier can be made, or the search was cut off."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="accord-model-") as name:
        folder = Path(name)
        for path in (*FOLDER.glob("*.pml"), *FOLDER.glob("*.pmh")):
            shutil.copy(path, folder)
        defined = [f"-D{macro}" for macro in (*macros, *(["LIVENESS"] if liveness else []))]
        _run(folder, ["spin", *defined, "-a", f"{model}.pml"])
        kind = ["-DNFAIR=3"] if liveness else ["-DSAFETY"]
        kind += ["-DCOLLAPSE"] if effort == 2 else []
        _run(folder, [*compiler(effort), "-DMEMLIM=4096", *kind, "-o", "pan", "pan.c"])
        said = _run(folder, ["./pan", f"-m{DEPTH}", "-w20", "-n", *(["-a", "-f"] if liveness else [])])
        if "max search depth too small" in said or "memory limit" in said:
            raise BuildFailure(f"{model}: the search was cut off\n{said}")
        error = re.search(r"^pan:1: (.+)$", said, re.MULTILINE)
        trail = ""
        if error:
            trail = _run(folder, ["spin", *defined, "-t", "-p", "-g", f"{model}.pml"], strict=False)
        return Verdict(
            model,
            list(macros),
            liveness,
            _number(r"([0-9.e+]+) states, stored", said),
            _number(r"([0-9.e+]+) transitions", said),
            time.monotonic() - started,
            error[1] if error else "",
            trail,
        )


def _run(folder: Path, command: List[str], strict: bool = True) -> str:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "TMPDIR": str(folder)},  # what a compiler that is killed leaves goes with the rest
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            check=False,
        )
    except OSError as error:
        raise BuildFailure(f"cannot run {command[0]}: {error.strerror}. ./build.py setup installs it") from error
    if strict and (done.returncode != 0 or "Error:" in done.stdout):
        raise BuildFailure(f"{' '.join(command)} failed (exit code {done.returncode}):\n{done.stdout}")
    return done.stdout


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    if found is None:
        raise BuildFailure(f"the verifier did not finish:\n{text}")
    return int(float(found[1]))


def run(name: Optional[str], whole: bool, mistakes: bool, as_json: bool) -> int:
    """All models or one, in their small or large size. Returns 0 when each is as it should be."""
    if name is not None and name not in models():
        raise BuildFailure(f"there is no model {name!r} in docs/model; there is: {', '.join(models())}")
    host.require(PACKAGES)
    wrong = 0
    verdicts: List[Dict[str, object]] = []
    for model in [name] if name else models():
        size = large(model) if whole else []
        plan = [(size, liveness, "", False) for liveness in (False, True)]
        if mistakes:
            for variant in (*variants(model, "MISTAKE"), *variants(model, "WITNESS")):
                plan.append(([variant.macro], variant.liveness, variant.sentence, True))
        for macros, liveness, sentence, caught in plan:
            verdict = verify(model, macros, liveness, 0 if caught else 2 if whole else 1)
            verdicts.append(asdict(verdict))
            good = bool(verdict.error) == caught
            wrong += not good
            if not as_json:
                what = "liveness" if liveness else "safety"
                found = ("found" if caught else "VIOLATED") if verdict.error else ("NOT FOUND" if caught else "holds")
                label = f"{' '.join(macros)} {sentence}".strip()
                say(f"{model} {what} {label}: {found}; {verdict.states} states, {verdict.seconds:.1f} s")
                if not good:
                    print(verdict.trail or verdict.error)
    if as_json:
        print(json.dumps(verdicts))
    return 1 if wrong else 0
