"""What a run of a network needs of memory."""

from __future__ import annotations

from typing import NamedTuple


class Load(NamedTuple):
    """What a run of the network needs of memory, by output pixel and by its square."""

    linear: float
    square: float
    window: int = 0
    """longest side of an output that the network is meant for; 0: any"""

    def bytes(self, pixels: float) -> float:
        """For an output of so many pixels, an estimate."""
        return self.linear * pixels + self.square * pixels**2
