"""A model whose three verbs are compiled graphs."""

from __future__ import annotations

from torch import Tensor

from qartsr.engines.openvino_graphs import Graphs
from qartsr.engines.openvino_norms import GraphNorms
from qartsr.models import Backbone, Facts, OneStepSR, Step
from qartsr.models.moments import NormCarrier, Norms


class Compiled(OneStepSR, NormCarrier):
    """``model`` at its own timestep and prompt, which are constants of the graphs.

    The graphs keep its packed layers, for sizes still to come.
    """

    def __init__(self, model: Backbone) -> None:
        super().__init__()
        self.align = model.align
        self._facts, self._step = model.facts, model.step
        self._norms = GraphNorms(model)
        self._graphs = Graphs(model, self._norms)

    @property
    def facts(self) -> Facts:
        """Those of the model."""
        return self._facts

    @property
    def step(self) -> Step:
        """That of the model."""
        return self._step

    def norms(self) -> Norms:
        """Of all three graphs."""
        return self._norms

    def posterior(self, lq: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) image -> mean and log-variance of the raw latent, (B, C, h, w) each."""
        mean, logvar = self._graphs.run("encoder", lq)
        return mean, logvar

    def predict(self, z_l: Tensor) -> Tensor:
        """(B, C, h, w) scaled latent -> what the denoiser predicts."""
        (predicted,) = self._graphs.run("denoiser", z_l)
        return predicted

    def reconstruct(self, raw: Tensor) -> Tensor:
        """(B, C, h, w) raw latent -> image."""
        (image,) = self._graphs.run("decoder", raw)
        return image
