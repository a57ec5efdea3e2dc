"""One cell of the comparison: a method at a bit-width, its learning rate chosen, all seeds trained and measured.

Every trained row tries the same rates on the first seed, for the same share of the steps, and keeps the one whose
images come closest to the floating-point model's on calibration pairs that were not trained on. Where that is the first
or the last, further rates are tried beyond it, up to a bound. Test images choose nothing.

Every trained row sees the same number of steps and samples: each phase takes its share. No phases: calibrated only
(MaxMin, SVDQuant).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from experiments.study.measure import DIGITS, Judge, layer_errors, means, restored
from experiments.study.sets import Windows, load_inputs
from qartsr.config import Bits, parse_bits
from qartsr.config.experiment import BudgetConfig
from qartsr.config.method import Budget, CommonConfig, MethodRow, lasting, training
from qartsr.errors import DivergedError
from qartsr.files import read_json, write_bytes, write_json, write_text
from qartsr.models import Backbone
from qartsr.quantize import plan, round_for_storage
from qartsr.training import phases
from qartsr.training.checkpoint import intact, seal
from qartsr.training.loop import Curves, Row
from qartsr.training.optimizer import Setting


class Trained(NamedTuple):
    """A quantized model, rounded for storage as a package stores it, and how it came to be."""

    model: Backbone
    rows: tuple[Row, ...]
    """losses of every step, with the column ``phase``"""
    samples: int
    """samples seen: steps times batch"""


class Job(NamedTuple):
    """What a row is trained with; ``setting.lr_scale`` is the learning rate that the phases' ``rates`` multiply."""

    teacher: Backbone
    lq: Tensor
    """(N, 3, H, W) calibration inputs in [-1, 1]"""
    steps: int
    batch: int
    setting: Setting
    folder: Path
    """scratch: finished phases and checkpoints; a killed run goes on from there"""
    seconds: float


def train_method(job: Job, row: MethodRow, common: CommonConfig, bits: Bits) -> Trained:
    """Quantize a copy of the teacher by ``row`` and train it phase by phase; ends with the same bytes after a kill."""
    decided = plan(job.teacher, row.planned(common), bits, job.lq)
    modules, curves = len(job.teacher.segments()), Curves(lambda values, step: None)
    asked = lasting(training(row.phases, Budget(steps=job.steps, batch=job.batch, lr=1.0)), modules)
    same = phases.Job(job.teacher, job.lq, job.setting, job.folder, job.seconds)
    student = phases.train(same, decided, asked, curves, lambda: phases.calibrated(same, decided))
    round_for_storage(student)
    steps = sum(phase.steps * (modules if phase.kind == "modules" else 1) for phase in asked)
    return Trained(student, tuple(curves.rows), steps * job.batch)


_RESULT = "result.json"
_FILES = ("images.safetensors", "curves.csv", _RESULT)
"""Of a finished run; a trial has the result alone."""
_DIVERGED = 0.0
"""dB: the least that :func:`agreement` can be, white for black."""


class Cell(NamedTuple):
    """What a cell is made from. ``scratch`` survives a kill and is removed by the stage."""

    teacher: Backbone
    row: MethodRow
    bits: str
    common: CommonConfig
    budget: BudgetConfig
    setting: Setting
    """its seed and rate are set anew for every run"""
    samples: Path
    scratch: Path
    seconds: float


def run_cell(cell: Cell, seeds: tuple[int, ...], rates: tuple[float, ...], judge: Judge) -> dict[str, Any]:
    """Results of all seeds as JSON; what an interrupted process finished is read back."""
    budget, tried = cell.budget, dict[float, dict[str, Any]]()
    steps = budget.steps if len(rates) == 1 or not cell.row.phases else max(1, round(budget.search * budget.steps))
    trial = cell._replace(budget=budget.model_copy(update={"steps": steps}))
    judged = judge if steps == budget.steps else None  # as long as the seed's own run, it is that run
    for rate in rates if cell.row.phases else (0.0,):
        tried[rate] = _tried(trial, seeds[0], rate, judged)
    for _ in range(budget.more_rates if len(tried) > 1 else 0):
        further = beyond({rate: run["choice"] for rate, run in tried.items()})
        if further is None:
            break
        tried[further] = _tried(trial, seeds[0], further, judged)
    tried = dict(sorted(tried.items()))
    best = max(tried, key=lambda rate: tried[rate]["choice"])
    runs = {str(seed): _run(cell, seed, best, judge) for seed in seeds}
    return {
        "title": cell.row.title,
        "bits": cell.bits,
        "timestep": cell.row.timestep,
        "rate": best,
        "tried": {repr(rate): run["choice"] for rate, run in tried.items()} if cell.row.phases else {},
        "tried_with": tried[best]["samples"],
        "seeds": {seed: {key: run[key] for key in ("samples", "sets", "means")} for seed, run in runs.items()},
        "layers": runs[str(seeds[0])]["layers"],
    }


