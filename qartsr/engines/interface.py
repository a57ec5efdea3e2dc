"""What an engine is, and the one that needs nothing."""

from __future__ import annotations

from typing import ClassVar, Protocol

import torch

from qartsr.models import Backbone, OneStepSR


class Engine(Protocol):
    """A way to execute a packed model (or a floating-point one, where the engine has no use for codes)."""

    name: ClassVar[str]

    def refusal(self, model: Backbone, device: torch.device) -> str | None:
        """Why this engine cannot run ``model`` on ``device``, a clause for the user; None if it can."""
        ...

    def prepare(self, model: Backbone) -> OneStepSR:
        """The model to run, changed in place or new; called as before: ``model(lq)``, images in [-1, 1].

        ``model`` lies on the device :meth:`refusal` was asked about, and the result must.
        """
        ...


class Simulated:
    """The model as loaded: packed layers decode their codes and compute in fp32; any device."""

    name: ClassVar[str] = "simulated"

    def refusal(self, model: Backbone, device: torch.device) -> str | None:
        """Never refuses."""
        return None

    def prepare(self, model: Backbone) -> OneStepSR:
        """The model itself."""
        return model
