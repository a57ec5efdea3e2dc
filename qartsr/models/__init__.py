"""The one-step model: structure, schedule, colour fix, storage, and the units RPQ quantizes one by one."""

from qartsr.models.align import align
from qartsr.models.constant import (
    Constant,
    constant_shapes,
    constants,
    fold_constants,
    is_folded,
    place_constants,
)
from qartsr.models.one_step import OneStepSR
from qartsr.models.sample import sample_backbone
from qartsr.models.schedule import NoiseLevel, alphas_cumprod, noise_level
from qartsr.models.staged import State, Unit, run_units, units
from qartsr.models.store import architecture, load_model, save_model, skeleton

__all__ = [
    "Constant",
    "NoiseLevel",
    "OneStepSR",
    "State",
    "Unit",
    "align",
    "alphas_cumprod",
    "architecture",
    "constant_shapes",
    "constants",
    "fold_constants",
    "is_folded",
    "load_model",
    "noise_level",
    "place_constants",
    "run_units",
    "sample_backbone",
    "save_model",
    "skeleton",
    "units",
]
