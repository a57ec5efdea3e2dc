"""Which layers deviate from the common bit-width and rank, as configuration."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from qartsr.config.base import Config, Count


class UniformConfig(Config):
    """Every layer alike."""

    kind: Literal["uniform"] = "uniform"


class STCAConfig(Config):
    """Rank by complexity of the layer's input (QuantVSR), at the parameters of the uniform rank or as voted.

    Every calibration image, or clip, votes: +1 where the complexity is at or above the ``upper`` quantile over all
    layers and images, -1 at or below the ``lower``; of a clip the spatial and the temporal one must both be. Layers
    whose input has one position ask for the minimum and do not count. See :mod:`qartsr.quantize.rank_budgets`.
    """

    kind: Literal["stca"] = "stca"
    minimum: int = Field(16, ge=1, le=1024)
    maximum: int = Field(64, ge=1, le=1024)
    multiple: int = Field(8, ge=1, le=64, description="ranks are multiples of this, or the layer's full rank")
    lower: float = Field(0.25, ge=0, le=1)
    upper: float = Field(0.75, ge=0, le=1)
    frames: Count = Field(
        1, ge=1, description="calibration images in a row that are one clip; 1: images, no temporal half"
    )
    budget: Literal["uniform", "votes"] = Field(
        "uniform", description="ranks as large together as the uniform one, or as voted, at whatever size results"
    )

    @model_validator(mode="after")
    def _in_order(self) -> STCAConfig:
        if self.minimum > self.maximum or self.lower > self.upper:
            raise ValueError("minimum and lower must not exceed maximum and upper")
        return self


class VaSMPConfig(Config):
    """Weight bits by the variance of the layer's weights (Q-DiT4SR), at the mean bits of the bit-width."""

    kind: Literal["vasmp"] = "vasmp"
    spread: int = Field(1, ge=0, le=6, description="bits differ from the bit-width by at most so much, within 2..8")
    exact: bool = Field(False, description="the mean is the bit-width to the last bit; else not above it")


class VarianceConfig(Config):
    """Input bits by the mean square of what a layer multiplies, at the bit-width's mean over all products (ours).

    At one timestep Q-DiT4SR's schedule of input bits has nothing to share; over layers the same argument has. See
    :func:`qartsr.quantize.bit_budgets.allocate_input_bits`.
    """

    kind: Literal["variance"] = "variance"
    spread: int = Field(1, ge=0, le=6, description="bits differ from the bit-width by at most so much, within 2..8")


Split = bool | Literal["halves"]
"""Several input ranges per layer: at the true boundary of joined inputs (``true``), or for both halves of the channels
of every layer, of its weight too (``halves``: QuantVSR, and PassionSR's UNet; an odd number is not split)."""
RankPolicyConfig = Annotated[UniformConfig | STCAConfig, Field(discriminator="kind")]
BitsPolicyConfig = Annotated[UniformConfig | VaSMPConfig, Field(discriminator="kind")]
InputBitsPolicyConfig = Annotated[UniformConfig | VarianceConfig, Field(discriminator="kind")]
EdgeHeadroom = Annotated[
    float,
    Field(
        ge=1,
        le=16,
        description="inputs of edge layers start with a range so many times what calibration saw: at 8 bits that costs "
        "little, and colours that calibration never saw are not cut off; 1: as the layer's recipe says",
    ),
]
