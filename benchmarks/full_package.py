"""How many bytes has a real package at full size, and does it load and run?

    python -m benchmarks.full_package --bits w4a4 w3a3 w2a2 --rank 16

A random model of OSEDiff's size (949.6 M parameters) is quantized with QArtSR's recipe, its ranges at the minimum and
maximum and nothing trained, folded, rounded, written, accounted for, loaded again and run on one 64 x 64 image. Bytes
do not depend on the values. Two shortcuts keep it to minutes, and change no byte count: the inputs' statistics are made
up, and the low-rank branches come from a randomized SVD.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.machine import machine, peak, reset_peak, slug, versions
from qartsr.branches import SVD
from qartsr.config import parse_bits
from qartsr.cost import package_size, qartsr_method
from qartsr.models import OneStepSR, fold_constants
from qartsr.packing import inspect, load_package, write_package
from qartsr.quantize import InputStatistics, Plan, Statistics, apply, initialise, plan, quantizable, round_for_storage
from qartsr.synthetic import ARCHITECTURES, blank, random_model

RESULTS = Path(__file__).parent / "results"
_PROVENANCE = {"profile": "random"}
_BINS = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", choices=tuple(ARCHITECTURES), default="osediff")
    parser.add_argument("--bits", nargs="+", default=["w4a4", "w3a3", "w2a2"])
    parser.add_argument("--rank", type=int, default=16, help="of the low-rank branches; the recipes ship with 4")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    name = f"full_package_rank{args.rank}_{slug()}_{date.today()}"
    args.out.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {"date": str(date.today()), "machine": machine(), "versions": versions()}
    result |= {"arch": args.arch, "rank": args.rank, "packages": {}}
    for bits in args.bits:
        result["packages"][bits] = measure(args.arch, bits, args.rank)
        (args.out / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
        (args.out / f"{name}.md").write_text(as_markdown(result))
    print(as_markdown(result))


@torch.no_grad()
def measure(arch: str, bits: str, rank: int) -> dict[str, Any]:
    """One package: its bytes by component and kind, seconds and memory, and whether it gives the image."""
    reset_peak()
    seconds: dict[str, float] = {}
    lq = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        decided, expected = written(path, arch, bits, rank, lq, seconds)
        gc.collect()
        memory = {"write_peak_gb": peak() / 1e9}
        reset_peak()
        found = _timed(seconds, "inspect", lambda: inspect(path))
        loaded = _timed(seconds, "load", lambda: load_package(path))
        memory["load_peak_gb"] = peak() / 1e9
        image = _timed(seconds, "run", lambda: loaded(lq))
        memory["run_peak_gb"] = peak() / 1e9
        size = path.stat().st_size
    return {
        "bytes": size,
        "computed_bytes": package_size(blank(ARCHITECTURES[arch]()), decided, _PROVENANCE),
        "fp16_bytes": found.fp16_bytes,
        "components": found.components,
        "kinds": found.kinds,
        "relative_difference_of_images": float((image - expected).abs().max() / expected.abs().max()),
        "seconds": seconds,
        "memory": memory,
    }


def written(path: Path, arch: str, bits: str, rank: int, lq: Tensor, seconds: dict[str, float]) -> tuple[Plan, Tensor]:
    """Write one package; its plan, and the image of the model it was made from, which is gone afterwards."""
    model = random_model(ARCHITECTURES[arch](), seed=0)
    decided: Plan = _timed(seconds, "quantize", lambda: quantized(model, bits, rank))
    _timed(seconds, "write", lambda: write_package(path, model, decided, _PROVENANCE))
    return decided, model(lq)


def quantized(model: OneStepSR, bits: str, rank: int) -> Plan:
    """Quantize, fold and round in place."""
    decided = plan(model, qartsr_method("osediff", rank), parse_bits(bits))
    statistics = Statistics({name: _unit(layer.weight) for name, layer in quantizable(model).items()})  # type: ignore[arg-type]
    apply(model, decided)
    exact, SVD.calibrate = SVD.calibrate, _randomized  # type: ignore[method-assign]
    try:
        initialise(model, statistics)
    finally:
        SVD.calibrate = exact  # type: ignore[method-assign]
    fold_constants(model)
    round_for_storage(model)
    return decided


def _unit(weight: Tensor) -> InputStatistics:
    """Inputs between -3 and 3."""
    ends = torch.full((weight.shape[1],), 3.0)
    return InputStatistics(-ends, ends, torch.ones(weight.shape[1], _BINS, dtype=torch.int32))


def _randomized(branch: SVD, weight: Tensor, phi: Tensor) -> None:
    rank = branch.left.shape[1]
    u, s, v = torch.svd_lowrank(weight.flatten(1), q=rank, niter=0)
    branch.left.copy_(u * s.sqrt())
    branch.right.copy_((v * s.sqrt()).T.reshape(branch.right.shape))


def _timed(seconds: dict[str, float], name: str, work: Callable[[], Any]) -> Any:
    start = time.perf_counter()
    result = work()
    seconds[name] = time.perf_counter() - start
    return result


def as_markdown(result: dict[str, Any]) -> str:
    packages = result["packages"]
    kinds = [kind for kind, size in next(iter(packages.values()))["kinds"].items() if size]
    rows = [
        ("bytes of the file", [f"{p['bytes']:,}" for p in packages.values()]),
        ("as computed by `qartsr cost`", [f"{p['computed_bytes']:,}" for p in packages.values()]),
        ("times smaller than fp16", [f"{p['fp16_bytes'] / p['bytes']:.2f}" for p in packages.values()]),
        *((kind, [f"{p['kinds'][kind]:,}" for p in packages.values()]) for kind in kinds),
        ("image, relative difference", [f"{p['relative_difference_of_images']:.1e}" for p in packages.values()]),
        ("peak memory to write, GB", [f"{p['memory']['write_peak_gb']:.1f}" for p in packages.values()]),
        ("peak memory to load, GB", [f"{p['memory']['load_peak_gb']:.1f}" for p in packages.values()]),
        ("peak memory to run 64 x 64, GB", [f"{p['memory']['run_peak_gb']:.1f}" for p in packages.values()]),
    ]
    lines = [f"| {name} | {' | '.join(values)} |" for name, values in rows]
    head = f"| {result['arch']}, rank {result['rank']} | {' | '.join(packages)} |"
    where = f"{result['machine']['cpu']}, {result['machine']['cores']} cores, {result['date']}"
    return "\n".join([f"{where}; random weights.", "", head, "|---" * (len(packages) + 1) + "|", *lines, ""])


if __name__ == "__main__":
    main()
