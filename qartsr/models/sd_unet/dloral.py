"""DLoRAL (2506.15591): Stable Diffusion 2.1-base that sees the frame before, one step Z_H = Z' - f at index 1.

The frame before is brought to where this frame shows the same. SPyNet (1611.00850, as BasicVSR uses it) finds the flow
on LR frames at the latent's size. By it the latent of the frame before is warped, W, and what of W is alike is added to
the latent of this frame:

    Z' = Z + P relu((Q K^T / sqrt(d) - theta(Q)) / 3000) V,    Q of Z; K and V of W

Rows are not normalised, so a place without a match adds nothing. The denoiser sees (W, Z').
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qartsr.models.interface import Segment, State, Step
from qartsr.models.sd_unet.diffusers_imports import AutoencoderKL, UNet2DConditionModel
from qartsr.models.sd_unet.model import AbstractSDUNet

TIMESTEP = 1
PUBLISHED: dict[str, Any] = {"latents": 4, "heads": 9, "width": 64, "widths": (32, 64, 32, 16), "factor": 8}
"""Sizes of :class:`CrossFrame`."""
_SMALL = "small frames"
_LEVELS = 6
_GRANULE = 2 ** (_LEVELS - 1)
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_TEMPERATURE = 3000.0
_QUERIES = 1024
"""Rows of scores held at once."""


class CrossFrame(nn.Module):
    """How DLoRAL's denoiser sees a frame and the one before; see :class:`qartsr.models.interface.Fusion`.

    Parameters
    ----------
    latents: channels of the latent.
    heads, width: of retrieval; published 9 and 64.
    widths: channels between the five convolutions of each of SPyNet's levels; published 32, 64, 32, 16.
    factor: pixels per pixel of the latent.
    """

    def __init__(self, latents: int, heads: int, width: int, widths: tuple[int, ...], factor: int) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "latents": latents,
            "heads": heads,
            "width": width,
            "widths": list(widths),
            "factor": factor,
        }
        self.spynet, self.retrieval = SPyNet(tuple(widths)), Retrieval(latents, heads, width)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """From what :attr:`config` says; names that begin with an underscore are ignored."""
        return cls(**{key: value for key, value in config.items() if not key.startswith("_")})

    def enable_gradient_checkpointing(self) -> None:
        """It has no blocks: nothing is computed again."""

    def keep(self, image: Tensor, latent: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] and its scaled latent (B, C, h, w) -> (B, C + 3, h, w): the image at its size too."""
        return torch.cat([latent, self.reduced(image).to(latent.dtype)], 1)

    def reduced(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3, h, w), bicubic without a filter, as the published code makes it."""
        return F.interpolate(image.float(), scale_factor=1 / int(self.config["factor"]), mode="bicubic")

    def see(self, frames: Tensor) -> Tensor:
        """(B, F, C + 3, h, w), what was kept of F = 1 or 2 frames, the last one now -> (W, Z') as (B, 2 C, h, w)."""
        latents = int(self.config["latents"])
        (before, image_before), (now, image) = (
            (kept[:, :latents], kept[:, latents:]) for kept in (frames[:, 0], frames[:, -1])
        )
        warped = warp(before, self.spynet(image, image_before))
        return torch.cat([warped, now + self.retrieval(now, warped)], 1)


class SPyNet(nn.Module):
    """Optical flow from coarse to fine: each level adds to twice the flow of the one below, six from 1/32 on."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.levels = nn.ModuleList([_level(widths) for _ in range(_LEVELS)])

    def forward(self, now: Tensor, before: Tensor) -> Tensor:
        """(B, 3, h, w) frames -> (B, 2, h, w): where ``before`` shows what ``now`` does, pixels across and down.

        Published weights expect [-1, 1] here, although they are normalised as [0, 1] would be.
        """
        height, width = now.shape[2:]
        sides = (_multiple(height), _multiple(width))
        frames = [F.interpolate(frame, sides, mode="bilinear") for frame in (now, before)]
        flow = F.interpolate(self._flow(*map(_normalised, frames)), (height, width), mode="bilinear")
        return flow * flow.new_tensor([width / sides[1], height / sides[0]]).view(2, 1, 1)

    def _flow(self, now: Tensor, before: Tensor) -> Tensor:
        pyramid = [(now, before)]
        for _ in range(_LEVELS - 1):
            pyramid.append((F.avg_pool2d(pyramid[-1][0], 2), F.avg_pool2d(pyramid[-1][1], 2)))
        coarsest = pyramid[-1][0]
        flow = coarsest.new_zeros(coarsest.shape[0], 2, *coarsest.shape[2:])
        for level, (here, there) in zip(self.levels, reversed(pyramid), strict=True):
            if flow.shape[2:] != here.shape[2:]:
                flow = 2 * F.interpolate(flow, here.shape[2:], mode="bilinear", align_corners=True)
            flow = flow + level(torch.cat([here, warp(there, flow, "border"), flow], 1))
        return flow


def _level(widths: tuple[int, ...]) -> nn.Sequential:
    """Five 7 x 7 convolutions of (this frame, the warped one before, flow): 8 -> ... -> 2 channels."""
    sides, layers = (8, *widths, 2), list[nn.Module]()
    for inputs, outputs in pairwise(sides):
        layers += [nn.Conv2d(inputs, outputs, 7, padding=3), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _multiple(side: int) -> int:
    return -(-side // _GRANULE) * _GRANULE


def _normalised(frame: Tensor) -> Tensor:
    mean, deviation = (frame.new_tensor(values).view(3, 1, 1) for values in (_MEAN, _DEVIATION))
    return (frame - mean) / deviation


def warp(features: Tensor, flow: Tensor, outside: str = "zeros") -> Tensor:
    """``features`` (B, C, h, w) at x + ``flow`` (B, 2, h, w; pixels across and down), bilinear.

    ``outside``: what lies beyond the edges, zeros or border.
    """
    height, width = flow.shape[2:]
    down, across = (torch.arange(side, device=flow.device, dtype=flow.dtype) for side in (height, width))
    x = 2 * (across + flow[:, 0]) / max(width - 1, 1) - 1
    y = 2 * (down[:, None] + flow[:, 1]) / max(height - 1, 1) - 1
    grid = torch.stack([x, y], 3).to(features.dtype)
    return F.grid_sample(features, grid, mode="bilinear", padding_mode=outside, align_corners=True)


class Retrieval(nn.Module):
    """What of the warped latent is alike, by attention whose scores are held against a learned threshold."""

    def __init__(self, latents: int, heads: int, width: int) -> None:
        super().__init__()
        self.heads, self.width = heads, width
        self.query, self.key, self.value = (nn.Conv2d(latents, heads * width, 1) for _ in range(3))
        self.threshold = nn.Linear(width, 1)
        self.out = nn.Conv2d(heads * width, latents, 1)

    def forward(self, now: Tensor, warped: Tensor) -> Tensor:
        """(B, C, h, w) latents of this frame and of the one before -> what is added to the first, as large."""
        query, key, value = self._split(self.query(now)), self._split(self.key(warped)), self._split(self.value(warped))
        found = []
        for rows in query.split(_QUERIES, 2):
            scores = torch.matmul(rows, key.transpose(2, 3)) / math.sqrt(self.width)
            alike = F.relu((scores - self.threshold(rows)) / _TEMPERATURE)
            found.append(torch.matmul(alike, value))
        joined = torch.cat(found, 2).transpose(2, 3).reshape(now.shape[0], -1, *now.shape[2:])
        added: Tensor = self.out(joined)
        return added

    def _split(self, x: Tensor) -> Tensor:
        """(B, heads width, h, w) -> (B, heads, h w, width)."""
        return x.view(x.shape[0], self.heads, self.width, -1).transpose(2, 3)


class DLoRAL(AbstractSDUNet):
    """VAE encoder of both frames -> warped and retrieved latents -> UNet once at ``timestep`` -> Z' - f -> VAE decoder.

    ``frames``: what brings the frame before here, in floating point (``common.float_layers``).
    """

    kind: ClassVar = "dloral"
    parts: ClassVar = {**AbstractSDUNet.parts, "frames": CrossFrame}
    titles: ClassVar = {**AbstractSDUNet.titles, "frames": "flow and retrieval"}
    components: ClassVar = {"flow and retrieval": ("frames.",), **AbstractSDUNet.components}
    regions: ClassVar = {**AbstractSDUNet.regions, "flow and retrieval": ("frames.",)}
    whole_in_graphs: ClassVar = False

    def __init__(
        self,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL,
        frames: CrossFrame,
        context: Tensor,
        timestep: int,
        align: str = "none",
    ) -> None:
        super().__init__(unet, vae, context, timestep, align)
        self.frames = frames

    @classmethod
    def assemble(cls, parts: Mapping[str, Any], context: Tensor, timestep: int, align: str) -> Self:
        """A model of ``unet``, ``vae`` and ``frames``; ``context``: (1, N, D)."""
        return cls(parts["unet"], parts["vae"], parts["frames"], context, timestep, align)

    @property
    def fusion(self) -> CrossFrame:
        """Flow and retrieval."""
        return self.frames

    @property
    def step(self) -> Step:
        """Z' - f, whatever the timestep."""
        return Step(self.timestep, 1.0, -1.0)

    def segments(self) -> tuple[Segment, ...]:
        """As OSEDiff's; flow and retrieval end the encoder's last. ``small frames``: (B, 3 F, h, w) until then."""
        first, *others = super().segments()
        last = next(place for place, segment in enumerate(others) if segment.place == "denoiser") - 1
        layers = (name for name, part in self.named_modules() if isinstance(part, nn.Conv2d | nn.Linear))
        inside = (*others[last].layers, *(name for name in layers if name.startswith("frames.")))
        ended = others[last]._replace(layers=inside, run=_then_seen(others[last]))
        return (first._replace(run=_with_small(first)), *others[:last], ended, *others[last + 1 :])


def _with_small(segment: Segment) -> Any:
    def run(model: DLoRAL, state: State) -> State:
        both = state.hidden if state.hidden.shape[1] > 3 else state.hidden.repeat(1, model.facts.frames, 1, 1)
        small = model.frames.reduced(both)
        return segment.run(model, State(both, {_SMALL: small}))

    return run


def _then_seen(segment: Segment) -> Any:
    def run(model: DLoRAL, state: State) -> State:
        made, count = segment.run(model, state), model.facts.frames
        small = made.beside[_SMALL].to(made.hidden.dtype)
        frames = [latent.unflatten(1, (count, -1)) for latent in (made.hidden, small)]
        return State(model.frames.see(torch.cat(frames, 2)))

    return run
