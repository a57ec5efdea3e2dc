"""What a model of clips knows of the frame before: its latents, kept by tile, so that a frame costs one encoding."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from qartsr.images import Picture
from qartsr.upscale.places import Place


class LatentMemory:
    """Latents of the frame before and of this one, by the place of their tile."""

    def __init__(self) -> None:
        self._before: dict[tuple[int, int], Tensor] = {}
        self._now: dict[tuple[int, int], Tensor] = {}

    def pair(self, place: Place, latent: Tensor) -> Tensor:
        """(1, C, h, w) of this frame -> (1, 2 C, h, w), the frame before first; a first frame is its own."""
        key = place.top, place.left
        self._now[key] = latent
        return torch.cat([self._before.get(key, latent), latent], 1)

    def advance(self) -> None:
        """This frame is the one before from now on."""
        self._before, self._now = self._now, {}


class ClipRestorer:
    """``restore(frame, before)`` -> the frame, 4 times as wide and high, by a model of clips.

    A function of both frames: when ``before`` is not the frame of the last call it is run once more for its latents,
    which depend on it alone. So work that is taken up again ends with the same bytes. A shot's first
    frame is the one before itself, so a still clip is still from its first frame on.
    """

    def __init__(self, upscale: Callable[[Picture, LatentMemory], Picture]) -> None:
        self._upscale, self._memory, self._last = upscale, LatentMemory(), None

    _last: Picture | None

    def __call__(self, frame: Picture, before: Picture | None) -> Picture:
        """Restore ``frame``; None begins a shot."""
        if before is None or before is not self._last:
            self._memory = LatentMemory()
            self._run(before or frame)
        self._last = frame
        return self._run(frame)

    def _run(self, frame: Picture) -> Picture:
        made = self._upscale(frame, self._memory)
        self._memory.advance()
        return made
