"""What a one-step super-resolution network is to the rest of the library, and what a backbone brings.

:class:`OneStepSR` runs: three verbs and a few numbers. An engine answers with one whose verbs are its own.
:class:`Backbone` can also be quantized, trained, packed and stored: it says of what it consists. Everything that is
known about one kind of network stands in its folder beside this file; nobody else spells the name of a layer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, ClassVar, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn

from qartsr.artifact.load import Load
from qartsr.models.colour_fix import align
from qartsr.models.fusion import SIDE_BY_SIDE, Fusion

_FLOAT, _LIVE, _SCORES = 4, 3, 2


class Step(NamedTuple):
    """The denoising step: Z_H = ``latent`` Z_L + ``prediction`` f, where f is what the network predicts.

    QArtSR's Eq. 6 has 1 / sqrt(abar) and -sqrt(1 - abar) / sqrt(abar), a flow of velocity v has 1 and -sigma.
    An error of the prediction reaches Z_H times ``|prediction|``.
    """

    timestep: int
    """what the network is told"""
    latent: float
    prediction: float

    def __call__(self, z_l: Tensor, predicted: Tensor) -> Tensor:
        """Z_H of latents and predictions (B, C, h, w), as Eq. 6 writes it: (Z_L - :attr:`noise` f) / :attr:`signal`."""
        return (z_l - self.noise * predicted) / self.signal

    @property
    def signal(self) -> float:
        """1 / ``latent``; in Eq. 6 sqrt(abar)."""
        return 1 / self.latent

    @property
    def noise(self) -> float:
        """-``prediction`` / ``latent``; in Eq. 6 sqrt(1 - abar), the paper's lambda (theorem of section 3.2)."""
        return -self.prediction / self.latent

    @property
    def amplification(self) -> float:
        """How an error of the prediction reaches Z_H, the paper's kappa."""
        return abs(self.prediction)


class Facts(NamedTuple):
    """Numbers of a network that its callers need."""

    scale: int
    """pixels of the output per pixel of the low-resolution image, along one side"""
    factor: int
    """pixels of the output per pixel of the latent, along one side"""
    multiple: int
    """sides of tiles, and of training crops, are multiples of this"""
    latents: int
    """channels of the latent"""
    scaling: float
    """from the autoencoder's latent to the denoiser's"""
    widest: int
    """channels of the widest activation at the output's size"""
    attention: float
    """scores of the largest attention: these times the square of the number of latent pixels; 0 without attention"""
    window: int = 0
    """longest side of an output that it is meant for, a transformer's own size; 0: any"""
    most: int = 0
    """longest side of an output that it can make; 0: any"""
    patch: int = 1
    """sides of the denoiser's input are multiples of this"""
    frames: int = 1
    """consecutive frames whose latents the denoiser sees: 2 of a model of clips, that of the frame before first"""

    @property
    def side_step(self) -> int:
        """Sides of an image that the network takes are multiples of this, in pixels."""
        return self.factor * self.patch

    @property
    def load(self) -> Load:
        """Three activations of the widest layer at full size, and two matrices of scores of the largest attention."""
        square = self.attention * _SCORES * _FLOAT / self.factor**4
        return Load(self.widest * _FLOAT * _LIVE, square, self.window, self.most)


class OneStepSR(nn.Module, ABC):
    """LR image, already enlarged -> encoder -> denoiser once -> :class:`Step` -> decoder.

    Images are (B, 3, H, W) RGB in [-1, 1], H and W multiples of ``facts.side_step``; latents are (B, C, h, w). The
    posterior's mode is used unless noise is given, so the model is a function of its arguments. A model of clips takes
    (B, 3 F, H, W), F = ``facts.frames``, and restores the last of them; a single image stands for all its frames.

    ``align``: colour fix applied by :meth:`restore`.
    """

    align: str

    @property
    @abstractmethod
    def facts(self) -> Facts:
        """Its numbers."""

    @property
    @abstractmethod
    def step(self) -> Step:
        """The denoising step."""

    @abstractmethod
    def posterior(self, lq: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) image -> mean and log-variance (clamped to -30..20) of the raw latent, (B, C, h, w) each."""

    @abstractmethod
    def predict(self, z_l: Tensor) -> Tensor:
        """Noise, or a flow's velocity (B, C, h, w): what the denoiser predicts of a scaled latent, as large.

        Of a model of clips also (B, C F, h, w), the last frame's; a single latent stands for all its frames.
        """

    @abstractmethod
    def reconstruct(self, raw: Tensor) -> Tensor:
        """(B, C, h, w) raw latent -> image, not clamped."""

    @property
    def fusion(self) -> Fusion:
        """How frames become the denoiser's input."""
        return SIDE_BY_SIDE

    def keep(self, image: Tensor, noise: Tensor | None = None) -> Tensor:
        """What the next frame needs of this one, (B, 3, H, W) -> (B, K, h, w); ``noise`` as in :meth:`encode`."""
        mean, logvar = self.posterior(image)
        z_l = self.facts.scaling * (mean if noise is None else mean + torch.exp(0.5 * logvar) * noise)
        return self.fusion.keep(image, z_l)

    def encode(self, lq: Tensor, noise: Tensor | None = None) -> Tensor:
        """(B, 3, H, W) image -> scaled latent Z_L: the posterior's mode, or its sample for normal ``noise``.

        Of several frames, (B, 3 F, H, W), what the denoiser sees of them, their modes: (B, C F, h, w).
        """
        if lq.shape[1] == 3:
            return self.fusion.see(self.keep(lq, noise)[:, None])
        kept = self.keep(lq.reshape(-1, 3, *lq.shape[2:]))
        return self.fusion.see(kept.unflatten(0, (lq.shape[0], -1)))

    def denoise(self, z_l: Tensor) -> Tensor:
        """Z_L -> Z_H, both scaled; Z_L (B, C, h, w), or (B, C F, h, w) with the frames before it, Z_H of the last."""
        return self.step(z_l[:, -self.facts.latents :], self.predict(z_l))

    def decode(self, z_h: Tensor) -> Tensor:
        """Scaled latent Z_H (B, C, h, w) -> image (B, 3, H, W), not clamped."""
        return self.reconstruct(z_h / self.facts.scaling)

    def forward(self, lq: Tensor, noise: Tensor | None = None) -> Tensor:
        """The network's raw output (B, 3, H, W): no colour fix, no clamp. ``noise`` as in :meth:`encode`."""
        return self.decode(self.denoise(self.encode(lq, noise)))

    def restore(self, lq: Tensor) -> Tensor:
        """The finished image (B, 3, H, W) of ``lq``'s last frame: forward, clamp, colour fix, clamp to [-1, 1]."""
        return align(self.align, self(lq).clamp(-1, 1), lq[:, -3:]).clamp(-1, 1)

    @property
    def device(self) -> torch.device:
        """Where its tensors are; the CPU for a network without any."""
        return next(chain(self.buffers(), self.parameters()), torch.empty(0)).device

    @property
    def dtype(self) -> torch.dtype:
        """What images are handed to it in: that of its weights, float32 where they are codes."""
        floats = (value.dtype for value in self.parameters() if value.is_floating_point())
        return next(floats, torch.float32)


