"""MaxMin at every timestep, bit-width and seed (Table 1), and the error of Z_H over many timesteps (the theorem)."""

from __future__ import annotations

from qartsr.config import Experiments, load_config
from qartsr.data.pairs import to_unit
from qartsr.files import write_json
from qartsr.models import load_model
from qartsr.study.measure import Judge, means
from qartsr.study.pictures import keep_stages
from qartsr.study.sets import load_inputs, load_windows
from qartsr.study.timesteps import probe_row, table_row
from qartsr.training.determinism import prepare
from stages._stage import arguments, stage


def main() -> None:
    """Write results.json, and what the figure of the stages inside the model shows."""
    args = arguments(__doc__, "--backbones", "--samples", "--out")
    params = load_config(Experiments, args.params)
    device = prepare(params.compute, params.compute.threads)
    windows, row, bits = load_windows(args.samples, params.sets), params.methods["maxmin"], params.tables.table1_bits
    test = to_unit(next(iter(windows.values())).lq).to(device)
    inputs = {seed: load_inputs(args.samples, seed)[0].to(device) for seed in params.seeds}
    rows, probes, fp = {}, {}, {}
    for timestep in (*params.backbones.timesteps, *params.backbones.probed):
        model = load_model(args.backbones / f"t{timestep}").to(device)
        probes[timestep] = {s: probe_row(model, row, params.common, bits, lq, test) for s, lq in inputs.items()}
        if timestep in params.backbones.timesteps:
            judge = Judge(windows, params.lpips, model)
            fp[timestep] = means(judge.scores(judge.images(model)))
            rows[timestep] = {
                b: {s: table_row(model, row, params.common, b, lq, test, judge) for s, lq in inputs.items()}
                for b in bits
            }
            keep_stages(model, row, params.common, bits[-1], inputs[params.seeds[0]], test[:1], args.out)
    bicubic = means(judge.bicubic())
    write_json(args.out / "results.json", {"rows": rows, "probes": probes, "fp": fp, "bicubic": bicubic})


if __name__ == "__main__":
    stage(main)
