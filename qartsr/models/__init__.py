"""One-step networks: what they are to everybody else, their kinds (a folder each), colour fix and storage."""

from qartsr.artifact.header import is_folded
from qartsr.models.colour_fix import align
from qartsr.models.constants import Constant, constants, fold_constants, place_constants
from qartsr.models.folder import architecture, blank, load_model, save_model, skeleton
from qartsr.models.interface import Backbone, Facts, OneStepSR, Segment, State, Step, run_segments

__all__ = [
    "Backbone",
    "Constant",
    "Facts",
    "OneStepSR",
    "Segment",
    "State",
    "Step",
    "align",
    "architecture",
    "blank",
    "constants",
    "fold_constants",
    "is_folded",
    "load_model",
    "place_constants",
    "run_segments",
    "save_model",
    "skeleton",
]
