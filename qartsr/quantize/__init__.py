"""From a float model to a quantized one: ``quantize(model, plan, look(model, plan, lq))``, or step by step.

Plan, observe, apply, initialise; then a quantized model's roles, rounding and storage.
"""

from qartsr.quantize.apply import apply, quant_layers
from qartsr.quantize.calibrated import look, quantize
from qartsr.quantize.initialise import initialise
from qartsr.quantize.names import quantizable
from qartsr.quantize.observe import observe
from qartsr.quantize.plan import LayerPlan, Plan, patches_needed, plan
from qartsr.quantize.roles import parameters_by_role
from qartsr.quantize.state import load_plan, load_state, save_state
from qartsr.quantize.statistics import InputStatistics, Statistics, load_statistics
from qartsr.quantize.storage import STORAGE, round_for_storage

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
