"""Floating-point backbones at several timesteps, each retrained equally long from the sample backbone (TRQ)."""

from __future__ import annotations

from qartsr.config import load_config
from qartsr.config.experiment import Experiments
from qartsr.models import load_model, save_model
from qartsr.training.batches import source
from qartsr.training.checkpoint import Checkpoint, scratch_folder
from qartsr.training.determinism import prepare
from qartsr.training.distributed import MicroBatching, World
from qartsr.training.loop import Curves
from qartsr.training.optimizer import Setting
from qartsr.training.trq import Job, retrained
from stages._stage import arguments, stage


def main() -> None:
    """Write a model folder ``tNNN`` for every timestep."""
    args = arguments(__doc__, "--model", "--data", "--out", "--work")
    params = load_config(Experiments, args.params)
    retrain, device, seed = params.backbones.retrain, prepare(params.compute, params.compute.threads), params.seeds[0]
    settings = [seed, retrain.model_dump(), params.lpips.model_dump(), params.train_align]
    folder = scratch_folder(args.work, "backbones", "experiments.backbones", settings, [args.model, args.data])
    checkpoint = Checkpoint(folder, params.compute.checkpoint_seconds)
    model = load_model(args.model)
    batches = source(args.data, retrain.degradation, seed, params.compute.loaders, model.facts.frames)
    setting = Setting(params.lpips, params.train_align, 1.0, seed)
    job = Job(model, batches, retrain, setting, MicroBatching(World(device)), checkpoint)
    for timestep in (*params.backbones.timesteps, *params.backbones.probed):
        model = retrained(job, timestep, retrain.steps, Curves(lambda values, step: None))
        save_model(model, args.out / f"t{timestep}")
    checkpoint.finish()


if __name__ == "__main__":
    stage(main)
