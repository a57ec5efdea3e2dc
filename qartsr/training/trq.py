"""TRQ: timestep retraining for quantization (QArtSR, section 3.2).

The same one-step backbone is trained further at another timestep. The result of each timestep is kept in the scratch
folder until the stage is done, so a killed stage continues with the timestep it was at.
"""

from __future__ import annotations

import copy
from pathlib import Path

from qartsr.config.training import CropPhase, RetrainConfig
from qartsr.data.pairs import Pair
from qartsr.models import OneStepSR, load_model, save_model
from qartsr.training.backbone import Recipe, train_backbone
from qartsr.training.checkpoint import Checkpoint
from qartsr.training.curves import Curves
from qartsr.training.quantized import Setting


def retrained(
    backbone: OneStepSR,
    timestep: int,
    steps: int,
    pairs: list[Pair],
    config: RetrainConfig,
    setting: Setting,
    curves: Curves,
    checkpoint: Checkpoint,
) -> OneStepSR:
    """A copy of ``backbone`` retrained for ``steps`` at scheduler index ``timestep`` (0..999)."""
    kept = _kept(checkpoint, timestep)
    device = backbone.context.device
    if kept.exists():
        return load_model(kept).to(device)
    model = copy.deepcopy(backbone)
    model.timestep = timestep
    recipe = Recipe(
        f"retrain T={timestep}", steps, (CropPhase(share=1.0, batch=config.batch, crop=config.crop),), config.lr,
        config.warmup, config.weight_decay, config.loss, setting.lpips, setting.align, setting.seed,
    )  # fmt: skip
    part = Checkpoint(checkpoint.folder / f"t{timestep}", checkpoint.seconds)
    train_backbone(model, pairs, recipe, curves, part)
    save_model(model, kept)
    return model


def _kept(checkpoint: Checkpoint, timestep: int) -> Path:
    return checkpoint.folder / f"t{timestep}-done"
