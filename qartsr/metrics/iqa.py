"""The metrics themselves, as OSEDiff computed its published tables: pyiqa on full-size RGB images."""

from __future__ import annotations

import inspect
import math
import sys
import warnings
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qartsr.errors import QartsrError
from qartsr.metrics.niqe import UndefinedError, demand_blocks
from qartsr.metrics.weights import availability, offline

Metric = Callable[[Tensor, Tensor], float]
"""(image, reference) -> score, both (1, 3, H, W) RGB in [0, 1]. No-reference metrics ignore the second.

Raises UndefinedError where the image has no such score.
"""

_LUMA = {"test_y_channel": True, "color_space": "ycbcr"}
_PYIQA: Mapping[str, tuple[str, dict[str, Any]]] = {
    "psnr": ("psnr", _LUMA),
    "psnr_rgb": ("psnr", {}),
    "ssim": ("ssim", _LUMA),
    "lpips": ("lpips", {}),  # and its calibrated channel weights, see _calibrated
    "dists": ("dists", {}),
    "niqe": ("niqe", {}),
    "musiq": ("musiq", {}),
    "maniqa": ("maniqa-pipal", {}),
    "clipiqa": ("clipiqa", {}),
}
METRICS = tuple(_PYIQA)
_NO_REFERENCE = {"niqe", "musiq", "maniqa", "clipiqa"}


def demand_metric(name: str) -> None:
    """Raise QartsrError unless ``name`` is a metric; what has weights is not one for that (``lpips-vgg``, a loss)."""
    if name not in METRICS:
        raise QartsrError(f"unknown metric {name!r}", "evaluate.metrics", f"choose from {', '.join(METRICS)}")


def network(name: str, device: torch.device | str) -> Any:
    """The pyiqa module of a metric; downloads what is missing, so only :func:`weights.fetch` calls it unguarded."""
    from pyiqa.models.inference_model import InferenceModel  # importing pyiqa takes seconds

    known, options = _PYIQA[name]
    with torch.random.fork_rng(), redirect_stdout(sys.stderr):
        return InferenceModel(known, device=torch.device(device), **options, **_calibrated(name))


def _calibrated(name: str) -> dict[str, str]:
    """The channel weights of LPIPS that come with the package lpips; pyiqa would download its own copy."""
    if name != "lpips":
        return {}
    import lpips

    return {"pretrained_model_path": str(Path(inspect.getfile(lpips)).parent / "weights/v0.1/alex.pth")}


def build(name: str, device: torch.device | str = "cpu", seed: int = 0) -> Metric:
    """A metric whose weights are present. Raises ValueError otherwise (see :func:`availability`).

    QartsrError is raised for a name that is not in METRICS.
    MANIQA scores 20 crops of 224 px, which some pyiqa versions draw at random: its random state is seeded per image.
    """
    demand_metric(name)
    available, reason = availability(name)
    if not available:
        raise ValueError(f"{name} {reason}")
    with offline():
        module = network(name, device)
    arguments = slice(0, 1) if name in _NO_REFERENCE else slice(0, 2)

    def score(image: Tensor, reference: Tensor) -> float:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return float(module(*(image, reference)[arguments]))

    return _defined(score) if name == "niqe" else score


def _defined(niqe: Metric) -> Metric:
    """NIQE where it has a value: an image of two blocks or more that is not flat everywhere."""

    def score(image: Tensor, reference: Tensor) -> float:
        demand_blocks(image.shape[-1], image.shape[-2])
        with warnings.catch_warnings():  # torch's, of the covariance of too few blocks
            warnings.simplefilter("ignore", UserWarning)
            try:
                value = niqe(image, reference)
            except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
                value = math.nan
        if not math.isfinite(value):
            raise UndefinedError("the image has no texture")
        return value

    return score
