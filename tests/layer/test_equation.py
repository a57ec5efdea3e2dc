"""The layer against a slow float64 numpy loop over Eq. 9 that shares no code with it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from qartsr.config.parts import LayerRecipe
from qartsr.layer import QuantLayer, build_layer
from qartsr.quantizers import stats_of

RECIPE: dict[str, Any] = {
    "weight": {"kind": "lbq", "granularity": "channel"},
    "input": {"kind": "lbq"},
    "transform": {"kind": "channel_affine"},
    "skip": {"kind": "svd", "rank": 2},
    "adapter": {"kind": "lora", "rank": 2},
}
Array = np.ndarray[Any, np.dtype[np.float64]]


def _bounded(x: Array, lower: Array, upper: Array, levels: int) -> Array:
    """Eq. 3 with PassionSR's bounds; ``lower`` and ``upper`` broadcast."""
    scale = (upper - lower) / levels
    zero = np.rint(lower / scale)
    return (np.rint(np.clip(x / scale - zero, 0, levels)) + zero) * scale


def _convolve(x: Array, w: Array, stride: tuple[int, int]) -> Array:
    """(B, C, H, W), already padded, with (O, C, k, l); loops over output positions."""
    rows = (x.shape[2] - w.shape[2]) // stride[0] + 1
    columns = (x.shape[3] - w.shape[3]) // stride[1] + 1
    out = np.zeros((x.shape[0], w.shape[0], rows, columns))
    for i in range(rows):
        for j in range(columns):
            top, left = i * stride[0], j * stride[1]
            patch = x[:, :, top : top + w.shape[2], left : left + w.shape[3]]
            out[:, :, i, j] = np.einsum("bckl,ockl->bo", patch, w)
    return out


def _equation(layer: QuantLayer, x: Array, stride: tuple[int, int], padding: tuple[int, int], levels: int) -> Array:
    """y = L1 L2 x + Q_W(phi (W - L1 L2 + F1 F2)) Q_A((x - delta) / phi) + Q_B(b + V delta), in numpy."""
    p = {name: value.detach().numpy() for name, value in layer.state_dict().items()}
    w = p["weight"]
    low_rank = (p["skip.left"] @ p["skip.right"].reshape(2, -1)).reshape(w.shape)
    v = w - low_rank + (p["adapter.left"] @ p["adapter.right"].reshape(2, -1)).reshape(w.shape)
    phi, delta = (p[f"transform.{k}"].reshape(1, -1, 1, 1) for k in ("phi", "delta"))
    bias = p["bias"] + (v * delta).sum((1, 2, 3))
    bias_q = _bounded(bias, bias.min(), bias.max(), 255)
    x = np.pad(x, ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2))
    x_q = _bounded((x - delta) / phi, p["input_quantizer.lower"], p["input_quantizer.upper"], levels)
    w_q = _bounded(v * phi, p["weight_quantizer.lower"], p["weight_quantizer.upper"], levels)
    return _convolve(x_q, w_q, stride) + bias_q[:, None, None] + _convolve(x, low_rank, stride)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [((3, 3), (1, 1), (1, 1)), ((3, 3), (2, 2), (0, 0)), ((1, 1), (1, 1), (0, 0)), ((3, 2), (2, 1), (0, 1))],
)
def test_convolution(bits: int, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(5, 6, kernel, stride, padding).double()
    x = torch.randn(2, 5, 7, 8, dtype=torch.float64)
    layer = _trained(conv, x, bits)
    expected = _equation(layer, x.numpy(), stride, padding, 2**bits - 1)
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_linear(bits: int) -> None:
    """A linear layer is a 1 x 1 convolution over its tokens."""
    torch.manual_seed(0)
    linear = nn.Linear(5, 6).double()
    x = torch.randn(2, 7, 5, dtype=torch.float64)
    layer = _trained(linear, x, bits)
    with torch.no_grad():
        ours = layer(x).numpy()
    for name in ("weight", "weight_quantizer.lower", "weight_quantizer.upper"):
        holder = layer.get_submodule(name.rpartition(".")[0])
        tensor = getattr(holder, name.rpartition(".")[2])
        tensor.data = tensor.data[:, :, None, None]
    layer.skip.right.data = layer.skip.right.data[:, :, None, None]  # type: ignore[attr-defined]
    layer.adapter.right.data = layer.adapter.right.data[:, :, None, None]  # type: ignore[attr-defined]
    tokens = x.numpy().transpose(0, 2, 1)[..., None]
    expected = _equation(layer, tokens, (1, 1), (0, 0), 2**bits - 1)[..., 0].transpose(0, 2, 1)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-10)


def _trained(module: nn.Module, x: torch.Tensor, bits: int) -> QuantLayer:
    """A layer whose every parameter is somewhere in the middle of training."""
    layer = build_layer(module, "layer", LayerRecipe.model_validate(RECIPE), bits, bits)
    absmax = x.abs().amax(dim=tuple(d for d in range(x.ndim) if d != (1 if x.ndim == 4 else 2)))
    with torch.no_grad():
        layer.transform.calibrate(absmax, layer.weight)
        layer.skip.calibrate(layer.weight, layer.phi())
        layer.adapter.calibrate(layer.weight, layer.phi())
        layer.weight_quantizer.calibrate(layer.scaled_weight())
        layer.input_quantizer.calibrate(stats_of(x, 1))
        generator = torch.Generator().manual_seed(1)
        for name, parameter in layer.named_parameters():
            noise = 0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(noise * parameter if "_quantizer" in name else noise)  # a range stays a range
    return layer
