"""What a run of a network needs of memory and time."""

from __future__ import annotations

from typing import NamedTuple

from qartsr.errors import QartsrError


class Load(NamedTuple):
    """Three of the widest activations, and two matrices of scores of the largest attention; both in bytes."""

    linear: float
    """by output pixel"""
    square: float
    """by the square of the output pixels"""
    window: int = 0
    """longest side of an output that the network is meant for; 0: any"""
    most: int = 0
    """longest side of an output that the network can make; 0: any"""

    def demand_fits(self, height: int, width: int) -> None:
        """Raises QartsrError for an output of so many pixels, in one piece, that the network cannot make."""
        if 0 < self.most < max(height, width):
            what = f"{height} x {width} pixels in one piece are more than the {self.most} along a side of this model"
            raise QartsrError(what, "tile", f"take tiles of at most {self.most}")

    def bytes(self, pixels: float) -> float:
        """Memory for an output of so many pixels, an estimate: attention is fused and keeps no matrix of scores."""
        return _PEAK * self.linear * pixels

    def work(self, pixels: float) -> float:
        """Time for an output of so many pixels, in that of one pixel without attention, which grows by the square."""
        return pixels * (1 + self.square * pixels / (_HALF * self.linear))


_PEAK = 2
"""Times three activations. Measured on the sample model, 2 to 4.7 megapixels: OpenVINO 780 bytes a pixel, torch 550
(floating point) to 720 (W4A4, simulated), for 768. Taken over for other networks, where it was not measured."""
_HALF = 16
"""Where the ratio of both is this, attention takes half of the time. By operations Stable Diffusion's is 19 there."""
