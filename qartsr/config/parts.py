"""Configuration of the parts of one quantized layer (Eq. 9): quantizers, transform, skip branch, adapter.

``kind`` selects the part; ``none`` is the null object of its family.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from qartsr.config.base import Config

Granularity = Literal["tensor", "channel"]
RangeInit = Literal["minmax", "mse"]


class NoQuantizerConfig(Config):
    """Keep the tensor in floating point."""

    kind: Literal["none"] = "none"


class MinMaxConfig(Config):
    """Affine grid between the observed minimum and maximum; nothing is learned."""

    kind: Literal["minmax"] = "minmax"
    granularity: Granularity = "tensor"


class PercentileConfig(Config):
    """Affine grid between two percentiles of the observed values; nothing is learned."""

    kind: Literal["percentile"] = "percentile"
    granularity: Granularity = "tensor"
    percentile: float = Field(99.9, gt=50.0, le=100.0)


class LSQConfig(Config):
    """Learned step size (LSQ, 1902.08153), symmetric; ``offset`` adds LSQ+'s learned offset."""

    kind: Literal["lsq"] = "lsq"
    granularity: Granularity = "tensor"
    offset: bool = False


class LBQConfig(Config):
    """Learned lower and upper bounds (PassionSR, Eq. 5 to 7), affine."""

    kind: Literal["lbq"] = "lbq"
    granularity: Granularity = "tensor"
    init: RangeInit = "minmax"


QuantizerConfig = Annotated[
    NoQuantizerConfig | MinMaxConfig | PercentileConfig | LSQConfig | LBQConfig, Field(discriminator="kind")
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


TransformConfig = Annotated[NoTransformConfig | ChannelScaleConfig | ChannelAffineConfig, Field(discriminator="kind")]


class NoBranchConfig(Config):
    """No low-rank branch."""

    kind: Literal["none"] = "none"


class SVDConfig(Config):
    """Truncated SVD of the weight: L1 = U sqrt(S), L2 = sqrt(S) V^T. ``basis``: of W or of W phi."""

    kind: Literal["svd"] = "svd"
    rank: int = Field(4, ge=1, le=1024)
    basis: Literal["weight", "scaled"] = "weight"


class LoRAConfig(Config):
    """F1 F2 added to the residual before quantization; F1 = 0 at the start, so nothing changes then."""

    kind: Literal["lora"] = "lora"
    rank: int = Field(16, ge=1, le=1024)


SkipConfig = Annotated[NoBranchConfig | SVDConfig, Field(discriminator="kind")]
AdapterConfig = Annotated[NoBranchConfig | LoRAConfig, Field(discriminator="kind")]


class BiasConfig(Config):
    """Bias quantized per tensor at ``bits`` between its minimum and maximum; 0 keeps it in floating point."""

    bits: Literal[0, 2, 3, 4, 5, 6, 7, 8] = 8


class LayerRecipe(Config):
    """y = L1 L2 x + Q_W(phi (R + F1 F2)) Q_A(x / phi) + Q_B(b), part by part."""

    weight: QuantizerConfig
    input: QuantizerConfig
    bias: BiasConfig = BiasConfig()
    transform: TransformConfig = NoTransformConfig()
    skip: SkipConfig = NoBranchConfig()
    adapter: AdapterConfig = NoBranchConfig()


class MethodConfig(Config):
    """A method: the recipe of its layers, and which layers deviate from the common bit-width."""

    name: str = Field(min_length=1)
    layer: LayerRecipe
    edge_bits: int = Field(8, ge=2, le=8, description="bits of the layers in edge_layers")
    edge_layers: tuple[str, ...] = Field((), description="shell patterns of layer names, e.g. vae.decoder.conv_out")
    float_layers: tuple[str, ...] = Field((), description="shell patterns of layers kept in floating point")
