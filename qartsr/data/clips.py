"""Moving clips out of photographs: a window that travels over them by whole pixels, so that its flow is exact.

Whole HR pixels are quarters of LR pixels: every frame samples the scene at another phase, which is what a second frame
is worth; and no interpolation softens the truth. A batch is made at once, on the device where the photographs lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from qartsr.data.pairs import Pair, to_unit
from qartsr.errors import QartsrError
from qartsr.images import SCALE

MARGIN = 16
"""HR pixels around the window that the LR is made with, so that a frame's border is like its middle."""


class Clips(NamedTuple):
    """A batch of clips of T frames."""

    hr: Tensor
    """(B, T, 3, H, W), float in [-1, 1]"""
    lq: Tensor
    """the same of the LR frames, x4"""
    steps: Tensor
    """(B, T - 1, 2), int: how many HR rows and columns the window moved between two frames"""
    lr: Tensor
    """(B, T, 3, H / 4, W / 4), uint8"""


class Motion(NamedTuple):
    """What clips are like."""

    length: int
    """frames, T"""
    speed: float
    """most HR pixels per frame, along each axis"""
    noisy: float
    """share of the clips with noise"""
    noise: float
    """most standard deviation of the noise that each LR frame has of its own, of the range"""
    begins: float = 0.0
    """share of the clips whose second frame begins a shot: the first is the second once more"""


class Scenes:
    """Photographs of any sizes side by side in one tensor on ``device``, so that windows of all are one look-up."""

    def __init__(self, pairs: Sequence[Pair], device: torch.device | None = None) -> None:
        images = [pair.hr for pair in pairs]
        self.device = device or torch.device("cpu")
        self._pixels = torch.cat([image.flatten(1) for image in images], 1).to(self.device)
        self._sides = torch.tensor([list(image.shape[1:]) for image in images])
        sizes = self._sides.prod(1)
        self._starts = sizes.cumsum(0) - sizes

    def windows(self, count: int, side: int, generator: torch.Generator) -> Tensor:
        """(count, 3, side, side), uint8, of random places; of two candidates the one with more texture, as crops are.

        Raises QartsrError when no photograph is so large.
        """
        fitting = (self._sides.amin(1) >= side).nonzero()[:, 0]
        if not len(fitting):
            raise QartsrError(f"no training image is {side} pixels wide and high", "data", "choose a smaller crop")
        which = fitting[torch.randint(len(fitting), (2 * count,), generator=generator)]
        sides = self._sides[which]
        place = (torch.rand(2 * count, 2, generator=generator) * (sides - side + 1)).long()
        first, width = self._starts[which] + place[:, 0] * sides[:, 1] + place[:, 1], sides[:, 1]
        first, width = (each.to(self.device, non_blocking=True) for each in (first, width))
        along = torch.arange(side, device=self.device)
        found = self._pixels[:, first[:, None, None] + along[:, None] * width[:, None, None] + along].transpose(0, 1)
        grey = found.float().mean(1)
        texture = (grey.diff(dim=1).abs().mean((1, 2)) + grey.diff(dim=2).abs().mean((1, 2))).view(2, count)
        pairs = found.unflatten(0, (2, count))
        return torch.where((texture[0] >= texture[1]).view(-1, 1, 1, 1), pairs[0], pairs[1])


