"""How long does one image take on this CPU: floating point, simulated quantization, OpenVINO, and our int8 engine?

    python -m benchmarks.cpu --arch osediff --threads 2 --rounds 5
    python -m benchmarks.cpu --arch sample --threads 2 --rounds 15

Encoder, UNet and decoder are timed one after another, each in a process that has that part only. All contestants of a
group live in it and take turns in every round, so that a slow minute of the machine slows all: trust the
ratios. Groups, so that they fit in memory; our engine at W4A4 is in each. Weights are random, inputs are normal
noise; the first turn of each is not counted. The peer "OpenVINO W8A8" is what NNCF makes of the floating-point
model (mixed preset, one calibration input, no bias correction: neither changes the time); it needs `pip install nncf`.

What is measured is kept in `<out>/unfinished_*.json` part by part; the same command goes on from there.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.cpu_report import as_markdown
from benchmarks.cpu_runners import BITS, GROUPS, PARTS, Bench, Run
from benchmarks.machine import machine, peak, slug, versions
from qartsr.files import read_json, write_json
from qartsr.synthetic import ARCHITECTURES

RESULTS = Path(__file__).parent / "results"
_WARM = 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", choices=tuple(ARCHITECTURES), default="osediff")
    parser.add_argument("--size", type=int, default=512, help="side of the output in pixels")
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--groups", nargs="+", choices=tuple(GROUPS), default=["torch", "int8"])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if "int8" in args.groups and find_spec("nncf") is None:
        raise SystemExit("group int8 needs NNCF: pip install nncf, or leave it out with --groups torch")
    bench = Bench(ARCHITECTURES[args.arch](), args.arch, args.size)
    result = measure(bench, args)
    name = f"cpu_{args.arch}_{'-'.join(args.groups)}_{slug()}_{result['date']}"
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
    (args.out / f"{name}.md").write_text(as_markdown(result))
    print(as_markdown(result))
    for kept in args.out.glob(f"unfinished_cpu_{args.arch}_{'-'.join(args.groups)}_{slug()}.json"):
        kept.unlink()


def measure(bench: Bench, args: argparse.Namespace) -> dict[str, Any]:
    settings = {name: getattr(args, name) for name in ("arch", "size", "rounds", "threads", "groups", "parts")}
    kept = args.out / f"unfinished_cpu_{args.arch}_{'-'.join(args.groups)}_{slug()}.json"
    load, seconds, peaks, peer_bytes = [os.getloadavg()[0]], {}, [0.0], 0
    done = _taken_up(kept, settings)
    for group in args.groups:
        seconds[group] = {}
        for part in args.parts:  # each in a process of its own: nothing of one is in the memory of the next
            if f"{group} {part}" not in done:
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                    found = pool.submit(one_part, bench, group, part, args.rounds, args.threads).result()
                done[f"{group} {part}"] = list(found)
                write_json(kept, {"settings": settings, "done": done})
            seconds[group][part], size, most = done[f"{group} {part}"]
            peer_bytes += size
            peaks.append(most)
    load.append(os.getloadavg()[0])
    return {
        "question": "seconds of one image on a CPU",
        "date": date.today().isoformat(),
        "machine": machine(),
        "versions": versions("openvino", "nncf"),
        "settings": settings,
        "load_average_before_and_after": [round(value, 1) for value in load],
        "package_bytes": {bits: bench.package(bits).size for bits in BITS},
        "peer_w8a8_bytes": peer_bytes,
        "groups": {group: summary(found) for group, found in seconds.items()},
        "peak_rss_gb": round(max(peaks) / 1e9, 2),
    }


def _taken_up(kept: Path, settings: dict[str, Any]) -> dict[str, list[Any]]:
    """What an earlier run with the same settings has measured."""
    if not kept.is_file() or (found := read_json(kept))["settings"] != settings:
        return {}
    print(f"going on from {kept}: {', '.join(found['done'])}", flush=True)
    done: dict[str, list[Any]] = found["done"]
    return done


@torch.no_grad()
def one_part(
    bench: Bench, group: str, part: str, rounds: int, threads: int
) -> tuple[dict[str, list[float]], int, float]:
    """Seconds by contestant, bytes of the W8A8 peer if it is one, and the most resident bytes."""
    torch.set_num_threads(threads)
    seconds = turns(bench.build(group, part), bench.input(part), rounds, part)
    return seconds, bench.peer_bytes, peak()


def turns(runs: Mapping[str, Run], x: Tensor, rounds: int, part: str) -> dict[str, list[float]]:
    """Seconds of each contestant, in rounds of one turn each."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for index in range(_WARM + rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            y = run(x)
            seconds[name].append(time.perf_counter() - start)
            if not bool(y.isfinite().all()) or float(y.float().std()) < 1e-4:
                raise SystemExit(f"{name}, {part}: the output is constant or not finite: the seconds mean nothing")
        print(f"{part} {index}: " + ", ".join(f"{name} {each[-1]:.3f}" for name, each in seconds.items()), flush=True)
    return {name: each[_WARM:] for name, each in seconds.items()}


def summary(found: Mapping[str, Mapping[str, list[float]]]) -> dict[str, Any]:
    """By contestant: seconds of each part and in all, and how often our W4A4 goes into each, round by round."""
    names = list(next(iter(found.values())))
    total = {name: [sum(each) for each in zip(*(part[name] for part in found.values()), strict=True)] for name in names}
    ours = total.get("ours w4a4") or total["few w4a4"]
    return {
        name: {
            **{part: spread(values[name]) for part, values in found.items()},
            "total": spread(total[name]),
            "over_ours_w4a4": spread([slow / fast for slow, fast in zip(total[name], ours, strict=True)]),
        }
        for name in names
    }


def spread(values: list[float]) -> dict[str, Any]:
    rounded = [round(value, 4) for value in values]
    return {"median": round(statistics.median(values), 4), "min": min(rounded), "max": max(rounded), "all": rounded}


if __name__ == "__main__":
    main()
