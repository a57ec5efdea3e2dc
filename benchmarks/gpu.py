"""Is the GPU engine right, how fast is it against bf16, and what does a training step take at full size?

    python -m benchmarks.gpu --minutes 12

Parts, each in a process of its own and within its share of the minutes: every kernel against its reference on random
shapes; ceilings of the GPU, tiles tuned, OSEDiff's most expensive convolutions in bf16 (cuDNN) and int8 (Triton); steps
of RPQ and ET with their peak memory; the whole model against compiled bf16. What a part has found is written at once,
so nothing is lost where the time runs out or a part fails.

Contenders take turns; every turn finds a cold cache; medians of at least 50 rounds, ratios within each round. The first
two parts need torch and Triton only, the others diffusers, pydantic and lpips too.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from benchmarks import gpu_checks, gpu_kernels
from benchmarks.gpu_timing import cuda_clock
from qartsr.kernels.tiles import Problem, Tiles

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "triton", "diffusers")
SHARES = {"checks": 0.1, "kernels": 0.35, "training": 0.2, "model": 0.35}
"""Parts in their order, and how much of the time each may take; what one leaves goes to the next."""
Over = Callable[[], bool]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=12.0, help="for all parts together")
    parser.add_argument("--parts", nargs="+", choices=tuple(SHARES), default=tuple(SHARES))
    parser.add_argument("--tiles", type=Path, help="an earlier result whose tiles are used, instead of tuning")
    parser.add_argument("--rounds", type=int, default=50, help="counted rounds; fewer than 50 prove little")
    parser.add_argument("--arch", choices=("osediff", "sample"), default="osediff")
    parser.add_argument("--size", type=int, default=512, help="side of the output in pixels")
    parser.add_argument("--bits", type=int, default=4, choices=range(2, 9), help="of weights and activations")
    parser.add_argument("--rank", type=int, default=16, help="of the low-rank branches")
    parser.add_argument("--params", type=Path, default=Path("configs/osediff.yaml"), help="whose phases are trained")
    parser.add_argument(
        "--compile", default="reduce-overhead", choices=("max-autotune", "reduce-overhead", "none"), help="of bf16"
    )
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--scratch", type=Path, help=argparse.SUPPRESS)  # of a part: where it writes
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not torch.cuda.is_available():
        print("benchmarks.gpu: no CUDA GPU is present, nothing was measured", file=sys.stderr)
        return 1
    if args.scratch:
        return _part(args)
    with tempfile.TemporaryDirectory() as folder:
        return _all(args, Path(folder))


def _all(args: argparse.Namespace, scratch: Path) -> int:
    """Every part in its process; the result is written after each."""
    left, shares, failed = args.minutes * 60, sum(SHARES[part] for part in args.parts), list[str]()
    result = described(args)
    args.out.mkdir(parents=True, exist_ok=True)
    name = f"gpu_{re.sub(r'[^a-z0-9]+', '-', result['gpu']['name'].lower()).strip('-')}_{result['date']}"
    for part in args.parts:
        began, seconds = time.monotonic(), left * SHARES[part] / shares
        ended = _run(part, seconds, scratch)
        spent = time.monotonic() - began
        left, shares = left - spent, shares - SHARES[part]
        found = scratch / f"{part}.json"
        result |= json.loads(found.read_text()) if found.is_file() else {}
        result["parts"][part] = {"ended": ended, "seconds": round(spent, 1)}
        failed += [] if ended == "whole" else [f"{part}: {ended}"]
        (args.out / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
        (args.out / f"{name}.md").write_text(as_markdown(result))
        print(f"{part}: {ended}, {spent:.0f} s", flush=True)
    print(as_markdown(result))
    wrong = (result["checks"] or {}).get("failed", [])
    print("\n".join([*failed, *wrong]), file=sys.stderr)
    return 1 if failed or wrong else 0


def _run(part: str, seconds: float, scratch: Path) -> str:
    """How it ended."""
    more = ["--parts", part, "--scratch", str(scratch), "--seconds", f"{seconds:.0f}"]
    command = [sys.executable, "-m", "benchmarks.gpu", *sys.argv[1:], *more]
    environment = {**os.environ, "TRITON_CACHE_DIR": str(scratch / "triton")}
    try:
        done = subprocess.run(command, timeout=seconds + 20, env=environment, check=False)
    except subprocess.TimeoutExpired:
        return "stopped: its time was up"
    return "whole" if not done.returncode else f"failed with exit status {done.returncode}"


def _part(args: argparse.Namespace) -> int:
    """What a part finds, written whenever there is more of it."""
    (part,), end = args.parts, time.monotonic() + args.seconds
    for found in PARTS[part](args, lambda: time.monotonic() > end):
        held = args.scratch / f"{part}.part"
        held.write_text(json.dumps(found))
        held.replace(args.scratch / f"{part}.json")
    return 0


def described(args: argparse.Namespace) -> dict[str, Any]:
    """The GPU and the settings; every figure still missing."""
    gpu = torch.cuda.get_device_properties("cuda")
    return {
        "question": "the GPU engine against its reference and against bf16, and training steps at full size",
        "date": date.today().isoformat(),
        "gpu": {"name": gpu.name, "processors": gpu.multi_processor_count, "memory_gb": round(gpu.total_memory / 1e9)},
        "versions": {"python": platform.python_version(), "cuda": torch.version.cuda, **versions()},
        "settings": {"rounds": args.rounds, "tuned": True, "batch": 1, "arguments": sys.argv[1:]},
        **dict.fromkeys(("checks", "ceilings", "training", "model")),
        "parts": {}, "vae": [], "unet": [], "tiles": [],
    }  # fmt: skip


def _checks(args: argparse.Namespace, over: Over) -> Iterator[dict[str, Any]]:
    from qartsr.kernels.compiled import TritonKernels

    yield {"checks": gpu_checks.check(TritonKernels, torch.device("cuda"), 60, over)}


@torch.no_grad()
def _kernels(args: argparse.Namespace, over: Over) -> Iterator[dict[str, Any]]:
    from qartsr.kernels.compiled import TritonKernels

    torch.backends.cudnn.benchmark = True
    device, clock = torch.device("cuda"), cuda_clock()
    found: dict[str, Any] = {"ceilings": gpu_kernels.ceilings(device, args.rounds, clock)}
    yield found
    shapes, processors = (
        gpu_kernels.VAE + gpu_kernels.UNET,
        torch.cuda.get_device_properties(device).multi_processor_count,
    )
    workers = max(1, len(os.sched_getaffinity(0)) - 2)
    table = (
        read_tiles(args.tiles)
        if args.tiles
        else gpu_kernels.tune(shapes, device, TritonKernels, processors, clock, workers, over)
    )
    found["tiles"] = gpu_kernels.stored(table)
    yield found
    for name, group in (("vae", gpu_kernels.VAE), ("unet", gpu_kernels.UNET)):  # takes seconds, so it is always done
        found[name] = gpu_kernels.measure(group, device, TritonKernels, table, args.rounds, clock)
        yield found


def _training(args: argparse.Namespace, over: Over) -> Iterator[dict[str, Any]]:
    from benchmarks import gpu_training
    from qartsr.config import load_params

    params, bits = load_params(args.params), f"w{args.bits}a{args.bits}"
    for found in gpu_training.measure(args.arch, params, bits, args.size, torch.device("cuda"), over):
        yield {"training": found}


def _model(args: argparse.Namespace, over: Over) -> Iterator[dict[str, Any]]:
    from benchmarks import gpu_model

    torch.backends.cudnn.benchmark = True
    device, tuned = torch.device("cuda"), args.tiles or args.scratch / "kernels.json"
    table = read_tiles(tuned) if tuned.is_file() else {}
    contenders = gpu_model.builders(
        args.arch, args.bits, args.rank, args.compile, device, lambda resident: gpu_model.engine_on_gpu(resident, table)
    )
    chosen = {"arch": args.arch, "size": args.size, "bits": args.bits, "rank": args.rank}
    for found in gpu_model.measure(contenders, args.size, args.rounds, cuda_clock(), device):
        yield {"model": chosen | found}


PARTS = {"checks": _checks, "kernels": _kernels, "training": _training, "model": _model}


def versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def read_tiles(path: Path) -> dict[Problem, Tiles]:
    """The table of an earlier result."""
    rows = json.loads(path.read_text()).get("tiles", [])
    return {Problem(**row["problem"]): Tiles(**row["tiles"]) for row in rows}


def as_markdown(result: dict[str, Any]) -> str:
    gpu, settings = result["gpu"], result["settings"]
    used = ", ".join(f"{name} {value}" for name, value in result["versions"].items())
    ended = ", ".join(f"{name} {part['ended']} ({part['seconds']:.0f} s)" for name, part in result["parts"].items())
    return f"""# The GPU engine: {gpu["name"]}