class State(NamedTuple):
    """What flows between segments."""

    hidden: Tensor
    """(B, C, H, W) main hidden state: image, latent or features"""
    beside: Mapping[str, Tensor] = {}
    """what later segments need besides, each (B, ...); a value never changes while it has its name"""


class Segment(NamedTuple):
    """One module of RPQ: its name, its conv and linear layers, and how to run it."""

    name: str
    place: Literal["encoder", "denoiser", "decoder"]
    """the last segment of the denoiser ends in Z_H"""
    layers: tuple[str, ...]
    run: Callable[[Any, State], State]
    """(model, state before) -> state after"""


class Backbone(OneStepSR, ABC):
    """A network of torch modules, all of whose parts have a name.

    A new kind is one folder: a final class with these members, the models of that kind that we know by name, and a
    line in :mod:`qartsr.models.folder`. ``context``: (1, N, D) fixed prompt embedding; no text encoder is in the model.
    """

    kind: ClassVar[str]
    """its name in stored models"""
    parts: ClassVar[Mapping[str, Any]]
    """attribute, first name of layers and stored folder of each part -> its class, with diffusers' ``from_config``"""
    titles: ClassVar[Mapping[str, str]]
    """part -> what a table calls it"""
    denoiser: ClassVar[str]
    """the part that predicts"""
    components: ClassVar[Mapping[str, tuple[str, ...]]]
    """encoder, denoiser and decoder as a table calls them -> how the names of their tensors begin"""
    regions: ClassVar[Mapping[str, tuple[str, ...]]]
    """stretches of the network in inference order -> how the names of their layers begin; the first that fits counts"""
    trained_whole: ClassVar[tuple[str, ...]]
    """layers that are trained themselves where :meth:`lora_targets` get adapters"""

    whole_in_graphs: ClassVar[bool] = True
    """whether graphs of its three parts (:mod:`qartsr.export`) are all of it: packages with them run without torch"""

    context: Tensor
    timestep: int

    @classmethod
    @abstractmethod
    def assemble(cls, parts: Mapping[str, Any], context: Tensor, timestep: int, align: str) -> Self:
        """A model of its parts."""

    @abstractmethod
    def segments(self) -> tuple[Segment, ...]:
        """The modules RPQ trains one by one, in inference order; every quantizable layer is in exactly one.

        Run one after the other they equal :meth:`forward` exactly.
        """

    @abstractmethod
    def skip_joins(self) -> dict[str, int]:
        """Layers whose input is a main path and, behind it, a skip connection -> channels of the main path."""

    @abstractmethod
    def constant_shapes(self, tokens: int) -> dict[str, tuple[int, ...]]:
        """Modules whose output never depends on the image -> the shape of what is kept of it for ``tokens`` tokens.

        In the model's order, before or after folding; see :mod:`qartsr.models.constants`.
        """

    def tables(self) -> dict[str, Tensor]:
        """Tensors that its modules compute beside those it stores, by recipe (:mod:`qartsr.artifact.values`)."""
        return {}

    @abstractmethod
    def lora_targets(self) -> dict[str, str]:
        """Layers that get low-rank adapters in training -> the name of their adapter."""

    @abstractmethod
    def graph_modules(self) -> tuple[nn.Module, ...]:
        """Modules the verbs call that an engine may run in another precision and record as one graph each."""

    @property
    @abstractmethod
    def granule(self) -> int:
        """Sides of latents for which the denoiser needs no special case are multiples of this."""

    def enable_gradient_checkpointing(self) -> None:
        """Parts keep the inputs of their blocks only and compute the rest again on the way back."""
        for part in self.named_parts().values():
            part.enable_gradient_checkpointing()  # type: ignore[operator]  # diffusers' ModelMixin

    def named_parts(self) -> dict[str, nn.Module]:
        """The parts by name."""
        return {name: self.get_submodule(name) for name in self.parts}


def run_segments(model: Backbone, state: State, sequence: Sequence[Segment]) -> State:
    """Run consecutive segments from ``state``."""
    for segment in sequence:
        state = segment.run(model, state)
    return state
