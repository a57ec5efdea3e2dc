"""Configuration of the parts of one quantized layer (Eq. 9): quantizers, transform, skip branch, adapter.

``kind`` selects the part; ``none`` is the null object of its family.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from qartsr.config.base import Config, Count
from qartsr.config.policies import (
    BitsPolicyConfig,
    EdgeHeadroom,
    InputBitsPolicyConfig,
    RankPolicyConfig,
    Split,
    UniformConfig,
)

Granularity = Literal["tensor", "channel", "group"]
"""One range for all; per output channel; per output channel and group of input channels."""
RangeInit = Literal["minmax", "mse"]
StepInit = Literal["magnitude", "sigma", "minmax"]
_HALF_STEP = "gradients count what lies up to half a step beyond an end as inside (codes that round before they clip)"


class AbstractRangesConfig(Config):
    """How many ranges a quantizer has. Inputs have one (``tensor``)."""

    granularity: Granularity = "tensor"
    group: int = Field(64, ge=1, le=65536, description="most input channels of a group; all equal, see group_size")


class NoQuantizerConfig(Config):
    """Keep the tensor in floating point."""

    kind: Literal["none"] = "none"


class MinMaxConfig(AbstractRangesConfig):
    """Grid between the observed minimum and maximum, or symmetric about 0; nothing is learned."""

    kind: Literal["minmax"] = "minmax"
    symmetric: bool = False


class PercentileConfig(AbstractRangesConfig):
    """Grid between two percentiles of the observed values, or symmetric about 0; nothing is learned."""

    kind: Literal["percentile"] = "percentile"
    percentile: float = Field(99.9, gt=50.0, le=100.0)
    symmetric: bool = False


class MSEConfig(AbstractRangesConfig):
    """Grid of the shrunk range with the least squared error, or symmetric about 0; nothing is learned."""

    kind: Literal["mse"] = "mse"
    symmetric: bool = False


class DynamicConfig(Config):
    """Inputs only: affine grid between the minimum and maximum of each tensor as it comes (QuantVSR, 2508.04485)."""

    kind: Literal["dynamic"] = "dynamic"


class GaussianConfig(AbstractRangesConfig):
    """Symmetric grid of least squared error for normal values of the same mean square (Q-DiT4SR, 2602.01273).

    ``token``: inputs only, a range of its own for every token of each input; nothing is stored.
    """

    kind: Literal["gaussian"] = "gaussian"
    token: bool = False


class LSQConfig(AbstractRangesConfig):
    """Learned step size (LSQ, 1902.08153), symmetric; ``offset`` makes it affine.

    ``init`` of the symmetric step: LSQ's 2 mean|x| / sqrt(Qp), LSQ+'s max|mu +- 3 sigma| / 2**(b-1) for weights, or
    ``minmax``: the larger end is the largest code. With ``offset``: ``minmax`` starts at the ends of the data joined
    with 0 and fixes the zero point, a whole code (EfficientDM's weights); the others learn the offset too and start
    with the least squared error (LSQ+'s inputs).
    """

    kind: Literal["lsq"] = "lsq"
    offset: bool = False
    init: StepInit = "magnitude"
    half_step: bool = Field(False, description=_HALF_STEP)


class LBQConfig(AbstractRangesConfig):
    """Learned lower and upper bounds (PassionSR, Eq. 5 to 7), affine."""

    kind: Literal["lbq"] = "lbq"
    init: RangeInit = "minmax"
    half_step: bool = Field(False, description=_HALF_STEP)


_Fixed = NoQuantizerConfig | MinMaxConfig | PercentileConfig | MSEConfig | DynamicConfig | GaussianConfig
QuantizerConfig = Annotated[_Fixed | LSQConfig | LBQConfig, Field(discriminator="kind")]


class NearestConfig(Config):
    """Weights are rounded to the nearest code."""

    kind: Literal["nearest"] = "nearest"


class GPTQConfig(Config):
    """Weights are rounded column by column, each error made good by the columns to come (GPTQ, 2210.17323)."""

    kind: Literal["gptq"] = "gptq"
    patches: Count = Field(1024, ge=1, description="input patches per layer that stand for the calibration set")
    damping: float = Field(0.01, gt=0, le=1000, description="of the Hessian's mean diagonal, added to its diagonal")


class IntegerConfig(Config):
    """The codes of the start are the base that adapters move, not the floating-point weight (EfficientDM's QALoRA)."""

    kind: Literal["integer"] = "integer"


class LearnedRoundingConfig(Config):
    """Up or down is learned, one offset of at most half a step per weight (SignRound, 2309.05516)."""

    kind: Literal["learned"] = "learned"


RoundingConfig = Annotated[
    NearestConfig | GPTQConfig | IntegerConfig | LearnedRoundingConfig, Field(discriminator="kind")
]


class NoTransformConfig(Config):
    """No change of basis between input and weight."""

    kind: Literal["none"] = "none"


class ChannelScaleConfig(Config):
    """phi per input channel, started at max|x|^alpha / max|W|^alpha (PassionSR: alpha 0.3)."""

    kind: Literal["channel_scale"] = "channel_scale"
    alpha: float = Field(0.3, ge=0.0, le=1.0)


class ChannelAffineConfig(Config):
    """phi and an offset delta per input channel (PassionSR's LET); delta starts at 0."""

    kind: Literal["channel_affine"] = "channel_affine"
    alpha: float = Field(0.3, ge=0.0, le=1.0)


class ChannelSearchConfig(Config):
    """phi per input channel, started at the max|x|^a / max|W|^b with the least error of the layer's output (SVDQuant).

    Candidates: a = 1/steps ... (steps-1)/steps with b = 0 and with b = 1 - a, and the identity.
    """

    kind: Literal["channel_search"] = "channel_search"
    steps: int = Field(20, ge=2, le=100)
    patches: Count = Field(256, ge=1, description="input patches per layer that stand for the calibration set")


class HadamardConfig(Config):
    """Channels rotated by a Hadamard matrix (QuaRot, 2404.00456; Q-DiT4SR), in equal blocks of an order there is."""

    kind: Literal["hadamard"] = "hadamard"
    block: int = Field(16384, ge=2, le=65536, description="channels that are rotated together, at most")
    halves: bool = Field(False, description="both halves of the channels apart (QuantVSR); an odd number is not split")
    patches: Count = Field(256, ge=1, description="input patches per layer that a fixed input range is found on")


TransformConfig = Annotated[
    NoTransformConfig | ChannelScaleConfig | ChannelAffineConfig | ChannelSearchConfig | HadamardConfig,
    Field(discriminator="kind"),
]


Basis = Literal["weight", "scaled", "rotated"]
"""What a branch decomposes: the weight, times the transform's phi, or rotated by it; then it reads rotated inputs."""


class NoBranchConfig(Config):
    """No low-rank branch."""

    kind: Literal["none"] = "none"


class SVDConfig(Config):
    """Truncated SVD of the weight: L1 = U sqrt(S), L2 = sqrt(S) V^T. ``basis``: of W, of W phi or of W H."""

    kind: Literal["svd"] = "svd"
    rank: int = Field(4, ge=1, le=1024)
    basis: Basis = "weight"


class HSVDConfig(Config):
    """Global low rank, and rank 1 in every block of the rest (Q-DiT4SR, 2602.01273); as large as an SVD of ``rank``."""

    kind: Literal["hsvd"] = "hsvd"
    rank: int = Field(4, ge=1, le=1024, description="of the plain SVD whose number of parameters is the budget")
    local: float = Field(0.5, ge=0.0, le=1.0, description="share of the rank that is spent on blocks")
    basis: Basis = "weight"
    search: bool = Field(False, description="the plan tries shares and block sizes on every layer's weight instead")
    layout: tuple[Count, Count, Count] | None = Field(None, description="the plan's: rank, parts of outputs, of inputs")


class LoRAConfig(Config):
    """F1 F2 added to the residual before quantization; F1 = 0 at the start, so nothing changes then."""

    kind: Literal["lora"] = "lora"
    rank: int = Field(16, ge=1, le=1024)


SkipConfig = Annotated[NoBranchConfig | SVDConfig | HSVDConfig, Field(discriminator="kind")]
AdapterConfig = Annotated[NoBranchConfig | LoRAConfig, Field(discriminator="kind")]


class BiasConfig(Config):
    """Bias quantized per tensor at ``bits`` between its minimum and maximum; 0 keeps it in floating point.

    ``learnable`` adds a trained number per output channel, from 0 (QuantVSR's learnable bias alignment); role ``bias``.
    """

    bits: Literal[0, 2, 3, 4, 5, 6, 7, 8] = 8
    learnable: bool = False


class LayerRecipe(Config):
    """y = L1 L2 x + Q_W(phi (R + F1 F2)) Q_A(x / phi) + Q_B(b), part by part."""

    weight: QuantizerConfig
    input: QuantizerConfig
    rounding: RoundingConfig = NearestConfig()
    bias: BiasConfig = BiasConfig()
    transform: TransformConfig = NoTransformConfig()
    skip: SkipConfig = NoBranchConfig()
    adapter: AdapterConfig = NoBranchConfig()
    split: Count = Field(0, description="the plan's: the first so many input channels have a range of their own")
    headroom: float = Field(1.0, ge=1, le=16, description="the plan's: of the input's range, see edge_headroom")

    @model_validator(mode="after")
    def _parts_fit(self) -> LayerRecipe:
        if self.weight.kind == "dynamic":
            raise ValueError("weight: dynamic ranges are for inputs; a weight is known beforehand, take minmax")
        if getattr(self.weight, "token", False):
            raise ValueError("weight: a range per token is for inputs; set granularity: channel instead")
        if getattr(self.skip, "basis", "weight") == "rotated" and self.transform.kind != "hadamard":
            raise ValueError("skip: basis rotated needs a rotation; set transform: {kind: hadamard}")
        if getattr(self.skip, "search", False) and getattr(self.skip, "basis", "weight") == "scaled":
            raise ValueError("skip: search looks at weights, and basis scaled is known after calibration; take another")
        if self.rounding.kind != "nearest" and self.weight.kind == "none":
            raise ValueError(f"rounding: a weight in floating point is not rounded, so {self.rounding.kind} has no use")
        return self

    def patches(self) -> int:
        """Input patches per layer that the start of this recipe is computed from; 0: ranges and histograms suffice."""
        fixed = self.input.kind not in ("none", "dynamic") and not getattr(self.input, "token", False)
        asked = (self.rounding, self.transform) if fixed or self.transform.kind != "hadamard" else (self.rounding,)
        return max(getattr(part, "patches", 0) for part in asked)


class MethodConfig(Config):
    """A method: the recipe of its layers, and which layers deviate from the common bit-width and rank."""

    name: str = Field(min_length=1)
    layer: LayerRecipe
    rank_policy: RankPolicyConfig = UniformConfig()
    bits_policy: BitsPolicyConfig = UniformConfig()
    input_bits_policy: InputBitsPolicyConfig = UniformConfig()
    split: Split = Field(False, description="true: inputs that join a skip connection; halves: all, weights too")
    edge_bits: int = Field(8, ge=2, le=8, description="bits of the layers in edge_layers")
    edge_layers: tuple[str, ...] = Field((), description="shell patterns of layer names, e.g. vae.decoder.conv_out")
    edge_headroom: EdgeHeadroom = 1.0
    float_layers: tuple[str, ...] = Field((), description="shell patterns of layers kept in floating point")

    @model_validator(mode="after")
    def _decidable(self) -> MethodConfig:
        if self.layer.split:
            raise ValueError("layer.split is decided layer by layer; set split: true beside layer instead")
        if self.layer.headroom != 1:
            raise ValueError("layer.headroom is decided layer by layer; set edge_headroom beside edge_layers instead")
        if self.input_bits_policy.kind != "uniform" and self.layer.input.kind == "none":
            raise ValueError("input_bits_policy: shares out bits of inputs, but layer.input is none; leave it out")
        if self.split and self.layer.input.kind == "none":
            raise ValueError("split: inputs of kind none have no ranges to split; leave split out")
        if self.split and getattr(self.layer.input, "token", False):
            raise ValueError("split: inputs with a range per token have no ranges to split; leave split out")
        if self.split == "halves" and getattr(self.layer.weight, "granularity", "channel") == "tensor":
            raise ValueError("split: halves have a weight range per output channel; set weight.granularity: channel")
        if self.rank_policy.kind != "uniform" and self.layer.skip.kind == "none":
            raise ValueError(f"rank_policy: {self.rank_policy.kind} shares out ranks, but layer.skip is none")
        return self