{gpu["processors"]} processors, {gpu["memory_gb"]} GB; {used}; {result["date"]}.
Batch 1, random data, {settings["rounds"]} counted rounds in turns, cold cache. Medians; ratios within each round.
Parts: {ended}.

## Kernels against their references, random shapes

{checks_part(result["checks"])}

## 3 x 3 convolutions

{kernels_part(result)}

## Training steps

{training_part(result["training"])}

## The whole model

{model_part(result["model"])}
"""


_MISSING = "Not measured: see how the parts ended, above."


def checks_part(found: dict[str, Any] | None) -> str:
    if found is None:
        return _MISSING
    lines = ["| kernel | cases | largest difference |", "|---|--:|--:|"]
    lines += [
        f"| {name} | {row['cases']} | {row['largest_difference']:.2g} |" for name, row in found["kernels"].items()
    ]
    lines += ["", f"{len(found['failed'])} failed.", *(f"- {each}" for each in found["failed"])]
    return "\n".join(lines)


def kernels_part(result: dict[str, Any]) -> str:
    found = result["ceilings"]
    if found is None:
        return _MISSING
    limits = (
        f"Ceilings: int8 product of 8192^3 {found['int8']['rate']} TOP/s, bf16 {found['bf16']['rate']} TFLOP/s, copy "
        f"{found['copy']['rate']} GB/s."
    )
    if not (result["vae"] and result["unet"]):
        return f"{limits}\n\n{_MISSING}"
    means = {
        key: gpu_kernels.geometric_mean(result["vae"], key) for key in ("bf16_over_int8", "bf16_block_over_int8_block")
    }
    return f"""{limits} "Block" is GroupNorm, SiLU and the convolution: three operations in bf16; moments, fused
