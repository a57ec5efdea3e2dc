"""TRQ: retrain the backbone at T = 1 and measure what quantization would destroy at each timestep."""

from __future__ import annotations

import csv
import io

from qartsr.config import load_params
from qartsr.data.pairs import crop_batch, load_pairs
from qartsr.files import write_json, write_text
from qartsr.models import load_model, save_model
from qartsr.tracking import open_run
from qartsr.training.checkpoint import Checkpoint, scratch_folder
from qartsr.training.curves import Curves
from qartsr.training.determinism import generator, prepare
from qartsr.training.probe import Probe, centre, probe
from qartsr.training.quantized import Setting
from qartsr.training.trq import retrained
from stages._stage import arguments, stage


def main() -> None:
    """Write the retrained model, its loss curve, FP quality before and after, and the probe of Z_H."""
    args = arguments(__doc__, "--model", "--data", "--out", "--metrics", "--curves", "--probe", "--work")
    params = load_params(args.params)
    config, device = params.retrain, prepare(params.compute, params.compute.threads_alone)
    settings = [params.seed, config.model_dump(), params.lpips.model_dump(), params.backbone.train_align]
    folder = scratch_folder(args.work, "retrain", settings, [args.model, args.data])
    checkpoint = Checkpoint(folder, params.compute.checkpoint_seconds)
    backbone = load_model(args.model).to(device)
    train = load_pairs(args.data, "train")
    test = [centre(pair, config.probe_crop) for pair in load_pairs(args.data, "test")]
    setting = Setting(params.lpips, params.backbone.train_align, 1.0, params.seed)
    batches = [crop_batch(train, 8, config.crop, generator(params.seed, "probe", n))[1].to(device) for n in range(4)]
    rows: list[Probe] = []
    with open_run(params.profile, "retrain", config.model_dump()) as run:
        for timestep in sorted({*config.probe_timesteps, config.timestep}, reverse=True):
            final = timestep == config.timestep
            curves = Curves(run.metrics if final else lambda values, step: None)
            steps = config.steps if final else config.probe_steps * (timestep != backbone.timestep)
            model = retrained(backbone, timestep, steps, train, config, setting, curves, checkpoint)
            rows += probe(model, config.probe_bits, batches, test)
            if final:
                save_model(model, args.out)
                curves.write(args.curves)
        quality = {f"t{row.timestep}": {"psnr_fp": round(row.psnr_fp, 4)} for row in rows}
        for row in rows:
            quality[f"t{row.timestep}"][f"zh_error_{row.bits}"] = round(row.zh_error, 6)
        write_json(args.metrics, quality)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([field.rstrip("_") for field in Probe._fields])
        writer.writerows([[round(v, 6) if isinstance(v, float) else v for v in row] for row in rows])
        write_text(args.probe, text.getvalue())
        run.artifact(args.probe)
    checkpoint.finish()


if __name__ == "__main__":
    stage(main)
