"""The one quantized layer (QArtSR, Eq. 9), from separate parts:

    y = L1 L2 x + Q_W(phi (R + F1 F2)) Q_A(x / phi) + Q_B(b),    R = W - L1 L2

W and b are buffers and never train. R follows the live L.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qartsr.branches import BRANCHES
from qartsr.config.parts import LayerRecipe, MinMaxConfig, NoQuantizerConfig
from qartsr.layer.operation import operation_of
from qartsr.quantizers import QUANTIZERS
from qartsr.transforms import TRANSFORMS


class QuantLayer(nn.Module):
    """Takes the place of an nn.Conv2d or nn.Linear; uninitialised until the parts are calibrated.

    Parameters
    ----------
    layer: the original; its weight and bias are kept as buffers (a missing bias becomes zeros).
    recipe: the kind of every part.
    weight_bits, input_bits: 2..8.
    name: full layer name; seeds the adapter.
    """

    weight: Tensor
    bias: Tensor

    def __init__(
        self, layer: nn.Conv2d | nn.Linear, recipe: LayerRecipe, weight_bits: int, input_bits: int, name: str
    ) -> None:
        super().__init__()
        weight = layer.weight.detach()
        bias = layer.bias.detach() if layer.bias is not None else weight.new_zeros(weight.shape[0])
        self.op = operation_of(layer)
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        self.transform = TRANSFORMS.build(recipe.transform, shape=self.op.channels(weight.shape[1]))
        self.skip = BRANCHES.build(recipe.skip, shape=tuple(weight.shape), name=f"{name}.skip")
        self.adapter = BRANCHES.build(recipe.adapter, shape=tuple(weight.shape), name=f"{name}.adapter")
        per_channel = (weight.shape[0], *(1 for _ in weight.shape[1:]))
        scalar = tuple(1 for _ in weight.shape)
        granularity = getattr(recipe.weight, "granularity", "tensor")
        self.weight_quantizer = QUANTIZERS.build(
            recipe.weight, bits=weight_bits, shape=per_channel if granularity == "channel" else scalar
        )
        self.input_quantizer = QUANTIZERS.build(recipe.input, bits=input_bits, shape=(1,))
        bias_config = MinMaxConfig() if recipe.bias.bits else NoQuantizerConfig()
        self.bias_quantizer = QUANTIZERS.build(bias_config, bits=recipe.bias.bits, shape=(1,))
        self.to(weight.device)

    def main(self) -> Tensor:
        """R + F1 F2, shape of the weight."""
        return self.weight - self.skip.matrix() + self.adapter.matrix()

    def scaled_weight(self) -> Tensor:
        """What Q_W sees: phi (R + F1 F2)."""
        return self.transform.weight(self.main())

    def total_bias(self) -> Tensor:
        """What Q_B sees: b and the transform's share, (O,)."""
        return self.bias + self.transform.bias(self.main())

    def forward(self, x: Tensor) -> Tensor:
        """Eq. 9; ``x`` as for the original layer."""
        x = self.op.pad(x)
        main = self.main()
        y = self.op(
            self.input_quantizer(self.transform.input(x)),
            self.weight_quantizer(self.transform.weight(main)),
            self.bias_quantizer(self.bias + self.transform.bias(main)),
        )
        return y + self.skip.apply(x, self.op)

    def extra_repr(self) -> str:
        """Shape of the weight."""
        return f"weight={tuple(self.weight.shape)}"


def roles(layer: QuantLayer) -> dict[str, tuple[nn.Module, ...]]:
    """The parts of a layer by training role."""
    quantizers = (layer.weight_quantizer, layer.input_quantizer, layer.bias_quantizer)
    return {"transform": (layer.transform,), "skip": (layer.skip,), "adapter": (layer.adapter,), "quantizer": quantizers}


def original(layer: QuantLayer) -> dict[str, torch.Tensor]:
    """The tensors that must never change."""
    return {"weight": layer.weight, "bias": layer.bias}
