"""The kernel of few bits gives the sums of a direct convolution, every one, alone and within OpenVINO's graphs."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from qartsr.artifact.spec import LayerSpec
from qartsr.layer import Conv2dOp
from qartsr.packing import PackedLayer, pack_bits
from qartsr.runtime import winograd, winograd_op
from qartsr.runtime.graphs import import_openvino
from qartsr.runtime.winograd import Winograd, suits, unavailable_reason
from qartsr.runtime.winograd_op import operation, substitute, wanted
from tests.export.test_layers import exported, off_the_ties

needs_kernel = pytest.mark.skipif(
    unavailable_reason() is not None, reason=f"the kernel is not to be had here: {unavailable_reason()}"
)
RNG = np.random.default_rng(0)


@pytest.fixture()
def unloaded() -> Iterator[None]:
    """As in a process that has not asked for the kernel yet."""
    forget()
    yield
    forget()


def forget() -> None:
    winograd._library.cache_clear()
    unavailable_reason.cache_clear()


def direct(x: NDArray[Any], pad: NDArray[Any], weights: NDArray[Any]) -> NDArray[np.float64]:
    """In float64, which holds every sum."""
    padded = np.broadcast_to(pad, (x.shape[0] + 2, x.shape[1] + 2, x.shape[2])).astype(np.float64)
    padded[1:-1, 1:-1] = x
    y = F.conv2d(torch.from_numpy(padded).permute(2, 0, 1)[None], torch.from_numpy(weights.astype(np.float64)))
    found: NDArray[np.float64] = y[0].permute(1, 2, 0).numpy()
    return found


@needs_kernel
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("weight", "most"), [(8, 15), (7, 15), (4, 7), (2, 3), (3, 63)])
@pytest.mark.parametrize("shape", [(1, 1, 32, 16), (5, 7, 64, 80), (9, 4, 96, 96), (2, 3, 544, 64), (33, 18, 32, 144)])
def test_every_sum_is_exact(shape: tuple[int, int, int, int], weight: int, most: int, threads: int) -> None:
    """Sides odd and even, blocks of outputs whole and not, more tiles than fit one block."""
    height, width, channels, out = shape
    weights = RNG.integers(-weight, weight, (out, channels, 3, 3), endpoint=weight < 8).astype(np.int8)
    x = RNG.integers(0, most + 1, (height, width, channels)).astype(np.uint8)
    pad = RNG.integers(0, most + 1, channels).astype(np.uint8)
    base = RNG.integers(-9999, 9999, out).astype(np.int32)
    found = Winograd(weights, most)(x, pad, np.ones(out, np.float32), base, threads)
    assert np.array_equal(found, direct(x, pad, weights) + base)


@needs_kernel
@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize(("weight", "most"), [(8, 15), (15, 15), (7, 7), (3, 3)])
def test_the_largest_sums_overflow_nowhere(weight: int, most: int, sign: int) -> None:
    """All weights and inputs at their ends, and the checkerboard that makes the transforms largest; odd weights too."""
    weights = np.full((32, 512, 3, 3), sign * weight, np.int8)
    weights[16:, :, ::2, 1] *= -1
    weights[16:, :, 1, ::2] *= -1
    x = np.full((4, 6, 512), most, np.uint8)
    x[1::2, ::2, 256:] = 0
    pad = np.zeros(512, np.uint8)
    scale, base = np.full(32, 0.5, np.float32), np.zeros(32, np.int32)
    assert np.array_equal(Winograd(weights, most)(x, pad, scale, base), 0.5 * direct(x, pad, weights))


@needs_kernel
def test_odd_weights_of_four_bits() -> None:
    """-15 .. 15, as a grid with 0 between two codes has them, would not fit the transform as they are."""
    weights = (2 * RNG.integers(-8, 8, (64, 64, 3, 3)) + 1).astype(np.int8)
    x, pad = RNG.integers(0, 16, (7, 6, 64)).astype(np.uint8), np.full(64, 5, np.uint8)
    found = Winograd(weights, 15)(x, pad, np.ones(64, np.float32), np.zeros(64, np.int32))
    assert np.array_equal(found, direct(x, pad, weights))


def test_what_it_does_not_suit() -> None:
    good = np.full((16, 32, 3, 3), 7, np.int8)
    assert suits(good, 15) and suits(2 * good + 1, 15)
    assert not suits(good, 255) and not suits(good, 0) and not suits(16 * good, 15)
    cross = np.zeros((16, 32, 3, 3), np.int8)
    cross[:, :, 1] = 30
    assert suits(cross, 15) and not suits(cross, 63), "nine times the largest would be too much, its transform is not"
    for shape in ((15, 32, 3, 3), (16, 31, 3, 3), (16, 32, 1, 1), (16, 32)):
        assert not suits(np.ones(shape, np.int8), 15)
    with pytest.raises(ValueError, match="not for this kernel"):
        Winograd(good, 255)


@needs_kernel
def test_other_channels_are_refused() -> None:
    layer = Winograd(np.ones((16, 32, 3, 3), np.int8), 15)
    one, whole = np.ones(16, np.float32), np.zeros(16, np.int32)
    for channels, pad in ((64, 32), (32, 64)):
        with pytest.raises(ValueError, match="other channels"):
            layer(np.zeros((2, 2, channels), np.uint8), np.zeros(pad, np.uint8), one, whole)


def layer(bits: int, zero: int, weight_offset: float) -> tuple[PackedLayer, Tensor]:
    """A convolution of 64 by 48 channels and an input off the ties; ``weight_offset`` in steps."""
    generator = torch.Generator().manual_seed(0)
    shape = (48, 64, 3, 3)
    spec = LayerSpec(
        shape=shape, weight_bits=bits, per_channel=True, bias_bits=0, input_bits=bits, transform="none", rank=0
    )
    packed = PackedLayer(Conv2dOp((1, 1), (1, 1), (1, 1)), spec).eval()
    state = {name: torch.rand(value.shape, generator=generator) for name, value in packed.state_dict().items()}
    state["weight.codes"] = pack_bits(torch.randint(0, 2**bits, shape, generator=generator), bits)
    steps = 0.1 + state["weight.grid"][0]
    state["weight.grid"] = torch.stack([steps, weight_offset * steps])
    state["input.grid"] = torch.tensor([0.11, -0.11 * zero])
    packed.load_state_dict(state)
    return packed, off_the_ties(packed, torch.randn((1, 64, 9, 12), generator=generator))


def compiled(packed: PackedLayer, x: Tensor, kernel: bool) -> tuple[int, Any]:
    """How many convolutions the kernel took, and the compiled graph."""
    openvino = import_openvino()
    core = openvino.Core()
    core.add_extension(operation())
    model = core.read_model(exported(packed, x, varying=True))
    model.reshape(list(x.shape))
    taken = substitute(model, 2) if kernel else 0
    return taken, core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "LP_TRANSFORMS_MODE": "NO"})


@needs_kernel
@pytest.mark.parametrize("offset", [-8.0, -7.5], ids=["codes", "odd"])
@pytest.mark.parametrize(("bits", "zero"), [(4, 5), (4, 0), (3, 7), (2, 1)])
def test_within_a_graph(bits: int, zero: int, offset: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The packed layer's own output; 0, which surrounds the picture, is any of the codes. Kept graphs have it too."""
    monkeypatch.setattr(winograd_op, "_LEAST", 0)
    packed, x = layer(bits, zero, offset + 8 - 2 ** (bits - 1))
    taken, graph = compiled(packed, x, kernel=True)
    assert taken == 1
    expected = packed(x).numpy()
    found = graph(x.numpy())[0]
    assert np.abs(found - expected).max() <= 2e-6 * np.abs(expected).max()
    core = import_openvino().Core()
    core.add_extension(operation())
    kept = core.import_model(io.BytesIO(graph.export_model().getvalue()), "CPU", {})
    assert np.array_equal(kept(x.numpy())[0], found)
    taken, plain = compiled(packed, x, kernel=False)
    assert taken == 0 and np.abs(plain(x.numpy())[0] - found).max() <= 1e-5 * np.abs(expected).max()


