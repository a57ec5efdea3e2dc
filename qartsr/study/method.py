"""A method is a row: the recipe of its layers and its training phases, run one after another under one budget.

A phase of kind ``modules`` (RPQ and its variants) quantizes the model as it goes; without one, the whole model is
quantized and calibrated at once (order "none"). No phases: calibrated only (MaxMin, SVDQuant).

Every trained row sees the same number of steps and samples: each phase takes its share, a ``modules`` phase divides its
own evenly over the modules, and what this rounds away goes to the phase after it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from qartsr.config import Bits
from qartsr.config.experiment import CommonConfig, MethodRow, ModelPhase, ModulesPhase, Phase
from qartsr.config.training import ExtendConfig, QuantizeConfig
from qartsr.files import read_json, write_json
from qartsr.models import OneStepSR, units
from qartsr.quantize import Plan, load_state, round_for_storage, save_state
from qartsr.study.start import decide, look, quantized
from qartsr.training.checkpoint import Checkpoint
from qartsr.training.curves import Curves, Row
from qartsr.training.et import extend, teacher_images
from qartsr.training.inner import inside
from qartsr.training.optimizer import Setting
from qartsr.training.rpq import reconstruct


class Trained(NamedTuple):
    """A quantized model, rounded for storage as a package stores it, and how it came to be."""

    model: OneStepSR
    rows: tuple[Row, ...]
    """losses of every step, with the column ``phase``"""
    samples: int
    """samples seen: steps times batch"""


class Job(NamedTuple):
    """What a row is trained with; ``setting.lr_scale`` is the learning rate that the phases' ``rates`` multiply."""

    teacher: OneStepSR
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
    decided = decide(job.teacher, row, common, bits, job.lq)
    steps = allocate(row.phases, job.steps, len(units(job.teacher)))
    rows: list[Row] = []
    student, done = _finished(job, row, rows)
    if not done and not (row.phases and row.phases[0].kind == "modules"):
        student = quantized(job.teacher, decided, look(job.teacher, decided, job.lq))
    for number in range(done, len(row.phases)):
        curves = Curves(lambda values, step: None)
        student = _run(job, student, decided, row.phases[number], steps[number], number, curves)
        found: list[Row] = [{"phase": number, **entry} for entry in curves.rows]
        save_state(student, decided, _kept(job, number))
        write_json(_kept(job, number) / "rows.json", found)
        rows += found
    round_for_storage(student)
    return Trained(student, tuple(rows), sum(steps) * job.batch)


def allocate(phases: Sequence[Phase], steps: int, modules: int) -> list[int]:
    """Steps of each phase. Of ``modules`` phases a multiple of the number of modules; the last phase gets the rest."""
    found: list[int] = []
    for phase in phases:
        left = steps - sum(found)
        wanted = left if phase is phases[-1] else min(left, round(steps * phase.share))
        found.append(wanted // modules * modules if phase.kind == "modules" else wanted)
    return found


def _run(
    job: Job, student: OneStepSR, decided: Plan, phase: Phase, steps: int, number: int, curves: Curves
) -> OneStepSR:
    checkpoint = Checkpoint(job.folder / f"phase-{number}", job.seconds)
    if isinstance(phase, ModulesPhase):
        config = _modules(phase, steps // len(units(job.teacher)), job.batch)
        statistics = look(job.teacher, decided, job.lq)
        return reconstruct(job.teacher, decided, statistics, job.lq, config, job.setting, curves, checkpoint)
    whole = _model(phase, steps, job.batch)
    images, forward = teacher_images(job.teacher, job.lq), inside(job.teacher, job.lq, whole)
    extend(student, images, job.lq, whole, job.setting, curves, checkpoint, forward)
    return student


def _modules(phase: ModulesPhase, steps: int, batch: int) -> QuantizeConfig:
    return QuantizeConfig(
        order=phase.order, steps_per_module=steps, batch=batch, lr=phase.rates, loss=phase.loss,
        module_loss=phase.module_loss, train_quantized=phase.train_quantized, image_every=phase.image_every,
    )  # fmt: skip


def _model(phase: ModelPhase, steps: int, batch: int) -> ExtendConfig:
    return ExtendConfig(
        steps=steps, batch=batch, lr=phase.rates, loss=phase.loss, latent_loss=phase.latent_loss,
        encoder_loss=phase.encoder_loss, feature_loss=phase.feature_loss,
    )  # fmt: skip


def _finished(job: Job, row: MethodRow, rows: list[Row]) -> tuple[OneStepSR, int]:
    """The student after the last finished phase, its rows put into ``rows``, and how many phases are finished."""
    student, done = copy.deepcopy(job.teacher), 0
    while done < len(row.phases) and (_kept(job, done) / "rows.json").exists():
        rows += read_json(_kept(job, done) / "rows.json")
        done += 1
    if done:
        load_state(student, _kept(job, done - 1))
    return student, done


def _kept(job: Job, number: int) -> Path:
    return job.folder / f"phase-{number}-done"
