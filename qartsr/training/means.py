"""By what means a model is trained: processes and memory. They change time and, but for rounding, no result."""

from __future__ import annotations

from typing import NamedTuple

from qartsr.errors import QartsrError
from qartsr.training.world import World


class Share(NamedTuple):
    """Images ``start`` .. ``stop`` - 1 of the ``batch`` images of step ``number``, each ``crop`` pixels wide and high.

    What is drawn for an image depends on its place in the whole batch, never on who holds it.
    """

    number: int
    batch: int
    crop: int
    start: int
    stop: int


class Means(NamedTuple):
    """The processes, and how each does its part."""

    world: World
    micro_batch: int = 0
    """images held at once; 0: all of this process"""
    checkpointing: bool = False
    """activations inside a block are computed again in the backward pass instead of kept"""

    def shares(self, number: int, batch: int, crop: int) -> list[Share]:
        """This process's images of a step, in equal parts. Raises QartsrError when the batch has no equal parts."""
        own = batch // self.world.size
        held = self.micro_batch or own
        if own * self.world.size != batch or own % max(held, 1):
            what = f"a batch of {batch} has no equal parts for {self.world.size} processes that hold {held} images"
            raise QartsrError(what, "compute", "change processes, micro_batch or the batch")
        first = self.world.rank * own
        return [Share(number, batch, crop, start, start + held) for start in range(first, first + own, held)]
