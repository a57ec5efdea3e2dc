"""The whole model: bf16 eager and compiled, the simulated packed model, and the engine; time and memory.

Weights are random, packed by the range of each channel: what is computed is noise, and takes the time of an image.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu_timing import Clock, Run, interleaved, ratio, spread
from qartsr.artifact.spec import LayerSpec
from qartsr.engines.triton import Triton
from qartsr.layer import op_of
from qartsr.models import OneStepSR
from qartsr.packing import PackedLayer, pack_bits
from qartsr.quantize import quantizable
from qartsr.quantizers import encode
from qartsr.quantizers.fake import range_grid
from qartsr.synthetic import ARCHITECTURES, random_model

_RANGE = 4.0
Build = Callable[[], Callable[[Tensor], Tensor]]


@functools.lru_cache(1)
def _random(arch: str) -> OneStepSR:
    """On the CPU, drawn once: a billion numbers take their time."""
    return random_model(ARCHITECTURES[arch](), seed=0)


def packed(arch: str, bits: int, rank: int, device: torch.device) -> OneStepSR:
    """A random packed model: scale transform, per-channel weights, low-rank branches."""
    model = copy.deepcopy(_random(arch)).to(device)
    for name, module in quantizable(model).items():
        weight = module.get_parameter("weight")
        model.set_submodule(name, _packed_layer(module, weight, bits, min(rank, weight.shape[0], weight[0].numel())))
    return model.eval().requires_grad_(False)


def _packed_layer(module: Any, weight: Tensor, bits: int, rank: int) -> PackedLayer:
    shape = tuple(weight.shape)
    spec = LayerSpec(
        shape=shape, weight_bits=bits, per_channel=True, bias_bits=0, input_bits=bits, transform="scale", rank=rank
    )  # fmt: skip
    layer = PackedLayer(op_of(module), spec).to(weight.device)
    ends = weight.flatten(1).aminmax(dim=1)
    grid = range_grid(*(end.reshape(-1, *(1,) * (len(shape) - 1)) for end in ends), 2**bits - 1)
    reach = torch.tensor(_RANGE, device=weight.device)
    inputs = range_grid(-reach, reach, 2**bits - 1)
    found = {
        "weight.codes": pack_bits(encode(weight, grid), bits),
        "weight.grid": torch.stack([grid.scale, grid.offset]),
        "bias.value": torch.zeros(shape[0]) if module.bias is None else module.bias,
        "input.grid": torch.stack([inputs.scale, inputs.offset]),
        "transform.phi": torch.rand(layer.transform.phi.shape) + 0.5,
        "skip.left": torch.randn(shape[0], rank) / 100,
        "skip.right": torch.randn(rank, *shape[1:]) / 100,
    }
    layer.load_state_dict({name: found[name] for name in layer.state_dict()})
    return layer


def builders(
    arch: str, bits: int, rank: int, mode: str, device: torch.device, engine: Any
) -> Iterator[tuple[str, Build]]:
    """Every contender; ``engine(resident)`` turns a packed model into one that runs on kernels."""

    def bf16() -> OneStepSR:
        model = copy.deepcopy(_random(arch)).to(device, torch.bfloat16)
        return model.to(memory_format=torch.channels_last)

    def float_run(model: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda x: model(x.to(torch.bfloat16, memory_format=torch.channels_last))

    yield "bf16 eager", lambda: float_run(bf16())
    yield "simulated fp32", lambda: packed(arch, bits, rank, device)
    yield "triton", lambda: engine(True)(packed(arch, bits, rank, device))
    yield "triton, weights packed", lambda: engine(False)(packed(arch, bits, rank, device))
    if mode != "none":  # records CUDA graphs itself; last, for it compiles for minutes
        yield f"bf16 {mode}", lambda: float_run(torch.compile(bf16(), mode=mode))


def engine_on_gpu(resident: bool, tiles: Any) -> Callable[[OneStepSR], OneStepSR]:
    return Triton(resident=resident, tiles=tiles).prepare


@torch.no_grad()
def measure(
    contenders: Iterator[tuple[str, Build]], size: int, rounds: int, clock: Clock, device: torch.device
) -> Iterator[dict[str, Any]]:
    """Times and memory once all but the last contender are built, and then with the last one."""
    x = (torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1).to(device)
    runs, images = dict[str, Run](), dict[str, Tensor]()
    memory: dict[str, dict[str, float]] = {}
    listed = list(contenders)
    for number, (name, build) in enumerate(listed):
        if number and number == len(listed) - 1:
            yield _found(runs, memory, images, rounds, clock)
        print(f"building {name}", flush=True)
        before = _allocated(device)
        model = build()
        weights = _allocated(device) - before
        for _ in range(2):
            output = model(x)
        images[name] = output.float().cpu()
        if not bool(output.isfinite().all()) or float(images[name].std()) < 1e-4:
            raise SystemExit(f"the output of {name} is constant or not finite: its time means nothing")
        del output
        resting = _allocated(device)
        model(x)
        memory[name] = {
            "weights_gb": round(weights / 1e9, 3),
            "resting_gb": round((resting - before) / 1e9, 3),
            "peak_gb": round((_peak(device) - before) / 1e9, 3),
        }
        runs[name] = lambda model=model: model(x)  # type: ignore[misc]
    yield _found(runs, memory, images, rounds, clock)


def _found(runs: dict[str, Run], memory: Any, images: dict[str, Tensor], rounds: int, clock: Clock) -> dict[str, Any]:
    times = interleaved(runs, rounds, clock)
    found: dict[str, Any] = {
        "milliseconds": {name: spread(values) for name, values in times.items()},
        "memory": memory,
        "over_triton": {name: ratio(values, times["triton"]) for name, values in times.items() if name != "triton"},
    }
    if "simulated fp32" in images:  # of an image of noise, over its standard deviation
        true = images["simulated fp32"]
        apart = {name: (images[name] - true).square().mean().sqrt() / true.std() for name in images if "triton" in name}
        found["error_over_simulated"] = {name: round(float(value), 5) for name, value in apart.items()}
    return found


def _allocated(device: torch.device) -> float:
    if device.type != "cuda":
        return 0.0
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return float(torch.cuda.memory_allocated())


def _peak(device: torch.device) -> float:
    """Since the last look at what is allocated."""
    return float(torch.cuda.max_memory_allocated()) if device.type == "cuda" else 0.0
