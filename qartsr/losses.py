"""Losses on images in [-1, 1], weighted by configuration: a1 LPIPS + a2 MSE (QArtSR, Eq. 7), and L1.

LPIPS (Zhang et al., arXiv 1801.03924), frozen, never downloading anything. Three backbones. ``alex`` and ``vgg`` are
the published metric, through the ``lpips`` package: ImageNet features, calibrated channel weights (v0.1, in the
package's wheel). ``random`` is AlexNet's shape with seeded random features and no calibration: unit-normalised
feature differences, averaged over positions, summed over channels and the five layers. It needs no file, it is a
sensible gradient for training, and it is *not* LPIPS: over 24 official OSEDiff outputs its rank correlation with
published LPIPS is 0.28. So it is called ``lpips_random`` wherever it appears.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import torch
import torch.nn.functional as F
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
        network = _RandomFeatures(config.seed) if config.backbone == "random" else _pretrained(config)
        self.network = network.eval().requires_grad_(False)

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        """Scalar distance, differentiable in both arguments."""
        distance: Tensor = self.network(image, target)
        return distance.mean()


class _RandomFeatures(nn.Module):
    """LPIPS' baseline without channel weights, on AlexNet's convolutions as torch initialises them from a seed.

    (B, 3, H, W) twice -> (B,). What ``lpips.LPIPS(net="alex", pnet_rand=True, lpips=False)`` computes, of which it is
    spared AlexNet's classifier, drawn and thrown away, and the import of torchvision: seconds of every start.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188])[:, None, None])
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450])[:, None, None])
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # the CPU's alone: torch.manual_seed would reseed CUDA as well
            convolutions = [
                nn.Conv2d(3, 64, 11, stride=4, padding=2),
                nn.Conv2d(64, 192, 5, padding=2),
                nn.Conv2d(192, 384, 3, padding=1),
                nn.Conv2d(384, 256, 3, padding=1),
                nn.Conv2d(256, 256, 3, padding=1),
            ]
        self.convolutions = nn.ModuleList(convolutions)

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        """Unit-normalised over channels, squared difference, summed over channels and layers, mean of positions."""
        distance = image.new_zeros(())
        for one, other in zip(self._features(image), self._features(target), strict=True):
            distance = distance + ((_unit(one) - _unit(other)) ** 2).sum(1).mean((1, 2))
        return distance

    def _features(self, image: Tensor) -> list[Tensor]:
        x, found = (image - self.shift) / self.scale, list[Tensor]()
        for number, convolution in enumerate(self.convolutions):
            x = F.relu(convolution(F.max_pool2d(x, 3, 2) if number in (1, 2) else x))
            found.append(x)
        return found


def _unit(features: Tensor) -> Tensor:
    return features / ((features**2).sum(1, keepdim=True).sqrt() + 1e-10)


def _pretrained(config: LPIPSConfig) -> nn.Module:
    import lpips as official  # twice the seconds of torch, with torchvision: for those who ask for it
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
