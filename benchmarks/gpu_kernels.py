"""The kernels alone: what the GPU can do at most, and each convolution in bf16 by cuDNN against int8 by Triton.

Needs torch and Triton, not diffusers. All data are random and not zero: GPUs run faster on zeros.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from multiprocessing import get_context
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.gpu_timing import Clock, Run, interleaved, ratio, spread
from qartsr.kernels import Epilogue, Geometry, InputCodes, Kernels
from qartsr.kernels.plain import PlainKernels
from qartsr.kernels.tiles import Problem, Tiles, candidates

WINDOW = Geometry((3, 3), (1, 1), (1, 1))
GROUPS, EPSILON, RANK = 32, 1e-6, 16


class Shape(NamedTuple):
    """A 3 x 3 convolution of stride 1 on a square."""

    inputs: int
    outputs: int
    side: int

    @property
    def problem(self) -> Problem:
        """As the tiles are looked up."""
        return Problem(self.side**2, self.outputs, self.inputs, 9)

    @property
    def operations(self) -> float:
        """Multiplications and additions."""
        return 18.0 * self.inputs * self.outputs * self.side**2

    def __str__(self) -> str:
        return f"{self.inputs} to {self.outputs} at {self.side} x {self.side}"


VAE = tuple(
    Shape(*sizes)
    for sizes in (
        (512, 512, 128), (128, 128, 512), (256, 256, 256), (512, 512, 64),
        (512, 512, 256), (256, 256, 512), (512, 256, 256), (256, 128, 512),
    )
)  # fmt: skip
"""79 % of OSEDiff's multiplications at 512 x 512."""
UNET = (Shape(320, 320, 64), Shape(640, 640, 32), Shape(1280, 1280, 16), Shape(1280, 1280, 8))
MakeKernels = Callable[[dict[Problem, Tiles]], Kernels]


class Layer(NamedTuple):
    """One convolution's data in both precisions."""

    x: Tensor
    """(1, side, side, C) bf16"""
    codes: Tensor
    weight: Tensor
    float_weight: Tensor
    """(O, C, 3, 3) bf16, channels last"""
    border: Tensor
    epilogue: Epilogue
    whole: Epilogue
    """with a low-rank branch and a residual, as in a model"""
    inputs: InputCodes
    gain: Tensor
    shift: Tensor


