"""Which engine runs a model: the one asked for, or the first that can."""

from __future__ import annotations

from typing import NamedTuple

import torch

from qartsr.engines.integer import Integer
from qartsr.engines.interface import Engine, Simulated
from qartsr.engines.openvino import OpenVINO
from qartsr.engines.triton import Triton
from qartsr.errors import QartsrError
from qartsr.models import Backbone

_PREFERRED: tuple[Engine, ...] = (OpenVINO(), Simulated())
"""Fastest first; the last refuses nothing."""
_ON_REQUEST: tuple[Engine, ...] = (Triton(), Integer())
"""Never taken by ``auto``: Triton's kernels have not been timed on a GPU yet, the integer reference is slow."""


class Choice(NamedTuple):
    """An engine and why it was taken."""

    engine: Engine
    reason: str


def engine_names() -> tuple[str, ...]:
    """What ``engine`` may be."""
    return ("auto", *(engine.name for engine in (*_PREFERRED, *_ON_REQUEST)))


def demand_known(name: str) -> None:
    """Raise QartsrError for a name that is none of :func:`engine_names`: a model need not be loaded to see that."""
    if name not in engine_names():
        raise QartsrError(f"unknown engine {name!r}", "engine", f"choose one of {', '.join(engine_names())}")


def choose(name: str, model: Backbone, device: torch.device) -> Choice:
    """The engine called ``name``, or for ``auto`` the first of the preferred that can run ``model`` on ``device``.

    Raises QartsrError for an unknown name, and for a named engine that cannot run here.
    """
    demand_known(name)
    if name == "auto":
        return _first(model, device)
    (engine,) = (each for each in (*_PREFERRED, *_ON_REQUEST) if each.name == name)
    if refusal := engine.refusal(model, device):
        raise QartsrError(f"engine {name} cannot run here: {refusal}", "engine", "choose auto")
    return Choice(engine, "as asked")


def _first(model: Backbone, device: torch.device) -> Choice:
    passed: list[str] = []
    for engine in _PREFERRED:
        refusal = engine.refusal(model, device)
        if refusal is None:
            return Choice(engine, "; ".join((*passed, f"{engine.name} is the fastest that can run")))
        passed.append(f"not {engine.name} ({refusal})")
    raise AssertionError("the last engine refuses nothing")
