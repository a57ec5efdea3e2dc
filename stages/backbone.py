"""Assemble the floating-point backbone: the sample weights, or SD 2.1-base with OSEDiff's LoRA merged."""

from __future__ import annotations

from pathlib import Path

from qartsr.config import load_params
from qartsr.config.schema import SampleBackboneConfig
from qartsr.files import sha256_tree
from qartsr.models import load_model, save_model
from qartsr.models.osediff import load_osediff
from qartsr.tracking import open_run
from stages._stage import arguments, stage


def main() -> None:
    """Write the backbone folder."""
    args = arguments(__doc__, "--sample", "--out")
    params = load_params(args.params)
    config = params.backbone
    if isinstance(config, SampleBackboneConfig):
        model = load_model(args.sample)
        model.align = config.align
    else:
        source = (config.base, Path(config.lora), config.align, config.prompt)
        model = load_osediff(*source, revision=config.revision, sha256=config.sha256)
    save_model(model, args.out)
    with open_run(params.profile, "backbone", config.model_dump()) as run:
        count = sum(parameter.numel() for parameter in model.parameters())
        run.metrics({"parameters_m": count / 1e6}, 0)
        run.tags({"sha256": sha256_tree(args.out)})


if __name__ == "__main__":
    stage(main)
