"""Steps of RPQ and ET at full size on a GPU: seconds and peak memory of each, with random weights and pictures."""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

from qartsr import losses
from qartsr.config import Params, parse_bits
from qartsr.config.method import ModelPhase, ModulesPhase, training
from qartsr.config.training import LPIPSConfig
from qartsr.models import Backbone
from qartsr.quantize import look, plan, quantize
from qartsr.synthetic import ARCHITECTURES, random_model
from qartsr.training.checkpoint import Checkpoint
from qartsr.training.et import extend, teacher_images
from qartsr.training.loop import Curves
from qartsr.training.optimizer import Setting
from qartsr.training.rpq import reconstruct


class _TimeIsUpError(Exception):
    pass


class _Steps:
    """Takes a run's curves for a clock: seconds and peak memory of every step."""

    def __init__(self, device: torch.device, over: Callable[[], bool]) -> None:
        self.rows: list[dict[str, float]] = []
        self._device, self._over = device, over
        self._last = _now(device)
        _peak(device)

    def __call__(self, values: Mapping[str, float], step: int) -> None:
        now = _now(self._device)
        self.rows.append({"step": step, "seconds": round(now - self._last, 4), "peak_gb": _peak(self._device)})
        if self._over():
            raise _TimeIsUpError
        self._last = _now(self._device)


def measure(
    arch: str, params: Params, bits: str, size: int, device: torch.device, over: Callable[[], bool], steps: int = 3
) -> Iterator[dict[str, Any]]:
    """What is known after each part: preparation, RPQ's modules (``steps`` each), ET's steps."""
    teacher = random_model(ARCHITECTURES[arch](), 0).to(device)
    lq = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)).mul_(2).sub_(1).to(device)
    began = _now(device)
    decided = plan(teacher, params.method.planned(params.common), parse_bits(bits), lq)
    statistics = look(teacher, decided, lq)
    looked = _now(device)
    student = quantize(teacher, decided, statistics)
    result: dict[str, Any] = {
        "arch": arch, "size": size, "bits": bits, "lpips": "VGG, random weights", "parameters": _count(teacher),
        "calibration_seconds_of_2": round(looked - began, 2), "initialisation_seconds": round(_now(device) - looked, 2),
    }  # fmt: skip
    yield result
    setting = Setting(LPIPSConfig(backbone="vgg"), params.backbone.train_align, 1.0, 0)
    rpq, et = training(params.method.phases, params.budget).phases
    assert isinstance(rpq, ModulesPhase) and isinstance(et, ModelPhase)
    with patch.object(losses, "_pretrained", _random_vgg):
        result["et"] = _et(student, teacher, lq, et.model_copy(update={"steps": steps + 2}), setting, over)
    del student
    yield result
    with patch.object(losses, "_pretrained", _random_vgg):
        result["rpq"] = _rpq(teacher, decided, statistics, lq, rpq.model_copy(update={"steps": steps}), setting, over)
    yield result


def _et(
    student: Backbone,
    teacher: Backbone,
    lq: torch.Tensor,
    phase: ModelPhase,
    setting: Setting,
    over: Callable[[], bool],
) -> list[dict[str, float]]:
    images = teacher_images(teacher, lq, 1)
    clock = _Steps(lq.device, over)
    with tempfile.TemporaryDirectory() as folder:
        try:
            extend(student, images, lq, phase, setting, Curves(clock), Checkpoint(Path(folder), 3600.0))
        except _TimeIsUpError:
            print("ET: the time is up", flush=True)
    return clock.rows


def _rpq(
    teacher: Backbone, decided: Any, statistics: Any, lq: torch.Tensor, phase: ModulesPhase, setting: Setting,
    over: Callable[[], bool],
) -> list[dict[str, Any]]:  # fmt: skip
    """Rows by module, from the output to the input; the first step of a module quantizes it too and is left out."""
    clock = _Steps(lq.device, over)
    with tempfile.TemporaryDirectory() as folder:
        try:
            reconstruct(
                teacher, decided, statistics, lq, phase, setting, Curves(clock), Checkpoint(Path(folder), 3600.0)
            )
        except _TimeIsUpError:
            print("RPQ: the time is up", flush=True)
    names = [unit.name for unit in teacher.segments()][::-1]
    return [
        {"module": name, "seconds": min(row["seconds"] for row in rows[1:]), "peak_gb": max(r["peak_gb"] for r in rows)}
        for number, name in enumerate(names)
        if len(rows := clock.rows[number * phase.steps : (number + 1) * phase.steps]) > 1
    ]


def _random_vgg(config: LPIPSConfig) -> nn.Module:
    """The paper's loss without its weights: the same operations, the same bytes."""
    import lpips

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network: nn.Module = lpips.LPIPS(net="vgg", pnet_rand=True, pretrained=False, verbose=False)
    return network


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _peak(device: torch.device) -> float:
    """GB since the last look."""
    if device.type != "cuda":
        return 0.0
    found = torch.cuda.max_memory_allocated() / 1e9
    torch.cuda.reset_peak_memory_stats()
    return round(found, 2)
