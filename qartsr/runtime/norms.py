"""GroupNorms of compiled graphs: which of three graphs runs, what goes into it, and what comes out.

A single image needs the plain graph. For an image in tiles, moments are first outputs of the graph (in fp32: sums over
a whole tile) and then its inputs; see :mod:`qartsr.export.norms`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import numpy as np

from qartsr.runtime.moments import Floats, GroupNorm, Moments, Seen, Statistics, affine, share

Mode = Literal["plain", "imposed", "observed"]
"""How the norms of a graph are written; observed ones are computed in fp32 throughout."""
Shapes = Mapping[str, Sequence[int]]
"""Of a graph's inputs, by name."""


class _Watch(NamedTuple):
    weight: Floats
    seen: Seen


class GraphNorms:
    """The norms of one model; the state of the contexts they are in."""

    def __init__(self, norms: Mapping[str, GroupNorm]) -> None:
        self._norms = norms
        self._fixed: Statistics = {}
        self._watches: list[_Watch] = []

    def count(self) -> int:
        """How many there are."""
        return len(self._norms)

    @contextmanager
    def imposed(self, statistics: Statistics) -> Iterator[None]:
        """Moments become inputs."""
        before, self._fixed = self._fixed, statistics
        try:
            yield
        finally:
            self._fixed = before

    @contextmanager
    def watched(self, weight: Floats, seen: Seen) -> Iterator[None]:
        """Moments become outputs; ``weight`` (H, W) says how much each position counts."""
        self._watches.append(_Watch(weight, seen))
        try:
            yield
        finally:
            self._watches.pop()

    def mode(self) -> Mode:
        """The graph that is wanted now. Raises ValueError where moments of some norms only are imposed to no end."""
        if self._watches:
            return "observed"
        if not self._fixed:
            return "plain"
        if missing := self._norms.keys() - self._fixed.keys():
            raise ValueError(f"no moments for {min(missing)}")
        return "imposed"

    def feed(self, shapes: Shapes) -> dict[str, Any]:
        """Values of the inputs that a mode brings."""
        feed: dict[str, Any] = {}
        for name, norm in self._norms.items():
            if f"{name}.affine" in shapes:
                feed[f"{name}.affine"] = affine(norm, self._fixed[name])
            if f"{name}.weights" in shapes:
                feed |= self._observing(name, norm.groups, shapes[f"{name}.weights"][:-1])
        return feed

    def _observing(self, name: str, groups: int, sides: Sequence[int]) -> dict[str, Any]:
        unused = Moments(np.zeros(groups, np.float32), np.ones(groups, np.float32))
        wanted = share(self._watches[-1].weight, sides)
        weights = [np.full_like(wanted, 1 / len(wanted)), wanted]
        return {
            f"{name}.weights": np.stack(weights, 1).reshape(*sides, 2),
            f"{name}.given": np.stack(self._fixed.get(name, unused), 1),
            f"{name}.fixed": np.full((1, 1), name in self._fixed, np.float32),
        }

    def tell(self, outputs: Mapping[str, Any]) -> None:
        """Whoever watches is told the moments among ``outputs``, which are in the order of calling."""
        for watch in self._watches[-1:]:
            for name, value in outputs.items():
                if name.endswith(".moments"):
                    watch.seen(name.removesuffix(".moments"), value.T.astype(np.float64))
