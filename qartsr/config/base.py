"""Frozen, closed pydantic models: an unknown key is refused and the closest valid one is named; numbers are finite."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Seed = Annotated[int, Field(ge=0, lt=1 << 63)]
"""What torch's generators take."""
Timestep = Annotated[int, Field(ge=0, le=999)]
"""An index of the scheduler."""


class Config(BaseModel):
    """Base of every configuration section."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)