@needs_kernel
def test_small_layers_and_eight_bits_are_left_to_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    assert compiled(*layer(4, 5, -8.0), kernel=True)[0] == 0, "9 * 12 positions are not worth the call"
    monkeypatch.setattr(winograd_op, "_LEAST", 0)
    assert compiled(*layer(8, 5, -128.0), kernel=True)[0] == 0


def test_a_machine_without_a_compiler_says_so(unloaded: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert unavailable_reason() == "the kernel of few bits: there is no C++ compiler; install g++ or clang."
    monkeypatch.setattr(winograd_op, "_LEAST", 0)
    assert compiled(*layer(4, 5, -8.0), kernel=True)[0] == 0
    assert not wanted(True), "graphs that were kept with the kernel are not taken"
    forget()
    monkeypatch.setenv("CXX", "/bin/false")
    assert "does not compile here" in str(unavailable_reason())
    forget()
    monkeypatch.setenv("CXX", str(tmp_path / "none"))
    assert "cannot be made" in str(unavailable_reason())
    assert not list((tmp_path / "qartsr").iterdir())


def test_who_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QARTSR_WINOGRAD", raising=False)
    monkeypatch.setenv("CXX", "a compiler")
    assert wanted(True) and not wanted(False)
    monkeypatch.setenv("QARTSR_WINOGRAD", "0")
    assert not wanted(True)
    monkeypatch.setenv("QARTSR_WINOGRAD", " 1 ")
    assert wanted(False)
