"""The warping error against closed forms."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models.optical_flow import raft_large

from qartsr.errors import QartsrError
from qartsr.metrics.temporal import ewarp, ewarp_tvl1, halved, raft, warping_error
from qartsr.metrics.weights import RAFT, availability
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


def test_the_published_warping_error_goes_by_the_flow_of_its_own_frames() -> None:
    frames = [frame.astype(np.float32) / 255 for frame in moving(3, (64, 48))]
    seen: list[tuple[np.ndarray, np.ndarray]] = []

    def still(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        seen.append((first, second))
        return flows(0, 0, first.shape[:2])

    changes = [np.square(halved(b) - halved(a)).sum(2).mean() for a, b in pairwise(frames)]
    assert ewarp(frames, still) == pytest.approx(1000 * np.mean(changes), rel=1e-5)
    halves = [halved(frame) for frame in frames]
    wanted = [(0, 1), (1, 0), (1, 2), (2, 1)]  # there and back
    assert all((a == halves[n]).all() and (b == halves[m]).all() for (a, b), (n, m) in zip(seen, wanted, strict=True))


@pytest.fixture()
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of torch hub."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints" / RAFT


def test_raft_without_its_weights_is_unavailable_and_with_damaged_ones_an_error(hub: Path) -> None:
    assert availability("ewarp") == (False, f"needs {RAFT}; fetch with `qartsr fetch-metric-weights ewarp`")
    with pytest.raises(ValueError, match="fetch-metric-weights ewarp"):
        raft()
    hub.write_bytes(b"not weights")
    with pytest.raises(QartsrError, match=r"C_T_V1.*is damaged .*; delete it and run `qartsr fetch-metric-"):
        raft()


def test_rafts_flow_has_rows_first_and_the_frames_own_size(hub: Path) -> None:
    """Untrained, but for the last layer of its flow: a bias there moves every pixel by as much, 20 times."""
    torch.manual_seed(0)
    network = raft_large(weights=None, progress=False)
    last = network.update_block.flow_head.conv2
    torch.nn.init.zeros_(last.weight)
    last.bias.data = torch.tensor([0.05, -0.025])  # columns and rows, in pixels of an eighth of the size
    torch.save(network.state_dict(), hub)
    frames = np.random.default_rng(0).random((2, 130, 133, 3)).astype(np.float32)
    flow = raft()(*frames)
    assert flow.shape == (2, 130, 133)
    middle = flow[:, 40:90, 40:90].mean((1, 2))
    assert middle == pytest.approx([20 * 8 * -0.025, 20 * 8 * 0.05], rel=1e-3)
    with pytest.raises(ValueError, match="small"):
        raft()(*frames[:, :120, :64])
