"""Configuration of TRQ: OSEDiff's own training at a chosen timestep (2406.08177, section 3)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from qartsr.config.base import Config, Count, Factor, Rate, Side, Timestep
from qartsr.config.bits import BitName
from qartsr.config.data import BicubicConfig, DegradationConfig
from qartsr.config.training import ImageLossConfig

Decay = Annotated[float, Field(ge=0, lt=1)]


class AdaptersConfig(Config):
    """Low-rank adapters W + (alpha / rank) B A on the UNet and the VAE's encoder; the UNet's conv_in trains whole."""

    rank: int = Field(4, ge=1, le=1024)
    alpha: float = Field(8.0, gt=0, le=65536)


class VSDConfig(Config):
    """Variational score distillation: Stable Diffusion teaches Z_H. With ``weight`` 0 nothing of it is built."""

    weight: Factor = 0.0
    guidance: float = Field(7.5, ge=0, le=1000, description="classifier-free guidance of the teacher")
    negative_prompt: str = ""
    first: int = Field(20, ge=0, le=999, description="Z_H is noised to a scheduler index from first ...")
    last: int = Field(979, ge=0, le=999, description="... to last, both included, all equally likely")

    @model_validator(mode="after")
    def _in_order(self) -> VSDConfig:
        if self.first > self.last:
            raise ValueError(f"first {self.first} lies behind last {self.last}")
        return self


class RetrainConfig(Config):
    """TRQ: the backbone retrained at scheduler index ``timestep`` (QArtSR section 3.2; paper: T = 1)."""

    timestep: Timestep = 1
    start: Literal["backbone", "base"] = Field("backbone", description="weights that training begins with")
    base: str = Field("", description="Stable Diffusion in diffusers layout: VSD's teacher, and start: base")
    train: Literal["all", "denoiser", "lora"] = Field(
        "all",
        description="every weight, the UNet's or DiT's, or adapters on it and encoder that are merged afterwards",
    )
    adapters: AdaptersConfig = AdaptersConfig()
    degradation: DegradationConfig = Field(BicubicConfig(), description="how LR is made from each HR crop")
    steps: Count
    batch: Count = Field(ge=1, description="images of one step, over all processes (compute.processes)")
    crop: Side = Field(ge=32, multiple_of=16)
    lr: Rate = Field(gt=0)
    schedule: Literal["cosine", "constant"] = Field("cosine", description="after ``warmup`` linear steps")
    warmup: Count = Field(10, ge=1)
    betas: tuple[Decay, Decay] = Field((0.9, 0.99), description="AdamW's decay of first and second moments")
    weight_decay: Rate = 1e-4
    autocast: Literal["none", "bf16"] = Field("none", description="arithmetic inside the networks")
    clamp: bool = Field(False, description="losses see the image clamped to [-1, 1], as OSEDiff's do")
    loss: ImageLossConfig
    vsd: VSDConfig = VSDConfig()

    @model_validator(mode="after")
    def _base_where_needed(self) -> RetrainConfig:
        if not self.base and (self.start == "base" or self.vsd.weight):
            reason = "start is base" if self.start == "base" else "vsd.weight is not 0"
            raise ValueError(f"{reason}, so base must name the folder of Stable Diffusion")
        return self

    @model_validator(mode="after")
    def _something_to_learn(self) -> RetrainConfig:
        if not any(self.loss.model_dump().values()) and not self.vsd.weight:
            raise ValueError("loss: all weights are 0, and vsd.weight is: there is nothing to train by")
        return self


class ProbeConfig(Config):
    """What quantization would destroy at several timesteps: models retrained briefly, and the one of ``retrain``."""

    timesteps: tuple[Timestep, ...] = Field(
        (999, 499, 1), description="where the quantization error of Z_H is measured"
    )
    bits: tuple[BitName, ...] = Field(("w4a4", "w2a2"), description="bit-widths of that measurement")
    crop: Side = Field(256, ge=16, multiple_of=16, description="side of the centres of test images measured, pixels")
    steps: Count = Field(description="retraining steps given to each timestep other than retrain's")
