"""Items of a pure function made by threads before they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")


class Ahead(Generic[Key, Item]):
    """``make(key)`` of what is asked for now, and meanwhile of what will be. With 0 threads: when asked only."""

    def __init__(self, make: Callable[[Key], Item], threads: int) -> None:
        self._make = make
        self._pool = ThreadPoolExecutor(threads, "qartsr-loader") if threads else None
        self._begun: dict[Key, Future[Item]] = {}

    def __enter__(self) -> Ahead[Key, Item]:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def take(self, now: Sequence[Key], later: Sequence[Key]) -> list[Item]:
        """The items of ``now``, in order; those of ``later`` are begun."""
        if self._pool is None:
            return [self._make(key) for key in now]
        for key in [*now, *later]:
            if key not in self._begun:
                self._begun[key] = self._pool.submit(self._make, key)
        return [self._begun.pop(key).result() for key in now]
