"""Batches: whoever holds a part of one, and by however many threads it is made, an image is the same."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

from qartsr.config.data import BicubicConfig, DataConfig, PhotographsConfig, RealESRGANConfig
from qartsr.data import crop_batch, load_pairs, write_dataset
from qartsr.errors import QartsrError
from qartsr.training.batches import Prefetcher, calibration, source
from qartsr.training.determinism import generator
from qartsr.training.distributed import Share

WHOLE = Share(2, 4, 64, 0, 4)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs") / "data"
    write_dataset(DataConfig(images=PhotographsConfig(train=("camera", "coins"), test=("chelsea",))), 0, folder)
    return folder


@pytest.mark.parametrize("kind", [BicubicConfig(), RealESRGANConfig()], ids=lambda kind: kind.kind)
@pytest.mark.parametrize("loaders", [0, 2])
def test_parts_make_the_whole(data: Path, kind: BicubicConfig | RealESRGANConfig, loaders: int) -> None:
    with source(data, kind, 0, 0)("a") as batch:
        hr, lq = batch(WHOLE)
    assert hr.shape == lq.shape == (4, 3, 64, 64)
    assert hr.min() >= -1 and hr.max() <= 1 and lq.min() >= -1 and lq.max() <= 1
    with source(data, kind, 0, loaders)("a") as batch:
        parts = [batch(WHOLE._replace(start=start, stop=start + 2)) for start in (0, 2)]
    assert torch.equal(torch.cat([part[0] for part in parts]), hr)
    assert torch.equal(torch.cat([part[1] for part in parts]), lq)


@pytest.mark.parametrize("kind", [BicubicConfig(), RealESRGANConfig()], ids=lambda kind: kind.kind)
def test_title_seed_and_step_change_the_draw(data: Path, kind: BicubicConfig | RealESRGANConfig) -> None:
    drawn = []
    for seed, title, number in ((0, "a", 2), (1, "a", 2), (0, "b", 2), (0, "a", 3)):
        with source(data, kind, seed, 0)(title) as batch:
            drawn.append(batch(WHOLE._replace(number=number))[0])
    assert not any(torch.equal(drawn[0], other) for other in drawn[1:])


def test_bicubic_batches_are_crops_of_whole_images(data: Path) -> None:
    """The sample profile's batches, and the probe's, as they always were."""
    pairs = load_pairs(data, "train")
    with source(data, BicubicConfig(), 5, 0)("retrain T=1") as batch:
        hr, lq = batch(WHOLE)
    expected = crop_batch(pairs, 4, 64, generator(5, "retrain T=1", 2))
    assert torch.equal(hr, expected[0]) and torch.equal(lq, expected[1])
    ranges = calibration(source(data, BicubicConfig(), 5, 0), 64, torch.device("cpu"))
    assert torch.equal(ranges[3], crop_batch(pairs, 8, 64, generator(5, "probe", 3))[1])


def test_lq_is_a_degraded_view_of_hr(data: Path) -> None:
    """Nearer to its own HR than to another image's, and not the same."""
    with source(data, RealESRGANConfig(), 0, 0)("a") as batch:
        hr, lq = batch(Share(0, 8, 64, 0, 8))
    own = (hr - lq).square().mean((1, 2, 3))
    other = (hr.roll(1, 0) - lq).square().mean((1, 2, 3))
    assert own.min() > 0
    assert own.mean() < 0.5 * other.mean()


def test_a_crop_larger_than_every_image_is_refused(data: Path) -> None:
    with source(data, RealESRGANConfig(), 0, 0)("a") as batch, pytest.raises(QartsrError, match="4096 pixels wide"):
        batch(Share(0, 1, 4096, 0, 1))


def test_ahead_begins_what_comes_next() -> None:
    made, begun = list[int](), threading.Event()

    def make(key: int) -> int:
        made.append(key)
        if key == 2:
            begun.set()
        return 10 * key

    with Prefetcher(make, 1) as ahead:
        assert ahead.take([0, 1], [2]) == [0, 10]
        assert begun.wait(timeout=30), "nothing was begun ahead"
        assert ahead.take([2], []) == [20]
    assert made == [0, 1, 2]
    with Prefetcher(make, 0) as ahead:
        assert ahead.take([3], [4]) == [30]
    assert made == [0, 1, 2, 3]


def test_an_error_in_a_thread_is_raised_where_the_item_is_taken() -> None:
    def make(key: int) -> int:
        raise QartsrError("is gone", "image", "look for it")

    with Prefetcher(make, 1) as ahead, pytest.raises(QartsrError, match="is gone"):
        ahead.take([1], [])
