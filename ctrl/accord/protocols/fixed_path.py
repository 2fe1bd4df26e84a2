# SPDX-License-Identifier: Apache-2.0
"""Paths to contents that never change. By itself: programs that only ask the daemon need nothing of certificates."""

from __future__ import annotations

from pathlib import PosixPath

FileStamp = tuple[str, int, int, int]
"""Path, inode, modification time in ns, size: changes when the file is replaced."""


class FixedPath(PosixPath):
    """Nobody has to look, with each connection, whether the contents have changed."""

    stamped: FileStamp
    """Never another's, also when its path is used again."""
