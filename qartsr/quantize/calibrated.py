"""The verb of this room: a calibrated, quantized copy of a floating-point model."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import TypeVar

from torch import Tensor

from qartsr.models import Backbone
from qartsr.quantize.apply import apply
from qartsr.quantize.initialise import initialise
from qartsr.quantize.observe import observe
from qartsr.quantize.plan import Plan, patches_needed
from qartsr.quantize.statistics import Statistics

Model = TypeVar("Model", bound=Backbone)
_BATCH = 8


def look(model: Backbone, plan: Plan, lq: Tensor) -> Statistics:
    """What the plan's parts need to know of every layer's input; ``lq`` (N, 3, H, W) in [-1, 1] is run in batches."""
    return observe(model, lq.split(_BATCH), patches_needed(plan))


def quantize(model: Model, plan: Plan, statistics: Statistics, names: Iterable[str] | None = None) -> Model:
    """A copy of ``model`` with the planned layers quantized and calibrated; with ``names`` only these of them.

    ``model`` stays as it is. Raises QartsrError where the plan or the statistics are another model's.
    """
    copied = copy.deepcopy(model)
    chosen = [layer.name for layer in plan.layers] if names is None else list(names)
    apply(copied, plan, chosen)
    initialise(copied, statistics, chosen)
    return copied
