"""Which engine runs a model: the one asked for, or the first that can."""

from __future__ import annotations

from typing import NamedTuple

import torch

from qartsr.engines.family import Engine
from qartsr.engines.simulated import Simulated
from qartsr.engines.triton_engine import Triton
from qartsr.errors import QartsrError
from qartsr.models import OneStepSR

_PREFERRED: tuple[Engine, ...] = (Triton(), Simulated())
"""Fastest first; the last refuses nothing."""


class Choice(NamedTuple):
    """An engine and why it was taken."""

    engine: Engine
    reason: str


def engine_names() -> tuple[str, ...]:
    """What ``engine`` may be."""
    return ("auto", *(engine.name for engine in _PREFERRED))


def choose(name: str, model: OneStepSR, device: torch.device) -> Choice:
    """The engine called ``name``, or for ``auto`` the first of the preferred that can run ``model`` on ``device``.

    Raises QartsrError for an unknown name, and for a named engine that cannot run here.
    """
    if name == "auto":
        return _first(model, device)
    for engine in _PREFERRED:
        if engine.name == name:
            if refusal := engine.refusal(model, device):
                raise QartsrError(f"engine {name} cannot run here: {refusal}", "engine", "choose auto")
            return Choice(engine, "as asked")
    raise QartsrError(f"unknown engine {name!r}", "engine", f"choose one of {', '.join(engine_names())}")


def _first(model: OneStepSR, device: torch.device) -> Choice:
    passed: list[str] = []
    for engine in _PREFERRED:
        refusal = engine.refusal(model, device)
        if refusal is None:
            return Choice(engine, "; ".join((*passed, f"{engine.name} is the fastest that can run")))
        passed.append(f"not {engine.name} ({refusal})")
    raise AssertionError("the last engine refuses nothing")
