"""Metrics as OSEDiff computed its published tables (pyiqa, full-size RGB), and the meter that applies some of them."""

from __future__ import annotations

import inspect
import math
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from qartsr.errors import QartsrError
from qartsr.metrics.niqe import UndefinedError, demand_blocks
from qartsr.metrics.weights import NEEDED, availability, offline

Metric = Callable[[Tensor, Tensor], float]
"""(image, reference) -> score, both (1, 3, H, W) RGB in [0, 1]. No-reference metrics ignore the second.

Raises UndefinedError where the image has no such score; pyiqa's and torch's own say so by any of REFUSALS.
"""
REFUSALS = (RuntimeError, ValueError, AssertionError, IndexError, ArithmeticError)
"""How a metric refuses an image, one that is smaller than its window above all."""
MACHINE = (torch.OutOfMemoryError, torch.AcceleratorError)
"""Among them, faults of the machine, which say nothing about the image and pass through."""

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
        self._metrics: dict[str, Metric] = {}
        for name in (name for name, a in found.items() if a.available):
            try:
                self._metrics[name] = build(name, device)
            except Exception as error:  # torch, scipy and pyiqa each have their own for a damaged file
                if not NEEDED[name] or isinstance(error, (*MACHINE, ImportError)):
                    raise
                what = f"cannot be built from its files ({reason_of(error)})"
                self.unavailable[name] = f"{what}; delete them and fetch with `qartsr fetch-metric-weights {name}`"
        self._metrics |= dict(extra or {})

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
        """The same, with what is not defined on this image left out: scores, and metric -> reason.

        One metric's refusal, whatever its kind, costs no other's score; a score that is no number is none.
        """
        if image.size != reference.size:
            raise ValueError(f"image {image.size} and reference {reference.size} differ in size")
        tensors = tuple(_tensor(picture).to(self._device) for picture in (image, reference))
        scores, undefined = dict[str, float](), dict[str, str]()
        for name, metric in self._metrics.items():
            try:
                value = metric(tensors[0], tensors[1])
                if not math.isfinite(value):
                    raise UndefinedError(f"its value is {value}")
                scores[name] = value
            except MACHINE:
                raise
            except REFUSALS as error:
                undefined[name] = reason_of(error)
        return scores, undefined


def reason_of(error: Exception) -> str:
    """The first line of what a library says, or the name of its error."""
    return next(iter(str(error).splitlines()), type(error).__name__).rstrip(". ")


def _tensor(image: Image.Image) -> Tensor:
    """8-bit image -> (1, 3, H, W) RGB in [0, 1]."""
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None].float() / 255