quantization and product in int8. Last column: rate of the int8 kernel over that of the int8 ceiling.

| convolution | bf16 ms | int8 ms | ratio | bf16 block ms | int8 block ms | ratio | of ceiling |
|---|---|---|---|---|---|---|---|
{rows(result["vae"], found)}
| **geometric mean, VAE** | | | **{means["bf16_over_int8"]}** | | | **{means["bf16_block_over_int8_block"]}** | |
{rows(result["unet"], found)}"""


def training_part(found: dict[str, Any] | None) -> str:
    if found is None:
        return _MISSING
    lines = [
        f"{found['arch']}, {found['parameters'] / 1e6:.0f} M parameters, {found['size']} x {found['size']}, batch 1, "
        f"{found['bits']}, fp32; {found['lpips']}. Calibration on 2 pictures {found['calibration_seconds_of_2']} s, "
        f"initial values {found['initialisation_seconds']} s.",
        "", "| step | seconds | peak GB |", "|---|--:|--:|",
    ]  # fmt: skip
    lines += [f"| RPQ, {row['module']} | {row['seconds']:.2f} | {row['peak_gb']} |" for row in found.get("rpq", [])]
    steady = found.get("et", [])[2:]  # the first ones choose algorithms and make the optimizer's state
    if steady:
        seconds = sorted(row["seconds"] for row in steady)[len(steady) // 2]
        lines.append(f"| ET | {seconds:.2f} | {max(row['peak_gb'] for row in steady)} |")
    return "\n".join(lines)


def rows(found: list[dict[str, Any]], limits: dict[str, Any]) -> str:
    lines = []
    for row in found:
        times = [row["milliseconds"][name]["median"] for name in ("bf16", "int8", "bf16 block", "int8 block")]
        share = row["rate"]["int8"] / limits["int8"]["rate"]
        lines.append(
            f"| {row['shape']} | {times[0]:.3f} | {times[1]:.3f} | {row['bf16_over_int8']['median']:.2f} | "
            f"{times[2]:.3f} | {times[3]:.3f} | {row['bf16_block_over_int8_block']['median']:.2f} | {share:.0%} |"
        )
    return "\n".join(lines)


def model_part(model: dict[str, Any] | None) -> str:
    if model is None:
        return _MISSING
    lines = [
        f"{model['arch']}, {model['size']} x {model['size']}, w{model['bits']}a{model['bits']}, rank {model['rank']}.",
        "",
        "| | ms (least to most) | over triton | weights GB | peak GB |",
        "|---|---|---|---|---|",
    ]
    for name, times in model["milliseconds"].items():
        over = model["over_triton"][name]["median"] if name != "triton" else 1
        memory = model["memory"][name]
        lines.append(
            f"| {name} | {times['median']:.2f} ({times['min']:.2f} to {times['max']:.2f}) | {over:.2f} | "
            f"{memory['weights_gb']:.2f} | {memory['peak_gb']:.2f} |"
        )
    if "error_over_simulated" in model:
        apart = ", ".join(f"{name} {value}" for name, value in model["error_over_simulated"].items())
        lines += ["", f"Root of the mean squared difference to the simulated image over its deviation: {apart}."]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
