"""Engines: how a packed model is executed. Each takes the model of a package and gives one that runs another way."""

from qartsr.engines.choose import Choice, choose, demand_known, engine_names
from qartsr.engines.integer import Integer
from qartsr.engines.interface import Engine

__all__ = [
    "Choice",
    "Engine",
    "Integer",
    "choose",
    "demand_known",
    "engine_names",
]
