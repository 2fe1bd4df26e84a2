# SPDX-License-Identifier: Apache-2.0
"""What can be awaited, or entered with ``async with`` to be closed at its end."""

from __future__ import annotations

from collections.abc import Generator
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar


class Closable(Protocol):
    """What ``close`` ends."""

    async def close(self) -> None:
        """End it."""


T = TypeVar("T", bound=Closable)


class Opening(Generic[T]):
    """Not begun before it is awaited or entered."""

    _opened: T | None = None

    async def _open(self) -> T:
        raise NotImplementedError

    def __await__(self) -> Generator[Any, None, T]:
        return self._open().__await__()

    async def __aenter__(self) -> T:
        self._opened = await self._open()
        return self._opened

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._opened is not None:
            await self._opened.close()