def layer(shape: Shape, device: torch.device) -> Layer:
    draw = torch.Generator().manual_seed(0)

    def normal(*size: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(size, generator=draw).to(device, dtype)

    def codes(*size: int) -> Tensor:
        return torch.randint(-7, 9, size, generator=draw).to(torch.int8).to(device)

    nothing = torch.empty(0, device=device)
    scale = torch.full((shape.outputs,), 0.1 / math.sqrt(9 * shape.inputs), device=device)
    return Layer(
        x=normal(1, shape.side, shape.side, shape.inputs, dtype=torch.bfloat16),
        codes=codes(1, shape.side, shape.side, shape.inputs),
        weight=codes(shape.outputs, 3, 3, shape.inputs),
        float_weight=(normal(shape.outputs, shape.inputs, 3, 3) / math.sqrt(9 * shape.inputs))
        .to(torch.bfloat16)
        .contiguous(memory_format=torch.channels_last),
        border=nothing.to(torch.int8),
        epilogue=Epilogue(scale, normal(1, shape.outputs), nothing, nothing, nothing, nothing),
        whole=Epilogue(
            scale,
            normal(1, shape.outputs),
            nothing,
            normal(shape.outputs, RANK, dtype=torch.float16),
            normal(1, shape.side, shape.side, RANK, dtype=torch.float16),
            normal(1, shape.side, shape.side, shape.outputs, dtype=torch.float16),
        ),
        inputs=InputCodes(
            nothing, normal(shape.inputs).abs() + 0.5, torch.tensor([0.4, -2.8], device=device), 15, 7
        )._replace(delta=torch.zeros(shape.inputs, device=device)),
        gain=normal(shape.inputs),
        shift=normal(shape.inputs),
    )


def ceilings(device: torch.device, rounds: int, clock: Clock, side: int = 8192) -> dict[str, Any]:
    """The rates of torch's own int8 and bf16 products of ``side``^3, in 10^12 operations/s, and of a copy in GB/s."""
    a, b = (torch.randint(-127, 128, (side, side), dtype=torch.int8).to(device) for _ in range(2))
    x, y = (torch.randn(side, side).to(device, torch.bfloat16) for _ in range(2))
    big = torch.randn(side * side).to(device)
    times = interleaved(
        {
            "int8": lambda: torch._int_mm(a, b.t()),  # a row-major right side falls back to a slow kernel
            "bf16": lambda: x @ y.t(),
            "copy": lambda: big.clone(),
        },
        rounds,
        clock,
    )
    rates = dict.fromkeys(("int8", "bf16"), 2.0 * side**3 / 1e9) | {"copy": 2.0 * big.nbytes / 1e6}
    return {
        name: {"milliseconds": spread(values), "rate": significant(rates[name] / spread(values)["median"])}
        for name, values in times.items()
    }


def contenders(made: Layer, kernels: Kernels) -> dict[str, Run]:
    """The convolution alone, and with the GroupNorm and SiLU before it."""
    image = made.x.permute(0, 3, 1, 2)
    gain, shift = made.gain.to(torch.bfloat16), made.shift.to(torch.bfloat16)

    def product(codes: Tensor) -> Tensor:
        return kernels.product(codes, made.weight, made.border, WINDOW, made.epilogue, torch.float16)

    def block() -> Tensor:
        norm = kernels.group_norm(made.x, GROUPS, made.gain, made.shift, EPSILON)
        return product(kernels.activate(made.x, norm, made.inputs, False).codes)

    def plain_block() -> Tensor:
        return F.conv2d(F.silu(F.group_norm(image, GROUPS, gain, shift, EPSILON)), made.float_weight, padding=1)

    return {
        "bf16": lambda: F.conv2d(image, made.float_weight, padding=1),
        "int8": lambda: product(made.codes),
        "int8, branch and residual": lambda: _whole(made, kernels),
        "bf16 block": plain_block,
        "int8 block": block,
    }


def measure(
    shapes: tuple[Shape, ...], device: torch.device, make: MakeKernels, table: dict[Problem, Tiles],
    rounds: int, clock: Clock, over: Callable[[], bool] = lambda: False,
) -> list[dict[str, Any]]:  # fmt: skip
    rows = list[dict[str, Any]]()
    for shape in shapes:
        if over():
            break
        made = layer(shape, device)
        check(made, make(table))
        times = interleaved(contenders(made, make(table)), rounds, clock)
        row: dict[str, Any] = {
            "shape": str(shape),
            "milliseconds": {name: spread(values) for name, values in times.items()},
            "rate": {
                name: significant(shape.operations / 1e9 / spread(times[name])["median"]) for name in ("bf16", "int8")
            },
            "bf16_over_int8": ratio(times["bf16"], times["int8"]),
            "bf16_block_over_int8_block": ratio(times["bf16 block"], times["int8 block"]),
        }
        rows.append(row)
        print(f"{shape}: {row['rate']}, {row['bf16_over_int8']['median']}x", flush=True)
    return rows


def check(made: Layer, kernels: Kernels) -> None:
    """A wrong kernel is not timed: compared with exact sums on a corner of the image."""
    corner = made.codes[:, :16, :16].contiguous()
    arguments = (corner, made.weight, made.border, WINDOW, made.epilogue, torch.float32)
    found, expected = kernels.product(*arguments), PlainKernels().product(*arguments)
    if not float((found - expected).abs().max()) <= 1e-5 * float(expected.abs().max()):
        raise SystemExit("the int8 kernel computes something else than it should: its time means nothing")


def tune(
    shapes: tuple[Shape, ...], device: torch.device, make: MakeKernels, processors: int, clock: Clock,
    workers: int = 0, over: Callable[[], bool] = lambda: False,
) -> dict[Problem, Tiles]:  # fmt: skip
    """The fastest tiles of each shape, median of 9 runs each; those the GPU cannot hold are passed over.

    Timed is what a model's layer does: with a low-rank branch and a residual. ``workers`` processes compile all of them
    first, side by side. When the time is ``over``, the shapes that are left stay with the rule.
    """
    tried = [(shape, tiles) for shape in shapes for tiles in candidates(shape.problem, processors)]
    if workers:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            list(pool.map(_compile, tried, [make] * len(tried), chunksize=4))
    table: dict[Problem, Tiles] = {}
    for shape in shapes:
        if over():
            break
        made, found = layer(shape, device), dict[Tiles, float]()
        for tiles in (tiles for other, tiles in tried if other == shape):
            kernels = make({shape.problem: tiles})
            try:
                times = interleaved({"": functools.partial(_whole, made, kernels)}, 9, clock)
            except Exception as error:  # too much shared memory, too many registers: each version has its own class
                print(f"  {tiles}: {type(error).__name__}", flush=True)
                continue
            found[tiles] = spread(times[""])["median"]
        table[shape.problem] = min(found, key=lambda tiles: found[tiles])
        print(f"{shape}: {table[shape.problem]}, {min(found.values())} ms of {sorted(found.values())}", flush=True)
    return table


def _whole(made: Layer, kernels: Kernels) -> Tensor:
    return kernels.product(made.codes, made.weight, made.border, WINDOW, made.whole, torch.float16)


def _compile(case: tuple[Shape, Tiles], make: MakeKernels) -> None:
    """Into Triton's cache on the disk."""
    shape, tiles = case
    with suppress(Exception):  # told when it is timed
        _whole(_layer_of(shape), make({shape.problem: tiles}))


@functools.lru_cache(1)
def _layer_of(shape: Shape) -> Layer:
    return layer(shape, torch.device("cuda"))


def stored(table: dict[Problem, Tiles]) -> list[dict[str, Any]]:
    return [{"problem": asdict(problem), "tiles": asdict(tiles)} for problem, tiles in table.items()]


def geometric_mean(rows: list[dict[str, Any]], key: str) -> float:
    return round(math.exp(sum(math.log(row[key]["median"]) for row in rows) / len(rows)), 3)


def significant(value: float) -> float:
    """Four digits."""
    return float(f"{value:.4g}")
