"""How many bytes has a real package at full size, does it load and run, and what does that cost beside fp32 and bf16?

    python -m benchmarks.full_package --bits w4a4 w3a3 w2a2 --rank 16
    python -m benchmarks.full_package --arch tsdsr --bits w4a4 --side 256

A random model of OSEDiff's size (949.6 M parameters) is quantized with QArtSR's recipe, its ranges at the minimum and
maximum, one of TSD-SR's (2.1 G) with Q-DiT4SR's; nothing is trained. It is folded, rounded, written, accounted for,
loaded again and run on one 64 x 64 image. Bytes do not depend on the values. Shortcuts keep it to minutes, and change
no byte count: the inputs' statistics are made up, the low-rank branches come from a randomized SVD or, where they have
blocks, from dice. TSD-SR's weights all have the bits of the bit-width.

With ``--side`` the last package's network, and the random model in fp32 and bf16, then run on a picture that large,
each in a process of its own.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.machine import machine, peak, reset_peak, slug, versions
from qartsr.branches import HSVD, SVD
from qartsr.config import load_config, parse_bits
from qartsr.config.parts import MethodConfig
from qartsr.config.schema import Params
from qartsr.cost import package_size, qartsr_method
from qartsr.engines import choose
from qartsr.models import Backbone, OneStepSR, fold_constants
from qartsr.models.sd3_dit.tsdsr import ARCHITECTURES as DITS
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
    parser.add_argument("--side", type=int, default=0, help="of the picture that all run on, output pixels; 0: none")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--run", nargs=2, metavar=("RUNNER", "PACKAGE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.run:
        print(json.dumps(run(args.run[0], Path(args.run[1]), args.arch, args.side)))
        return
    name = f"full_package_{args.arch}_rank{args.rank}_{slug()}_{date.today()}"
    args.out.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {"date": str(date.today()), "machine": machine(), "versions": versions()}
    result |= {"arch": args.arch, "rank": args.rank, "side": args.side, "threads": args.threads}
    result |= {"packages": {}, "runs": {}}

    def keep() -> None:
        (args.out / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
        (args.out / f"{name}.md").write_text(as_markdown(result))

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        for bits in args.bits:
            result["packages"][bits] = measure(path, args.arch, bits, args.rank)
            keep()
        for runner in _RUNNERS if args.side else ():
            words = ("--arch", args.arch, "--side", str(args.side), "--threads", str(args.threads), "--run", runner)
            command = [sys.executable, "-m", "benchmarks.full_package", *words, str(path)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
            failed = {"failed": f"ended with {done.returncode}"}
            result["runs"][runner] = json.loads(done.stdout) if done.returncode == 0 else failed
            keep()
    print(as_markdown(result))


_RUNNERS = ("torch fp32", "torch bf16", "simulated", "openvino")


@torch.no_grad()
def run(runner: str, path: Path, arch: str, side: int) -> dict[str, float]:
    """Seconds and peak memory of one network on a picture of ``side`` output pixels: the second run, and the first."""
    kind, seconds = runner.split()[-1], dict[str, float]()
    types = {"fp32": torch.float32, "bf16": torch.bfloat16}
    if kind in types:
        model: OneStepSR = random_model(ARCHITECTURES[arch](), seed=0, dtype=types[kind])
        fold_constants(model)  # type: ignore[arg-type]  # a backbone
    else:
        model = _timed(seconds, "load", lambda: _prepared(path, kind))
    lq = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for name in ("first", "second"):
        _timed(seconds, name, lambda: model(lq.to(types.get(kind, torch.float32))))
    return {**seconds, "peak_gb": peak() / 1e9}


def _prepared(path: Path, engine: str) -> OneStepSR:
    model = load_package(path)
    return choose(engine, model, torch.device("cpu")).engine.prepare(model)


@torch.no_grad()
def measure(path: Path, arch: str, bits: str, rank: int) -> dict[str, Any]:
    """One package: its bytes by component and kind, seconds and memory, and whether it gives the image."""
    reset_peak()
    seconds: dict[str, float] = {}
    lq = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
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
    decided: Plan = _timed(seconds, "quantize", lambda: quantized(model, arch, bits, rank))
    _timed(seconds, "write", lambda: write_package(path, model, decided, _PROVENANCE))
    return decided, model(lq)


def method_of(arch: str, rank: int) -> MethodConfig:
    """QArtSR's, of a transformer Q-DiT4SR's, blocks as many as the budget affords instead of searched for."""
    if arch not in DITS:
        return qartsr_method("osediff", rank)
    params = load_config(Params, Path("configs/tsdsr.yaml"))
    row = params.method.planned(params.common).model_dump()
    row["layer"]["skip"] |= {"rank": rank, "search": False}
    return MethodConfig.model_validate({**row, "bits_policy": {"kind": "uniform"}})


def quantized(model: Backbone, arch: str, bits: str, rank: int) -> Plan:
    """Quantize, fold and round in place."""
    decided = plan(model, method_of(arch, rank), parse_bits(bits))
    statistics = Statistics({name: _unit(layer.weight) for name, layer in quantizable(model).items()})  # type: ignore[arg-type]
    apply(model, decided)
    with patch.object(SVD, "calibrate", _randomized), patch.object(HSVD, "calibrate", _diced):
        initialise(model, statistics)
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


def _diced(branch: HSVD, weight: Tensor, phi: Tensor) -> None:
    size = weight.flatten(1).shape[1] ** -0.5
    for factor in branch.factors():
        factor.copy_(torch.randn_like(factor) * size)


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
    keys = ("first", "second", "peak_gb")
    figures = {
        name: [f"{each[key]:.1f}" if key in each else each["failed"] for key in keys]
        for name, each in result["runs"].items()
    }
    runs = [f"| {name} | {' | '.join(values)} |" for name, values in figures.items()]
    if runs:
        title = (
            f"| {result['side']} x {result['side']}, {result['threads']} threads | first, s | second, s | peak, GB |"
        )
        runs = ["", title, "|---|--:|--:|--:|", *runs]
    where = f"{result['machine']['cpu']}, {result['machine']['cores']} cores, {result['date']}"
    return "\n".join([f"{where}; random weights.", "", head, "|---" * (len(packages) + 1) + "|", *lines, *runs, ""])


if __name__ == "__main__":
    main()
