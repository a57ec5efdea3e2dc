"""The engine that needs nothing: codes decoded to floating point, the arithmetic of training."""

from __future__ import annotations

from typing import ClassVar

import torch

from qartsr.models import Backbone, OneStepSR


class Simulated:
    """The model as loaded: packed layers decode their codes and compute in fp32; any device."""

    name: ClassVar[str] = "simulated"

    def refusal(self, model: Backbone, device: torch.device) -> str | None:
        """Never refuses."""
        return None

    def prepare(self, model: Backbone) -> OneStepSR:
        """The model itself."""
        return model
