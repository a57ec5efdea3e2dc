"""Configuration of losses, optimisation and the training phases RPQ and ET; TRQ has a file of its own."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from qartsr.config.base import Config

ModuleOrder = Literal["reverse", "forward", "sensitive_first", "sensitive_last"]
"""How RPQ goes through the modules: from the output, from the input, or by what each one alone does to the image."""


class LPIPSConfig(Config):
    """Backbone of the LPIPS loss. ``random``: seeded random features, needs no download and says so in its name."""

    backbone: Literal["random", "alex", "vgg"] = "random"
    seed: int = 0


class ImageLossConfig(Config):
    """lpips * LPIPS + mse * MSE + l1 * L1 on images in [-1, 1] (QArtSR Eq. 7: a1 LPIPS + a2 MSE)."""

    lpips: float = Field(1.0, ge=0)
    mse: float = Field(1.0, ge=0)
    l1: float = Field(0.0, ge=0)


class RoleRates(Config):
    """Learning rate per role; 0 freezes the role."""

    transform: float = Field(ge=0)
    skip: float = Field(ge=0)
    adapter: float = Field(ge=0)
    quantizer: float = Field(ge=0)
    rounding: float = Field(0.0, ge=0, description="offsets of learned rounding, in steps of the grid")
    bias: float = Field(0.0, ge=0, description="shifts of learnable biases")


class CropPhase(Config):
    """Batch and HR crop side in pixels for a share of a training run."""

    share: float = Field(gt=0, le=1)
    batch: int = Field(ge=1)
    crop: int = Field(ge=32, multiple_of=16)


class QuantizeConfig(Config):
    """RPQ: module by module, module and image loss (QArtSR section 3.3, Eq. 7 and 8)."""

    order: ModuleOrder = "reverse"
    steps_per_module: int = Field(ge=0)
    batch: int = Field(ge=1)
    lr: RoleRates
    weight_decay: float = Field(0.0, ge=0)
    loss: ImageLossConfig
    module_loss: float = Field(
        1.0, ge=0, description="weight of the module MSE, normalised by the FP output's variance"
    )
    train_quantized: bool = Field(True, description="modules quantized earlier keep training")
    image_every: int = Field(
        1, ge=1, description="the image loss enters every n-th step; the others train the newest module on cached pairs"
    )


class ExtendConfig(Config):
    """ET: all modules together on the image loss; other end-to-end methods add losses inside the network."""

    steps: int = Field(ge=0)
    batch: int = Field(ge=1)
    lr: RoleRates
    weight_decay: float = Field(0.0, ge=0)
    loss: ImageLossConfig
    latent_loss: float = Field(0.0, ge=0, description="weight of the MSE of Z_H over the FP Z_H's variance")
    encoder_loss: float = Field(0.0, ge=0, description="weight of the MSE of the encoder's latent over its variance")
    feature_loss: float = Field(
        0.0,
        ge=0,
        description="weight of the mean over modules of the MSE of their output over the FP output's variance",
    )


class PrecisionConfig(Config):
    """What differs for one bit-width."""

    lr_scale: float = Field(1.0, gt=0, description="multiplies every learning rate of RPQ and ET")
