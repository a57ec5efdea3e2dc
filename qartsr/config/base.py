"""The base of all configuration, which is that of a package's header too, and numbers that several sections share."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from qartsr.artifact.base import Config

__all__ = ["Config", "Seed", "Timestep"]

Seed = Annotated[int, Field(ge=0, lt=1 << 63)]
"""What torch's generators take."""
Timestep = Annotated[int, Field(ge=0, le=1000)]
"""An index of Stable Diffusion's scheduler, 0 .. 999; or a thousandth of a flow's time, 1000 at its beginning."""
