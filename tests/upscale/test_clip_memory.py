"""The latent of the frame before is kept: a frame costs one encoding, and depends on two frames only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from qartsr.images import Picture, as_picture
from qartsr.models import OneStepSR, load_model
from qartsr.upscale.enlarge import enlarged
from qartsr.upscale.memory import ClipRestorer
from qartsr.upscale.tiling import upscale_image
from tests.clips.make import moving
from tests.models.test_video import learned


def pictures(count: int, size: tuple[int, int] = (8, 4)) -> list[Picture]:
    return [as_picture(Image.fromarray(frame)) for frame in moving(count, size)]


def restorer(model: OneStepSR, tile: int, overlap: int) -> ClipRestorer:
    return ClipRestorer(lambda frame, memory: upscale_image(model, frame, tile, overlap, memory=memory))


def counted(model: OneStepSR, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls, encode = [], model.vae.encode

    def counting(image: Tensor) -> Any:
        calls.append(image.shape[0])
        return encode(image)

    monkeypatch.setattr(model.vae, "encode", counting)
    return calls


def test_a_frame_is_restored_with_the_one_before_and_costs_one_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    model, (first, second, third) = learned(), pictures(3, (12, 8))
    model.align = "none"
    calls, restore = counted(model, monkeypatch), restorer(model, 512, 0)
    made = [restore(first, None), restore(second, first), restore(third, second)]
    assert calls == [1] * 4  # the first frame is looked at twice
    lq = [(torch.from_numpy(enlarged(each).lq).float() / 127.5 - 1)[None] for each in (first, second, third)]
    for result, before, now in zip(made, (lq[0], lq[0], lq[1]), lq, strict=True):
        wanted = ((model(torch.cat([before, now], 1))[0].clamp(-1, 1) + 1) * 127.5).round()
        assert np.abs(np.asarray(result).transpose(2, 0, 1) - wanted.numpy()).max() <= 1


def test_work_taken_up_again_gives_the_same_frames_in_tiles_too() -> None:
    model, (first, second, third) = learned(), pictures(3, (12, 8))
    whole = restorer(model, 32, 8)
    whole(first, None)
    whole(second, first)
    assert restorer(model, 32, 8)(third, second) == whole(third, second)


def test_a_still_clip_is_still_and_a_cut_leaves_no_ghost() -> None:
    model, (first, other) = learned(), pictures(2, (12, 8))
    restore = restorer(model, 32, 8)
    alone = restore(first, None)
    assert restore(first, first) == alone  # its own neighbour, as the first frame is
    restore(other, first)
    assert restore(first, None) == alone


def test_the_trained_model_of_clips_flickers_less_than_the_image_model(root: Path) -> None:
    """A scene that stands still under noise of its own in every frame. By its training, not by its memory: the frame
    before changes next to nothing in what these weights make (weights/README.md)."""
    with Image.open(root / "photographs" / "dogs.webp") as photo:
        window = photo.convert("RGB").crop((160, 160, 288, 256))
    scene = np.asarray(window.resize((32, 24), Image.Resampling.BICUBIC), np.float64)
    noise = np.random.default_rng(0).normal(0, 4, (4, *scene.shape))
    shots = [as_picture(Image.fromarray((scene + each).round().clip(0, 255).astype(np.uint8))) for each in noise]
    video, image = (load_model(root / "weights" / name) for name in ("sample-video", "sample"))
    assert video.facts.frames == 2
    restore = restorer(video, 512, 0)
    steady = [np.asarray(restore(now, before), np.float64) for before, now in zip([None, *shots], shots, strict=False)]
    alone = [np.asarray(upscale_image(image, shot), np.float64) for shot in shots]
    assert np.abs(np.diff(steady, axis=0)).mean() < 0.8 * np.abs(np.diff(alone, axis=0)).mean()
