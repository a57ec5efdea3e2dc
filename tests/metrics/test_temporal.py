"""The warping error against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from qartsr.metrics.temporal import ewarp_tvl1, halved, warping_error
from tests.clips.make import moving


def flows(rows: float, columns: float, size: tuple[int, int] = (20, 24)) -> np.ndarray:
    return np.stack([np.full(size, rows), np.full(size, columns)]).astype(np.float32)


def test_what_moved_is_no_error_and_what_flickers_is() -> None:
    scene = np.random.default_rng(0).random((30, 30, 3)).astype(np.float32)
    first, second = scene[3:23, 2:26], scene[5:25, 1:25]  # the second one shows a place 2 rows up, 1 column right
    there, back = flows(-2, 1), flows(2, -1)
    assert warping_error(first, second, there, back) == pytest.approx(0, abs=1e-10)
    assert warping_error(first, second + np.float32(0.1), there, back) == pytest.approx(3 * 0.01, rel=1e-4)
    assert warping_error(first, second, flows(0, 0), flows(0, 0)) > 0.1


def test_what_is_hidden_is_left_out() -> None:
    scene = np.zeros((20, 24, 3), np.float32)
    changed = scene.copy()
    changed[:, :12] = 1
    torn = flows(0, 0)
    torn[1, :, :12] = 8  # the way back does not lead home
    assert warping_error(scene, scene + changed, torn, flows(0, 0)) == pytest.approx(0, abs=1e-10)
    assert warping_error(scene, scene, flows(0, 100), flows(0, -100)) == 0


def test_a_moving_photograph_and_the_same_with_noise() -> None:
    frames = [frame.astype(np.float32) / 255 for frame in moving(3, (80, 64))]
    rng = np.random.default_rng(0)
    noisy = [np.clip(frame + rng.normal(0, 0.05, frame.shape), 0, 1).astype(np.float32) for frame in frames]
    assert 1 < ewarp_tvl1(noisy, frames) - ewarp_tvl1(frames) < 1000 * 2 * 3 * 0.05**2 / 4 * 1.1  # four pixels are one
    assert halved(np.arange(10.0).reshape(5, 2, 1).repeat(3, 2)).tolist() == [[[1.5] * 3], [[5.5] * 3]]
    with pytest.raises(ValueError, match="two frames"):
        ewarp_tvl1(frames[:1])
