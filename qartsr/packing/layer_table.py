"""What each quantized layer has come to: its bits, how often each code occurs, what it does to its output."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from qartsr.layer import QuantLayer
from qartsr.models import Backbone
from qartsr.packing.packed_layer import PackedLayer, PackedTensor
from qartsr.packing.proof import seeded_images
from qartsr.quantize import quant_layers


@torch.no_grad()
def layer_facts(packed: Backbone, trained: Backbone, seed: int) -> list[dict[str, Any]]:
    """In the order of inference: ``layer``, ``weight_bits``, ``input_bits``, ``weights``, ``codes`` and ``error``.

    ``codes``: how many weights have code 0, 1, ...; empty for weights in floating point. ``error``: squared difference
    of the layer's output to that of the floating-point layer on the same input, over the latter's square, on two seeded
    64 x 64 images of noise that pass through the quantized network; errors of layers before are not in it.
    """
    errors: dict[str, float] = {}

    def record(name: str) -> Any:
        def hook(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            assert isinstance(layer, QuantLayer)
            exact = layer.op(layer.op.pad(inputs[0]), layer.weight, layer.bias)
            errors[name] = float((output - exact).square().sum() / exact.square().sum().clamp_min(1e-30))

        return hook

    handles = [layer.register_forward_hook(record(name)) for name, layer in quant_layers(trained).items()]
    try:
        trained(seeded_images(trained, seed))
    finally:
        for handle in handles:
            handle.remove()
    return [_facts(name, packed.get_submodule(name), error) for name, error in errors.items()]


def _facts(name: str, layer: nn.Module, error: float) -> dict[str, Any]:
    assert isinstance(layer, PackedLayer)
    spec, codes = layer.spec, list[int]()
    if isinstance(layer.weight, PackedTensor):
        codes = layer.weight.integers().flatten().long().bincount(minlength=2**spec.weight_bits).tolist()
    bits = {"weight_bits": spec.weight_bits, "input_bits": spec.input_bits, "weights": torch.Size(spec.shape).numel()}
    return {"layer": name, **bits, "codes": codes, "error": float(f"{error:.4g}")}
