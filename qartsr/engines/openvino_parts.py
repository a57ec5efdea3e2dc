"""UNet and VAE as compiled graphs, called like the diffusers modules they stand for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from torch import Tensor, nn

from qartsr.engines.openvino_graphs import Graphs
from qartsr.engines.openvino_norms import GraphNorms
from qartsr.models import OneStepSR
from qartsr.models.moments import NormCarrier, Norms


def compiled_parts(model: OneStepSR) -> tuple[nn.Module, nn.Module]:
    """(UNet, VAE) that run as graphs of ``model``'s, which keep its packed layers for sizes still to come."""
    source = OneStepSR(model.unet, model.vae, model.context, model.timestep, model.align)
    norms = GraphNorms(source)
    graphs = Graphs(source, norms)
    return CompiledUNet(model.unet.config, graphs, norms), CompiledVAE(model.vae.config, graphs)


class CompiledUNet(NormCarrier):
    """The UNet at the model's own timestep and prompt: they are constants of its graph."""

    def __init__(self, config: Any, graphs: Graphs, norms: GraphNorms) -> None:
        super().__init__()
        self.config, self._graphs, self._norms = config, graphs, norms

    def norms(self) -> Norms:
        """Of UNet and VAE."""
        return self._norms

    def forward(self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor) -> SimpleNamespace:
        """(B, C, h, w) latent -> ``.sample``, the noise."""
        (noise,) = self._graphs.run("denoiser", sample)
        return SimpleNamespace(sample=noise)


class CompiledVAE(nn.Module):
    """The VAE."""

    def __init__(self, config: Any, graphs: Graphs) -> None:
        super().__init__()
        self.config, self._graphs = config, graphs

    def encode(self, image: Tensor) -> SimpleNamespace:
        """(B, 3, H, W) -> ``.latent_dist`` with ``mean`` and ``logvar``."""
        mean, logvar = self._graphs.run("encoder", image)
        return SimpleNamespace(latent_dist=SimpleNamespace(mean=mean, logvar=logvar))

    def decode(self, latent: Tensor) -> SimpleNamespace:
        """(B, C, h, w) -> ``.sample``, the image."""
        (image,) = self._graphs.run("decoder", latent)
        return SimpleNamespace(sample=image)
