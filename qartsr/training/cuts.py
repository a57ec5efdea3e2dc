"""The floating-point teacher's state at every cut between units, computed once and kept on disk.

The output of unit k is the input of unit k + 1, so one pass of the teacher serves every module's input, every
module's target and the final image. RPQ never runs the teacher again (QArtSR section 3.3; caching is ours).
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from qartsr.files import replacing
from qartsr.models import OneStepSR, State, Unit


class Cuts:
    """Cut k is the state before unit k; cut K, after the last unit, holds the images."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self._folder, self._device = folder, device

    def load(self, index: int) -> State:
        """The state of all samples at a cut, batched along dimension 0."""
        return _state({name: value.to(self._device) for name, value in load_file(self._path(index)).items()})

    def fill(self, teacher: OneStepSR, lq: Tensor, sequence: tuple[Unit, ...], batch: int = 8) -> None:
        """Compute all cuts for ``lq`` (N, 3, H, W) in [-1, 1], unless an interrupted run left them."""
        if all(self._path(index).exists() for index in range(len(sequence) + 1)):
            return
        states = [State(part.to(self._device)) for part in lq.split(batch)]
        self._write(0, states)
        with torch.no_grad():
            for index, unit in enumerate(sequence):
                states = [unit.run(teacher, state) for state in states]
                self._write(index + 1, states)

    def _write(self, index: int, states: list[State]) -> None:
        columns = [_tensors(state) for state in states]
        joined = {name: torch.cat([column[name] for column in columns]).contiguous().cpu() for name in columns[0]}
        with replacing(self._path(index)) as temporary:
            save_file(joined, temporary)

    def _path(self, index: int) -> Path:
        return self._folder / f"cut-{index:02d}.safetensors"


def select(state: State, index: Tensor) -> State:
    """The samples ``index`` of a batched state."""
    return _state({name: value[index] for name, value in _tensors(state).items()})


def _tensors(state: State) -> dict[str, Tensor]:
    tensors = {f"skip.{number:02d}": skip for number, skip in enumerate(state.skips)}
    tensors["hidden"] = state.hidden
    if state.latent is not None:
        tensors["latent"] = state.latent
    if state.embedding is not None:
        tensors["embedding"] = state.embedding
    return tensors


def _state(tensors: dict[str, Tensor]) -> State:
    skips = tuple(tensors[name] for name in sorted(tensors) if name.startswith("skip."))
    return State(tensors["hidden"], tensors.get("latent"), tensors.get("embedding"), skips)
