"""A row of the experiments, trained: its phases one after another (:mod:`qartsr.training.phases`) under one budget.

Every trained row sees the same number of steps and samples: each phase takes its share. No phases: calibrated only
(MaxMin, SVDQuant).
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from qartsr.config import Bits
from qartsr.config.method import Budget, CommonConfig, MethodRow, lasting, training
from qartsr.models import Backbone
from qartsr.quantize import plan, round_for_storage
from qartsr.training import phases
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
