"""From a floating-point model to a quantized one: plan, observe, apply, initialise, save."""

from qartsr.quantize.apply import apply, initialise, parameters_by_role, quantized, round_for_storage
from qartsr.quantize.plan import LayerPlan, Plan, plan, quantizable
from qartsr.quantize.state import load_state, read_plan, save_state
from qartsr.quantize.statistics import LayerStatistics, Statistics, observe

__all__ = [
    "LayerPlan",
    "LayerStatistics",
    "Plan",
    "Statistics",
    "apply",
    "initialise",
    "load_state",
    "observe",
    "parameters_by_role",
    "plan",
    "quantizable",
    "quantized",
    "read_plan",
    "round_for_storage",
    "save_state",
]
