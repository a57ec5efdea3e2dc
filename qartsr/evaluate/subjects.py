"""Run the test set through a subject: save every output and its error map, measure it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from qartsr.config.training import LPIPSConfig
from qartsr.errors import QartsrError
from qartsr.evaluate.pictures import GRID, contact_sheet, error_map, fitted
from qartsr.evaluate.scenes import Scene, Scenes, open_scenes
from qartsr.evaluate.scores import Row, Scores
from qartsr.files import write_json
from qartsr.images import Picture, as_picture, read_image, upsample, write_image
from qartsr.losses import LPIPS, lpips_name
from qartsr.metrics import Meter, Metric, availability
from qartsr.metrics.iqa import MACHINE, REFUSALS, reason_of
from qartsr.metrics.temporal import Frame, ewarp, ewarp_tvl1, psnr_neighbours, raft
from qartsr.models import OneStepSR
from qartsr.upscale import upscale_image
from qartsr.upscale.memory import ClipRestorer


def meter(names: Sequence[str], lpips: LPIPSConfig, device: torch.device | str = "cpu") -> Meter:
    """Metrics ``names``; where ``lpips`` is among them and the loss uses random features, ``lpips_random`` as well.

    Random features are no substitute for LPIPS: both stand in the result under their own names, and plain ``lpips``
    is unavailable while its weights are missing.
    """
    extra = "lpips" in names and lpips.backbone == "random"
    return Meter(names, {lpips_name(lpips): _distance(LPIPS(lpips).to(device))} if extra else {}, device)


def _distance(network: LPIPS) -> Metric:
    def distance(image: Tensor, reference: Tensor) -> float:
        with torch.no_grad():
            return float(network(2 * image - 1, 2 * reference - 1))

    return distance


Upscale = Callable[[Picture, Picture | None, bool], Image.Image]
"""8-bit RGB LR image, the frame before it, whether it is of a clip -> RGB image, exactly 4 times as wide and high."""


def _upscaler(model: OneStepSR) -> Upscale:
    """A model of clips is told the frame before."""
    clip = ClipRestorer(lambda frame, memory: upscale_image(model, frame, memory=memory))

    def upscale(lr: Picture, before: Picture | None, moving: bool) -> Image.Image:
        if moving and model.facts.frames > 1:
            return clip(lr, before)
        return upscale_image(model, lr)

    return upscale


def evaluate_reference(model: OneStepSR, data: Path, out: Path, meter: Meter) -> tuple[Scores, Scores]:
    """Bicubic x4 and the FP model on the test split: scores of both, images in ``out/bicubic`` and ``out/fp``.

    ``out/model.json`` records the FP model's size. Bicubic gets the PSNR to FP, the FP model does not.
    """
    scenes = open_scenes(data)
    fp = _evaluate(scenes, _upscaler(model), out / "fp", meter)
    bicubic = _evaluate(scenes, lambda lr, before, moving: upsample(lr), out / "bicubic", meter, out / "fp")
    tensors = [tensor for tensor in model.state_dict().values() if tensor.is_floating_point()]
    count = sum(tensor.numel() for tensor in tensors)
    write_json(out / "model.json", {"parameters": count, "bytes": sum(t.numel() * t.element_size() for t in tensors)})
    return bicubic, fp


def evaluate_quantized(model: OneStepSR, data: Path, reference: Path, out: Path, meter: Meter) -> Scores:
    """Scores of a quantized model, among them the PSNR against the FP model's 8-bit output, 80 dB for equal images.

    ``psnr_to_fp`` is on luma, ``psnr_rgb_to_fp`` on RGB. ``reference``: the folder :func:`evaluate_reference` wrote.
    """
    return _evaluate(open_scenes(data), _upscaler(model), out, meter, reference / "fp")


def _evaluate(scenes: Scenes, upscale: Upscale, out: Path, meter: Meter, fp: Path | None = None) -> Scores:
    fidelity = Meter(["psnr", "psnr_rgb"])
    rows: list[Row] = []
    strips: list[list[Image.Image]] = []
    before: dict[str, Picture] = {}
    for scene in scenes.items:
        given, hr = _checked(scene)
        lr = as_picture(given)  # of a clip one object is this frame and, next time, the one before
        image = upscale(lr, before.get(scene.clip), bool(scene.clip))
        before = {scene.clip: lr} if scene.clip else {}
        errors = error_map(image, hr)
        for kind, picture in (("images", image), ("errors", errors)):
            write_image(out / kind / f"{scene.name}.png", picture)
        scores, undefined = meter.attempt(image, hr)
        if fp is not None:
            near = fidelity.measure(image, read_image(fp / "images" / f"{scene.name}.png"))
            scores |= {f"{name}_to_fp": value for name, value in near.items()}
        rows.append(Row(scene.name, scene.set, scores, undefined))
        if len(strips) < GRID:
            strips.append([fitted(picture) for picture in (lr, image, hr, errors)])
    sheet = contact_sheet(strips, ("LR", "output", "HR", "error"))
    write_image(out / "grid.png", sheet)
    clips = _over_frames(scenes, out)
    absent = {"ewarp": availability("ewarp").reason} if clips and not availability("ewarp").available else {}
    return Scores(
        scenes.dataset,
        tuple(rows),
        {**meter.unavailable, **absent, **_lost([*rows, *clips])},
        {clip.image: clip.scores for clip in clips},
    )


def _lost(rows: Sequence[Row]) -> dict[str, str]:
    """Metrics that have no mean, and why: the first that lacks it, and how many do."""
    found: dict[str, list[str]] = {}
    for row in rows:
        for name, reason in row.missing.items():
            found.setdefault(name, []).append(f"is not defined on {row.image}: {reason}")
    more = {name: f" (and on {len(each) - 1} more)" if len(each) > 1 else "" for name, each in found.items()}
    return {name: each[0] + more[name] for name, each in found.items()}


def _over_frames(scenes: Scenes, out: Path) -> list[Row]:
    """Per clip its warping errors, by the truth's flow and by RAFT of its own, and the PSNR of neighbouring frames."""
    found: list[Row] = []
    names = dict.fromkeys(scene.clip for scene in scenes.items if scene.clip)
    motion = raft() if names and availability("ewarp").available else None
    for clip in names:
        members = [scene for scene in scenes.items if scene.clip == clip]
        made = [_unit(read_image(out / "images" / f"{scene.name}.png")) for scene in members]
        truth = [_unit(scene.hr()) for scene in members]
        measures = {"ewarp_tvl1": partial(ewarp_tvl1, made, truth), "psnr_neighbours": partial(psnr_neighbours, made)}
        measures |= {"ewarp": partial(ewarp, made, motion)} if motion else {}
        row = Row(clip, clip, {}, {})
        for name, measure in measures.items():
            try:
                row = row._replace(scores={**row.scores, name: measure()})
            except MACHINE:
                raise
            except REFUSALS as error:  # a clip of one frame, frames too small for the flow
                row = row._replace(missing={**row.missing, name: reason_of(error)})
        found.append(row)
    return found


def _unit(image: Image.Image) -> Frame:
    found: Frame = np.asarray(image, np.float32) / np.float32(255)
    return found


def _checked(scene: Scene) -> tuple[Image.Image, Image.Image]:
    lr, hr = scene.lr(), scene.hr()
    if hr.size != (4 * lr.width, 4 * lr.height):
        sizes = f"{lr.width}x{lr.height} and HR {hr.width}x{hr.height}"
        raise QartsrError(f"LR is {sizes}, not 4 times that", scene.name, "run the data stage again")
    return lr, hr
