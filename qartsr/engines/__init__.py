"""Engines: how a packed model is executed. Each takes the model of a package and gives one that runs another way."""

from qartsr.engines.choose import Choice, choose, demand_known, engine_names
from qartsr.engines.family import Engine
from qartsr.engines.integer import Integer
from qartsr.engines.integer_grid import ShiftedGrid, shifted
from qartsr.engines.phases import phase_convolution, phase_kernels

__all__ = [
    "Choice",
    "Engine",
    "Integer",
    "ShiftedGrid",
    "choose",
    "demand_known",
    "engine_names",
    "phase_convolution",
    "phase_kernels",
    "shifted",
]
