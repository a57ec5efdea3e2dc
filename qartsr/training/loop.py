"""The one training loop, of the sample's recipe, TRQ, RPQ and ET."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from qartsr.errors import DivergedError
from qartsr.files import read_json, write_text
from qartsr.training.checkpoint import Checkpoint

ROWS = "rows.json"
"""Name of the curves that are kept beside a model for a run that goes on."""
Row = dict[str, float | int | str]
Log = Callable[[dict[str, float], int], None]
"""Receives metrics and a step; training knows nothing of the tracking server."""


Show = Callable[[NDArray[np.uint8], int], None]
"""Receives pictures (B, H, W, 3) and a step: what the model in training makes of the same inputs, to be watched."""


def unseen(pictures: NDArray[np.uint8], step: int) -> None:
    """Nobody looks."""


class Curves:
    """Rows of a training run. Every ``every``-th step is kept."""

    def __init__(self, log: Log, every: int = 1, show: Show = unseen) -> None:
        self.rows: list[Row] = []
        self.log, self.show, self._every = log, show, every

    def add(self, step: int, losses: Mapping[str, Tensor], **labels: str) -> None:
        """Record one step; ``losses`` are scalars, ``labels`` become columns of their own (``module``)."""
        if step % self._every:
            return
        values = {name: round(float(value.detach()), 8) for name, value in losses.items()}
        self.rows.append({"step": step, **labels, **values})
        self.log(values, step)

    def keep(self, path: Path) -> None:
        """JSON for :meth:`recall`, unsorted: columns come in their order."""
        write_text(path, json.dumps(self.rows))

    def recall(self, path: Path) -> None:
        """Add the rows that another process kept."""
        self.rows += read_json(path)

    def write(self, path: Path) -> None:
        """CSV with the union of all columns, in order of appearance."""
        columns = list(dict.fromkeys(column for row in self.rows for column in row)) or ["step"]
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(path, text.getvalue())


_LINE_SECONDS = 10.0


class Progress:
    """Progress of ``steps`` steps named ``title``, standing at ``start``; nothing is seen unless ``shown``."""

    def __init__(self, title: str, steps: int, start: int = 0, shown: bool = True) -> None:
        self._title, self._steps, self._done, self._start, self._shown = title, steps, start, start, shown
        self._began = self._printed = time.monotonic()
        hidden = not (shown and sys.stderr.isatty())
        self._bar = tqdm(total=steps, initial=start, desc=title, leave=False, disable=hidden)

    def advance(self, loss: float) -> None:
        """One step is done."""
        self._done += 1
        self._bar.update()
        self._bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
        now = time.monotonic()
        if self._shown and self._bar.disable and now - self._printed >= _LINE_SECONDS:
            self._printed = now
            left = (now - self._began) / (self._done - self._start) * (self._steps - self._done)
            print(
                f"{self._title}: {self._done}/{self._steps}, loss {loss:.4f}, {_clock(left)} left",
                file=sys.stderr,
                flush=True,
            )

    def close(self) -> None:
        """Take the bar away."""
        self._bar.close()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


Step = Callable[[int], dict[str, Tensor]]
"""Does the step with this number, update included, and returns its losses, among them ``total``.

What it draws depends on the number alone, never on a running state.
"""


class Trained(Protocol):
    """Parameters and the state of what updates them: an Optimizer, or several."""

    def state(self) -> dict[str, Tensor]:
        """Everything as named tensors."""

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what :meth:`state` returned, names and shapes alike."""


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
    view: Callable[[], Tensor] | None = None
    """Pictures (B, 3, H, W) in [-1, 1] of some inputs as the model makes them now; draws nothing at random."""
    views: int = 4
    """How often they are shown, the last time at the end; also after the first step, where MLflow's slider begins."""


def fit(run: Run, step: Step, curves: Curves, checkpoint: Checkpoint, start: int = 0) -> None:
    """Run steps ``start`` .. ``run.steps`` - 1; save whenever the checkpoint is due.

    A step is a function of its number, so an interrupted run that continues from a checkpoint ends with the same bytes.
    Raises DivergedError as soon as a loss is no finite number: no step after it would find back.
    """
    progress = Progress(run.title, run.steps, start, run.shown)
    watched = run.shown and run.view is not None and curves.show is not unseen
    seen = {run.steps * part // run.views - 1 for part in range(1, run.views + 1)} if watched else set()
    seen |= {0} if watched and run.offset == 0 else set()
    for number in range(start, run.steps):
        losses = step(number)
        curves.add(run.offset + number, losses, **run.labels)
        loss = float(losses["total"].detach())
        progress.advance(loss)
        if not math.isfinite(loss):
            progress.close()
            what = f"the loss is {loss} at step {number + 1} of {run.steps}"
            raise DivergedError(what, run.title, "train with a lower learning rate")
        if run.view is not None and number in seen:
            with torch.no_grad():
                curves.show(_levels(run.view()), run.offset + number)
        if checkpoint.due():
            save(run, number + 1, curves, checkpoint)
    progress.close()


def _levels(pictures: Tensor) -> NDArray[np.uint8]:
    """[-1, 1] (B, 3, H, W) -> 0 .. 255 (B, H, W, 3)."""
    levels: NDArray[np.uint8] = ((pictures.float() + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return levels


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
