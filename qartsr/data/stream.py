"""HR crops with an LR of their own making, one at a time from the image files: nothing is held in memory.

OSEDiff's training data: any position, flipped half of the time, degraded on the fly (its ``PairedSROnlineTxtDataset``).
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from qartsr.config.data import DegradationConfig
from qartsr.data.degradation import degrade
from qartsr.data.pairs import image_tensor
from qartsr.data.rng import RandomDraws
from qartsr.errors import QartsrError
from qartsr.files import read_object
from qartsr.images import read_rgb

_RESIZE_MODES = ("area", "bilinear", "bicubic")


class Stream:
    """Samples of the train split of a data folder."""

    def __init__(self, folder: Path, degradation: DegradationConfig) -> None:
        self._folder, self._degradation = folder, degradation
        self._entries = read_object(folder / "manifest.json", "train")["train"]

    def sample(self, crop: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """(hr, lq), each uint8 (3, crop, crop); ``lq`` is LR upsampled x4. ``crop`` is a multiple of 4.

        A function of the generator's state. Raises QartsrError when every image is smaller than the crop.
        """
        files = [entry["file"] for entry in self._entries if min(entry["width"], entry["height"]) >= crop]
        if not files:
            raise QartsrError(f"no training image is {crop} pixels wide and high", "data", "choose a smaller crop")
        dice = RandomDraws(generator)
        image = read_rgb(self._folder / files[dice.below(len(files))])
        left, top = dice.below(image.width - crop + 1), dice.below(image.height - crop + 1)
        hr = image_tensor(image.crop((left, top, left + crop, top + crop)))
        hr = hr.flip(-1) if dice.chance(0.5) else hr
        return hr, _upsampled(degrade(hr.contiguous(), self._degradation, generator), dice)


def _upsampled(lr: Tensor, dice: RandomDraws) -> Tensor:
    """x4 by area, bilinear or bicubic, on 8 bits: the network must not learn one of them by heart."""
    x = F.interpolate(lr[None].float(), scale_factor=4, mode=_RESIZE_MODES[dice.pick((1.0, 1.0, 1.0))])
    return x[0].round().clamp(0, 255).to(torch.uint8)
