"""Tiles by what they cost: none while the memory allows it, and none that is dearer than need be."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from qartsr import OneStepSRPipeline
from qartsr.artifact.load import Load
from qartsr.errors import QartsrError
from qartsr.models import OneStepSR
from qartsr.models.sd_unet import sample_backbone
from qartsr.synthetic import ARCHITECTURES, blank
from qartsr.upscale import tile_size, upscale_image
from qartsr.upscale.tile_size import BUDGET, LEAST, cost, tile_for
from tests.packing.tiny import tiny_model


@pytest.fixture(scope="module", params=["sample", "osediff"])
def model(request: pytest.FixtureRequest) -> OneStepSR:
    return sample_backbone(1, "none", 0) if request.param == "sample" else blank(ARCHITECTURES["osediff"]())


def test_the_choice_is_the_cheapest_that_fits(model: OneStepSR) -> None:
    """Brute force over every side that is tried."""
    load = model.facts.load
    for height, width in ((512, 512), (1024, 1024), (3000, 4000), (12000, 16000)):
        chosen = tile_for(load, height, width, 64, 2)
        fitting = [side for side in range(LEAST, 4096, 64) if side == LEAST or load.bytes(side**2) <= BUDGET]
        best = min(cost(load, height, width, side, 64, 2) for side in fitting)
        if load.bytes(height * width) <= BUDGET:
            assert chosen == 0 and cost(load, height, width, 1 << 20, 64, 2) <= best
        else:
            assert chosen in fitting and cost(load, height, width, chosen, 64, 2) <= 1.15 * best
    assert tile_for(model.facts.load, 512, 512, 64, 2) == 0


def test_no_tile_is_longer_than_the_network_is_meant_for() -> None:
    """A transformer sees no more places at once than it was trained on, however much memory there is."""
    load = blank(ARCHITECTURES["tsdsr"]()).facts.load
    assert load.window == 1024 and sample_backbone(1, "none", 0).facts.load.window == 0
    assert tile_for(load, 512, 512, 64, 2) == 0
    for sides in ((1024, 1040), (320, 4000), (3000, 4000)):
        assert LEAST <= tile_for(load, *sides, 64, 2) <= 1024
    assert tile_for(load._replace(window=256), 300, 300, 64, 2) == 256


def test_the_passes_are_those_that_are_counted() -> None:
    """1024 x 1024 in tiles of 512: 9 tiles, thrice."""
    load = Load(1.0, 0.0)
    assert cost(load, 1024, 1024, 512, 64, 2) == 27 * 512**2
    assert cost(load, 1024, 1024, 512, 64, 0) == 9 * 512**2
    assert cost(load, 1024, 1024, 1024, 64, 2) == 1024**2


def test_attention_alone_makes_a_whole_picture_dear() -> None:
    """Its time grows with the square: at equal memory a network of much attention is tiled, one of none is not."""
    for square, tiled in ((0.0, False), (1e-3, True)):
        load = Load(1.0, square)
        assert load.bytes(2048**2) < BUDGET
        assert (tile_for(load, 2048, 2048, 64, 2) > 0) is tiled
    assert load.work(16 / 1e-3) == 2 * 16 / 1e-3  # half of the time, by the definition of the ratio


def test_a_frame_of_video_is_not_tiled() -> None:
    """720 x 405 to 2880 x 1620 with the sample model, which tiles made twice as slow in OpenVINO."""
    assert tile_for(sample_backbone(1, "none", 0).facts.load, 1620, 2880, 64, 2) == 0


def test_the_pipeline_uses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8))
    seen: list[tuple[int, int]] = []
    model = tiny_model()
    whole = OneStepSRPipeline(model)(image, lambda *done: seen.append(done))
    assert seen == [(1, 1)] and whole == upscale_image(model, image, 0)
    monkeypatch.setattr(tile_size, "LEAST", 32)
    monkeypatch.setattr(tile_size, "STEP", 16)
    monkeypatch.setattr(tile_size, "BUDGET", 1)
    seen.clear()
    OneStepSRPipeline(model, overlap=8, rounds=0)(image, lambda *done: seen.append(done))
    assert seen[-1] == (12, 12)  # 3 x 4 tiles of 32, once
    with pytest.raises(QartsrError, match="3 rounds cannot be"):
        OneStepSRPipeline(model, rounds=3)
