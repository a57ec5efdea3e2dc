"""A qartsr model as programs that use spandrel expect one: facts about it, and a call on a tensor."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from qartsr import OneStepSRPipeline


@dataclass(frozen=True)
class SizeRequirements:
    """Of the input: none, for the pipeline pads and tiles by itself."""

    minimum: int = 0
    multiple_of: int = 1
    square: bool = False


class QartsrDescriptor:
    """``model(image)``: RGB (1, 3, H, W) in [0, 1] -> (1, 3, 4 H, 4 W) in [0, 1], of the same dtype and device."""

    architecture, purpose, tiling = "qartsr", "SR", "internal"
    scale, input_channels, output_channels = 4, 3, 3
    supports_half = supports_bfloat16 = False
    size_requirements = SizeRequirements()

    def __init__(self, pipe: OneStepSRPipeline) -> None:
        self._pipe = pipe
        self.tags = [pipe.engine]

    @classmethod
    def load(cls, source: str | Path, device: str = "auto") -> QartsrDescriptor:
        """A package, a model folder or ``models:/NAME@ALIAS``. Raises QartsrError."""
        return cls(OneStepSRPipeline.from_pretrained(source, device=device))

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return self._pipe.model.device

    def __call__(self, image: Tensor) -> Tensor:
        """Raises ValueError for another shape."""
        if image.dim() != 4 or image.shape[:2] != (1, 3):
            raise ValueError(f"expected (1, 3, H, W), got {tuple(image.shape)}")
        return upscaled(self._pipe, image[0].permute(1, 2, 0)).permute(2, 0, 1)[None].to(image)


def upscaled(pipe: OneStepSRPipeline, image: Tensor) -> Tensor:
    """(H, W, C) in [0, 1] -> (4 H, 4 W, C) float32 on the CPU, in steps of 1/65535."""
    levels = (image.detach().float().clamp(0, 1) * 65535).round().cpu().numpy().astype(np.uint16)
    wide = pipe(levels).wide
    assert wide is not None  # 16 bits in, 16 bits out
    return torch.from_numpy(wide.astype(np.float32) / 65535)
