"""Moving clips: what moved where, exactly."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from qartsr.config.data import BicubicConfig
from qartsr.data.clips import Clips, Motion, Scenes, carried, moving_clips, shifted
from qartsr.data.degradation import degrade
from qartsr.data.pairs import Pair, enlarged
from qartsr.errors import QartsrError


def photograph(side: int = 160) -> Pair:
    image = torch.randint(0, 256, (3, side // 4, side // 4), generator=torch.Generator().manual_seed(0))
    large = image.repeat_interleave(4, 1).repeat_interleave(4, 2).to(torch.uint8)
    return Pair("noise", large, large)


def made(**changes: float) -> Clips:
    motion = Motion(4, 5.0, 0.0, 0.0)._replace(**changes)
    return moving_clips(Scenes([photograph()]), 3, 32, motion, torch.Generator().manual_seed(1))


def test_the_flow_is_exact() -> None:
    clips = made()
    assert clips.hr.shape == clips.lq.shape == (3, 4, 3, 32, 32) and clips.steps.abs().max() > 2
    for clip, steps in zip(clips.hr, clips.steps.tolist(), strict=True):
        for number, step in enumerate(steps):
            before, now = shifted(clip[number], clip[number + 1], tuple(step))
            assert torch.equal(before, now) and before.numel() > 3 * 20 * 20


def test_low_resolution_is_of_the_same_place_and_noise_is_of_each_frame() -> None:
    still = made(speed=0.0)
    assert (still.lq - still.hr).abs().mean() < (still.lq - still.hr.roll(8, -1)).abs().mean()
    noisy = made(noisy=1.0, noise=0.1)
    assert torch.equal(noisy.hr[0], made().hr[0]) and not torch.equal(noisy.lq[0], made().lq[0])
    assert made().lq.abs().max() <= 1 and torch.equal(made().lq, made().lq)


def test_frames_are_carried_to_the_next_by_the_flow() -> None:
    clips = made()
    moved, known = carried(clips.hr[:, :-1].flatten(0, 1), clips.steps.flatten(0, 1))
    assert torch.equal(moved * known, clips.hr[:, 1:].flatten(0, 1) * known) and 0.4 < float(known.mean()) < 1


def test_a_shot_begins_without_a_frame_before() -> None:
    clips = made(begins=1.0, noisy=1.0, noise=0.1)
    assert torch.equal(clips.lq[:, 0], clips.lq[:, 1]) and torch.equal(clips.hr[:, 0], clips.hr[:, 1])
    assert not clips.steps[:, 0].any() and clips.steps[:, 1].any()
    assert not torch.equal(clips.lq[:, 1], clips.lq[:, 2])


def test_low_resolution_is_pillows_within_a_level() -> None:
    clips = moving_clips(Scenes([photograph()]), 1, 64, Motion(2, 3.0, 0.0, 0.0), torch.Generator())
    hr = ((clips.hr[0, 1] + 1) * 127.5).round().to(torch.uint8)
    wanted = enlarged(degrade(hr, BicubicConfig(), torch.Generator())).float() / 127.5 - 1
    middle = (..., slice(20, 44), slice(20, 44))  # away from the border, where Pillow sees no more than the window
    assert (clips.lq[0, 1][middle] - wanted[middle]).abs().max() < 3 / 127.5


def test_too_small_a_photograph() -> None:
    with pytest.raises(QartsrError, match="pixels wide and high"):
        moving_clips(Scenes([photograph(40)]), 1, 32, Motion(3, 5.0, 0.0, 0.0), torch.Generator())


def test_shifts_of_both_signs() -> None:
    scene = torch.arange(100.0).reshape(10, 10)

    def window(top: int, left: int) -> Tensor:
        return scene[top : top + 6, left : left + 6]

    before, now = shifted(window(2, 3), window(4, 1), (2, -2))
    assert torch.equal(before, now) and before.shape == (4, 4)
