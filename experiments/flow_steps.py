"""A flow in several steps: input bits that follow the timestep (VaTMP) beside uniform ones, equal in the mean."""

from __future__ import annotations

from experiments.study.flow import InSteps, spread
from experiments.study.measure import Judge, means
from experiments.study.sets import load_inputs, load_windows
from experiments.study.table import Column, Line, Table, Value, summary, write_tables
from qartsr.config import load_config
from qartsr.config.experiment import Experiments
from qartsr.errors import QartsrError
from qartsr.models import load_model
from qartsr.models.sd3_dit import SD3DiT
from qartsr.tracking import open_run
from qartsr.training.determinism import prepare
from stages._stage import arguments, stage

COLUMNS = (
    Column("psnr", "PSNR ↑", 3, 1),
    Column("psnr_to_fp", "PSNR to FP ↑", 2, 1),
    Column("lpips_random_to_fp", "LPIPS-random to FP ↓", 4, -1),
    Column("varied", "layers whose bits vary, %", 0),
)


def main() -> None:
    """Write NAME.csv, .md and .html, NAME being that of the folder: means over all sets."""
    args = arguments(__doc__, "--backbones", "--samples", "--out")
    params = load_config(Experiments, args.params)
    flow, device = params.flow, prepare(params.compute, params.compute.threads)
    if flow is None:
        raise QartsrError("has no flow", str(args.params), "name its method, steps and stretches under `flow`")
    row = params.methods[flow.method]
    teacher = load_model(args.backbones / f"t{row.timestep}").to(device)
    if not isinstance(teacher, SD3DiT):
        raise QartsrError("is no flow", str(args.backbones), "make it of weights/sample-dit")
    full = InSteps(teacher, flow.steps)
    judge = Judge(load_windows(args.samples, params.sets), params.lpips, full)
    lines = []
    for title, model in (("one step", teacher), (f"{flow.steps} steps", full)):
        scores = means(judge.scores(judge.images(model)))["all"]
        own = {key: Value(value) for key, value in scores.items() if model is teacher or not key.endswith("_to_fp")}
        lines.append(Line(("fp32", title), own, competes=False))
    inputs = [load_inputs(args.samples, seed, params.budget.length)[0].to(device) for seed in params.seeds]
    for bits in params.tables.table3_bits:
        for kind, runs in spread(flow, row.planned(params.common), bits, teacher, judge, inputs).items():
            values = {column.key: summary([run[column.key] for run in runs]) for column in COLUMNS}
            lines.append(Line((bits, kind), values, bits))
    notes = (
        f"{row.title}, {flow.steps} steps of the flow; PSNR to FP is to the floating-point model in as many steps.",
        f"Means over all sets, ± standard deviation over {len(params.seeds)} seeds (calibration pairs).",
    )
    title = "Input bits over the steps of a flow, at equal mean bits"
    write_tables([Table(title, ("bits", "input bits"), COLUMNS, tuple(lines), notes)], title, args.out, args.out.name)
    with open_run("experiments", args.out.name, {}) as run:
        run.artifact(args.out)


if __name__ == "__main__":
    stage(main)
