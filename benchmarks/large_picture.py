"""Is a picture of 8192 x 8192 finished, in what memory and time, without seams, and after a kill?

    python -m benchmarks.large_picture --model weights/w4a4 --side 8192 --threads 2

`qartsr upscale`, as a user starts it, of real photographs side by side: whole; killed (SIGKILL) half-way and
started again; and in tiles of another size, whose borders lie elsewhere. A seam would be a column or row in which
the two tilings differ more than in others. Memory is the most that was resident, of the process with its children.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.machine import machine, slug, versions

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
STRIP = 256


class Run(NamedTuple):
    """One process, however it ended."""

    seconds: float
    processor: float
    """seconds of all cores together"""
    peak: float
    """bytes"""
    status: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="weights/w4a4", help="a package")
    parser.add_argument("--side", type=int, default=8192, help="of the output, pixels")
    parser.add_argument("--tile", type=int, default=1920, help="side of the other tiling's tiles")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--scratch", type=Path, help="folder for the pictures, kept")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = args.scratch or Path(made)
        folder.mkdir(parents=True, exist_ok=True)
        result = measure(args.model, args.side, args.tile, args.threads, folder)
    name = f"large_picture_{slug()}_{result['date']}"
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
    (args.out / f"{name}.md").write_text(as_markdown(result))
    print(as_markdown(result))


def measure(model: str, side: int, tile: int, threads: int, folder: Path) -> dict[str, Any]:
    """All four runs, and what differs between their pictures."""
    source = folder / "in.png"
    mosaic(side // 4).save(source)
    words = ["--model", model, "--threads", str(threads)]
    load = os.getloadavg()[0]
    runs = {"whole": upscale(source, folder / "whole.png", words)}
    runs["killed"] = upscale(source, folder / "again.png", words, kill_after=0.5 * runs["whole"].seconds)
    kept = sum(1 for _ in (folder / "again.png.part").glob("row-*"))
    runs["again"] = upscale(source, folder / "again.png", words)
    runs["tiled"] = upscale(source, folder / "tiled.png", [*words, "--tile", str(tile)])
    ended = {name: run.status for name, run in runs.items()}
    assert ended == {"whole": 0, "killed": -signal.SIGKILL, "again": 0, "tiled": 0}, ended
    return {
        "date": str(date.today()),
        "machine": machine(),
        "versions": versions("openvino"),
        "load": load,
        "settings": {"model": model, "side": side, "tile": tile, "threads": threads},
        "runs": {name: run._asdict() for name, run in runs.items()},
        "rows_kept": kept,
        "equal_after_kill": (folder / "whole.png").read_bytes() == (folder / "again.png").read_bytes(),
        "difference": difference(folder / "whole.png", folder / "tiled.png"),
    }


def mosaic(side: int) -> Image.Image:
    """The project's photographs side by side, as they are."""
    Image.MAX_IMAGE_PIXELS = None
    canvas, files = Image.new("RGB", (side, side)), sorted((ROOT / "photographs").glob("*.webp"))
    for number, at in enumerate((x, y) for y in range(0, side, 512) for x in range(0, side, 512)):
        with Image.open(files[number % len(files)]) as picture:
            canvas.paste(picture.convert("RGB"), at)
    return canvas


def upscale(source: Path, target: Path, words: list[str], kill_after: float | None = None) -> Run:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "qartsr.cli", "upscale", str(source), str(target), *words]
    began = time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT)
    if kill_after is not None:
        time.sleep(kill_after)
        process.kill()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - began
    return Run(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024.0, process.returncode)


def difference(one: Path, other: Path) -> dict[str, float]:
    """Of two pictures of equal size in levels of 8 bits: overall, and by the column and row that differ most."""
    with Image.open(one) as first, Image.open(other) as second:
        sides = [np.asarray(picture.convert("RGB")) for picture in (first, second)]
    height, width = sides[0].shape[:2]
    columns, rows, squares, most = np.zeros(width), np.zeros(height), 0.0, 0
    for top in range(0, height, STRIP):
        strip = np.abs(np.subtract(*(side[top : top + STRIP].astype(np.int16) for side in sides)))
        columns += strip.sum((0, 2), dtype=np.int64)
        rows[top : top + STRIP] = strip.mean((1, 2))
        squares += float((strip.astype(np.int64) ** 2).sum())
        most = max(most, int(strip.max()))
    columns /= height * 3
    mse = squares / (height * width * 3)
    found = {"psnr": float("inf") if mse == 0 else float(10 * np.log10(255**2 / mse)), "most": float(most)}
    return found | _profile("column", columns) | _profile("row", rows)


def _profile(name: str, means: NDArray[np.float64]) -> dict[str, float]:
    return {f"{name}_mean": float(means.mean()), f"{name}_worst": float(means.max())}


def as_markdown(result: dict[str, Any]) -> str:
    """The figures as a page."""
    settings, found = result["settings"], result["difference"]
    lines = [
        f"# A picture of {settings['side']} x {settings['side']}",
        "",
        f"{result['machine']['cpu']}, {settings['threads']} threads, load {result['load']:.1f} before it began; "
        f"`{settings['model']}`, {result['date']}.",
        "",
        "| run | minutes | processor minutes | most resident |",
        "|---|--:|--:|--:|",
    ]
    names = {
        "whole": "whole",
        "killed": f"killed half-way, {result['rows_kept']} rows of tiles kept",
        "again": "started again",
        "tiled": f"tiles of {settings['tile']}",
    }
    for name, title in names.items():
        run = result["runs"][name]
        minutes, processor = run["seconds"] / 60, run["processor"] / 60
        lines.append(f"| {title} | {minutes:.1f} | {processor:.1f} | {run['peak'] / 1e9:.2f} GB |")
    same = "the same bytes" if result["equal_after_kill"] else "OTHER BYTES"
    lines += [
        "",
        f"Killed and started again it ends with {same}. Between the two tilings: {found['psnr']:.1f} dB, at most "
        f"{found['most']:.0f} levels in a pixel; mean difference {found['column_mean']:.3f} levels, in the worst "
        f"column {found['column_worst']:.3f}, in the worst row {found['row_worst']:.3f}.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
