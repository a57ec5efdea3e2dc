"""The phases of a method, one after another: a killed run goes on with the phase it was at.

A phase of kind ``modules`` (RPQ and its variants) quantizes the model as it goes; any other trains a model that is
quantized and calibrated already.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from qartsr.config.method import ModulesPhase, Phase
from qartsr.models import Backbone
from qartsr.quantize import Plan, load_state, look, quantize, save_state
from qartsr.training.checkpoint import Checkpoint, intact, seal
from qartsr.training.distillation import inside
from qartsr.training.distributed import ALONE, World
from qartsr.training.et import extend, teacher_images
from qartsr.training.loop import ROWS, Curves, unseen
from qartsr.training.optimizer import Setting
from qartsr.training.rpq import reconstruct


class Job(NamedTuple):
    """What phases train with."""

    teacher: Backbone
    lq: Tensor
    """(N, 3, H, W) calibration inputs in [-1, 1]"""
    setting: Setting
    folder: Path
    """scratch: finished phases and checkpoints"""
    seconds: float
    """the most work that a kill may cost"""
    world: World = ALONE
    """the processes that share the steps, each phase in its ``parts``; the first one writes"""


def shared(phases: Sequence[Phase], processes: int) -> int:
    """How many of ``processes`` can share the steps of all ``phases``: a divisor of the parts of each."""
    return math.gcd(processes, *(phase.parts for phase in phases)) if phases else 1


def calibrated(job: Job, decided: Plan) -> Backbone:
    """The teacher with all planned layers quantized at once: where every method starts that does not do RPQ."""
    return quantize(job.teacher, decided, look(job.teacher, decided, job.lq))


def train(job: Job, decided: Plan, phases: Sequence[Phase], curves: Curves, start: Callable[[], Backbone]) -> Backbone:
    """The model after ``phases`` (:func:`qartsr.config.method.lasting`), its losses added to ``curves``.

    ``start`` gives what is trained; a phase of kind ``modules``, which can only be the first, begins with the teacher.
    """
    done, spent = _finished(job, curves), 0
    student = copy.deepcopy(job.teacher)
    if done:
        load_state(student, _kept(job, done - 1))
    elif not (phases and phases[0].kind == "modules"):
        student = start()
    for number, phase in enumerate(phases):
        if number >= done:
            student = _one(job, student, decided, phase, number, spent, curves)
        spent += phase.steps * (len(job.teacher.segments()) if phase.kind == "modules" else 1)
    return student


def _one(job: Job, student: Backbone, decided: Plan, phase: Phase, number: int, spent: int, curves: Curves) -> Backbone:
    """Run a phase and keep what it ends with. ``spent``: steps before it."""
    checkpoint = Checkpoint(job.folder / f"phase-{number}", job.seconds, job.world.is_main_process)
    show = curves.show if curves.show is unseen else lambda seen, step: curves.show(seen, spent + step)
    own = Curves(lambda values, step: curves.log(values, spent + step), show=show)
    if isinstance(phase, ModulesPhase):
        statistics = look(job.teacher, decided, job.lq)
        student = reconstruct(job.teacher, decided, statistics, job.lq, phase, job.setting, own, checkpoint, job.world)
    else:
        images, forward = teacher_images(job.teacher, job.lq, world=job.world), inside(job.teacher, job.lq, phase)
        extend(student, images, job.lq, phase, job.setting, own, checkpoint, forward, job.world)
    own.rows[:] = [{"phase": number, **row, "step": spent + int(row["step"])} for row in own.rows]
    if job.world.is_main_process:
        save_state(student, decided, _kept(job, number))
        own.keep(_kept(job, number) / ROWS)
        seal(_kept(job, number))  # last: it says that the phase is finished
    checkpoint.finish()
    job.world.wait()
    curves.rows += own.rows
    return student


def _finished(job: Job, curves: Curves) -> int:
    """How many phases are finished; their rows go into ``curves``. All have looked before the first one writes."""
    done = 0
    while intact(_kept(job, done)):
        curves.recall(_kept(job, done) / ROWS)
        done += 1
    job.world.wait()
    return done


def _kept(job: Job, number: int) -> Path:
    return job.folder / f"phase-{number}-done"
