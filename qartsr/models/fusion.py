"""How a model of clips sees several frames."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Fusion(Protocol):
    """How consecutive frames become the denoiser's input."""

    def keep(self, image: Tensor, latent: Tensor) -> Tensor:
        """What of a frame (B, 3, H, W) with the scaled latent (B, C, h, w) is kept for the next: (B, K, h, w)."""
        ...

    def see(self, frames: Tensor) -> Tensor:
        """(B, F, K, h, w), what was kept of each frame, the last one now -> what the denoiser sees, (B, F C, h, w)."""
        ...


class SideBySide:
    """The denoiser sees the latents as they are; see :class:`Fusion`."""

    def keep(self, image: Tensor, latent: Tensor) -> Tensor:
        """The latent."""
        return latent

    def see(self, frames: Tensor) -> Tensor:
        """(B, F, C, h, w) latents, those of a frame behind those of the one before -> (B, F C, h, w)."""
        return frames.flatten(1, 2)


SIDE_BY_SIDE = SideBySide()
