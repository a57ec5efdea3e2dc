"""What does a pass of RPQ cost with the teacher run at every step, with its states cached, and with fewer image losses?

    python -m benchmarks.calibration_speed --model build/backbone --calibration build/calibration --data build/data

Three ways through the same pass, same samples, same seeds, in one process:

naive   the teacher and the whole student run at every step
cached  the teacher's states at all cuts are kept (qartsr/training/teacher_cache.py); the student begins at module k
hybrid  cached, and the image loss enters every n-th step only; the others stop behind module k

Multiply-accumulates are PyTorch's own count of convolutions, matrix products and attention, forward and backward, as a
mean over the modules' steps. Quality is the luma PSNR against the floating-point model on windows of the test images.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.machine import machine, slug, versions
from qartsr.config import Params, load_params, parse_bits
from qartsr.config.method import ModulesPhase, training
from qartsr.data import load_calibration, load_pairs
from qartsr.data.pairs import to_unit
from qartsr.losses import ImageLoss
from qartsr.metrics.luma import psnr_y
from qartsr.models import OneStepSR, State, align, load_model, run_segments
from qartsr.quantize import Plan, Statistics, apply, initialise, observe, plan
from qartsr.training.checkpoint import Checkpoint
from qartsr.training.determinism import sample
from qartsr.training.loop import Curves
from qartsr.training.optimizer import Optimizer, Setting, constant
from qartsr.training.param_groups import groups
from qartsr.training.probe import centre
from qartsr.training.rpq import reconstruct

RESULTS = Path(__file__).parent / "results"
Way = Callable[[ModulesPhase], OneStepSR]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--model", "--calibration", "--data"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--bits", default="w2a2")
    parser.add_argument("--pairs", type=int, default=32)
    parser.add_argument("--steps", type=int, default=4, help="of every module")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument(
        "--every", type=int, nargs="+", default=[2, 4], help="the image loss of hybrid: every n-th step"
    )
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    result = measured(args)
    name = f"calibration_speed_{slug()}_{result['date']}"
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
    (args.out / f"{name}.md").write_text(as_markdown(result))
    print(as_markdown(result))


def measured(args: argparse.Namespace) -> dict[str, Any]:
    params, teacher = load_params(args.params), load_model(args.model)
    lq = to_unit(load_calibration(args.calibration).lq[: args.pairs])
    test = [centre(pair, 128) for pair in load_pairs(args.data, "test")]
    decided, statistics = (
        plan(teacher, params.method.planned(params.common), parse_bits(args.bits)),
        observe(teacher, lq.split(8)),
    )
    setting = Setting(params.lpips, params.backbone.train_align, 1.0, params.seed)
    config = first_phase(params).model_copy(update={"steps": args.steps, "batch": args.batch})
    pass_of = {
        "naive": lambda c: naive(teacher, decided, statistics, lq, c, setting),
        "cached": lambda c: cached(teacher, decided, statistics, lq, c, setting),
        **{f"hybrid 1/{n}": _hybrid(n, teacher, decided, statistics, lq, setting) for n in args.every},
    }
    ways: dict[str, dict[str, Any]] = {name: {"seconds": [], "processor_seconds": []} for name in pass_of}
    for _ in range(args.rounds):
        for name, way in pass_of.items():
            began, work = time.perf_counter(), time.process_time()
            student = way(config)
            ways[name]["seconds"].append(round(time.perf_counter() - began, 2))
            ways[name]["processor_seconds"].append(round(time.process_time() - work, 2))
            ways[name]["psnr_to_fp"] = round(
                sum(_psnr(student, teacher, to_unit(p.lq)[None]) for p in test) / len(test), 3
            )
            print(name, ways[name], flush=True)
    for name, way in pass_of.items():
        ways[name]["macs_per_step"] = _macs(way, config, max(args.every))
    settings = {key: str(getattr(args, key)) for key in ("model", "bits", "pairs", "steps", "batch", "every", "rounds")}
    return {
        "question": "cost and quality of a pass of RPQ: teacher at every step, cached, cached with fewer image losses",
        "date": date.today().isoformat(), "machine": machine(), "versions": versions(), "settings": settings,
        "load_average": round(os.getloadavg()[0], 1), "modules": len(teacher.segments()), "ways": ways,
    }  # fmt: skip


def first_phase(params: Params) -> ModulesPhase:
    """RPQ of the method in params.yaml."""
    phase = training(params.method.phases, params.budget).phases[0]
    if not isinstance(phase, ModulesPhase):
        raise SystemExit("the method's first phase is not of kind modules, which is what is measured here")
    return phase


def naive(
    teacher: OneStepSR, decided: Plan, statistics: Statistics, lq: Tensor, config: ModulesPhase, setting: Setting
) -> OneStepSR:
    """RPQ as the paper writes it. The variances that scale the module loss are taken from one pass before."""
    sequence, student = teacher.segments(), copy.deepcopy(teacher)
    loss, trained, scales = ImageLoss(config.loss, setting.lpips), list[str](), _variances(teacher, lq)
    for k in reversed(range(len(sequence))):
        apply(student, decided, sequence[k].layers)
        initialise(student, statistics, sequence[k].layers)
        trained += sequence[k].layers

        def measure(number: int, k: int = k) -> dict[str, Tensor]:
            index = sample(len(lq), config.batch, number, setting.seed, sequence[k].name)
            low = lq[index]
            with torch.no_grad():
                target = run_segments(teacher, State(low), sequence[: k + 1])
                image_fp = run_segments(teacher, target, sequence[k + 1 :]).hidden
                state = run_segments(student, State(low), sequence[:k])
            state = sequence[k].run(student, state)
            image = run_segments(student, state, sequence[k + 1 :]).hidden
            losses = loss(align(setting.align, image, low), align(setting.align, image_fp, low))
            error = F.mse_loss(state.hidden, target.hidden) / scales[k]
            return {"total": losses["total"] + config.module_loss * error}

        optimizer = Optimizer(
            groups(student, config.rates, config.lr * setting.lr_scale, trained), config.weight_decay, constant
        )
        step = optimizer.descent(measure)
        for number in range(config.steps):
            step(number)
    return student


def cached(
    teacher: OneStepSR, decided: Plan, statistics: Statistics, lq: Tensor, config: ModulesPhase, setting: Setting
) -> OneStepSR:
    """The library's own pass, with its cuts written to a scratch folder and read back."""
    with tempfile.TemporaryDirectory() as folder:
        silent = Curves(lambda values, step: None)
        checkpoint = Checkpoint(Path(folder), 3600.0)
        return reconstruct(teacher, decided, statistics, lq, config, setting, silent, checkpoint)


