"""What tiles need of a network, whoever executes it: torch's modules, or compiled graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from qartsr.artifact.load import Load
from qartsr.runtime.moments import Norms
from qartsr.upscale.memory import LatentMemory
from qartsr.upscale.places import Place

Run = Callable[[NDArray[np.float32], Place], NDArray[np.float32]]
"""(3, h, w) in [-1, 1] at a place of the image -> the network's output there, not clamped"""


class Network(Protocol):
    """A network for images (3, H, W)."""

    @property
    def align(self) -> str:
        """Colour fix: none, adain or wavelet."""
        ...

    @property
    def device(self) -> str:
        """Where it runs."""
        ...

    @property
    def side_step(self) -> int:
        """Sides of the network's input must be multiples of this."""
        ...

    @property
    def multiple(self) -> int:
        """Sides of tiles must be multiples of this."""
        ...

    @property
    def load(self) -> Load:
        """What a run needs of memory."""
        ...

    @property
    def frames(self) -> int:
        """Consecutive frames it looks at: 1, or 2 of a model of clips."""
        ...

    def runner(self, size: tuple[int, int], seed: int | None, memory: LatentMemory | None = None) -> Run:
        """Runs tiles of an image of ``size``; ``seed`` of a sample of the encoder's posterior, None takes its mode.

        ``memory`` is for a model of clips; without, an image stands for the frame before as well.
        """
        ...

    def norms(self) -> Norms:
        """Its GroupNorms."""
        ...


def network_of(model: Any) -> Network:
    """``model`` itself if it is one, or a torch model as one."""
    if callable(getattr(model, "runner", None)):
        found: Network = model
        return found
    from qartsr.upscale.modules import ModuleNetwork  # torch

    return ModuleNetwork(model)
