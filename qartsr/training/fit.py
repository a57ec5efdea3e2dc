"""The one training loop, of the sample's recipe, TRQ, RPQ and ET."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from qartsr.training.checkpoint import Checkpoint
from qartsr.training.curves import Curves
from qartsr.training.progress import Progress

Step = Callable[[int], dict[str, Tensor]]
"""Does the step with this number, update included, and returns its losses, among them ``total``.

What it draws depends on the number alone, never on a running state.
"""


class Trained(Protocol):
    """Parameters and the state of what updates them: an Optimizer, or several."""

    def state(self) -> dict[str, Tensor]:
        """Everything as named tensors."""

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what :meth:`state` returned."""


class Run(NamedTuple):
    """One phase of training: ``steps`` steps of ``optimizer``. ``labels`` name the phase in curves and checkpoints."""

    title: str
    steps: int
    optimizer: Trained
    labels: dict[str, str]
    extra: Callable[[], dict[str, Tensor]] = dict
    """Values to save beside the optimizer's, ``value/NAME`` (parameters that do not train at the moment)."""
    offset: int = 0
    """Number of steps done in earlier phases: curves count on."""
    shown: bool = True
    """Whether this process shows progress; of several, one does."""


def fit(run: Run, step: Step, curves: Curves, checkpoint: Checkpoint, start: int = 0) -> None:
    """Run steps ``start`` .. ``run.steps`` - 1; save whenever the checkpoint is due.

    A step is a function of its number, so an interrupted run that continues from a checkpoint ends with the same bytes.
    """
    progress = Progress(run.title, run.steps, start, run.shown)
    for number in range(start, run.steps):
        losses = step(number)
        curves.add(run.offset + number, losses, **run.labels)
        progress.advance(float(losses["total"].detach()))
        if checkpoint.due():
            save(run, number + 1, curves, checkpoint)
    progress.close()


def save(run: Run, step: int, curves: Curves, checkpoint: Checkpoint) -> None:
    """Write the state after ``step`` steps of this run."""
    position: dict[str, Any] = {"step": step, "labels": run.labels, "rows": curves.rows}
    checkpoint.save({**run.optimizer.state(), **run.extra()}, position)


def resume(run: Run, curves: Curves, checkpoint: Checkpoint) -> int:
    """Restore the run from its checkpoint; returns the step to go on with (0 at a fresh start)."""
    state = checkpoint.load()
    if state is None or state[1]["labels"] != run.labels:
        return 0
    tensors, position = state
    run.optimizer.restore(tensors)
    curves.rows[:] = position["rows"]
    return int(position["step"])
