"""Every kernel against its reference in plain torch, on random shapes: sums must be exact, codes equal.

The reference runs on the CPU, whose float64 convolutions hold the integer sums exactly.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from qartsr.kernels import Affine, Epilogue, Geometry, InputCodes, Kernels, PackedWeight
from qartsr.kernels.plain import PlainKernels
from qartsr.kernels.tiles import Problem, Tiles

MakeKernels = Callable[[dict[Problem, Tiles]], Kernels]
_PLAIN = PlainKernels()
_NOTHING = torch.empty(0)
_WINDOWS = (
    Geometry(), Geometry((3, 3), (1, 1), (1, 1)), Geometry((3, 3), (2, 2), (1, 1)), Geometry((3, 3), (2, 2)),
    Geometry((3, 1), (2, 1), (1, 0), (1, 2)), Geometry((3, 3), (1, 1), (2, 2), (2, 2)), Geometry((1, 1), (2, 2)),
)  # fmt: skip


def check(
    make: MakeKernels, device: torch.device, cases: int, over: Callable[[], bool] = lambda: False
) -> dict[str, Any]:
    """``cases`` random shapes of every kernel, or as many as there is time for; what differs, and by how much at most.

    The key ``failed`` lists the cases that differ by more than rounding: it must be empty.
    """
    draw, found = random.Random(0), {name: [0, 0.0] for name in _CHECKS}
    failed: list[str] = []
    for number in range(cases):
        if over():
            break
        torch.manual_seed(number)
        for name, one in _CHECKS.items():
            try:
                error, limit, case = one(make, draw, device)
            except Exception as problem:  # each version of Triton has its own classes
                error, limit, case = float("nan"), 0.0, f"{type(problem).__name__}: {problem}"
            found[name][0] += 1
            found[name][1] = max(found[name][1], error)
            if not error <= limit:
                failed.append(f"{name} {case}: {error:.3g}, more than {limit:.0e}")
    return {
        "kernels": {name: {"cases": count, "largest_difference": worst} for name, (count, worst) in found.items()},
        "failed": failed,
    }


def _unpack(make: MakeKernels, draw: random.Random, device: torch.device) -> tuple[float, float, str]:
    bits, shape = draw.randint(2, 8), (draw.randint(1, 70), draw.randint(1, 70), *draw.choice([(1, 1), (3, 3), (3, 1)]))
    count = torch.Size(shape).numel()
    stream = torch.randint(0, 256, (-(-count * bits // 8),), dtype=torch.uint8)
    zero = torch.randint(max(0, 2**bits - 128), min(2**bits - 1, 128) + 1, (shape[0],), dtype=torch.int32)
    weight = PackedWeight(stream, bits, shape, zero)
    there = make({}).unpack(PackedWeight(stream.to(device), bits, shape, zero.to(device)))
    return float(not torch.equal(there.cpu(), _PLAIN.unpack(weight))), 0.0, str((bits, shape))


def _product(make: MakeKernels, draw: random.Random, device: torch.device) -> tuple[float, float, str]:
    window, sides, batch = draw.choice(_WINDOWS), (draw.randint(3, 40), draw.randint(3, 40)), draw.randint(1, 3)
    channels, outputs = draw.choice([draw.randint(1, 300), 320, 512]), draw.choice([draw.randint(1, 300), 320])
    rank, dtype = draw.choice([0, 3, 4, 16, 20]), draw.choice([torch.float32, torch.float16])
    out = window.output(*sides)
    codes, weight = _codes(batch, *sides, channels), _codes(outputs, *window.kernel, channels)
    border = _codes(channels) if draw.random() < 0.5 else _NOTHING.to(torch.int8)

    def some(*size: int, there: bool = True, kind: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(size).to(kind) if there else _NOTHING

    size = (128 * 128 * channels * weight.shape[1] * weight.shape[2]) ** 0.5
    epilogue = Epilogue(
        scale=some(outputs) / size,
        bias=some(draw.choice([1, batch]), outputs),
        rows=some(outputs, there=draw.random() < 0.5) / size,
        left=some(outputs, rank, there=rank > 0, kind=dtype),
        down=some(batch, *out, rank, there=rank > 0, kind=dtype),
        residual=some(batch, *out, outputs, there=draw.random() < 0.5, kind=dtype),
    )
    problem = Problem(batch * out[0] * out[1], outputs, channels, weight.shape[1] * weight.shape[2])
    chosen = draw.choice(
        [None, Tiles(64, 64, 64, draw.randint(2, 8), 4, 3), Tiles(128, 256, 64), Tiles(64, 256, 128, 1, 4)]
    )
    arguments = (codes, weight, border, window, epilogue, dtype)
    kernels = make({} if chosen is None else {problem: chosen})
    there = kernels.product(*moved(arguments, device)).cpu().double()
    expected = _PLAIN.product(*arguments[:-1], torch.float32).double()
    error = float((there - expected).abs().max() / expected.abs().max().clamp_min(1e-30))
    return (
        error,
        1e-5 if dtype == torch.float32 else 2e-3,
        str((window, sides, batch, channels, outputs, rank, chosen, dtype)),
    )


def _quantize(make: MakeKernels, draw: random.Random, device: torch.device) -> tuple[float, float, str]:
    x, codes, case = _inputs(draw)
    there = make({}).quantize(x.to(device), moved(codes, device))
    return float(not torch.equal(there.cpu(), _PLAIN.quantize(x, codes))), 0.0, case


def _group_norm(make: MakeKernels, draw: random.Random, device: torch.device) -> tuple[float, float, str]:
    groups = draw.choice([1, 4, 32])
    shape = (draw.randint(1, 3), draw.randint(1, 60), draw.randint(1, 60), groups * draw.randint(1, 12))
    x = torch.randn(shape) * 3 + torch.randn(()) * 30
    weight, bias = torch.randn(2, shape[-1])
    there = make({}).group_norm(*moved((x, groups, weight, bias, 1e-6), device))
    grouped = x.double().reshape(shape[0], -1, groups, shape[-1] // groups)  # in float64: an independent truth
    variance, mean = torch.var_mean(grouped, dim=(1, 3), correction=0)
    gain = (variance + 1e-6).rsqrt().repeat_interleave(shape[-1] // groups, 1) * weight
    shift = bias - mean.repeat_interleave(shape[-1] // groups, 1) * gain
    found, expected = _on(x, there.gain, there.shift), _on(x, gain, shift)
    return float((found - expected).abs().max() / expected.abs().max()), 1e-4, str((shape, groups))


def _on(x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    return x.double() * gain.cpu().double()[:, None, None] + shift.cpu().double()[:, None, None]


def _activate(make: MakeKernels, draw: random.Random, device: torch.device) -> tuple[float, float, str]:
    """Share of codes that differ; by one at most, for the exponential is rounded in another order."""
    x, codes, case = _inputs(draw)
    norm = Affine(*torch.randn(2, x.shape[0], x.shape[3]))
    there, expected = make({}).activate(*moved((x, norm, codes, True), device)), _PLAIN.activate(x, norm, codes, True)
    apart = (there.codes.cpu().int() - expected.codes.int()).abs()
    off = (there.values.cpu().double() - expected.values.double()).abs().max() / expected.values.abs().max()
    return (
        float("inf") if apart.max() > 1 or off > 2e-3 else float(apart.double().mean()),
        max(1e-3, 2 / x.numel()),
        case,
    )


def _inputs(draw: random.Random) -> tuple[Tensor, InputCodes, str]:
    shape = (draw.randint(1, 3), draw.randint(1, 40), draw.randint(1, 40), draw.randint(1, 400))
    levels, dtype = 2 ** draw.randint(2, 8) - 1, draw.choice([torch.float32, torch.float16])
    transform = draw.random() < 0.5
    basis = (torch.randn(shape[3]), torch.rand(shape[3]) + 0.3) if transform else (_NOTHING, _NOTHING)
    x = (torch.randn(shape) * 3 + 1).to(dtype)
    codes = InputCodes(*basis, torch.tensor([8.0 / levels, -3.1]), levels, max(3, levels - 127))
    return x, codes, str((shape, levels, transform, dtype))


def _codes(*size: int) -> Tensor:
    return torch.randint(-128, 128, size).to(torch.int8)


def moved(value: Any, device: torch.device | str) -> Any:
    """Tensors, and those in tuples at any depth, on ``device``; anything else as it is."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, tuple):
        inner = [moved(each, device) for each in value]
        return type(value)(*inner) if hasattr(value, "_fields") else tuple(inner)
    return value


_CHECKS = {
    "unpack": _unpack, "product": _product, "quantize": _quantize, "group_norm": _group_norm, "activate": _activate,
}  # fmt: skip
