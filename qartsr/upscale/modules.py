"""A torch model as :class:`qartsr.upscale.network.Network`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from qartsr.artifact.load import Load
from qartsr.models import OneStepSR
from qartsr.models.defaults import usual_defaults
from qartsr.models.moments import ModuleNorms
from qartsr.runtime.moments import Norms
from qartsr.upscale.memory import LatentMemory
from qartsr.upscale.network import Run
from qartsr.upscale.places import Place


class ModuleNetwork:
    """Runs where the model lies."""

    def __init__(self, model: OneStepSR) -> None:
        self._model = model
        self.device = str(model.device)
        self.align, self.frames = model.align, model.facts.frames
        self.side_step, self.multiple = model.facts.side_step, model.facts.multiple

    @property
    def load(self) -> Load:
        """What a run needs of memory."""
        return self._model.facts.load

    @usual_defaults()
    def runner(self, size: tuple[int, int], seed: int | None, memory: LatentMemory | None = None) -> Run:
        """The noise of the posterior's sample is that of the whole latent, so tiles agree on it."""
        model, factor = self._model, self._model.facts.factor
        shape = (1, model.facts.latents, size[0] // factor, size[1] // factor) if seed is not None else (0,)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed or 0))
        device, dtype = model.device, model.dtype

        @torch.no_grad()
        @usual_defaults()
        def run(image: NDArray[np.float32], place: Place) -> NDArray[np.float32]:
            part = torch.from_numpy(np.ascontiguousarray(image))[None].to(device, dtype)
            if memory is not None:
                kept = model.keep(part)
                seen = model.fusion.see(torch.stack([memory.exchange(place, kept), kept], 1))
                output = model.decode(model.denoise(seen))
            elif seed is None:
                output = model(part)
            else:
                rows, columns = (
                    slice(side.start // factor, side.stop // factor) for side in (place.rows, place.columns)
                )
                output = model(part, noise[:, :, rows, columns].to(device, dtype))
            found: NDArray[np.float32] = output[0].float().cpu().numpy()
            return found

        return run

    def norms(self) -> Norms:
        """Those that the model brings, else those of its modules."""
        bring: Any = getattr(self._model, "norms", None)
        return bring() if callable(bring) else ModuleNorms(self._model)
