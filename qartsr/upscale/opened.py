"""A source as something that runs: without torch where that can be, else by the engine that is chosen for its model."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from qartsr.errors import QartsrError
from qartsr.upscale.model_source import WEIGHTS, Origin, Package, is_floating, open_source
from qartsr.upscale.network import Network

if TYPE_CHECKING:
    from qartsr.models import OneStepSR

_ENGINES, _DEVICES = ("auto", "openvino"), ("auto", "cpu")
"""What may be asked for of a package that runs without torch."""
_GPUS = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/kfd")
"""One of these is there where torch may find a GPU, on Linux; elsewhere it is asked."""
_INSTALL = "pip install 'qartsr[torch]'"


class Opened(NamedTuple):
    """What runs, by what, and why."""

    model: OneStepSR | Network
    origin: Origin
    engine: str
    device: str
    reason: str


def open_model(locate: Callable[[], Path], device: str, engine: str, threads: int) -> Opened:
    """The model at the path that ``locate`` gives.

    ``device``, ``engine`` and ``threads`` as in :meth:`qartsr.upscale.pipeline.OneStepSRPipeline.from_pretrained`.
    Raises QartsrError for what cannot be loaded, also where it takes torch and there is none.
    """
    torch = importlib.util.find_spec("torch") is not None
    if torch and not (device in _DEVICES and engine in _ENGINES):
        _check(device, engine)
    path = locate()
    obstacle = _obstacle(path, device, engine)
    if obstacle is None and (found := _graphs(path, threads)):
        return found
    if torch:
        return _modules(path, device, engine, threads)
    what = f"takes PyTorch, which is not installed: {obstacle or 'the package has no graphs'}"
    raise QartsrError(what, str(path), f"{_INSTALL}, or give a package with graphs to engine openvino on the CPU")


def _check(device: str, engine: str) -> None:
    """Refuse a device or an engine before anything is fetched."""
    from qartsr.engines import demand_known
    from qartsr.upscale.device import choose_device

    choose_device(device)
    demand_known(engine)


def _obstacle(path: Path, device: str, engine: str) -> str | None:
    """Why it does not go without torch, but for what is in the file; None: it may."""
    if is_floating(path):
        return "it is a floating-point model"
    if engine not in _ENGINES:
        return f"engine {engine} was asked for"
    if device not in _DEVICES or (device == "auto" and gpu_possible()):
        return "a GPU is to be used"
    if importlib.util.find_spec("openvino") is None:
        return "openvino is not installed"
    return None


def gpu_possible() -> bool:
    """Whether torch, which takes seconds to load, might find a GPU here."""
    if importlib.util.find_spec("torch") is None:
        return False
    return not sys.platform.startswith("linux") or any(map(os.path.exists, _GPUS))


def _graphs(path: Path, threads: int) -> Opened | None:
    from qartsr.runtime.network import GraphNetwork
    from qartsr.runtime.package import open_graphs

    file = path / WEIGHTS if path.is_dir() else path
    graphs = open_graphs(file)
    if graphs is None:
        return None
    reason = "the package has its graphs, and OpenVINO is the fastest on a CPU"
    return Opened(GraphNetwork(graphs, threads or processors()), Package(file), "openvino", "cpu", reason)


def _modules(path: Path, device: str, engine: str, threads: int) -> Opened:
    import torch

    from qartsr.engines import choose, demand_known
    from qartsr.models.defaults import usual_defaults
    from qartsr.upscale.device import choose_device

    if threads:
        torch.set_num_threads(threads)
    place = choose_device(device)
    demand_known(engine)
    model, origin = open_source(path)
    choice = choose(engine, model, place)
    with usual_defaults():
        prepared = choice.engine.prepare(model.to(place))
    return Opened(prepared, origin, choice.engine.name, str(place), choice.reason)


def processors() -> int:
    """Threads that torch is set to, if it is loaded, else OMP_NUM_THREADS, else one for each processor allowed."""
    torch = sys.modules.get("torch")
    if torch is not None:
        return int(torch.get_num_threads())
    told = os.environ.get("OMP_NUM_THREADS", "")
    if told.isdecimal() and int(told):
        return int(told)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
