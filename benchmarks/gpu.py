"""How fast is the GPU engine, kernel by kernel and as a whole, against bf16?

    python -m benchmarks.gpu --tune

Ceilings of the GPU, then OSEDiff's most expensive convolutions in bf16 (cuDNN) and int8 (Triton), then the whole model.
The kernels need torch and Triton only; the whole model needs diffusers too and is left out, and said to be, without it.
Contenders take turns; every turn finds a cold cache; medians of at least 50 rounds, ratios within each round.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import re
import sys
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from benchmarks import gpu_kernels
from benchmarks.gpu_timing import cuda_clock
from qartsr.kernels.tiles import Problem, Tiles

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "triton", "diffusers")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tune", action="store_true", help="measure the tiles of each convolution first (minutes)")
    parser.add_argument("--tiles", type=Path, help="an earlier result whose tiles are used")
    parser.add_argument("--rounds", type=int, default=50, help="counted rounds; fewer than 50 prove little")
    parser.add_argument("--no-model", action="store_true", help="the kernels only")
    parser.add_argument("--arch", choices=("osediff", "sample"), default="osediff")
    parser.add_argument("--size", type=int, default=512, help="side of the output in pixels")
    parser.add_argument("--bits", type=int, default=4, choices=range(2, 9), help="of weights and activations")
    parser.add_argument("--rank", type=int, default=16, help="of the low-rank branches")
    parser.add_argument("--compile", default="max-autotune", choices=("max-autotune", "reduce-overhead", "none"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    if not torch.cuda.is_available():
        print("benchmarks.gpu: no CUDA GPU is present, nothing was measured", file=sys.stderr)
        return 1
    result = measure(args)
    name = f"gpu_{re.sub(r'[^a-z0-9]+', '-', result['gpu']['name'].lower()).strip('-')}_{result['date']}"
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
    (args.out / f"{name}.md").write_text(as_markdown(result))
    print(as_markdown(result))
    return 0


@torch.no_grad()
def measure(args: argparse.Namespace) -> dict[str, Any]:
    from qartsr.kernels.compiled import TritonKernels

    torch.backends.cudnn.benchmark = True
    device, clock = torch.device("cuda"), cuda_clock()
    gpu, shapes = torch.cuda.get_device_properties(device), gpu_kernels.VAE + gpu_kernels.UNET
    table = read_tiles(args.tiles) if args.tiles else {}
    if args.tune:
        table |= gpu_kernels.tune(shapes, device, TritonKernels, gpu.multi_processor_count, clock)
    result: dict[str, Any] = {
        "question": "the GPU engine against bf16, kernel by kernel and as a whole",
        "date": date.today().isoformat(),
        "gpu": {"name": gpu.name, "processors": gpu.multi_processor_count, "memory_gb": round(gpu.total_memory / 1e9)},
        "versions": {"python": platform.python_version(), "cuda": torch.version.cuda, **versions()},
        "settings": {"rounds": args.rounds, "tuned": bool(table), "batch": 1},
        "ceilings": gpu_kernels.ceilings(device, args.rounds, clock),
        "vae": gpu_kernels.measure(gpu_kernels.VAE, device, TritonKernels, table, args.rounds, clock),
        "unet": gpu_kernels.measure(gpu_kernels.UNET, device, TritonKernels, table, args.rounds, clock),
        "tiles": gpu_kernels.stored(table),
        "model": None,
    }
    if not args.no_model and importlib.util.find_spec("diffusers") is not None:
        from benchmarks import gpu_model

        contenders = gpu_model.builders(
            args.arch,
            args.bits,
            args.rank,
            args.compile,
            device,
            lambda resident: gpu_model.engine_on_gpu(resident, table),
        )
        chosen = {"arch": args.arch, "size": args.size, "bits": args.bits, "rank": args.rank}
        result["model"] = chosen | gpu_model.measure(contenders, args.size, args.rounds, clock, device)
    return result


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
    rows = json.loads(path.read_text())["tiles"]
    return {Problem(**row["problem"]): Tiles(**row["tiles"]) for row in rows}


def as_markdown(result: dict[str, Any]) -> str:
    gpu, found, settings = result["gpu"], result["ceilings"], result["settings"]
    used = ", ".join(f"{name} {value}" for name, value in result["versions"].items())
    return f"""# The GPU engine: {gpu["name"]}

{gpu["processors"]} processors, {gpu["memory_gb"]} GB; {used}; {result["date"]}.
Batch 1, random data, {settings["rounds"]} counted rounds in turns, cold cache, tiles {
        "measured for each convolution" if settings["tuned"] else "by rule, not tuned"
    }. Medians; ratios within each round.

**Ceilings**: int8 product of 8192^3 {found["int8"]["rate"]} TOP/s, bf16 {found["bf16"]["rate"]} TFLOP/s, copy
{found["copy"]["rate"]} GB/s.

## 3 x 3 convolutions

"Block" is GroupNorm, SiLU and the convolution: three operations in bf16; moments, fused quantization and product in
int8. Last column: rate of the int8 kernel over that of the int8 ceiling.

| convolution | bf16 ms | int8 ms | ratio | bf16 block ms | int8 block ms | ratio | of ceiling |
|---|---|---|---|---|---|---|---|
{rows(result["vae"], found)}
| **geometric mean, VAE** | | | **{gpu_kernels.geometric_mean(result["vae"], "bf16_over_int8")}** | | | **{
        gpu_kernels.geometric_mean(result["vae"], "bf16_block_over_int8_block")
    }** | |
{rows(result["unet"], found)}

## The whole model

{model_part(result["model"])}
"""


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
        return "Not measured: it was switched off, or diffusers is absent."
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
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
