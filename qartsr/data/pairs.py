"""Whole images as pairs, and random aligned crops of them for training."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from qartsr.errors import QartsrError
from qartsr.files import read_object
from qartsr.images import SCALE, read_image, upsample


class Pair(NamedTuple):
    """One photograph. ``lq`` is the low-resolution image upsampled x4, so both have one size."""

    name: str
    hr: Tensor
    """uint8 (3, H, W)"""
    lq: Tensor
    """uint8 (3, H, W)"""


def image_tensor(image: Image.Image) -> Tensor:
    """RGB Pillow image -> uint8 (3, H, W)."""
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()


def to_unit(image: Tensor) -> Tensor:
    """uint8 of any shape -> float in [-1, 1]."""
    return image.float() / 127.5 - 1


def enlarged(lr: Tensor) -> Tensor:
    """uint8 (3, h, w) -> uint8 (3, 4h, 4w), by :func:`upsample`."""
    return image_tensor(upsample(Image.fromarray(lr.permute(1, 2, 0).contiguous().numpy())))


def load_pairs(folder: Path, split: Literal["train", "test"]) -> list[Pair]:
    """All images of a split of a data folder, in manifest order.

    Train images have no stored LR: bicubic x4 of the whole image is taken here, so crops have no border effects.
    """
    manifest = read_object(folder / "manifest.json", "train", "test")
    if split == "test":
        files = [(entry["name"], entry["hr"], entry["lr"]) for entry in manifest["test"]]
        return [
            Pair(n, image_tensor(_open(folder / h)), image_tensor(upsample(_open(folder / lo)))) for n, h, lo in files
        ]
    pairs = []
    for entry in manifest["train"]:
        hr = _open(folder / entry["file"])
        lr = hr.resize((hr.width // SCALE, hr.height // SCALE), Image.Resampling.BICUBIC)
        pairs.append(Pair(entry["name"], image_tensor(hr), image_tensor(upsample(lr))))
    return pairs


def _open(path: Path) -> Image.Image:
    try:
        return read_image(path).convert("RGB")
    except QartsrError as error:
        raise QartsrError(error.what, str(path), "run the data stage again") from error


def crop_batch(pairs: list[Pair], batch: int, crop: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random aligned crops, flipped and transposed: (hr, lq), each float (batch, 3, crop, crop) in [-1, 1].

    Of two candidate positions the one with more texture is taken, so flat sky is rarely trained on.
    """
    fitting = [pair for pair in pairs if min(pair.hr.shape[1:]) >= crop]
    if not fitting:
        raise QartsrError(f"no training image is {crop} pixels wide and high", "data", "choose a smaller crop")
    chosen = [_augmented(_textured(fitting, crop, generator), generator) for _ in range(batch)]
    return to_unit(torch.stack([hr for hr, _ in chosen])), to_unit(torch.stack([lq for _, lq in chosen]))


def _textured(pairs: list[Pair], crop: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    candidates = [_position(pairs, crop, generator) for _ in range(2)]
    return max(candidates, key=lambda pair: texture(pair[0]))


def _position(pairs: list[Pair], crop: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    pair = pairs[_below(len(pairs), generator)]
    top = SCALE * _below((pair.hr.shape[1] - crop) // SCALE + 1, generator)
    left = SCALE * _below((pair.hr.shape[2] - crop) // SCALE + 1, generator)
    window = (slice(None), slice(top, top + crop), slice(left, left + crop))
    return pair.hr[window], pair.lq[window]


def _below(limit: int, generator: torch.Generator) -> int:
    return int(torch.randint(limit, (1,), generator=generator))


def texture(image: Tensor) -> float:
    """Mean absolute gradient of the grey image; ``image`` (3, H, W)."""
    grey = image.float().mean(0)
    return float((grey[1:, :-1] - grey[:-1, :-1]).abs().mean() + (grey[:-1, 1:] - grey[:-1, :-1]).abs().mean())


def _augmented(pair: tuple[Tensor, Tensor], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    code = _below(8, generator)
    hr, lq = pair
    if code & 1:
        hr, lq = hr.flip(-1), lq.flip(-1)
    if code & 2:
        hr, lq = hr.flip(-2), lq.flip(-2)
    if code & 4:
        hr, lq = hr.transpose(1, 2), lq.transpose(1, 2)
    return hr, lq
