"""Pretrain the sample backbone from scratch (frozen in dvc.yaml; its result is shipped in weights/)."""

from __future__ import annotations

from qartsr.config import load_params
from qartsr.data.pairs import load_pairs
from qartsr.files import write_json
from qartsr.models import sample_backbone, save_model
from qartsr.tracking import open_run
from qartsr.training.backbone import Recipe, train_backbone
from qartsr.training.batches import cropped
from qartsr.training.checkpoint import Checkpoint, scratch_folder
from qartsr.training.curves import Curves
from qartsr.training.determinism import prepare
from qartsr.training.means import Means
from qartsr.training.probe import psnr
from qartsr.training.regulariser import NoRegulariser
from qartsr.training.world import World
from stages._stage import arguments, stage


def main() -> None:
    """Write the model folder and its loss curve."""
    args = arguments(__doc__, "--data", "--out", "--curves", "--metrics", "--work")
    params = load_params(args.params)
    config = params.pretrain
    device = prepare(params.compute, params.compute.threads_alone)
    settings = [params.seed, config.model_dump(), params.backbone.model_dump()]
    checkpoint = Checkpoint(
        scratch_folder(args.work, "pretrain", settings, [args.data]), params.compute.checkpoint_seconds
    )
    model = sample_backbone(config.timestep, params.backbone.align, params.seed).to(device)
    recipe = Recipe(
        "pretrain", config.steps, config.phases, config.lr, config.warmup, config.weight_decay, config.loss,
        params.lpips, params.backbone.train_align,
    )  # fmt: skip
    batches = cropped(load_pairs(args.data, "train"), params.seed, recipe.title)
    with open_run(params.profile, "pretrain", config.model_dump()) as run:
        curves = Curves(run.metrics, every=10)
        train_backbone(model, batches, recipe, NoRegulariser(), Means(World(device)), curves, checkpoint)
        save_model(model, args.out)
        curves.write(args.curves)
        quality = {pair.name: round(psnr(model, pair), 4) for pair in load_pairs(args.data, "test")}
        write_json(args.metrics, {"psnr": quality})
        run.artifact(args.curves)
    checkpoint.finish()


if __name__ == "__main__":
    stage(main)
