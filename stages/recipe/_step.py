"""What the stages of the sample backbone's recipe share (weights/recipe)."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image

from qartsr.config.load import load_config
from qartsr.config.recipe import RecipeConfig, SchoolingConfig
from qartsr.data import Pair, load_pairs
from qartsr.files import write_json
from qartsr.tracking import Tracker
from qartsr.training.batches import Batches, cropped
from qartsr.training.checkpoint import Checkpoint, scratch_folder
from qartsr.training.determinism import prepare
from qartsr.training.loop import Curves

Judged = tuple[Mapping[str, object], Image.Image]

PROFILE = "recipe"
"""names the MLflow experiment"""


class Step(NamedTuple):
    """One step's configuration, photographs and place for checkpoints."""

    config: RecipeConfig
    title: str
    pairs: list[Pair]
    checkpoint: Checkpoint
    device: torch.device

    def batches(self) -> Batches:
        """Sharp crops and their bicubic LR."""
        return cropped(self.pairs, self.config.seed, self.title)

    def curves(self, run: Tracker) -> Curves:
        """Every tenth step."""
        return Curves(run.metrics, every=10)

    def keep(self, args: argparse.Namespace, run: Tracker, curves: Curves, judged: Judged) -> None:
        """Write the curve, the figures and the picture that this step is judged by, and log them."""
        quality, picture = judged
        curves.write(args.curves)
        write_json(args.metrics, quality)
        picture.save(args.picture, quality=90)
        for path in (args.curves, args.picture):
            run.artifact(path)

    def test(self, data: Path) -> list[Pair]:
        """The photographs that nothing is trained on."""
        return load_pairs(data, "test")


def opened(args: argparse.Namespace, title: str, inputs: list[Path]) -> Step:
    """Read the recipe, set threads and seeds, find the checkpoint that belongs to ``title`` and its ``inputs``."""
    config = load_config(RecipeConfig, args.params)
    device = prepare(config.compute, config.compute.threads_alone)
    own: SchoolingConfig = getattr(config, title)
    settings, module = [config.seed, own.model_dump()], f"stages.recipe.{title}"
    folder = scratch_folder(args.work, f"recipe-{title}", module, settings, [args.data, *inputs])
    return Step(
        config, title, load_pairs(args.data, "train"), Checkpoint(folder, config.compute.checkpoint_seconds), device
    )
