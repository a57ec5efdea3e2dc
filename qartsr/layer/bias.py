"""A trained number per output channel added to the bias, and its null object."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FixedBias(nn.Module):
    """The bias as it is."""

    def forward(self, bias: Tensor) -> Tensor:
        """``bias`` itself."""
        return bias


class LearnedBias(nn.Module):
    """b + a, a learned from 0: QuantVSR's learnable bias alignment (2508.04485), which costs nothing at run time."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(outputs))

    def forward(self, bias: Tensor) -> Tensor:
        """``bias`` (O,) and the shift."""
        return bias + self.shift
