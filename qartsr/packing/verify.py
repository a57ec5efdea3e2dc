"""A packed model beside the trained one: every layer computes the same, and what each has come to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from qartsr.errors import QartsrError
from qartsr.layer import QuantLayer
from qartsr.models import Backbone
from qartsr.packing.packed_layer import PackedLayer, PackedTensor
from qartsr.quantize import quant_layers

TOLERANCE = 1e-5
"""Largest difference of a layer's outputs, relative to the largest output: what another order of summing costs.

Weights and inputs are the same numbers in both, but matrices that lie differently in memory are summed in another
order. One layer later such a difference can tip an activation into the next code, so whole images are no measure.
"""
_SIDE, _SAMPLES = 64, 2


@torch.no_grad()
def prove_equal(packed: Backbone, trained: Backbone, seed: int) -> None:
    """Compare on two seeded 64 x 64 images, each layer on the very input it has in the trained model.

    Everything that is not a quantized layer must be equal, bit for bit. Raises QartsrError naming what differs.
    """
    layers, twins = quant_layers(trained), dict(packed.named_modules())
    _demand_equal_rest(packed, trained, tuple(f"{name}." for name in layers))
    worst: dict[str, float] = {}

    def compare(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(_: nn.Module, inputs: Any, output: Tensor) -> None:
            found = twins[name](inputs[0])
            worst[name] = float((found - output).abs().max() / output.abs().max().clamp_min(1e-12))

        return hook

    handles = [layer.register_forward_hook(compare(name)) for name, layer in layers.items()]
    try:
        trained(seeded_images(trained, seed))
    finally:
        for handle in handles:
            handle.remove()
    for name, difference in worst.items():
        if not isinstance(twins[name], PackedLayer) or not difference <= TOLERANCE:
            raise _bug(f"layer {name} computes something else than the trained one (relative {difference:.2g})")


def _demand_equal_rest(packed: Backbone, trained: Backbone, inside: tuple[str, ...]) -> None:
    stored = packed.state_dict()
    for name, value in trained.state_dict().items():
        if not name.startswith(inside) and not torch.equal(stored[name], value):
            raise _bug(f"tensor {name} is not the trained one")


def seeded_images(model: Backbone, seed: int) -> Tensor:
    """Noise, (2, 3, 64, 64) or as much larger as the model needs, in [-1, 1]."""
    side = -(-_SIDE // model.facts.multiple) * model.facts.multiple
    return torch.rand(_SAMPLES, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def _bug(what: str) -> QartsrError:
    return QartsrError(what, "the package", "report this as a bug: packing must lose nothing")


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
