"""Assemble the floating-point backbone: sample weights, or Stable Diffusion with published LoRA merged."""

from __future__ import annotations

from pathlib import Path

from qartsr.config import load_params
from qartsr.files import sha256_tree
from qartsr.models import load_model, save_model
from qartsr.models.peft import load_hypir, load_omgsr
from qartsr.models.sd3_dit import sample_dit
from qartsr.models.sd3_dit.tsdsr import load_tsdsr
from qartsr.models.sd_unet.dloral_checkpoint import load_dloral
from qartsr.models.sd_unet.osediff import load_osediff
from qartsr.models.sd_unet.video import video_backbone
from qartsr.tracking import open_run
from stages._stage import arguments, stage


def main() -> None:
    """Write the backbone folder."""
    args = arguments(__doc__, "--sample", "--out")
    params = load_params(args.params)
    config = params.backbone
    if config.kind == "sample":
        model = load_model(args.sample)
        model.align = config.align
    elif config.kind == "sample_video" or config.kind == "sample_dit":  # mypy narrows no `in`
        if config.weights:
            model = load_model(Path(config.weights))
        elif config.kind == "sample_video":
            model = video_backbone(load_model(args.sample))
        else:
            model = sample_dit(load_model(args.sample).get_submodule("vae"), config.align, 0)
        model.align = config.align
    elif config.kind == "tsdsr":
        model = load_tsdsr(Path(config.base), Path(config.lora), Path(config.prompt), config.align)
    else:
        source = (config.base, Path(config.lora), config.align, config.prompt)
        loaders = {"osediff": load_osediff, "omgsr": load_omgsr, "hypir": load_hypir, "dloral": load_dloral}
        load = loaders[config.kind]
        model = load(*source, revision=config.revision, sha256=config.sha256)
    save_model(model, args.out)
    with open_run(params.profile, "backbone", config.model_dump()) as run:
        count = sum(parameter.numel() for parameter in model.parameters())
        run.metrics({"parameters_m": count / 1e6}, 0)
        run.tags({"sha256": sha256_tree(args.out)})


if __name__ == "__main__":
    stage(main)
