"""The base of all configuration, which is that of a package's header too, and numbers that several sections share."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from qartsr.artifact.base import Config

__all__ = ["Config", "Count", "Decibels", "Factor", "Rate", "Seed", "Side", "Timestep"]

Seed = Annotated[int, Field(ge=0, lt=1 << 63)]
"""What torch's generators take."""
Timestep = Annotated[int, Field(ge=0, le=1000)]
"""An index of Stable Diffusion's scheduler, 0 .. 999; or a thousandth of a flow's time, 1000 at its beginning."""
Count = Annotated[int, Field(ge=0, le=10_000_000)]
"""Of steps, images, pairs: more than any run has, so that a slip of the hand is refused at once and not after hours."""
Side = Annotated[int, Field(ge=8, le=16_384)]
"""Of a crop, in pixels."""
Factor = Annotated[float, Field(ge=0, le=1e6)]
"""A weight of a loss, or what a rate is multiplied by."""
Rate = Annotated[float, Field(ge=0, le=10)]
"""A learning rate."""
Decibels = Annotated[float, Field(ge=-200, le=200)]
"""A PSNR or a difference of two."""
