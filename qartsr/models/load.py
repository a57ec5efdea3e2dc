"""What a run of a model needs of memory, from its facts."""

from __future__ import annotations

from qartsr.artifact.load import Load
from qartsr.models.interface import OneStepSR

_FLOAT, _LIVE, _SCORES = 4, 3, 2


def load_of(model: OneStepSR) -> Load:
    """Three activations of the widest layer at full size, and two matrices of scores of the largest attention."""
    facts = model.facts
    square = facts.attention * _SCORES * _FLOAT / facts.factor**4
    return Load(facts.widest * _FLOAT * _LIVE, square, facts.window)
