"""A layer in integers against an independent float64 computation from the stored codes, and against the packed one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from qartsr.artifact.spec import LayerSpec
from qartsr.engines.integer import INTEGERS, IntegerLayer, NoWindowSum, WindowSum
from qartsr.errors import QartsrError
from qartsr.layer import Conv2dOp, LayerOp, LinearOp
from qartsr.packing.bits import pack_bits
from qartsr.packing.integer_grid import code_grid
from qartsr.packing.packed_layer import PackedLayer
from qartsr.packing.supports import unsupported_reason
from qartsr.quantizers import Grid

CONV = Conv2dOp((1, 1), (1, 1), (1, 1))
OPS: dict[str, tuple[LayerOp, tuple[int, ...]]] = {
    "3x3": (CONV, (5, 6, 3, 3)),
    "stride 2": (Conv2dOp((2, 2), (1, 0), (1, 1)), (4, 5, 3, 3)),
    "dilated": (Conv2dOp((1, 2), (2, 2), (2, 2)), (4, 3, 3, 3)),
    "1x1": (Conv2dOp((1, 1), (0, 0), (1, 1)), (7, 4, 1, 1)),
    "linear": (LinearOp(), (6, 9)),
}
ZERO, FRACTION, ONE_SIGN = "contains 0", "fraction of a step", "far from 0"


def grid(bits: int, offset: str, shape: tuple[int, ...] = (), step: float = 0.1) -> torch.Tensor:
    """(2, *shape): scale and offset, different in every group."""
    scale = torch.linspace(step, 1.7 * step, int(np.prod(shape))).reshape(shape)
    steps = {ZERO: -float(2 ** (bits - 1) - 1), FRACTION: -(2 ** (bits - 1)) + 0.37, ONE_SIGN: 20.0}[offset]
    return torch.stack([scale, scale * steps])


def layer(
    kind: str, bits: tuple[int, int], offsets: tuple[str, str], per_channel: bool, transform: str = "affine"
) -> PackedLayer:
    """A packed layer of random codes with every part there is."""
    op, shape = OPS[kind]
    generator = torch.Generator().manual_seed(sum(bits))
    spec = LayerSpec(
        shape=shape,
        weight_bits=bits[0],  # type: ignore[arg-type]
        per_channel=per_channel,
        bias_bits=8,
        input_bits=bits[1],  # type: ignore[arg-type]
        transform=transform,  # type: ignore[arg-type]
        rank=2,
    )
    made = PackedLayer(op, spec)
    codes = torch.randint(2 ** bits[0], shape, generator=generator)
    groups = (shape[0], *(1 for _ in shape[1:])) if per_channel else ()
    state = made.state_dict()
    state |= {key: torch.randn(state[key].shape, generator=generator) for key in ("skip.left", "skip.right")}
    state |= {"weight.codes": pack_bits(codes, bits[0]), "weight.grid": grid(bits[0], offsets[0], groups)}
    state |= {"input.grid": grid(bits[1], offsets[1])}
    state |= {"bias.codes": pack_bits(torch.arange(shape[0]) * 31 % 256, 8), "bias.grid": torch.tensor([0.01, -0.7])}
    if transform == "affine":
        state["transform.phi"] = torch.rand(state["transform.phi"].shape, generator=generator) + 0.5
        state["transform.delta"] = torch.randn(state["transform.delta"].shape, generator=generator) * 0.3
    made.load_state_dict(state)
    return made.eval()


def network_input(kind: str) -> torch.Tensor:
    _, shape = OPS[kind]
    generator = torch.Generator().manual_seed(1)
    return torch.randn((2, 3, shape[1]) if len(shape) == 2 else (2, shape[1], 7, 6), generator=generator)


def truth(made: PackedLayer, x: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """(shifted-free input codes, output): numpy, codes in fp32 as documented, everything else in float64."""
    op, spec = made.op, made.spec
    values = x.numpy()
    if isinstance(op, Conv2dOp):
        rows, columns = op.padding
        values = np.pad(values, ((0, 0), (0, 0), (rows, rows), (columns, columns)))
    state = {key: value.numpy() for key, value in made.state_dict().items()}
    t = (values - state["transform.delta"]) / state["transform.phi"] if spec.transform == "affine" else values
    scale, offset = state["input.grid"]
    codes = np.rint(np.clip((t - offset) / scale, 0, 2**spec.input_bits - 1))
    left = codes * np.float64(scale) + np.float64(offset)
    stream = np.unpackbits(state["weight.codes"], bitorder="little")[: np.prod(spec.shape) * spec.weight_bits]
    stored = (stream.reshape(-1, spec.weight_bits) << np.arange(spec.weight_bits)).sum(1).reshape(spec.shape)
    weight = stored * state["weight.grid"][0].astype(np.float64) + state["weight.grid"][1].astype(np.float64)
    bias = state["bias.codes"] * np.float64(state["bias.grid"][0]) + np.float64(state["bias.grid"][1])
    low = np.tensordot(state["skip.left"].astype(np.float64), state["skip.right"].astype(np.float64), 1)
    if isinstance(op, LinearOp):
        return codes, left @ weight.T + bias + values.astype(np.float64) @ low.T
    main = convolve(left, weight, op) + convolve(values.astype(np.float64), low, op)
    return codes, main + bias[:, None, None]


def convolve(x: np.ndarray, weight: np.ndarray, op: Conv2dOp) -> np.ndarray:
    """Tap by tap, no library."""
    span = [(side - 1) * step + 1 for side, step in zip(weight.shape[2:], op.dilation, strict=True)]
    height, width = ((x.shape[2 + d] - span[d]) // op.stride[d] + 1 for d in (0, 1))
    total = np.zeros((x.shape[0], weight.shape[0], height, width))
    for i, j in itertools.product(*map(range, weight.shape[2:])):
        top, left = i * op.dilation[0], j * op.dilation[1]
        part = x[:, :, top :: op.stride[0], left :: op.stride[1]][:, :, :height, :width]
        total += np.einsum("bchw,oc->bohw", part, weight[:, :, i, j])
    return total


def check(made: PackedLayer, x: torch.Tensor) -> None:
    integer = IntegerLayer(made)
    codes, expected = truth(made, x)
    with torch.no_grad():
        found, packed = integer(x), made(x)
        shifted_codes = integer.input_codes(made.op.pad(x))
    assert np.array_equal(shifted_codes.numpy() + integer.zero.numpy(), codes)
    largest = np.abs(expected).max()
    assert np.abs(found.numpy() - expected).max() <= 2e-6 * largest
    assert np.abs(found.numpy() - packed.numpy()).max() <= 1e-5 * largest


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("offsets", itertools.product((ZERO, FRACTION, ONE_SIGN), repeat=2))
@pytest.mark.parametrize("kind", OPS)
def test_every_operation_and_every_kind_of_offset(kind: str, offsets: tuple[str, str], per_channel: bool) -> None:
    check(layer(kind, (4, 3), offsets, per_channel), network_input(kind))


@pytest.mark.parametrize("bits", [*((b, b) for b in range(2, 9)), (2, 8), (8, 2)])
def test_every_bit_width(bits: tuple[int, int]) -> None:
    check(layer("3x3", bits, (ZERO, ZERO), True), network_input("3x3"))
    check(layer("linear", bits, (FRACTION, ZERO), False, transform="none"), network_input("linear"))


def test_padding_is_the_code_of_the_value_zero() -> None:
    made = layer("3x3", (4, 4), (ZERO, FRACTION), True)
    made.skip.left.zero_()
    with torch.no_grad():
        edge = IntegerLayer(made)(torch.zeros(1, 6, 4, 4))
    assert torch.allclose(edge, edge[:, :, :1, :1].expand_as(edge), atol=1e-6)  # a border of zeros is like the inside


@pytest.mark.parametrize("bits", range(2, 9))
def test_grids_with_a_zero_need_no_correction(bits: int) -> None:
    scale, offset = grid(bits, ZERO, (7,))
    found = code_grid(Grid(scale, offset, 2**bits - 1))
    assert torch.equal(found.rest, torch.zeros(7, dtype=torch.float64))
    assert torch.equal(found.zero, torch.full((7,), 2.0 ** (bits - 1) - 1).double())
    assert isinstance(IntegerLayer(layer("3x3", (bits, 4), (ZERO, ZERO), True)).window, NoWindowSum)
    assert isinstance(IntegerLayer(layer("3x3", (bits, 4), (ONE_SIGN, ZERO), True)).window, WindowSum)


@pytest.mark.parametrize("offset", [ZERO, FRACTION, ONE_SIGN])
def test_a_shifted_grid_has_the_values_of_the_grid(offset: str) -> None:
    scale, start = grid(5, offset, (3, 1))
    found = code_grid(Grid(scale, start, 31))
    codes = torch.arange(32).double()
    exact = codes * scale.double() + start.double()
    assert torch.allclose((codes - found.zero) * found.scale + found.rest, exact, atol=1e-6, rtol=0)
    assert bool(((codes - found.zero).abs() <= 31).all())


def test_sums_are_carried_where_they_are_exact() -> None:
    assert IntegerLayer(layer("linear", (4, 4), (ZERO, ZERO), True)).codes.dtype == torch.float32
    wide = PackedLayer(LinearOp(), LayerSpec(
        shape=(1, 600), weight_bits=8, per_channel=False, bias_bits=0, input_bits=8, transform="none", rank=0
    ))  # fmt: skip
    wide.weight.codes.fill_(255)
    integer = IntegerLayer(wide)  # 600 * 255 * 255 is above 2**24: fp32 would round it
    assert integer.codes.dtype == torch.float64
    codes = torch.full((1, 600), 255.0)
    codes[0, 0] = 254.0
    assert integer.accumulate(codes).item() == 599 * 255 * 255 + 254 * 255


def test_sums_beyond_32_bits_are_refused() -> None:
    huge = LayerSpec(
        shape=(1, 40000), weight_bits=8, per_channel=False, bias_bits=0, input_bits=8, transform="none", rank=0
    )
    made = PackedLayer(LinearOp(), huge)
    made.weight.codes.fill_(255)
    with pytest.raises(QartsrError, match="32 bits"):
        IntegerLayer(made)


def test_a_side_in_floating_point_is_no_integer_layer() -> None:
    for weight_bits, input_bits in ((0, 4), (4, 0)):
        spec = LayerSpec(
            shape=(2, 3), weight_bits=weight_bits, per_channel=False, bias_bits=8, input_bits=input_bits,
            transform="none", rank=0,
        )  # fmt: skip
        assert "floating point" in str(unsupported_reason(PackedLayer(LinearOp(), spec), INTEGERS))
