"""Image in, image out: a model from a package file, a model folder or the registry."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image

from qartsr.errors import QartsrError
from qartsr.models import OneStepSR, load_model
from qartsr.packing import load_package
from qartsr.upscale.bands import Report
from qartsr.upscale.tiles import OVERLAP, TILE, silent, upscale_image, usable

Resolve = Callable[[str], Path]
"""Turns ``models:/NAME@alias`` into a local package file."""


def no_registry(uri: str) -> Path:
    """The resolver of those who have none."""
    raise QartsrError("names a registered model, but no registry is at hand", uri, "give a package file")


class OneStepSRPipeline:
    """``pipe(image)`` -> the image, exactly 4 times as wide and high.

    Parameters
    ----------
    model: in evaluation mode, on the device it shall run on.
    tile, overlap: see :func:`qartsr.upscale.upscale_image`; refused here when they cannot work.
    """

    def __init__(self, model: OneStepSR, tile: int = TILE, overlap: int = OVERLAP) -> None:
        self.model = model
        self._tile, self._overlap = usable(tile, overlap, model.multiple)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        resolve: Resolve = no_registry,
        device: str = "auto",
        tile: int = TILE,
        overlap: int = OVERLAP,
    ) -> OneStepSRPipeline:
        """Load a package file, a folder holding ``model.safetensors``, a floating-point model folder, or a URI.

        ``resolve`` fetches ``models:/...`` URIs. ``device``: auto, cpu, cuda or cuda:N. Raises QartsrError.
        """
        chosen = choose_device(device)
        path = resolve(str(source)) if str(source).startswith("models:/") else Path(source)
        return cls(_load(path).to(chosen), tile, overlap)

    def __call__(self, image: Image.Image, report: Report = silent) -> Image.Image:
        """Upscale one image; ``report`` is called after each tile."""
        return upscale_image(self.model, image, self._tile, self._overlap, report)


def _load(path: Path) -> OneStepSR:
    if path.is_dir() and (path / "qartsr.json").is_file():
        return load_model(path)
    if path.is_dir():
        path = path / "model.safetensors"
    return load_package(path)


def choose_device(name: str) -> torch.device:
    """``auto``, ``cpu``, ``cuda`` or ``cuda:N``; auto is the GPU where there is one. Raises QartsrError."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise QartsrError(f"unknown device {name!r}", "device", "choose auto, cpu, cuda or cuda:N") from error
    missing = device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()
    if device.type not in ("cpu", "cuda") or missing:
        raise QartsrError(f"device {name!r} is not available here", "device", "choose auto or cpu")
    return device
