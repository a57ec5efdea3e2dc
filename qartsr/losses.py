"""Losses on images in [-1, 1], weighted by configuration: a1 LPIPS + a2 MSE (QArtSR, Eq. 7), and L1.

LPIPS (Zhang et al., arXiv 1801.03924) through the ``lpips`` package, frozen, never downloading anything. Three
backbones. ``alex`` and ``vgg`` are the published metric: ImageNet features, calibrated channel weights (v0.1, in
the package's wheel). ``random`` is AlexNet's shape with seeded random features and no calibration: unit-normalised
feature differences, averaged over positions, summed over channels and the five layers. It needs no file, it is a
sensible gradient for training, and it is *not* LPIPS: over 24 official OSEDiff outputs its rank correlation with
published LPIPS is 0.28. So it is called ``lpips_random`` wherever it appears.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor, nn

from qartsr.config.training import ImageLossConfig, LPIPSConfig
from qartsr.errors import QartsrError

_NAMES = {"random": "lpips_random", "alex": "lpips", "vgg": "lpips_vgg"}
_WEIGHTS = {"alex": "AlexNet_Weights", "vgg": "VGG16_Weights"}
"""Of :mod:`torchvision.models`."""
_FETCH = {"alex": "lpips", "vgg": "lpips-vgg"}


def lpips_name(config: LPIPSConfig) -> str:
    """Name of the distance in losses, curves and tables: ``lpips`` is reserved for the published AlexNet metric."""
    return _NAMES[config.backbone]


class LPIPS(nn.Module):
    """Perceptual distance of (B, 3, H, W) images in [-1, 1], averaged over the batch; 0 for equal images.

    H and W at least 31 pixels (AlexNet's pooling) or 16 (VGG). No parameter receives a gradient. Building it leaves
    torch's random state alone. Raises QartsrError when the backbone's weights are not in the torch hub cache.
    """

    def __init__(self, config: LPIPSConfig) -> None:
        super().__init__()
        self.name = lpips_name(config)
        build = _random if config.backbone == "random" else _pretrained
        self.network = build(config).eval().requires_grad_(False)

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        """Scalar distance, differentiable in both arguments."""
        distance: Tensor = self.network(image, target)
        return distance.mean()


def _random(config: LPIPSConfig) -> nn.Module:
    import lpips as official  # twice the seconds of torch, with torchvision: for those who build a distance

    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lpips 0.1.4 calls torchvision with a deprecated argument
        torch.default_generator.manual_seed(config.seed)  # the CPU's alone: torch.manual_seed would reseed CUDA as well
        network: nn.Module = official.LPIPS(net="alex", pnet_rand=True, lpips=False, verbose=False)
    return network


def _pretrained(config: LPIPSConfig) -> nn.Module:
    import lpips as official
    import torchvision

    weights = getattr(torchvision.models, _WEIGHTS[config.backbone]).IMAGENET1K_V1
    file = Path(torch.hub.get_dir()) / "checkpoints" / PurePosixPath(weights.url).name
    command = f"`qartsr fetch-metric-weights {_FETCH[config.backbone]}`"
    if not file.is_file():
        do = f"fetch them with {command}, or set lpips.backbone to random"
        raise QartsrError(f"{file} with the backbone's weights is missing", f"lpips.backbone {config.backbone}", do)
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            network: nn.Module = official.LPIPS(net=config.backbone, verbose=False)
    except Exception as error:  # torch's reader raises many types for a damaged file
        raise QartsrError(f"is damaged ({type(error).__name__})", str(file), f"delete it and run {command}") from error
    return network


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