def _hybrid(every: int, teacher: OneStepSR, *others: Any) -> Way:
    decided, statistics, lq, setting = others
    return lambda c: cached(teacher, decided, statistics, lq, c.model_copy(update={"image_every": every}), setting)


@torch.no_grad()
def _variances(teacher: OneStepSR, lq: Tensor) -> list[Tensor]:
    state, found = State(lq), []
    for unit in teacher.segments():
        state = unit.run(teacher, state)
        found.append(state.hidden.var())
    return found


def _macs(way: Way, config: ModulesPhase, steps: int) -> float:
    """Mean of a step, over all modules and a period of ``steps`` steps, caching included."""
    with FlopCounterMode(display=False) as counter:
        student = way(config.model_copy(update={"steps": steps}))
    return counter.get_total_flops() / 2 / (steps * len(student.segments()))


@torch.no_grad()
def _psnr(student: OneStepSR, teacher: OneStepSR, lq: Tensor) -> float:
    images = [((model.restore(lq) + 1) * 127.5).round().clamp(0, 255)[0] / 255 for model in (student, teacher)]
    return psnr_y(*images)


def _row(name: str, way: dict[str, Any], first: dict[str, Any]) -> str:
    work, least = min(way["processor_seconds"]), min(first["processor_seconds"])
    return (
        f"| {name} | {way['macs_per_step'] / 1e9:.2f} | {first['macs_per_step'] / way['macs_per_step']:.2f} | "
        f"{work:.1f} | {least / work:.2f} | {min(way['seconds']):.1f} | {way['psnr_to_fp']:.2f} |"
    )


def as_markdown(result: dict[str, Any]) -> str:
    ways, settings = result["ways"], result["settings"]
    first = ways["naive"]
    rows = "\n".join(_row(name, way, first) for name, way in ways.items())
    return f"""# A pass of RPQ, {result["date"]}

{result["machine"]["cpu"]}, one thread, load average {result["load_average"]}; {settings["bits"]},
{result["modules"]} modules of {settings["steps"]} steps, batch {settings["batch"]}, {settings["pairs"]} pairs,
{settings["rounds"]} rounds.

| | GMAC per step | fewer by | processor s | faster by | wall s | PSNR to FP, dB |
|---|--:|--:|--:|--:|--:|--:|
{rows}
"""


if __name__ == "__main__":
    main()
