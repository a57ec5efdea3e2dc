"""Configuration of losses and optimisation; the phases of quantized models are in ``method``, TRQ in ``retrain``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from qartsr.config.base import Config, Count, Factor, Seed, Side


class LPIPSConfig(Config):
    """Backbone of the LPIPS loss. ``random``: seeded random features, needs no download and says so in its name."""

    backbone: Literal["random", "alex", "vgg"] = "random"
    seed: Seed = 0


class ImageLossConfig(Config):
    """lpips * LPIPS + mse * MSE + l1 * L1 on images in [-1, 1] (QArtSR Eq. 7: a1 LPIPS + a2 MSE)."""

    lpips: Factor = 1.0
    mse: Factor = 1.0
    l1: Factor = 0.0


class RoleRates(Config):
    """Factor of the learning rate per role; 0 freezes the role."""

    transform: Factor
    skip: Factor
    adapter: Factor
    quantizer: Factor
    rounding: Factor = Field(0.0, description="offsets of learned rounding, in steps of the grid")
    bias: Factor = Field(0.0, description="shifts of learnable biases")


class CropPhase(Config):
    """Batch and HR crop side in pixels for a share of a training run."""

    share: float = Field(gt=0, le=1)
    batch: Count = Field(ge=1)
    crop: Side = Field(ge=32, multiple_of=16)


class PrecisionConfig(Config):
    """What differs for one bit-width."""

    lr_scale: Factor = Field(1.0, gt=0, description="multiplies every learning rate of the method's phases")
