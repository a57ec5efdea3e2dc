"""What may be asked of Z_H beside the image it decodes to: an interface, and the absence of it."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor
from torch.nn import Parameter

from qartsr.training.means import Share

Named = list[tuple[str, Parameter]]


class Regulariser(Protocol):
    """A loss on Z_H by networks of its own, some of which train beside the model."""

    weight: float

    def trained(self) -> Named:
        """What of it trains."""

    def score(self, z_h: Tensor, share: Share) -> dict[str, Tensor]:
        """Losses of Z_H (B, C, h, w), by name, each to be added ``weight`` times; gradients go to Z_H alone."""

    def follow(self, z_h: Tensor, share: Share) -> dict[str, Tensor]:
        """Losses of the regulariser's own networks; no gradient goes to Z_H."""


class NoRegulariser:
    """No loss on Z_H."""

    weight = 0.0

    def trained(self) -> Named:
        """Nothing."""
        return []

    def score(self, z_h: Tensor, share: Share) -> dict[str, Tensor]:
        """None."""
        return {}

    def follow(self, z_h: Tensor, share: Share) -> dict[str, Tensor]:
        """None."""
        return {}
