"""From a trained quantized layer to a packed one, losing nothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qartsr.errors import QartsrError
from qartsr.layer import QuantLayer
from qartsr.packing.bits import pack_bits
from qartsr.packing.packed_layer import PackedLayer
from qartsr.packing.spec import LayerSpec, TensorSpec
from qartsr.quantize import quantized
from qartsr.quantizers import AbstractQuantizer, Grid, NoQuantizer

_HUGE = 2.0**60
"""So large a power of two that it swallows any shift: a transform of it reads off the gain exactly."""


def pack_model(model: nn.Module) -> tuple[dict[str, LayerSpec], dict[str, Tensor]]:
    """Specs of the quantized layers by name, and every tensor of the packed model: floats in fp16 where that is exact.

    Raises QartsrError for values that are not finite.
    """
    specs: dict[str, LayerSpec] = {}
    tensors = {name: value.detach().cpu() for name, value in model.state_dict().items()}
    for name, layer in quantized(model).items():
        packed = pack_layer(layer)
        specs[name] = packed.spec
        tensors = {key: value for key, value in tensors.items() if not key.startswith(name + ".")}
        tensors |= {f"{name}.{key}": value for key, value in packed.state_dict().items()}
    return specs, {name: _compact(name, value) for name, value in tensors.items()}


def _compact(name: str, value: Tensor) -> Tensor:
    """fp16 where that loses nothing, fp32 elsewhere; codes as they are."""
    if not value.is_floating_point():
        return value.contiguous()
    if not bool(value.isfinite().all()):
        raise QartsrError("holds a value that is not finite", name, "train again with smaller learning rates")
    half = value.half()
    return half.contiguous() if torch.equal(half.float(), value.float()) else value.float().contiguous()


def pack_layer(layer: QuantLayer) -> PackedLayer:
    """The packed twin of one layer, on the CPU: the same outputs, bit for bit, for grids that contain 0."""
    with torch.no_grad():
        weight, bias = layer.scaled_weight(), layer.total_bias()
        spec = LayerSpec(
            weight=_spec(weight, layer.weight_quantizer),
            bias=_spec(bias, layer.bias_quantizer),
            input_bits=_bits(layer.input_quantizer, weight),
            transform=_kind(layer),
            rank=layer.skip.factors()[0].shape[1] if layer.skip.factors() else 0,
        )
        state = {
            **_tensor("weight", weight, layer.weight_quantizer),
            **_tensor("bias", bias, layer.bias_quantizer),
            **_transform(layer, spec),
            **(_grid("input", layer.input_quantizer, weight) if spec.input_bits else {}),
            **{f"skip.{key}": f for key, f in zip(("left", "right"), layer.skip.factors(), strict=False)},
        }
        packed = PackedLayer(layer.op, spec)
        packed.load_state_dict({key: value.detach().cpu() for key, value in state.items()})
        return packed.eval()


def _bits(quantizer: AbstractQuantizer, value: Tensor) -> int:
    return 0 if isinstance(quantizer, NoQuantizer) else quantizer.grid(value).levels.bit_length()


def _spec(value: Tensor, quantizer: AbstractQuantizer) -> TensorSpec:
    per_channel = quantizer.granularity == "channel"
    return TensorSpec(shape=tuple(value.shape), bits=_bits(quantizer, value), per_channel=per_channel)


def _tensor(name: str, value: Tensor, quantizer: AbstractQuantizer) -> dict[str, Tensor]:
    """Codes are read off the quantizer's own output, which lies on the grid: no second rounding can disagree."""
    bits = _bits(quantizer, value)
    if not bits:
        return {f"{name}.value": value}
    grid = _grid(name, quantizer, value)
    scale, zero = grid[f"{name}.scale"], grid[f"{name}.zero"]
    codes = (quantizer(value) / scale - zero).round().clamp(0, 2**bits - 1)
    return {f"{name}.codes": pack_bits(codes.long(), bits), **grid}


def _grid(name: str, quantizer: AbstractQuantizer, value: Tensor) -> dict[str, Tensor]:
    grid = quantizer.grid(value)
    return {f"{name}.scale": grid.scale, f"{name}.zero": _zero(grid)}


def _zero(grid: Grid) -> Tensor:
    """offset / scale; where the offset was an integer times the scale, that integer again."""
    zero = grid.offset / grid.scale
    whole = zero.round()
    return torch.where(torch.isclose(zero, whole, rtol=1e-6, atol=1e-6), whole, zero)


def _kind(layer: QuantLayer) -> str:
    scale, shift = layer.transform.factors()
    if bool((shift != 0).any()):
        return "affine"
    return "scale" if bool((scale != 1).any()) else "none"


def _transform(layer: QuantLayer, spec: LayerSpec) -> dict[str, Tensor]:
    """The gain as the transform itself multiplies with it, and the shift."""
    shape = layer.op.channels(spec.weight.shape[1])
    scale, shift = layer.transform.factors()
    gain = layer.transform.input(torch.full(shape, _HUGE, device=scale.device)) / _HUGE
    tensors = {"transform.gain": gain, "transform.shift": shift.expand(shape)}
    kept = {"none": (), "scale": ("transform.gain",), "affine": ("transform.gain", "transform.shift")}
    return {key: tensors[key] for key in kept[spec.transform]}
