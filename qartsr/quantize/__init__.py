"""From a float model to a quantized one: ``quantize(model, plan, look(model, plan, lq))``, or step by step.

Plan, observe, apply, initialise; then a quantized model's roles, rounding and storage.
"""

from qartsr.quantize.calibration import InputStatistics, Statistics, load_statistics, observe
from qartsr.quantize.initialise import initialise, look, quantize
from qartsr.quantize.layers import apply, parameters_by_role, quant_layers
from qartsr.quantize.plan import LayerPlan, Plan, patches_needed, plan
from qartsr.quantize.select import quantizable
from qartsr.quantize.state import STORAGE, load_plan, load_state, round_for_storage, save_state

__all__ = [
    "STORAGE",
    "InputStatistics",
    "LayerPlan",
    "Plan",
    "Statistics",
    "apply",
    "initialise",
    "load_plan",
    "load_state",
    "load_statistics",
    "look",
    "observe",
    "parameters_by_role",
    "patches_needed",
    "plan",
    "quant_layers",
    "quantizable",
    "quantize",
    "round_for_storage",
    "save_state",
]