def beyond(choices: Mapping[float, float]) -> float | None:
    """The rate to try next, as far beyond the end as its neighbour lies within; None where the best is no end.

    ``choices``: rate -> what it is chosen by, the larger the better; of equals the smaller rate is the best.
    """
    rates = sorted(choices)
    best = max(rates, key=lambda rate: choices[rate])
    ends = {rates[0]: rates[1], rates[-1]: rates[-2]}
    return float(f"{best * best / ends[best]:.3g}") if best in ends else None


def write_cell(cell: Cell, results: dict[str, Any], seed: int, windows: Mapping[str, Windows], out: Path) -> None:
    """``results.json``, the losses and the restored windows of one seed."""
    folder = _folder(cell, seed, results["rate"])
    images = load_file(folder / "images.safetensors")
    write_bytes(out / "images.safetensors", save({name: images[name] for name in windows}))
    write_text(out / "curves.csv", (folder / "curves.csv").read_text(encoding="utf-8"))
    write_json(out / "results.json", results)


def _tried(cell: Cell, seed: int, rate: float, judge: Judge | None) -> dict[str, Any]:
    """As :func:`_run`, but a rate at which training diverges is the worst there is."""
    told = _folder(cell, seed, rate) / "diverged.json"
    if not intact(told):
        try:
            return _run(cell, seed, rate, judge)
        except DivergedError as error:
            write_json(told, {"samples": 0, "choice": _DIVERGED, "error": str(error)})
            seal(told)
    found: dict[str, Any] = read_json(told)
    return found


def _run(cell: Cell, seed: int, rate: float, judge: Judge | None) -> dict[str, Any]:
    """Without a judge, a trial of the rate: it is chosen by calibration pairs, so the test windows are not restored."""
    folder = _folder(cell, seed, rate)
    made = _FILES if judge else (_RESULT,)
    if all(intact(folder / name) for name in made):
        found: dict[str, Any] = read_json(folder / _RESULT)
        return found
    lq, held = (part.to(cell.teacher.context.device) for part in load_inputs(cell.samples, seed, cell.budget.length))
    setting = cell.setting._replace(seed=seed, lr_scale=rate)
    job = Job(cell.teacher, lq, cell.budget.steps, cell.budget.batch, setting, folder, cell.seconds)
    trained = train_method(job, cell.row, cell.common, parse_bits(cell.bits))
    choice = round(agreement(cell.teacher, trained.model, held), DIGITS)
    result: dict[str, Any] = {"samples": trained.samples, "choice": choice}
    if judge:
        images = judge.images(trained.model)
        scores = judge.scores(images)
        layers = layer_errors(cell.teacher, trained.model, held[:4])
        result |= {"sets": scores, "means": means(scores), "layers": layers}
        write_bytes(folder / "images.safetensors", save(images))
        curves = Curves(lambda values, step: None)
        curves.rows[:] = trained.rows
        curves.write(folder / "curves.csv")
    write_json(folder / _RESULT, result)
    for name in made:
        seal(folder / name)
    return result


def agreement(teacher: Backbone, student: Backbone, held: Tensor) -> float:
    """PSNR in dB of the student's 8-bit images against the teacher's, RGB, over all inputs (N, 3, H, W) in [-1, 1]."""
    lq = ((held + 1) * 127.5).round().to(torch.uint8).cpu()
    error = (restored(student, lq).double() - restored(teacher, lq).double()).square().mean()
    return float(10 * torch.log10(255**2 / error.clamp_min(1e-3)))


def _folder(cell: Cell, seed: int, rate: float) -> Path:
    return cell.scratch / f"seed-{seed}-rate-{rate!r}-steps-{cell.budget.steps}"
