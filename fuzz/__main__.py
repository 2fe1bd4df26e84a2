# SPDX-License-Identifier: Apache-2.0
"""``python -m fuzz TARGET [OPTION ...] [FILE | DIRECTORY ...]``: one target, with libFuzzer's options.

atheris feeds what libFuzzer makes to the target and tells it which branches of this package that took. Where there is
no atheris (it has wheels for x86-64 alone), inputs are changed at random, and nothing is learnt from one for the next.
"""

from __future__ import annotations

import importlib
import sys

from fuzz import blind

PACKAGES = ["accord"]


def main(arguments: list[str]) -> int:
    """Returns only without atheris: libFuzzer ends the process."""
    if not arguments:
        print(__doc__, file=sys.stderr)
        return 2
    name, *rest = arguments
    try:
        import atheris
    except ImportError:
        print("no atheris here: inputs are changed blindly", file=sys.stderr, flush=True)
        return blind.run(importlib.import_module(f"fuzz.targets.{name}").one, rest)
    with atheris.instrument_imports(include=PACKAGES):
        target = importlib.import_module(f"fuzz.targets.{name}")
    # libFuzzer starts itself anew to merge corpora, by the shell.
    atheris.Setup([f"{sys.executable} -m fuzz {name}", *rest], target.one)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
