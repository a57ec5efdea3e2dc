"""Engines: how a packed model is executed. Each takes the model of a package and gives one that runs another way."""

from qartsr.engines.choose import Choice, choose, demand_known, engine_names
from qartsr.engines.family import Engine

__all__ = ["Choice", "Engine", "choose", "demand_known", "engine_names"]
