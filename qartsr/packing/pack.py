"""From a trained quantized layer to a packed one, losing nothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qartsr.artifact.spec import LayerSpec
from qartsr.errors import QartsrError
from qartsr.layer import QuantLayer, RotatedBranch
from qartsr.packing.bits import pack_bits
from qartsr.packing.packed_layer import PackedLayer
from qartsr.quantize import quant_layers
from qartsr.quantizers import Grid, Grouped, NoQuantizer, OwnRange, Quantizer, Sliced, SlicedOwn, TokenGaussian, encode
from qartsr.transforms import Hadamard
from qartsr.transforms.family import Stored

_FACTORS = ("left", "right", "block_left", "block_right")


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
    if len(skip) not in (0, 2, len(_FACTORS)):
        raise QartsrError(f"has {len(skip)} factors, and a package holds none, two or four", "branch", "do not pack it")
    spec = LayerSpec(
        shape=tuple(weight.shape),
        weight_bits=_bits(layer.weight_quantizer, weight),
        per_channel=_per_channel(layer.weight_quantizer, weight),
        bias_bits=_bits(layer.bias_quantizer, bias),
        input_bits=_bits(layer.input_quantizer, weight),
        transform="hadamard" if isinstance(layer.transform, Hadamard) else _kind(phi, delta),
        rotation=layer.transform.order if isinstance(layer.transform, Hadamard) else 0,
        skip_rotated=isinstance(layer.skip, RotatedBranch) and bool(skip),
        rank=skip[0].shape[1] if skip else 0,
        weight_groups=layer.weight_quantizer.groups if isinstance(layer.weight_quantizer, Grouped) else 1,
        input_dynamic=isinstance(layer.input_quantizer, OwnRange | SlicedOwn),
        input_split=layer.input_quantizer.boundary if isinstance(layer.input_quantizer, Sliced | SlicedOwn) else 0,
        input_token=isinstance(layer.input_quantizer, TokenGaussian),
        blocks=_blocks(skip),
    )
    packed = PackedLayer(layer.op, spec)
    available = {
        **_tensor("weight", weight, layer.weight_quantizer),
        **_tensor("bias", bias, layer.bias_quantizer),
        **(
            {}
            if _follows(layer.input_quantizer)
            else {"input.grid": _stacked(_stored_grid(layer.input_quantizer, weight))}
        ),
        "transform.phi": phi.reshape(layer.phi().shape),
        "transform.delta": delta.reshape(layer.phi().shape),
        **{f"skip.{name}": factor for name, factor in zip(_FACTORS[: len(skip)], skip, strict=True)},
    }
    packed.load_state_dict({name: available[name].detach().cpu() for name in packed.state_dict()})
    return packed.eval()


def _follows(quantizer: Quantizer) -> bool:
    """Whether an input's grid is found on the input: nothing is stored."""
    return isinstance(quantizer, NoQuantizer | OwnRange | SlicedOwn | TokenGaussian)


def _bits(quantizer: Quantizer, value: Tensor) -> int:
    return 0 if isinstance(quantizer, NoQuantizer) else quantizer.grid(value).levels.bit_length()


def _per_channel(quantizer: Quantizer, value: Tensor) -> bool:
    return _bits(quantizer, value) > 0 and quantizer.grid(value).scale.dim() > 0


def _tensor(name: str, value: Tensor, quantizer: Quantizer) -> dict[str, Tensor]:
    bits = _bits(quantizer, value)
    if not bits:
        return {f"{name}.value": value}
    codes = pack_bits(encode(value, quantizer.grid(value)), bits)
    return {f"{name}.codes": codes, f"{name}.grid": _stacked(_stored_grid(quantizer, value))}


def _stored_grid(quantizer: Quantizer, value: Tensor) -> Grid:
    """One scale and offset per range, not per channel."""
    return quantizer.compact(value) if isinstance(quantizer, Grouped | Sliced) else quantizer.grid(value)


def _blocks(skip: tuple[Tensor, ...]) -> tuple[int, int]:
    """Parts of outputs and of input channels of a hierarchical branch."""
    if len(skip) < len(_FACTORS) or not skip[2].shape[1]:
        return 0, 0
    return skip[3].shape[0] // skip[2].shape[1], skip[2].shape[1]


def _stacked(grid: Grid) -> Tensor:
    return torch.stack([grid.scale, grid.offset])


def _kind(phi: Tensor, delta: Tensor) -> Stored:
    if bool((delta != 0).any()):
        return "affine"
    return "scale" if bool((phi != 1).any()) else "none"
