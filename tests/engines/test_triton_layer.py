"""A kernel layer computes what its packed layer computes, to the rounding of fp32 sums."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qartsr.engines.triton_layer import KernelLayer, convertible
from qartsr.kernels import Kernels
from qartsr.kernels.plain import PlainKernels
from qartsr.packing import PackedLayer, pack_layer
from tests.interpreter import TritonFor
from tests.packing.test_packed_layer import LAYERS, VARIANTS, make
from tests.packing.tiny import recipe

PLAIN = PlainKernels()
INTEGER = [variant for variant in VARIANTS if variant not in ("float weight", "float input")]


def pair(kind: str, variant: str, bits: tuple[int, int], kernels: Kernels, resident: bool) -> tuple[Tensor, Tensor]:
    layer, x = make(kind, recipe(**VARIANTS[variant]), *bits)
    packed = pack_layer(layer)
    if not convertible(packed):
        with pytest.raises(ValueError, match="only layers of integers with plain grids and branches"):
            KernelLayer(packed, kernels, torch.float32, resident)
        return packed(x), packed(x)  # the simulation runs it
    with torch.no_grad():
        return KernelLayer(packed, kernels, torch.float32, resident)(x), packed(x)


def assert_near(found: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    assert found.shape == expected.shape and found.dtype == expected.dtype
    assert float((found - expected).abs().max()) <= tolerance * float(expected.abs().max())


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("variant", INTEGER)
@pytest.mark.parametrize("bits", [(4, 4), (8, 8)], ids=["w4a4", "w8a8"])
def test_output_is_the_packed_layers(kind: str, variant: str, bits: tuple[int, int]) -> None:
    """Eight bits need the correction for zero points that int8 does not hold, in weights and in inputs."""
    assert_near(*pair(kind, variant, bits, PLAIN, resident=True))


@pytest.mark.parametrize("bits", [(2, 2), (3, 3), (3, 5), (7, 6)], ids=str)
@pytest.mark.parametrize("resident", [True, False], ids=["resident", "packed"])
def test_other_bits(bits: tuple[int, int], resident: bool) -> None:
    assert_near(*pair("conv", "qartsr", bits, PLAIN, resident))


@pytest.mark.parametrize("kind", ["linear", "strided conv", "conv"])
@pytest.mark.parametrize("variant", ["qartsr", "affine", "lsq+"])
def test_output_is_the_packed_layers_on_triton(triton_for: TritonFor, kind: str, variant: str) -> None:
    assert_near(*pair(kind, variant, (4, 8), triton_for({}), resident=False))


def test_memory_is_that_of_the_codes() -> None:
    layer, _ = make("conv", recipe(), 3, 4)
    packed, count = pack_layer(layer), layer.weight.numel()
    sizes = [
        sum(value.numel() for value in KernelLayer(packed, PLAIN, torch.float32, resident).weight.buffers())
        for resident in (True, False)
    ]
    assert sizes == [count, -(-count * 3 // 8) + layer.weight.shape[0]]


def test_norm_activation_bias_and_residual_are_added_in() -> None:
    layer, x = make("conv", recipe(), 8, 8)
    packed, norm = pack_layer(layer), nn.GroupNorm(3, 6)
    nn.init.uniform_(norm.weight)
    nn.init.uniform_(norm.bias)
    kernel = KernelLayer(packed, PLAIN, torch.float32, resident=True)
    bias, residual = torch.randn(2, 10), torch.randn(2, 10, 9, 8)
    with torch.no_grad():
        values = F.silu(norm(x))
        expected = packed(values) + bias[:, :, None, None] + residual
        assert_near(kernel.extended(values, bias, residual), expected)
        # a value within rounding of the middle between two codes may fall to either side: then 9 windows differ a bit
        different = (kernel.activated(x, norm, bias, residual) - expected).abs() > 1e-5 * expected.abs().max()
        assert float(different.float().mean()) < 0.05


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_half_precision_in_and_out(kind: str, dtype: torch.dtype) -> None:
    layer, x = make(kind, recipe(), 4, 4)
    packed = pack_layer(layer)
    with torch.no_grad():
        found = KernelLayer(packed, PLAIN, dtype, resident=True)(x.to(dtype))
        assert found.dtype == dtype
        assert_near(found.float(), packed(x.to(dtype).float()), 2e-2 if dtype is torch.bfloat16 else 2e-3)


@pytest.mark.parametrize("variant", ["float weight", "float input"])
def test_floating_point_layers_are_refused(variant: str) -> None:
    layer, _ = make("conv", recipe(**VARIANTS[variant]), 4, 4)
    packed = pack_layer(layer)
    assert isinstance(packed, PackedLayer) and not convertible(packed)
    with pytest.raises(ValueError, match="layers of integers"):
        KernelLayer(packed, PLAIN, torch.float32, resident=True)
