"""Random choices from one torch generator."""

from __future__ import annotations

import torch
from torch import Tensor


class RandomDraws:
    """What a random degradation draws: equal generator states give equal draws."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def uniform(self, low: float, high: float) -> float:
        """A number between ``low`` and ``high``."""
        return low + (high - low) * float(torch.rand((), generator=self.generator))

    def chance(self, probability: float) -> bool:
        """True with ``probability``."""
        return self.uniform(0, 1) < probability

    def below(self, limit: int) -> int:
        """A whole number from 0 to ``limit`` - 1, all equally likely."""
        return int(torch.randint(limit, (), generator=self.generator))

    def pick(self, shares: tuple[float, ...]) -> int:
        """An index with probability proportional to its share."""
        return int(torch.multinomial(torch.tensor(shares), 1, generator=self.generator))

    def normal(self, shape: torch.Size | tuple[int, ...]) -> Tensor:
        """Standard normal numbers of that shape, fp32."""
        return torch.randn(shape, generator=self.generator)

    def poisson(self, rates: Tensor) -> Tensor:
        """Poisson numbers of these rates (>= 0), of any shape."""
        return torch.poisson(rates, generator=self.generator)