def moving_clips(scenes: Scenes, batch: int, crop: int, motion: Motion, generator: torch.Generator) -> Clips:
    """Windows of ``crop`` HR pixels a side over photographs, each clip with a speed, a shake and a noise of its own.

    LR frames are bicubic, with the noise in 8 bits. ``generator`` lies on the CPU; noise on another device is drawn
    there, from a seed of it. Raises QartsrError when no photograph has room for the motion.
    """
    wide, device = crop + 2 * MARGIN, scenes.device
    room = wide + int(motion.speed + 1) * (motion.length - 1)
    speed = (2 * torch.rand(batch, 1, 2, generator=generator) - 1) * motion.speed
    shake = torch.rand(batch, motion.length, 2, generator=generator) - 0.5
    path = speed * torch.arange(motion.length)[:, None] + shake
    places = (path - path.amin(1, keepdim=True)).round().long().clamp(0, room - wide)
    begins = torch.rand(batch, generator=generator) < motion.begins
    places[:, :1] = torch.where(begins[:, None, None], places[:, 1:2], places[:, :1])
    noisy = torch.rand(batch, generator=generator) < motion.noisy
    deviation = 255 * motion.noise * torch.rand(batch, generator=generator) * noisy
    seed = int(torch.randint(1 << 62, (), generator=generator))
    scene = _turned(
        scenes.windows(batch, room, generator),
        torch.randint(8, (batch,), generator=generator).to(device, non_blocking=True),
    )
    frames = _looked_at(scene, places.to(device, non_blocking=True), wide).flatten(0, 1).float()
    low = _bicubic(frames, 1 / SCALE)
    noise = torch.randn(low.shape, generator=torch.Generator(device).manual_seed(seed), device=device)
    noise = noise.unflatten(0, (batch, -1)) * deviation.to(device, non_blocking=True).view(-1, 1, 1, 1, 1)
    alone = begins.to(device, non_blocking=True).view(-1, 1, 1, 1, 1)
    noise[:, :1] = torch.where(alone, noise[:, 1:2], noise[:, :1])
    low = (low + noise.flatten(0, 1)).round().clamp(0, 255)
    inside = slice(MARGIN, MARGIN + crop)
    hr, lq = (
        to_unit(each[..., inside, inside]).unflatten(0, (batch, motion.length))
        for each in (frames, _bicubic(low, SCALE))
    )
    small = slice(MARGIN // SCALE, (MARGIN + crop) // SCALE)
    lr = low[..., small, small].to(torch.uint8).unflatten(0, (batch, motion.length))
    return Clips(hr, lq, (places[:, 1:] - places[:, :-1]).to(device, non_blocking=True), lr)


def stills(scenes: Scenes, batch: int, crop: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Windows that stand still: (hr, lq), each float (batch, 3, crop, crop) in [-1, 1], LR bicubic.

    ``generator`` lies on the CPU. Raises QartsrError when no photograph is as large as a window with its margin.
    """
    wide = scenes.windows(batch, crop + 2 * MARGIN, generator)
    hr = _turned(wide, torch.randint(8, (batch,), generator=generator).to(scenes.device, non_blocking=True)).float()
    inside = slice(MARGIN, MARGIN + crop)
    lq = _bicubic(_bicubic(hr, 1 / SCALE), SCALE)
    return to_unit(hr[..., inside, inside]), to_unit(lq[..., inside, inside])


def _bicubic(images: Tensor, factor: float) -> Tensor:
    """Antialiased, in 8 bits, as float."""
    return F.interpolate(images, scale_factor=factor, mode="bicubic", antialias=True).round().clamp(0, 255)


def _turned(scene: Tensor, code: Tensor) -> Tensor:
    """Flipped and transposed, each of (B, 3, S, S) by its own of eight codes."""
    bits = [(code & 1 << bit > 0).view(-1, 1, 1, 1) for bit in range(3)]
    scene = torch.where(bits[0], scene.flip(-1), scene)
    scene = torch.where(bits[1], scene.flip(-2), scene)
    return torch.where(bits[2], scene.transpose(2, 3), scene)


def _looked_at(scene: Tensor, places: Tensor, side: int) -> Tensor:
    """(B, 3, S, S) at ``places`` (B, T, 2) -> (B, T, 3, side, side)."""
    along = torch.arange(side, device=scene.device)
    rows, columns = (places[..., axis, None] + along for axis in range(2))
    index = rows[..., :, None] * scene.shape[-1] + columns[..., None, :]
    flat = scene.flatten(2)[:, None].expand(-1, places.shape[1], -1, -1)
    found = flat.gather(3, index.flatten(2)[:, :, None].expand(-1, -1, 3, -1))
    return found.unflatten(3, (side, side))


def shifted(before: Tensor, now: Tensor, step: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """What two frames (..., H, W) show in common, place on place, the window having moved by ``step`` in between."""
    rows, columns = (_common(side, move) for side, move in zip(now.shape[-2:], step, strict=True))
    return before[..., rows[0], columns[0]], now[..., rows[1], columns[1]]


def _common(side: int, move: int) -> tuple[slice, slice]:
    return slice(max(move, 0), side + min(move, 0)), slice(max(-move, 0), side + min(-move, 0))


def carried(frames: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
    """``frames`` (N, C, H, W) moved to where the next frame shows the same, by ``steps`` (N, 2), and where that is.

    The second, (N, 1, H, W), is 1 where the next frame shows what ``frames`` did, else 0.
    """
    height, width = frames.shape[-2:]
    rows = torch.arange(height, device=frames.device) + steps[:, :1]
    columns = torch.arange(width, device=frames.device) + steps[:, 1:]
    known = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None]
    index = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None]
    moved = frames.flatten(2).gather(2, index.flatten(1)[:, None].expand(-1, frames.shape[1], -1))
    return moved.view_as(frames), known[:, None].to(frames.dtype)
