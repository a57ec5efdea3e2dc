"""From a trained quantized layer to a packed one, losing nothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qartsr.errors import QartsrError
from qartsr.layer import QuantLayer
from qartsr.packing.bits import pack_bits
from qartsr.packing.packed_layer import PackedLayer
from qartsr.packing.spec import LayerSpec, TransformKind
from qartsr.quantize import quant_layers
from qartsr.quantizers import Grid, NoQuantizer, Quantizer, encode


def pack_model(model: nn.Module) -> tuple[dict[str, LayerSpec], dict[str, Tensor]]:
    """Specs of the quantized layers by name, and every tensor of the packed model: floats in fp16 where that is exact.

    Raises QartsrError for values that are not finite.
    """
    specs: dict[str, LayerSpec] = {}
    packed: dict[str, Tensor] = {}
    for name, layer in quant_layers(model).items():
        twin = pack_layer(layer)
        specs[name] = twin.spec
        packed |= {f"{name}.{key}": value for key, value in twin.state_dict().items()}
    inside = tuple(f"{name}." for name in specs)
    kept = {name: value.detach().cpu() for name, value in model.state_dict().items() if not name.startswith(inside)}
    return specs, {name: _compact(name, value) for name, value in sorted({**kept, **packed}.items())}


def _compact(name: str, value: Tensor) -> Tensor:
    """fp16 where that loses nothing, fp32 elsewhere; codes as they are."""
    if not value.is_floating_point():
        return value.contiguous()
    if not bool(value.isfinite().all()):
        raise QartsrError("holds a value that is not finite", name, "train again with smaller learning rates")
    half = value.half()
    return half.contiguous() if torch.equal(half.float(), value.float()) else value.float().contiguous()


@torch.no_grad()
def pack_layer(layer: QuantLayer) -> PackedLayer:
    """The packed twin of one layer, on the CPU: the same outputs, bit for bit."""
    weight, bias, skip = layer.scaled_weight(), layer.total_bias(), layer.skip.factors()
    phi, delta = layer.transform.input_factors()
    spec = LayerSpec(
        shape=tuple(weight.shape),
        weight_bits=_bits(layer.weight_quantizer, weight),
        per_channel=_per_channel(layer.weight_quantizer, weight),
        bias_bits=_bits(layer.bias_quantizer, bias),
        input_bits=_bits(layer.input_quantizer, weight),
        transform=_kind(phi, delta),
        rank=skip[0].shape[1] if skip else 0,
    )
    packed = PackedLayer(layer.op, spec)
    available = {
        **_tensor("weight", weight, layer.weight_quantizer),
        **_tensor("bias", bias, layer.bias_quantizer),
        **({"input.grid": _stacked(layer.input_quantizer.grid(weight))} if spec.input_bits else {}),
        "transform.phi": phi.reshape(layer.phi().shape),
        "transform.delta": delta.reshape(layer.phi().shape),
        **dict(zip(("skip.left", "skip.right"), skip, strict=bool(skip))),
    }
    packed.load_state_dict({name: available[name].detach().cpu() for name in packed.state_dict()})
    return packed.eval()


def _bits(quantizer: Quantizer, value: Tensor) -> int:
    return 0 if isinstance(quantizer, NoQuantizer) else quantizer.grid(value).levels.bit_length()


def _per_channel(quantizer: Quantizer, value: Tensor) -> bool:
    return _bits(quantizer, value) > 0 and quantizer.grid(value).scale.dim() > 0


def _tensor(name: str, value: Tensor, quantizer: Quantizer) -> dict[str, Tensor]:
    bits = _bits(quantizer, value)
    if not bits:
        return {f"{name}.value": value}
    grid = quantizer.grid(value)
    return {f"{name}.codes": pack_bits(encode(value, grid), bits), f"{name}.grid": _stacked(grid)}


def _stacked(grid: Grid) -> Tensor:
    return torch.stack([grid.scale, grid.offset])


def _kind(phi: Tensor, delta: Tensor) -> TransformKind:
    if bool((delta != 0).any()):
        return "affine"
    return "scale" if bool((phi != 1).any()) else "none"
