"""phi per input channel (QArtSR, Eq. 9), and phi with an offset delta (PassionSR's LET, Eq. 8).

input(x) = (x - delta) / phi, weight(V) = V phi, bias(V) = V delta. phi = exp(log_phi) stays positive while it is
trained. It starts at max|x|^alpha / max|W|^alpha, both maxima at least 1e-5.
PassionSR's linear layers use x + delta with the same bias, which breaks the law; not repeated here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from qartsr.config.parts import ChannelAffineConfig, ChannelScaleConfig
from qartsr.transforms.base import TRANSFORMS, AbstractTransform, Factors

_SMALLEST = 1e-5


def _initial_log_phi(input_absmax: Tensor, weight: Tensor, alpha: float) -> Tensor:
    reduced = [dim for dim in range(weight.dim()) if dim != 1]
    largest = weight.abs().amax(reduced).clamp_min(_SMALLEST)
    return alpha * (input_absmax.clamp_min(_SMALLEST).log() - largest.log())


@TRANSFORMS.register(ChannelScaleConfig)
class ChannelScale(AbstractTransform):
    """phi alone."""

    def __init__(self, config: ChannelScaleConfig, shape: tuple[int, ...]) -> None:
        super().__init__()
        self._alpha = config.alpha
        self.log_phi = torch.nn.Parameter(torch.zeros(shape))

    def calibrate(self, input_absmax: Tensor, weight: Tensor) -> None:
        """Initial phi."""
        with torch.no_grad():
            self.log_phi.copy_(_initial_log_phi(input_absmax, weight, self._alpha).reshape(self.log_phi.shape))

    def input(self, x: Tensor) -> Tensor:
        """x / phi."""
        return x * (-self.log_phi).exp()

    def weight(self, v: Tensor) -> Tensor:
        """V phi."""
        return v * self.log_phi.exp()

    def bias(self, v: Tensor) -> Tensor:
        """0: there is no offset."""
        return v.new_zeros(1)

    def factors(self) -> Factors:
        """phi and 0."""
        phi = self.log_phi.detach().exp()
        return Factors(phi, torch.zeros_like(phi))


@TRANSFORMS.register(ChannelAffineConfig)
class ChannelAffine(AbstractTransform):
    """phi and delta; delta starts at 0."""

    def __init__(self, config: ChannelAffineConfig, shape: tuple[int, ...]) -> None:
        super().__init__()
        self._alpha = config.alpha
        self.log_phi = torch.nn.Parameter(torch.zeros(shape))
        self.delta = torch.nn.Parameter(torch.zeros(shape))

    def calibrate(self, input_absmax: Tensor, weight: Tensor) -> None:
        """Initial phi; delta is 0."""
        with torch.no_grad():
            self.log_phi.copy_(_initial_log_phi(input_absmax, weight, self._alpha).reshape(self.log_phi.shape))
            self.delta.zero_()

    def input(self, x: Tensor) -> Tensor:
        """(x - delta) / phi."""
        return (x - self.delta) * (-self.log_phi).exp()

    def weight(self, v: Tensor) -> Tensor:
        """V phi."""
        return v * self.log_phi.exp()

    def bias(self, v: Tensor) -> Tensor:
        """V delta, summed over input channels and taps: (O,)."""
        return (v * self.delta).flatten(1).sum(1)

    def factors(self) -> Factors:
        """phi and delta."""
        return Factors(self.log_phi.detach().exp(), self.delta.detach())
