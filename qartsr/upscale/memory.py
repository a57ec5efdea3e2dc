"""What a model of clips knows of the frame before: its latents, kept by tile, so that a frame costs one encoding."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from qartsr.images import Picture
from qartsr.upscale.places import Place

Latent = TypeVar("Latent")


class LatentMemory:
    """Latents of the frame before and of this one, by the place of their tile."""

    def __init__(self) -> None:
        self._before: dict[tuple[int, int], object] = {}
        self._now: dict[tuple[int, int], object] = {}

    def exchange(self, place: Place, latent: Latent) -> Latent:
        """Keep what the next frame needs of this one, (1, K, h, w); returns that of the one before, a first's own."""
        key = place.top, place.left
        self._now[key] = latent
        return self._before.get(key, latent)  # type: ignore[return-value]  # one network's, so of one type

    def advance(self) -> None:
        """This frame is the one before from now on."""
        self._before, self._now = self._now, {}


class ClipRestorer:
    """``restore(frame, before)`` -> the frame, 4 times as wide and high, by a model of clips.

    A function of both frames: when ``before`` is not the frame of the last call it is run once more for its latents,
    which depend on it alone. So work that is taken up again ends with the same bytes. A shot's first frame is the one
    before itself, and run twice as well: tiles share what they observe with the latents before at hand, so a still clip
    is still from its first frame on.
    """

    def __init__(self, upscale: Callable[[Picture, LatentMemory], Picture]) -> None:
        self._upscale, self._memory = upscale, LatentMemory()
        self._last: Picture | None = None

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
