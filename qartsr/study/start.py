"""From a row and calibration inputs to what training starts from: the plan, the statistics, a calibrated model."""

from __future__ import annotations

import copy
from collections.abc import Iterable

from torch import Tensor

from qartsr.config import Bits
from qartsr.config.experiment import CommonConfig, MethodRow
from qartsr.config.parts import MethodConfig
from qartsr.models import OneStepSR
from qartsr.quantize import Plan, Statistics, apply, initialise, observe, patches_needed, plan

_BATCH = 8


def decide(teacher: OneStepSR, row: MethodRow, common: CommonConfig, bits: Bits, lq: Tensor) -> Plan:
    """The plan of a row at a bit-width; ``lq`` (N, 3, H, W) in [-1, 1] is run where ranks are shared out by inputs."""
    policies = {"rank_policy": row.rank_policy, "bits_policy": row.bits_policy, "split": row.split}
    return plan(teacher, MethodConfig(name=row.title, layer=row.layer, **policies, **common.model_dump()), bits, lq)


def look(teacher: OneStepSR, decided: Plan, lq: Tensor) -> Statistics:
    """What the plan's parts need to know of every layer's input."""
    return observe(teacher, lq.split(_BATCH), patches_needed(decided))


def quantized(
    teacher: OneStepSR, decided: Plan, statistics: Statistics, names: Iterable[str] | None = None
) -> OneStepSR:
    """A calibrated copy; with ``names`` only these layers are quantized."""
    copied = copy.deepcopy(teacher)
    chosen = [layer.name for layer in decided.layers] if names is None else list(names)
    apply(copied, decided, chosen)
    initialise(copied, statistics, chosen)
    return copied
