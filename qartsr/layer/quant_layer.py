"""One quantized layer, put together from parts; its forward reads like QArtSR's Eq. 9."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from qartsr.branches import Branch, Layout, Op, branch_layout
from qartsr.layer.op import LayerOp
from qartsr.quantizers import Quantizer, Rounding
from qartsr.transforms import Hadamard, Transform, rotated


class FixedBias(nn.Module):
    """The bias as it is."""

    def forward(self, bias: Tensor) -> Tensor:
        """``bias`` (O,) itself."""
        return bias


class LearnedBias(nn.Module):
    """b + a, a learned from 0: QuantVSR's learnable bias alignment (2508.04485), which costs nothing at run time."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(outputs))

    def forward(self, bias: Tensor) -> Tensor:
        """``bias`` (O,) and the shift."""
        return bias + self.shift


@dataclass(frozen=True)
class Parts:
    """What a quantized layer is made of."""

    weight_quantizer: Quantizer
    input_quantizer: Quantizer
    bias_quantizer: Quantizer
    rounding: Rounding
    alignment: FixedBias | LearnedBias
    transform: Transform
    skip: Branch
    adapter: Branch
    headroom: float = 1.0


class RotatedBranch(nn.Module):
    """A branch of the rotated weight W H, which reads the rotated input x H (Q-DiT4SR's H-SVD); V = W - L H^T."""

    def __init__(self, branch: Branch, rotation: Hadamard) -> None:
        super().__init__()
        self.branch: Branch = branch
        self.order, self.dim = rotation.order, rotation.dim

    @staticmethod
    def layout(config: object, shape: tuple[int, ...]) -> Layout:
        """That of the branch within: asked of :func:`qartsr.branches.branch_layout`."""
        return branch_layout(config, shape)

    def calibrate(self, weight: Tensor, phi: Tensor) -> None:
        """From the rotated ``weight`` (O, C, ...); ``phi`` is 1."""
        self.branch.calibrate(rotated(weight, self.order, 1), phi)

    def matrix(self) -> Tensor:
        """Rotated back, like the weight."""
        return rotated(self.branch.matrix(), self.order, 1, back=True)

    def apply(self, x: Tensor, op: Op) -> Tensor:  # type: ignore[override]
        """Its contribution for the padded input ``x`` (B, C, ...), not yet rotated."""
        return self.branch.apply(rotated(x, self.order, self.dim), op)

    def factors(self) -> tuple[Tensor, ...]:
        """Those of the branch within, shaped as there."""
        return self.branch.factors()


class QuantLayer(nn.Module):
    """y = L1 L2 x + Q_W(T_w(V) + D) Q_A(T_x(x)) + Q_B(b + V delta + a), V = W - L1 L2 + F1 F2.

    D is 0 for rounding to nearest, a is 0 without bias alignment; both are absent from the paper's Eq. 9.

    Takes the place of an nn.Conv2d (input (B, C, H, W)) or nn.Linear (input (..., C)). ``weight`` and ``bias`` are the
    originals: buffers, never trained. Only the parts have parameters.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, op: LayerOp, weight: Tensor, bias: Tensor | None, parts: Parts) -> None:
        super().__init__()
        self.op = op
        self.register_buffer("weight", weight.detach())
        self.register_buffer("bias", None if bias is None else bias.detach())
        self.weight_quantizer: Quantizer = parts.weight_quantizer
        self.input_quantizer: Quantizer = parts.input_quantizer
        self.bias_quantizer: Quantizer = parts.bias_quantizer
        self.rounding: Rounding = parts.rounding
        self.alignment = parts.alignment
        self.transform: Transform = parts.transform
        self.skip: Branch = parts.skip
        self.adapter: Branch = parts.adapter
        self.headroom = parts.headroom

    def main(self) -> Tensor:
        """V = R + F1 F2 with the live residual R = W - L1 L2; shape of the weight."""
        return self.weight - self.skip.matrix() + self.adapter.matrix()

    def scaled_weight(self) -> Tensor:
        """T_w(V) + D: what the weight quantizer sees."""
        return self.rounding(self.transform.weight(self.main()), self.weight_quantizer)

    def total_bias(self) -> Tensor:
        """What the bias quantizer sees: b + V delta + a, (O,); b is 0 where the layer had none."""
        return self._biased(self.main())

    def _biased(self, main: Tensor) -> Tensor:
        shift = self.transform.bias(main)
        return self.alignment(shift if self.bias is None else self.bias + shift)

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output for ``x``."""
        x = self.op.pad(x)
        main = self.main()
        y = self.op(
            self.input_quantizer(self.transform.input(x)),
            self.weight_quantizer(self.rounding(self.transform.weight(main), self.weight_quantizer)),
            self.bias_quantizer(self._biased(main)),
        )
        return y + self.skip.apply(x, self.op)

    @torch.no_grad()
    def phi(self) -> Tensor:
        """The transform's phi, shaped to broadcast over the weight."""
        factor, _ = self.transform.input_factors()
        return factor.reshape(-1, *(1,) * (self.weight.ndim - 2))
