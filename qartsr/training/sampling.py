"""Which calibration samples a step sees: a fresh permutation per epoch, a function of the step number alone."""

from __future__ import annotations

import torch
from torch import Tensor

from qartsr.training.determinism import generator


def sample(count: int, batch: int, step: int, seed: int, phase: str) -> Tensor:
    """(batch,) indices into ``count`` samples; every sample is seen once per epoch."""
    positions = range(step * batch, (step + 1) * batch)
    return torch.stack(
        [_permutation(count, position // count, seed, phase)[position % count] for position in positions]
    )


def _permutation(count: int, epoch: int, seed: int, phase: str) -> Tensor:
    return torch.randperm(count, generator=generator(seed, phase, "epoch", epoch))
