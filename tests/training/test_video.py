"""Training a model of clips: what is lost, what trains, and that it goes on after a kill."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from qartsr.config.recipe import VideoConfig
from qartsr.config.training import CropPhase, ImageLossConfig, LPIPSConfig
from qartsr.data.clips import Clips, Motion, Scenes, moving_clips
from qartsr.models.sd_unet.video import video_backbone
from qartsr.training.backbone import Recipe, train_backbone
from qartsr.training.batches import moving
from qartsr.training.checkpoint import Checkpoint
from qartsr.training.distributed import MicroBatching, Share, World
from qartsr.training.loop import Curves
from qartsr.training.video import clip_losses, restored, train_video
from qartsr.training.vsd import NoRegulariser
from tests.data.test_clips import photograph
from tests.packing.tiny import tiny_model

MOTION = Motion(3, 2.0, 1.0, 0.05)


def batches(number: int, batch: int, crop: int) -> Clips:
    return moving_clips(Scenes([photograph()]), batch, crop, MOTION, torch.Generator().manual_seed(number))


def config(steps: int) -> VideoConfig:
    phases = [{"share": 1.0, "batch": 2, "crop": 32}]
    return VideoConfig.model_validate({"steps": steps, "phases": phases, "lr": 1e-3, "warmup": 1})


def test_losses() -> None:
    clips = batches(0, 2, 16)
    perfect = clip_losses(clips.hr[:, 1:], clips, 3.0)
    assert all(float(value) == 0 for value in perfect.values())
    brighter = clip_losses(clips.hr[:, 1:] + 0.25, clips, 3.0)  # wrong, but steady
    assert float(brighter["l1"]) == pytest.approx(0.25) and float(brighter["change"]) == pytest.approx(0, abs=1e-6)
    flicker = clips.hr[:, 1:] + 0.25 * torch.tensor([1.0, -1.0])[:, None, None, None]
    losses = clip_losses(flicker, clips, 3.0)
    assert float(losses["change"]) == pytest.approx(0.5)
    assert float(losses["total"]) == pytest.approx(0.25 + 3 * 0.5)


def test_every_frame_is_restored_with_the_one_before() -> None:
    model, clips = video_backbone(tiny_model()), batches(0, 2, 16)
    model.unet.conv_in.weight.data += 0.1
    made = restored(model, clips.lq, torch.autocast("cpu", torch.bfloat16, enabled=False))
    assert made.shape == (2, 2, 3, 16, 16)
    for number in range(2):
        assert torch.allclose(made[:, number], model(clips.lq[:, number : number + 2].flatten(1, 2)), atol=1e-5)


class Killed(Checkpoint):
    """Saves at every step; the process ends after the second."""

    def due(self) -> bool:
        return True

    def save(self, *arguments: object) -> None:
        super().save(*arguments)  # type: ignore[arg-type]
        self.saved = getattr(self, "saved", 0) + 1
        if self.saved == 2:
            raise KeyboardInterrupt


def test_the_unet_alone_trains_and_goes_on_after_a_kill(tmp_path: Path) -> None:
    model, before = video_backbone(tiny_model()), video_backbone(tiny_model())
    train_video(model, config(4), batches, Curves(lambda values, step: None), Checkpoint(tmp_path / "a", 1e9))
    after, old = model.state_dict(), before.state_dict()
    changed = {name for name in after if not torch.equal(after[name], old[name])}
    assert "unet.conv_in.weight" in changed and all(name.startswith("unet.") for name in changed)
    assert after["unet.conv_in.weight"][:, :4].abs().max() > 0  # the frame before is listened to
    again = video_backbone(tiny_model())
    with pytest.raises(KeyboardInterrupt):
        train_video(again, config(4), batches, Curves(lambda values, step: None), Killed(tmp_path / "b", 1e9))
    again = video_backbone(tiny_model())
    train_video(again, config(4), batches, Curves(lambda values, step: None), Checkpoint(tmp_path / "b", 1e9))
    assert all(torch.equal(value, after[name]) for name, value in again.state_dict().items())


def test_a_model_of_clips_is_retrained_on_pairs_of_frames(tmp_path: Path) -> None:
    batches = moving(Scenes([photograph()]), 0, "t")
    hr, lq = batches(Share(0, 4, 32, 1, 3))
    whole = batches(Share(0, 4, 32, 0, 4))
    assert hr.shape == (2, 3, 32, 32) and lq.shape == (2, 6, 32, 32) and torch.equal(whole[1][1:3], lq)
    assert (lq[:, 3:] - hr).abs().mean() < (lq[:, :3] - hr).abs().mean()  # the last frame is restored
    model = video_backbone(tiny_model())
    model.get_submodule(model.denoiser).requires_grad_(True)
    phase = CropPhase(share=1.0, batch=2, crop=32)
    loss = ImageLossConfig(lpips=0.0, mse=0.0, l1=1.0)
    recipe = Recipe("t", 2, (phase,), 1e-3, 1, 0.0, loss, LPIPSConfig(), "wavelet")
    means, curves = MicroBatching(World(torch.device("cpu"))), Curves(lambda values, step: None)
    train_backbone(model, batches, recipe, NoRegulariser(), means, curves, Checkpoint(tmp_path, 1e9))
    assert model.unet.conv_in.weight[:, :4].abs().max() > 0
