"""MaxMin at every timestep, bit-width and seed (Table 1), and the error of Z_H over many timesteps (the theorem)."""

from __future__ import annotations

from typing import Any

from experiments.study.measure import Judge, means
from experiments.study.sets import load_inputs, load_windows
from experiments.study.timesteps import keep_stages, probe_row, table_row
from qartsr.config import load_config
from qartsr.config.experiment import Experiments
from qartsr.data.pairs import to_unit
from qartsr.files import read_json, write_bytes, write_json
from qartsr.models import load_model
from qartsr.training.checkpoint import Checkpoint, scratch_folder
from qartsr.training.determinism import prepare
from stages._stage import arguments, stage


def main() -> None:
    """Write results.json, and what the figure of the stages shows. What is done for a timestep outlives a kill."""
    args = arguments(__doc__, "--backbones", "--samples", "--out", "--work")
    params = load_config(Experiments, args.params)
    device = prepare(params.compute, params.compute.threads)
    windows, row, bits = load_windows(args.samples, params.sets), params.methods["maxmin"], params.tables.table1_bits
    test = to_unit(next(iter(windows.values())).lq).to(device)
    inputs = {seed: load_inputs(args.samples, seed)[0].to(device) for seed in params.seeds}
    named, settings = params.backbones.timesteps, [row.model_dump(), params.common.model_dump(), bits, params.seeds]
    settings += [params.lpips.model_dump(), named]
    folder = scratch_folder(args.work, "timesteps", "experiments.timesteps", settings, [args.backbones, args.samples])
    for timestep in (*named, *params.backbones.probed):
        if (folder / f"t{timestep}.json").exists():
            continue
        print(f"timestep {timestep} of {[*named, *params.backbones.probed]}", flush=True)
        model = load_model(args.backbones / f"t{timestep}").to(device)
        found: dict[str, Any] = {
            "probe": {s: probe_row(model, row, params.common, bits, lq, test) for s, lq in inputs.items()}
        }
        if timestep in named:
            judge = Judge(windows, params.lpips, model)
            found["fp"], found["bicubic"] = means(judge.scores(judge.images(model))), means(judge.bicubic())
            found["rows"] = {
                b: {s: table_row(model, row, params.common, b, lq, test, judge) for s, lq in inputs.items()}
                for b in bits
            }
            keep_stages(model, row, params.common, bits[-1], inputs[params.seeds[0]], test[:1], folder)
        write_json(folder / f"t{timestep}.json", found)  # last: it says that the timestep is complete
    every = {timestep: read_json(folder / f"t{timestep}.json") for timestep in (*named, *params.backbones.probed)}
    for timestep in named:
        name = f"stages-t{timestep}.safetensors"
        write_bytes(args.out / name, (folder / name).read_bytes())
    rows, fp = ({timestep: every[timestep][key] for timestep in named} for key in ("rows", "fp"))
    probes, bicubic = {timestep: found["probe"] for timestep, found in every.items()}, every[named[-1]]["bicubic"]
    write_json(args.out / "results.json", {"rows": rows, "probes": probes, "fp": fp, "bicubic": bicubic})
    Checkpoint(folder, 0.0).finish()


if __name__ == "__main__":
    stage(main)
