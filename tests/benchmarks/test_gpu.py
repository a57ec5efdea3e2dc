"""The GPU benchmark runs through on the CPU at tiny sizes, and says so where there is no GPU."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import gpu, gpu_checks, gpu_kernels, gpu_model, gpu_training
from benchmarks.gpu_timing import interleaved, wall_clock
from qartsr import losses
from qartsr.config import load_params
from qartsr.engines.triton import Triton
from qartsr.kernels.plain import PlainKernels
from qartsr.models import OneStepSR

CPU = torch.device("cpu")
PARAMS = Path(__file__).parents[2] / "params.yaml"
TINY = (gpu_kernels.Shape(32, 4, 6), gpu_kernels.Shape(32, 5, 7))


def plain(table: Any) -> PlainKernels:
    return PlainKernels()


def on_plain(resident: bool) -> Callable[[OneStepSR], OneStepSR]:
    return lambda model: Triton(graphs=False, resident=resident).rebuilt(model, PlainKernels())


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu"])
    assert gpu.main() == 1
    assert "no CUDA GPU is present" in capsys.readouterr().err


def test_contenders_take_turns_and_the_first_rounds_do_not_count() -> None:
    seen: list[str] = []
    times = interleaved({"a": lambda: seen.append("a"), "b": lambda: seen.append("b")}, 2, wall_clock)
    assert seen == ["a", "b"] * 5 and [len(values) for values in times.values()] == [2, 2]


class _NotYetError(Exception):
    """A part of the work that a test leaves out."""


def test_kernels_are_checked_and_a_wrong_one_is_found() -> None:
    found = gpu_checks.check(plain, CPU, 2)
    assert found["failed"] == [] and {row["cases"] for row in found["kernels"].values()} == {2}

    class Wrong(PlainKernels):
        def product(self, codes: Tensor, *arguments: Any) -> Tensor:
            return super().product(codes.clone().index_fill_(1, torch.tensor(0), 1), *arguments)

        def quantize(self, x: Tensor, codes: Any) -> Tensor:
            raise _NotYetError("no")

    wrong = gpu_checks.check(lambda table: Wrong(), CPU, 1)
    assert [line.split()[0] for line in wrong["failed"]] == ["product", "quantize", "activate"]
    assert gpu_checks.check(plain, CPU, 1, over=lambda: True)["kernels"]["product"]["cases"] == 0


@pytest.mark.long
def test_everything_but_the_gpu(tmp_path: Path) -> None:
    rows = gpu_kernels.measure(TINY, CPU, plain, {}, 1, wall_clock)
    table = gpu_kernels.tune(TINY[:1], CPU, plain, 4, lambda run: 1.0 if run() is not None else 2.0)
    assert gpu_kernels.tune(TINY[:1], CPU, plain, 4, wall_clock, over=lambda: True) == {}
    every = gpu_model.builders("sample", 4, 2, "none", CPU, on_plain)
    contenders = (pair for pair in every if pair[0].startswith("triton"))
    first, model = gpu_model.measure(contenders, 32, 1, wall_clock, CPU)
    assert set(first["milliseconds"]) == {"triton"}
    times = iter([False] * 7 + [True] * 2)
    pretrained = losses._pretrained
    *_, trained = gpu_training.measure("sample", load_params(PARAMS), "w2a2", 32, CPU, lambda: next(times), steps=2)
    assert len(trained["rpq"]) == 2 and len(trained["et"]) == 4
    assert losses._pretrained is pretrained  # random features stand in while steps are timed, and no longer
    result = {
        "date": "2026-01-01",
        "gpu": {"name": "GPU", "processors": 1, "memory_gb": 1},
        "versions": gpu.versions(),
        "settings": {"rounds": 1, "tuned": True, "batch": 1},
        "parts": {"checks": {"ended": "whole", "seconds": 1.0}},
        "checks": gpu_checks.check(plain, CPU, 1),
        "ceilings": gpu_kernels.ceilings(CPU, 1, wall_clock, side=32),
        "vae": rows,
        "unet": rows[:1],
        "tiles": gpu_kernels.stored(table),
        "training": trained,
        "model": {"arch": "sample", "size": 32, "bits": 4, "rank": 2, **model},
    }
    path = tmp_path / "result.json"
    path.write_text(json.dumps(result))
    assert gpu.read_tiles(path) == table
    text = gpu.as_markdown(result)
    assert "| triton, weights packed |" in text and "geometric mean, VAE" in text and "| ET |" in text
    nothing = dict.fromkeys(("checks", "ceilings", "training", "model"))
    assert gpu.as_markdown(result | nothing).count("Not measured") == 4
