"""The one-step network as compiled graphs: encode, one denoising step, decode."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qartsr.errors import QartsrError
from qartsr.runtime.graphs import Graphs
from qartsr.runtime.norms import GraphNorms
from qartsr.runtime.package import PackageGraphs

Floats = NDArray[np.float32]


class GraphNetwork:
    """A package on this CPU; see :class:`qartsr.upscale.network.Network`. For one thread at a time."""

    def __init__(self, package: PackageGraphs, threads: int) -> None:
        self._facts, self.identity = package.facts, package.identity
        self.device, self.load = "cpu", package.facts.load
        self.align, self.frames = package.facts.align, package.facts.frames
        self.side_step, self.multiple = package.facts.factor * package.facts.patch, package.facts.multiple
        self._norms = GraphNorms(package.group_norms)
        self._graphs = Graphs(package, self._norms, threads)

    def runner(self, size: tuple[int, int], seed: int | None, memory: Any = None) -> Any:
        """Runs tiles. Raises QartsrError for a seed: noise is torch's."""
        if seed is not None:
            what = "a sample of the encoder's posterior is drawn by torch alone"
            raise QartsrError(what, "seed", "load the package with qartsr.packing.load_package")
        if memory is None:
            return lambda image, place: self(image)
        return lambda image, place: self._restored(z_l := self._latent(image), memory.exchange(place, z_l))

    def __call__(self, image: Floats) -> Floats:
        """(3, H, W) in [-1, 1], sides multiples of ``side_step`` -> the network's raw output, not clamped."""
        z_l = self._latent(image)
        return self._restored(z_l, z_l)

    def _latent(self, image: Floats) -> Floats:
        self.load.demand_fits(*image.shape[1:])
        mean, _ = self._graphs.run("encoder", image[None])
        scaled: Floats = mean * np.float32(self._facts.scaling)
        return scaled

    def _restored(self, z_l: Floats, before: Floats) -> Floats:
        """``before``: the latent of the frame before, which a model of images does not look at."""
        facts = self._facts
        seen = z_l if facts.frames == 1 else np.concatenate([before, z_l], 1)
        (predicted,) = self._graphs.run("denoiser", seen)
        moved: Floats = z_l - np.float32(facts.noise) * predicted
        z_h: Floats = moved / np.float32(facts.signal)
        raw: Floats = z_h / np.float32(facts.scaling)
        (found,) = self._graphs.run("decoder", raw)
        return found[0]

    def norms(self) -> GraphNorms:
        """Its GroupNorms."""
        return self._norms
