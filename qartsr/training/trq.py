"""TRQ: timestep retraining for quantization (QArtSR, section 3.2): OSEDiff's own training at another timestep.

The error of Z_H that quantization causes grows with sqrt(1 - abar_T), so the backbone is retrained at a small timestep
(T = 1) before anything is quantized. The result of each timestep is kept in the scratch folder until the stage is done,
so a killed stage continues with the timestep it was at.
"""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import NamedTuple

import torch

from qartsr.config.retrain import RetrainConfig
from qartsr.config.schema import ComputeConfig
from qartsr.config.training import CropPhase
from qartsr.models import Backbone, load_model, save_model
from qartsr.models.adapters import fold
from qartsr.models.folder import CONTEXT
from qartsr.models.sd_unet import SDUNet
from qartsr.models.sd_unet.pretrained import has_text_encoder, load_unet, load_vae, prompt_embedding
from qartsr.training.adapter_layers import adapt_model, save_adapters
from qartsr.training.backbone import Recipe, train_backbone
from qartsr.training.batches import Source, source
from qartsr.training.checkpoint import Checkpoint, intact, seal
from qartsr.training.determinism import generator
from qartsr.training.distributed import MicroBatching, World
from qartsr.training.loop import ROWS, Curves
from qartsr.training.optimizer import Setting
from qartsr.training.vsd import VSD, NoRegulariser, Regulariser

ADAPTERS = "adapters.safetensors"


class Job(NamedTuple):
    """What the retrainings of one stage share."""

    backbone: Backbone
    source: Source
    config: RetrainConfig
    setting: Setting
    means: MicroBatching
    checkpoint: Checkpoint


def read_job(
    model: Path, data: Path, config: RetrainConfig, setting: Setting, compute: ComputeConfig, folder: Path, world: World
) -> Job:
    """The job of a stage: the backbone's folder, the data set's, and a scratch ``folder`` for what it finishes."""
    backbone = load_model(model)
    return Job(
        backbone=backbone,
        source=source(data, config.degradation, setting.seed, compute.loaders, backbone.facts.frames),
        config=config,
        setting=setting,
        means=MicroBatching(world, compute.micro_batch, compute.gradient_checkpointing),
        checkpoint=Checkpoint(folder, compute.checkpoint_seconds, world.is_main_process),
    )


def retrained(job: Job, timestep: int, steps: int, curves: Curves) -> Backbone:
    """The backbone retrained for ``steps`` at scheduler index ``timestep`` (0..999), adapters merged.

    With 0 steps it is the backbone itself, whatever ``start`` says. All processes get the model; the first keeps it,
    with its ``curves``, which begin empty.
    """
    kept, world = _kept(job, timestep), job.means.world
    done = intact(kept) and (job.config.train != "lora" or intact(_adapters(job, timestep)))
    world.wait()  # all have looked before the first one writes
    if done:
        curves.recall(kept / ROWS)
        return load_model(kept).to(world.device)
    title = f"retrain T={timestep}"
    model = _start(job, steps).to(world.device)
    model.timestep = timestep
    regulariser = _regulariser(job, model, title) if steps else NoRegulariser()
    if job.config.train == "lora":
        adapt_model(model, job.config.adapters, generator(job.setting.seed, title, "adapters"))
    else:
        model.requires_grad_(job.config.train == "all")
        model.get_submodule(model.denoiser).requires_grad_(True)
    part = Checkpoint(job.checkpoint.folder / f"t{timestep}", job.checkpoint.seconds, job.checkpoint.writes)
    with job.source(title) as batches:
        train_backbone(model, batches, _recipe(job, title, steps), regulariser, job.means, curves, part)
    if world.is_main_process and job.config.train == "lora":
        save_adapters(model, job.config.adapters, _adapters(job, timestep))
        seal(_adapters(job, timestep))
    fold(model)
    if world.is_main_process:
        save_model(model, kept)
        curves.keep(kept / ROWS)
        seal(kept)
    world.wait()
    return model


def save_retrained(job: Job, model: Backbone, out: Path) -> None:
    """The model folder of a later stage, with the adapters that were merged into it in ``adapters.safetensors``."""
    save_model(model, out)
    if job.config.train == "lora":
        shutil.copyfile(_adapters(job, model.timestep), out / ADAPTERS)


def inputs(config: RetrainConfig) -> list[Path]:
    """Folders outside the project that a retraining depends on."""
    if not config.vsd.weight and config.start != "base":
        return []
    base = Path(config.base)
    prompts = ("tokenizer", "text_encoder") if has_text_encoder(base) else (CONTEXT,)
    return [base / part for part in ("unet", "vae", *prompts)]


def _start(job: Job, steps: int) -> Backbone:
    backbone, base = job.backbone, Path(job.config.base)
    if job.config.start == "backbone" or not steps:
        return copy.deepcopy(backbone)
    return SDUNet(load_unet(base), load_vae(base), backbone.context.clone(), backbone.timestep, backbone.align)


def _regulariser(job: Job, model: Backbone, title: str) -> Regulariser:
    config, device = job.config, job.means.world.device
    if not config.vsd.weight:
        return NoRegulariser()
    teacher = load_unet(Path(config.base)).to(device, memory_format=torch.channels_last)
    negative = prompt_embedding(Path(config.base), config.vsd.negative_prompt).to(device)
    purpose = (job.setting.seed, title)
    vsd = VSD(teacher, model.context, negative, config.vsd, config.adapters, purpose)
    if job.means.checkpointing:
        vsd.student.enable_gradient_checkpointing()
    return vsd


def _recipe(job: Job, title: str, steps: int) -> Recipe:
    config, setting = job.config, job.setting
    return Recipe(
        title, steps, (CropPhase(share=1.0, batch=config.batch, crop=config.crop),), config.lr, config.warmup,
        config.weight_decay, config.loss, setting.lpips, setting.align, config.schedule, config.betas, config.autocast,
        config.clamp,
    )  # fmt: skip


def _kept(job: Job, timestep: int) -> Path:
    return job.checkpoint.folder / f"t{timestep}-done"


def _adapters(job: Job, timestep: int) -> Path:
    return job.checkpoint.folder / f"t{timestep}-{ADAPTERS}"
