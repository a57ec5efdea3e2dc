"""How many multiply-accumulates has a pass of RPQ at full size?

    python -m benchmarks.calibration_macs --arch osediff

Nothing runs: PyTorch counts the convolutions, matrix products and attention of every module on tensors without values.
With F the whole forward pass and S_k what stands behind the input of module k (module k too), a step of module k is

naive       2 F + 2 S_k     teacher and student forward, backward to module k: by input and by weight
cached      3 S_k           the student begins at module k, the teacher's states are read
hybrid 1/n  3 S_k / n + 3 M_k (1 - 1/n)     the other steps stop behind module k, whose forward pass is M_k
module      3 M_k           no image loss

LPIPS, branches, adapters, the quantizers and the optimizer are left out. What a small model takes is measured by
:mod:`benchmarks.calibration_speed`.
"""

from __future__ import annotations

import argparse
import json
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.machine import versions
from qartsr.models import State
from qartsr.synthetic import ARCHITECTURES, blank

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", choices=tuple(ARCHITECTURES), default="osediff")
    parser.add_argument("--size", type=int, default=512, help="side of the image in pixels")
    parser.add_argument("--every", type=int, nargs="+", default=[2, 4, 10], help="the image loss of hybrid")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    forward = counted(args.arch, args.size)
    totals = passes(list(forward.values()), args.every)
    result: dict[str, Any] = {
        "question": "multiply-accumulates of a pass of RPQ, one step of one sample in every module",
        "date": date.today().isoformat(), "versions": versions(),
        "settings": {"arch": args.arch, "size": args.size}, "forward_macs": forward, "pass_macs": totals,
    }  # fmt: skip
    name = f"calibration_macs_{args.arch}_{args.size}_{result['date']}"
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
    (args.out / f"{name}.md").write_text(as_markdown(args.arch, args.size, len(forward), totals))
    print(as_markdown(args.arch, args.size, len(forward), totals))


@torch.no_grad()
def counted(arch: str, size: int) -> dict[str, int]:
    """Module -> multiply-accumulates of its forward pass, in inference order."""
    model = blank(ARCHITECTURES[arch]()).to("meta")
    state, found = State(torch.empty(1, 3, size, size, device="meta")), {}
    for unit in model.segments():
        with FlopCounterMode(display=False) as counter:
            state = unit.run(model, state)
        found[unit.name] = counter.get_total_flops() // 2
    return found


def passes(forward: list[int], every: list[int]) -> dict[str, float]:
    """Way -> multiply-accumulates of one step per module, all modules."""
    whole, behind = sum(forward), [sum(forward[index:]) for index in range(len(forward))]
    module, image = 3 * whole, 3 * sum(behind)
    return {
        "naive": 2 * whole * len(forward) + 2 * sum(behind),
        "cached": image,
        **{f"hybrid 1/{n}": image / n + module * (1 - 1 / n) for n in every},
        "module": module,
    }


def as_markdown(arch: str, size: int, modules: int, totals: dict[str, float]) -> str:
    rows = "\n".join(f"| {name} | {macs / 1e12:.2f} | {totals['naive'] / macs:.2f} |" for name, macs in totals.items())
    return f"""# A pass of RPQ counted: {arch}, {size} x {size}, {modules} modules

| | TMAC per sample | fewer by |
|---|--:|--:|
{rows}
"""


if __name__ == "__main__":
    main()
