"""What the methods are trained and tested on: calibration pairs per seed, and test windows per set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from qartsr.config.data import CalibrateConfig, DegradationConfig
from qartsr.config.experiment import TestSetConfig
from qartsr.data import degrade, load_calibration, load_pairs, write_calibration
from qartsr.data.pairs import SCALE, image_tensor, texture, to_unit, upsample
from qartsr.errors import QartsrError
from qartsr.files import write_bytes
from qartsr.study.drawn import structures

_GRID = 32
_STRIDE = 16


class Windows(NamedTuple):
    """A test set: ``names`` of its images, ``hr`` and ``lq`` (LR upsampled x4), both uint8 (n, 3, s, s)."""

    names: tuple[str, ...]
    hr: Tensor
    lq: Tensor


def write_windows(data: Path, sets: Mapping[str, TestSetConfig], side: int, out: Path) -> None:
    """``out/sets/NAME.safetensors`` for every set: the most detailed window of each image. Deterministic."""
    for name, config in sets.items():
        pictures = structures(side) if config.images == "structures" else _photographs(data, side)
        pairs = {picture: (hr, _lq(hr, config.degradation)) for picture, hr in pictures.items()}
        tensors = {f"{picture}/{key}": value for picture, pair in pairs.items() for key, value in zip("hl", pair)}  # noqa: B905
        write_bytes(out / "sets" / f"{name}.safetensors", save(tensors))


def load_windows(folder: Path, names: Mapping[str, TestSetConfig]) -> dict[str, Windows]:
    """Read the sets. Raises QartsrError naming what is missing."""
    found = {}
    for name in names:
        path = folder / "sets" / f"{name}.safetensors"
        try:
            tensors = load_file(path)
        except (OSError, SafetensorError) as error:
            raise QartsrError(f"cannot be read ({error})", str(path), "run stage samples again") from error
        pictures = sorted({key.partition("/")[0] for key in tensors})
        hr, lq = (torch.stack([tensors[f"{picture}/{key}"] for picture in pictures]) for key in "hl")
        found[name] = Windows(tuple(pictures), hr, lq)
    return found


def write_pairs(data: Path, config: CalibrateConfig, degradation: DegradationConfig, seed: int, out: Path) -> None:
    """The calibration pairs of one seed, in ``out/calibration/SEED``."""
    write_calibration(data, config, degradation, seed, out / "calibration" / str(seed))


def load_inputs(folder: Path, seed: int) -> tuple[Tensor, Tensor]:
    """Network inputs of a seed's pairs in [-1, 1], (N, 3, H, W): three quarters to train on, one to choose by."""
    lq = to_unit(load_calibration(folder / "calibration" / str(seed)).lq)
    kept = len(lq) - max(1, len(lq) // 4)
    return lq[:kept], lq[kept:]


def _photographs(data: Path, side: int) -> dict[str, Tensor]:
    return {pair.name: _window(pair.hr, side) for pair in load_pairs(data, "test")}


def _window(image: Tensor, side: int) -> Tensor:
    """The square with the steepest mean gradient, on a coarse grid."""
    height, width = image.shape[1:]
    if min(height, width) < side:
        what = f"a test image is {width} x {height}, smaller than a window of {side}"
        raise QartsrError(what, "crop", "lower it or take the image out of the test split")
    places = [(t, left) for t in range(0, height - side + 1, _GRID) for left in range(0, width - side + 1, _STRIDE)]
    top, left = max(places, key=lambda at: texture(image[:, at[0] : at[0] + side, at[1] : at[1] + side]))
    return image[:, top : top + side, left : left + side].contiguous()


def _lq(hr: Tensor, degradation: DegradationConfig) -> Tensor:
    low = degrade(hr, degradation, torch.Generator().manual_seed(0))
    assert low.shape[1] * SCALE == hr.shape[1]
    return image_tensor(upsample(Image.fromarray(low.permute(1, 2, 0).numpy())))
