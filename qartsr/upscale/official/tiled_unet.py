"""The UNet on overlapping square latent tiles, averaged with Gaussian weights."""

from __future__ import annotations

import torch
from torch import Tensor

from qartsr.errors import QartsrError
from qartsr.models import OneStepSR

VARIANCE = 0.01


def predict_noise(model: OneStepSR, latent: Tensor, tile: int, overlap: int) -> Tensor:
    """Noise of a latent (1, C, h, w): in tiles of at most ``tile`` latent pixels if it has more than tile^2 of them.

    A tile is no longer than the latent's shorter side; QartsrError if that does not leave more than ``overlap``.
    """
    height, width = latent.shape[2:]
    if height * width <= tile * tile:
        return model.predict(latent)
    side = min(tile, height, width)
    if not 0 <= overlap < side:
        raise QartsrError(
            f"tiles of {side} cannot overlap by {overlap}", f"latent of {width}x{height}", "choose a smaller overlap"
        )
    weight = weights(side).to(latent.device)
    total, shares = torch.zeros_like(latent), torch.zeros_like(latent)
    for left in starts(width, side, overlap):
        for top in starts(height, side, overlap):
            place = (..., slice(top, top + side), slice(left, left + side))
            total[place] += model.predict(latent[place]) * weight
            shares[place] += weight
    return total / shares


def starts(size: int, tile: int, overlap: int) -> tuple[int, ...]:
    """First pixels along one axis: every ``tile - overlap``, until the end is reached; the last tile is moved back."""
    begins = [0]
    while begins[-1] + tile < size:
        begins.append(begins[-1] + tile - overlap)
    return (*begins[:-1], size - tile)


def weights(side: int) -> Tensor:
    """(side, side) float64, rows are y. The script centres x at (side - 1) / 2 and y at side / 2."""
    position = torch.arange(side, dtype=torch.float64)
    return torch.outer(_bell(position - side / 2, side), _bell(position - (side - 1) / 2, side))


def _bell(distance: Tensor, side: int) -> Tensor:
    return torch.exp(-(distance**2) / side**2 / (2 * VARIANCE)) / (2 * torch.pi * VARIANCE) ** 0.5
