"""weights/recipe/params.yaml, typed: how the sample backbones are made, step by step."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from qartsr.config.base import Config, Count, Factor, Rate, Seed
from qartsr.config.schema import ComputeConfig
from qartsr.config.training import CropPhase, ImageLossConfig


class SchoolingConfig(Config):
    """AdamW with a linear warm-up and a cosine to zero."""

    steps: Count = Field(ge=1)
    phases: tuple[CropPhase, ...] = Field(min_length=1)
    lr: Rate = Field(gt=0)
    warmup: Count = Field(100, ge=1)
    weight_decay: Rate = 1e-4
    autocast: Literal["none", "bf16"] = "none"


class AutoencoderConfig(SchoolingConfig):
    """The VAE: L1 + ``gradient`` * L1 of finite differences + ``kl`` * KL(posterior, N(0, 1)) per latent value."""

    gradient: Factor = 0.5
    kl: Factor = 1e-5


class OneStepConfig(SchoolingConfig):
    """OSEDiff's training of the UNet from the prior, at scheduler index ``timestep``."""

    timestep: int = Field(999, ge=0, le=999)
    realesrgan: float = Field(
        0.25, ge=0, le=1, description="share of the crops that Real-ESRGAN degrades; else bicubic"
    )
    loss: ImageLossConfig
    latent: Factor = Field(
        0.0, description="weight of the error of Z_H to the latent of HR: the decoder does not hold its scale"
    )
    copying: float = Field(
        1.0, gt=0, le=1, description="share of the rate for the layers that copy Z_L: Eq. 6 multiplies their errors"
    )


class VideoConfig(SchoolingConfig):
    """The UNet of the image model, trained on with the frame before in its channels."""

    timestep: int = Field(1, ge=0, le=999, description="scheduler index of the one step, as DLoRAL's")
    consistency: Factor = Field(1.0, description="weight of what changes between frames where nothing does")
    speed: float = Field(
        12.0, ge=0, le=1024, description="most HR pixels per frame that the camera moves, along each axis"
    )
    noisy: float = Field(0.5, ge=0, le=1, description="share of the clips with noise in their LR frames")
    noise: float = Field(0.03, ge=0, le=1, description="most standard deviation of that noise, of the range")
    begins: float = Field(0.1, ge=0, le=1, description="share of the clips at the beginning of a shot: no frame before")


class FlowPhase(CropPhase):
    """A part of the transformer's training: against latents that were made once, or against pictures."""

    judged: Literal["latent", "picture"] = "picture"


class FlowConfig(SchoolingConfig):
    """The transformer of weights/sample-dit: an L1 of the one step + ``weight`` * L1 of the velocity at other times."""

    phases: tuple[FlowPhase, ...] = Field(min_length=1)
    bank: Count = Field(0, ge=0, description="crops whose latents, and the UNet's restoration of them, are made once")
    bank_crop: Count = Field(128, ge=32, description="side of these crops, pixels; phases take windows of them")
    share: float = Field(0.25, ge=0, le=1, description="of the crops, also shown at a random time of the flow")
    weight: Factor = 0.1

    @model_validator(mode="after")
    def _within_the_bank(self) -> FlowConfig:
        latent = [phase.crop for phase in self.phases if phase.judged == "latent"]
        if latent and not self.bank:
            raise ValueError("phases that are judged by latents need a bank")
        if max(latent, default=0) > self.bank_crop:
            raise ValueError(f"crops of {max(latent)} pixels are no windows of bank_crop, {self.bank_crop}")
        return self


class RecipeConfig(Config):
    """Everything weights/sample and weights/sample-dit depend on beside the photographs."""

    seed: Seed = 0
    compute: ComputeConfig = ComputeConfig()
    autoencoder: AutoencoderConfig
    prior: SchoolingConfig
    one_step: OneStepConfig
    video: VideoConfig
    dit: FlowConfig
