"""The floating-point teacher's state at every cut between units, computed once and kept on disk, one file per sample.

The output of unit k is the input of unit k + 1, so one pass of the teacher serves every module's input, every
module's target and the final image (QArtSR section 3.3; caching is ours). Only the samples of a step are read. A UNet
skip is the same at every cut that has it and is kept once; states that are large beside the work of making them, the
last ones of a decoder, are not kept: the teacher's units between the cut before and them run again.

At OSEDiff's size, 512 x 512, that is 0.16 GB per sample instead of 0.72.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from qartsr.files import read_json, replacing, write_json
from qartsr.models import Backbone, Segment, State, run_segments
from qartsr.training.checkpoint import intact, seal
from qartsr.training.distributed import ALONE, World

_LIMIT = 1 << 26
"""Bytes of a sample's hidden state that is still kept (64 MiB)."""


class _Moments(NamedTuple):
    """Sums over all elements seen, in float64."""

    number: int
    total: float
    squares: float

    @classmethod
    def of(cls, x: Tensor) -> _Moments:
        """Those of ``x`` (B, ...), sample by sample: no copy of all of it."""
        parts = [each.double() for each in x]
        return cls(x.numel(), sum(float(p.sum()) for p in parts), sum(float(p.square().sum()) for p in parts))

    def plus(self, other: _Moments) -> _Moments:
        """Of all elements of both."""
        return _Moments(self.number + other.number, self.total + other.total, self.squares + other.squares)

    def variance(self) -> float:
        """Unbiased, as torch's."""
        return (self.squares - self.total**2 / self.number) / (self.number - 1)


class ActivationCache:
    """Cut k is the state before unit k; cut K, after the last unit, holds the images.

    ``lq``: (N, 3, H, W) inputs in [-1, 1]; their device is where states go. ``limit``: see above.
    """

    def __init__(
        self, folder: Path, teacher: Backbone, sequence: tuple[Segment, ...], lq: Tensor, limit: int = _LIMIT
    ) -> None:
        self._folder, self._teacher, self._sequence, self._lq, self._limit = folder, teacher, sequence, lq, limit

    @property
    def samples(self) -> int:
        """How many there are."""
        return len(self._lq)

    @torch.no_grad()
    def fill(self, batch: int = 8, world: World = ALONE) -> None:
        """Compute and keep the states of all samples, unless this has been done. Each process makes some of them."""
        if world.spread(1, lambda _: intact(self._folder))[0]:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        parts = torch.arange(len(self._lq)).split(batch)
        made = world.spread(len(parts), lambda number: self._fill_part(parts[number]))
        if world.is_main_process:
            facts: list[dict[str, Any]] = made[-1][0]
            for cut, fact in enumerate(facts):
                seen = functools.reduce(_Moments.plus, (moments[cut] for _, moments in made), _Moments(0, 0.0, 0.0))
                fact["variance"] = float(torch.tensor(seen.variance()))
            write_json(self._facts_path, facts)
            seal(self._folder)  # last: it says that all is there
        world.wait()

    def _fill_part(self, part: Tensor) -> tuple[list[dict[str, Any]], list[_Moments]]:
        """Keep the states of the samples ``part`` (B,); what each cut consists of, and its moments."""
        tensors, facts, moments = dict[str, Tensor](), list[dict[str, Any]](), list[_Moments]()
        state = State(self._lq[part])
        for cut in range(len(self._sequence) + 1):
            state = self._sequence[cut - 1].run(self._teacher, state) if cut else state
            moments.append(_Moments.of(state.hidden))
            facts.append(self._keep(tensors, cut, state))
        for place, sample in enumerate(part.tolist()):
            own = {
                name: value[place : place + 1].clone(memory_format=torch.contiguous_format)
                for name, value in tensors.items()
            }
            with replacing(self._path(sample)) as temporary:
                save_file(own, temporary)
        return facts, moments

    def load(self, cut: int, index: Tensor) -> State:
        """The state of the samples ``index`` (B,) at a cut, (B, ...)."""
        facts, samples = read_json(self._facts_path), index.tolist()
        if not facts[cut]["kept"]:
            before = max(number for number in range(cut) if facts[number]["kept"])
            with torch.no_grad():
                return run_segments(self._teacher, self.load(before, index), self._sequence[before:cut])
        names = [_hidden(cut), *facts[cut]["beside"]]
        read: dict[str, list[Tensor]] = {name: [] for name in names}
        for sample in samples:
            with safe_open(self._path(sample), framework="pt") as handle:
                for name in names:
                    read[name].append(handle.get_tensor(name))
        found = {name: torch.cat(values).to(self._lq.device) for name, values in read.items()}
        return State(found.pop(_hidden(cut)), found)

    def variance(self, cut: int) -> Tensor:
        """Of the hidden state over all samples, fp32."""
        return torch.tensor(read_json(self._facts_path)[cut]["variance"], device=self._lq.device)

    def _keep(self, tensors: dict[str, Tensor], cut: int, state: State) -> dict[str, Any]:
        """Put what is new at this cut into ``tensors``; returns what the cut consists of."""
        kept = cut == 0 or state.hidden[0].numel() * state.hidden.element_size() <= self._limit
        new = {**({_hidden(cut): state.hidden} if kept else {}), **state.beside}
        tensors |= {name: value.cpu() for name, value in new.items() if name not in tensors}
        return {"kept": kept, "beside": list(state.beside)}

    @property
    def _facts_path(self) -> Path:
        return self._folder / "cuts.json"

    def _path(self, sample: int) -> Path:
        return self._folder / f"sample-{sample:05d}.safetensors"


def _hidden(cut: int) -> str:
    return f"hidden-{cut:02d}"
