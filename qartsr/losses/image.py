"""The image loss of TRQ, RPQ and ET: a1 LPIPS + a2 MSE (QArtSR, Eq. 7), and L1 for the sample backbone."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from qartsr.config.training import ImageLossConfig, LPIPSConfig
from qartsr.losses.lpips import LPIPS, lpips_name


class ImageLoss(nn.Module):
    """Weighted sum of distances between two batches of images (B, 3, H, W) in [-1, 1].

    A term of weight zero is neither built nor computed. The result holds every term unweighted under its name
    (``lpips_random``, ``lpips`` or ``lpips_vgg``; ``mse``; ``l1``) and the weighted sum as ``total``. With all weights
    zero ``total`` is a constant 0.
    """

    def __init__(self, config: ImageLossConfig, lpips: LPIPSConfig) -> None:
        super().__init__()
        known: dict[str, tuple[float, Callable[[], nn.Module]]] = {
            lpips_name(lpips): (config.lpips, lambda: LPIPS(lpips)),
            "mse": (config.mse, nn.MSELoss),
            "l1": (config.l1, nn.L1Loss),
        }
        self.weights = {name: weight for name, (weight, _) in known.items() if weight}
        self.terms = nn.ModuleDict({name: known[name][1]() for name in self.weights})

    def forward(self, image: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Terms and their weighted sum, all scalars."""
        losses: dict[str, Tensor] = {name: term(image, target) for name, term in self.terms.items()}
        total = sum((weight * losses[name] for name, weight in self.weights.items()), start=image.new_zeros(()))
        return {**losses, "total": total}
