"""Measures pairs of images with a fixed list of metrics, and knows which of the wanted ones cannot be had."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from qartsr.metrics.iqa import Metric, build, demand_metric
from qartsr.metrics.niqe import UndefinedError
from qartsr.metrics.weights import availability


class Meter:
    """Metrics by name, ready to measure.

    Parameters
    ----------
    names: wanted metrics of :data:`qartsr.metrics.METRICS`; those without weights are listed in ``unavailable``.
    extra: further metrics under names of their own, such as ``lpips_random``.
    device: where learned metrics run. PSNR and SSIM too: pyiqa computes both in float32 and float64 respectively.

    Raises QartsrError for a name that is no metric, and where the extra [train] is not installed.
    """

    def __init__(
        self, names: Sequence[str], extra: Mapping[str, Metric] | None = None, device: torch.device | str = "cpu"
    ) -> None:
        for name in names:
            demand_metric(name)
        self._device = torch.device(device)
        found = {name: availability(name) for name in names}
        self.unavailable: dict[str, str] = {name: a.reason for name, a in found.items() if not a.available}
        self._metrics = {name: build(name, device) for name, a in found.items() if a.available} | dict(extra or {})

    @property
    def names(self) -> tuple[str, ...]:
        """What :meth:`measure` returns, in order."""
        return tuple(self._metrics)

    def measure(self, image: Image.Image, reference: Image.Image) -> dict[str, float]:
        """Scores of an 8-bit image against a reference of the same size.

        Raises ValueError when the sizes differ, and for an image on which a metric is not defined.
        """
        scores, undefined = self.attempt(image, reference)
        for name, reason in undefined.items():
            raise UndefinedError(f"{name} is not defined: {reason}")
        return scores

    def attempt(self, image: Image.Image, reference: Image.Image) -> tuple[dict[str, float], dict[str, str]]:
        """The same, with what is not defined on this image left out: scores, and metric -> reason."""
        if image.size != reference.size:
            raise ValueError(f"image {image.size} and reference {reference.size} differ in size")
        tensors = tuple(_tensor(picture).to(self._device) for picture in (image, reference))
        scores, undefined = dict[str, float](), dict[str, str]()
        for name, metric in self._metrics.items():
            try:
                scores[name] = metric(tensors[0], tensors[1])
            except UndefinedError as error:
                undefined[name] = str(error)
        return scores, undefined


def _tensor(image: Image.Image) -> Tensor:
    """8-bit image -> (1, 3, H, W) RGB in [0, 1]."""
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None].float() / 255
