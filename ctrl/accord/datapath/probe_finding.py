# SPDX-License-Identifier: Apache-2.0
"""What one probe found."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of ``accord doctor``."""

    group: str
    """Heading that it belongs under."""
    name: str
    purpose: str
    """What of Accord uses it."""
    ok: bool
    reason: str
    """What was seen: the ground for the yes or the no."""
    mend: str = ""
    """The command or the step that turns a no into a yes; empty with a yes."""


def kernel_error(error: OSError) -> str:
    """The kernel's words, with the name that one can search for."""
    code = error.errno or 0
    return f"{os.strerror(code)} ({errno.errorcode.get(code, code)})"
