"""A layer as a graph computes what the packed layer computes, in runtimes that know nothing of this project."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from qartsr.artifact.spec import LayerSpec
from qartsr.errors import QartsrError
from qartsr.export.graph import Graph
from qartsr.export.layers import inexpressible, write_layer
from qartsr.export.polyphase import fuses, write_upsampled
from qartsr.layer import Conv2dOp, LinearOp
from qartsr.packing import PackedLayer, pack_bits, pack_layer
from qartsr.quantizers import TokenGaussian
from tests.export.runtimes import RUNTIMES, rounding
from tests.packing.test_packed_layer import LAYERS, VARIANTS, make
from tests.packing.tiny import recipe


def exported(layer: PackedLayer, x: Tensor, varying: bool = False) -> bytes:
    graph = Graph()
    sides = range(1, x.dim() - 1) if isinstance(layer.op, LinearOp) else range(2, x.dim())
    shape = tuple(f"side{axis}" if varying and axis in sides else size for axis, size in enumerate(x.shape))
    y = write_layer(graph, "layer", layer, graph.input("x", shape), x.dim())
    graph.output("y", y, [f"any{axis}" for axis in range(x.dim())] if varying else tuple(layer(x).shape))
    return graph.model({}).SerializeToString()


def off_the_ties(layer: PackedLayer, x: Tensor) -> Tensor:
    """``x`` moved a little where it lies half-way between two codes: x * (1 / phi) may round otherwise than x / phi."""
    if not layer.spec.input_bits:
        return x
    if isinstance(layer.input, TokenGaussian):
        return next(moved for moved in (x + 0.01 * number for number in range(99)) if off(layer, moved))
    scale, offset = layer.input.grid
    inner = (layer.transform(x) - offset) / scale
    near = ((inner - inner.floor()) - 0.5).abs() < 1e-3
    slope = layer.transform(torch.ones_like(x)) - layer.transform(torch.zeros_like(x))
    return torch.where(near, x + 0.01 * scale / slope, x)


def off(layer: PackedLayer, x: Tensor) -> bool:
    """Whether no value of a token lies half-way between two codes, as far as fp32 can tell."""
    inner = layer.transform(x)
    grid = layer.input.grid(inner)
    steps = (inner - grid.offset) / grid.scale
    return bool((((steps - steps.floor()) - 0.5).abs() > 1e-4).all())


def compare(layer: PackedLayer, x: Tensor, runtime: str, varying: bool = False) -> None:
    steady = off_the_ties(layer, x)
    found, expected = RUNTIMES[runtime](exported(layer, steady, varying))(steady), layer(steady)
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) <= rounding(runtime) * float(expected.abs().max())


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_layer_and_part(kind: str, variant: str) -> None:
    layer, x = make(kind, recipe(**VARIANTS[variant]), 3, 5)
    packed = pack_layer(layer)
    if inexpressible(packed):
        with pytest.raises(QartsrError, match="no standard graph expresses"):
            exported(packed, x)
        return
    compare(packed, x, "onnx runtime, node by node")
    compare(packed, x, "openvino")
    if kind in ("conv", "linear"):
        compare(packed, x, "openvino", varying=True)


@pytest.mark.parametrize("variant", ["tokens", "q-dit4sr"])
def test_a_token_of_zeros_gives_the_bias(variant: str) -> None:
    layer, x = make("linear", recipe(**VARIANTS[variant]), 4, 4)
    x[:, 1] = 0
    packed = pack_layer(layer)
    for runtime in ("onnx runtime, node by node", "openvino"):
        found, expected = RUNTIMES[runtime](exported(packed, x))(x), packed(x)
        assert float((found - expected)[:, 1].abs().max()) <= rounding(runtime) * float(expected.abs().max())


@pytest.mark.parametrize("offset", [-7.5, -3.5, -7.25, 0.5])
def test_weight_grids_with_0_anywhere(offset: float) -> None:
    """In the middle of two codes, which may be the middle of the grid or not; beside it."""
    layer, x = awkward("linear", 4)
    layer.weight.grid = torch.stack([torch.full((6, 1), 0.1), torch.full((6, 1), 0.1 * offset)])
    for runtime in RUNTIMES:
        compare(layer, x, runtime)


@pytest.mark.parametrize("bits", [2, 4, 7, 8])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_width(bits: int, runtime: str) -> None:
    layers = [(pack_layer(layer), x) for layer, x in (make(kind, recipe(), bits, bits) for kind in ("conv", "linear"))]
    for layer, x in layers:
        compare(layer, x, runtime)
    for layer, x in layers:
        compare(layer, x, runtime, varying=True)


def awkward(kind: str, bits: int) -> tuple[PackedLayer, Tensor]:
    """Neither grid contains 0, neither offset is a multiple of its scale; delta makes padding a value among others."""
    generator = torch.Generator().manual_seed(0)
    shape = (6, 5, 3, 3) if kind == "conv" else (6, 5)
    op = Conv2dOp((2, 1), (1, 2), (1, 1)) if kind == "conv" else LinearOp()
    spec = LayerSpec(
        shape=shape, weight_bits=bits, per_channel=True, bias_bits=0, input_bits=bits, transform="affine", rank=2
    )
    layer = PackedLayer(op, spec).eval()
    codes = torch.randint(0, 2**bits, shape, generator=generator)
    channels = (1, 5) + (1,) * (len(shape) - 2)
    state = {name: torch.rand(value.shape, generator=generator) for name, value in layer.state_dict().items()}
    state["weight.codes"] = pack_bits(codes, bits)
    state["weight.grid"] = torch.stack([0.1 + state["weight.grid"][0], 0.37 + state["weight.grid"][1]])
    state["input.grid"] = torch.tensor([0.11, 0.777])
    state["transform.phi"] = 0.5 + torch.rand(channels, generator=generator).reshape(state["transform.phi"].shape)
    layer.load_state_dict(state)
    sides = (5, 9, 8) if kind == "conv" else (4, 5)
    return layer, torch.randn((2, *sides), generator=generator)


@pytest.mark.parametrize("zero", [0, 100, 128, 255])
@pytest.mark.parametrize("kind", ["conv", "linear"])
def test_zero_points_anywhere_in_a_varying_graph(kind: str, zero: int) -> None:
    layer, x = awkward(kind, 8)
    layer.input.grid = torch.tensor([0.11, -0.11 * zero])
    for runtime in RUNTIMES:
        compare(layer, x, runtime, varying=True)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("kind", ["conv", "linear"])
def test_grids_without_zero_are_corrected_exactly(kind: str, bits: int) -> None:
    layer, x = awkward(kind, bits)
    for runtime in RUNTIMES:
        for varying in (False, True):
            compare(layer, x, runtime, varying)


def test_weights_are_stored_as_int8() -> None:
    import onnx

    layer, x = make("conv", recipe(), 3, 3)
    model = onnx.load_from_string(exported(pack_layer(layer), x))
    (codes,) = (each for each in model.graph.initializer if "weight.codes" in each.name)
    assert codes.data_type == onnx.TensorProto.INT8
    assert len(codes.raw_data) == layer.weight.numel()


def test_an_unknown_part_is_refused() -> None:
    layer, x = make("linear", recipe(), 4, 4)
    packed = pack_layer(layer)
    assert inexpressible(packed) is None
    packed.input = torch.nn.ReLU()
    with pytest.raises(QartsrError, match="no standard graph expresses layer layer: it has a ReLU"):
        exported(packed, x)


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("varying", [False, True])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_upsampling_before_a_convolution_is_exact(bits: int, varying: bool, runtime: str) -> None:
    layer, x = make("conv", recipe(), bits, bits)
    packed = pack_layer(layer)
    assert fuses(packed)
    steady = off_the_ties(packed, x)
    expected = packed(torch.nn.functional.interpolate(steady, scale_factor=2.0, mode="nearest"))
    graph = Graph()
    sides = ("h", "w") if varying else x.shape[2:]
    y = write_upsampled(graph, "layer", packed, graph.input("x", (*x.shape[:2], *sides)))
    graph.output("y", y, (*expected.shape[:2], "H", "W") if varying else tuple(expected.shape))
    found = RUNTIMES[runtime](graph.model({}).SerializeToString())(steady)
    torch.testing.assert_close(found, expected, rtol=0, atol=rounding(runtime) * float(expected.abs().max()))


def test_what_upsampling_cannot_join() -> None:
    assert not fuses(awkward("conv", 4)[0])
    assert not fuses(pack_layer(make("strided conv", recipe(), 4, 4)[0]))
    assert not fuses(pack_layer(make("conv", recipe(), 8, 8)[0]))
