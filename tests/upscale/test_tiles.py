"""x4 of any image: exact sizes, equal to the untiled network where nothing needs a tile, no visible seams elsewhere."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from qartsr.artifact.load import Load
from qartsr.data.pairs import image_tensor, to_unit
from qartsr.errors import QartsrError
from qartsr.images import upsample
from qartsr.models import align, load_model
from qartsr.upscale import upscale_image
from qartsr.upscale.colour import ROWS, finish
from tests.packing.tiny import tiny_model


class Drifting(nn.Module):
    """Stands for a network whose tiles disagree: identity plus a brightness of its own for every call."""

    facts = SimpleNamespace(multiple=8, side_step=4, factor=4, latents=4, frames=1, load=Load(1.0, 0.0))
    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, kind: str, drift: float = 0.0) -> None:
        super().__init__()
        self.align, self._drift = kind, drift
        self.calls: list[tuple[int, ...]] = []

    def forward(self, lq: Tensor) -> Tensor:
        self.calls.append(tuple(lq.shape))
        return lq + self._drift * (-1) ** len(self.calls)


def run(model: Any, image: Image.Image, tile: int = 512, overlap: int = 64) -> np.ndarray[Any, Any]:
    return np.asarray(upscale_image(model, image, tile, overlap)).astype(int)


def photo(width: int, height: int, texture: float = 0.0) -> Image.Image:
    """A smooth gradient, with noise of amplitude ``texture`` levels."""
    y, x = np.mgrid[:height, :width]
    smooth = np.stack([60 + 2 * x, 80 + 2 * y, 100 + x + y], -1)
    noise = np.random.default_rng(0).uniform(-texture, texture, smooth.shape)
    return Image.fromarray((smooth + noise).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize(
    ("size", "kind"),
    [
        ((1, 1), "none"),
        ((1, 1), "adain"),
        ((1, 1), "wavelet"),
        ((1, 7), "adain"),
        ((2, 1), "wavelet"),
        ((3, 5), "wavelet"),
        ((8, 8), "none"),
        ((13, 6), "adain"),
    ],
)
def test_the_result_is_exactly_four_times_as_large(size: tuple[int, int], kind: str) -> None:
    result = upscale_image(tiny_model(kind), photo(*size), tile=16, overlap=8)
    assert result.size == (4 * size[0], 4 * size[1])
    assert result.mode == "RGB"


@pytest.mark.parametrize("kind", ["none", "adain", "wavelet"])
def test_one_tile_is_the_network_itself(kind: str) -> None:
    model, image = tiny_model(kind), photo(12, 9, texture=40)
    lq = to_unit(image_tensor(upsample(image)))[None]
    with torch.no_grad():
        expected = (model.restore(lq)[0] * 127.5 + 127.5).round().permute(1, 2, 0).numpy()
    assert np.abs(run(model, image) - expected).max() <= (1 if kind == "adain" else 0)


@pytest.mark.parametrize("texture", [0, 60])
def test_tiles_of_a_local_network_join_without_a_trace(texture: float) -> None:
    model = Drifting("none")
    image = photo(45, 38, texture)
    assert np.array_equal(run(model, image, 64, 16), np.asarray(upsample(image)).astype(int))
    assert len(model.calls) == 3 * 4  # nothing to observe: it has no norm
    assert set(model.calls) == {(1, 3, 64, 64)}


@pytest.mark.parametrize("texture", [0, 40])
def test_tiles_that_disagree_show_no_seam(texture: float) -> None:
    """Neighbours that differ by 10 levels meet in a ramp; the wavelet fix takes half of the difference back."""
    image = photo(60, 38, texture)
    exact = np.asarray(upsample(image)).astype(int)
    plain = run(Drifting("none", 5 / 127.5), image, 128, 64) - exact
    fixed = run(Drifting("wavelet", 5 / 127.5), image, 128, 64) - exact
    assert np.abs(plain).max() == 5
    assert steps(plain) <= 1
    assert steps(fixed) <= 1
    assert np.abs(fixed).mean() < 0.5 * np.abs(plain).mean()


def steps(error: np.ndarray[Any, Any]) -> int:
    """The largest difference between neighbouring pixels."""
    return max(int(np.abs(np.diff(error, axis=axis)).max()) for axis in (0, 1))


class Normalising(Drifting):
    """A little GroupNorm: contrast by the statistics of what it sees."""

    def __init__(self, kind: str, norm: nn.Module) -> None:
        super().__init__(kind)
        self.norm = norm

    def forward(self, lq: Tensor) -> Tensor:
        return lq + 0.1 * self.norm(lq)


class Stubborn(nn.GroupNorm):
    """A norm that no hook reaches."""

    def register_forward_hook(self, *args: Any, **kwargs: Any) -> Any:
        return super().register_forward_hook(lambda *_: None)


@pytest.mark.parametrize("texture", [0, 40])
@pytest.mark.parametrize("kind", ["none", "wavelet"])
def test_tiles_share_the_statistics_of_the_image(kind: str, texture: float) -> None:
    image = photo(64, 32, texture)
    whole = run(Normalising(kind, nn.GroupNorm(1, 3)), image)
    shared = run(Normalising(kind, nn.GroupNorm(1, 3)), image, 64, 0) - whole
    alone = run(Normalising(kind, Stubborn(1, 3)), image, 64, 0) - whole
    assert np.abs(shared).max() <= 1  # tiles without overlap see every pixel once: the moments are the image's own
    assert np.abs(alone).max() > 10


def test_the_model_is_left_as_it_was() -> None:
    model = tiny_model("none")
    before = run(model, photo(8, 8))
    run(model, photo(24, 16), 32, 8)
    assert np.array_equal(run(model, photo(8, 8)), before)
    assert not any(part._forward_hooks for part in model.modules())


def test_the_trained_sample_model_shows_no_seam(root: Path) -> None:
    """Tiles of a real network: the image changes a little everywhere, but not along straight lines."""
    if not (root / "weights" / "sample" / "qartsr.json").is_file():
        pytest.skip("weights/sample is not there; weights/recipe makes it")
    model, image = load_model(root / "weights" / "sample").requires_grad_(False), photo(48, 32, 20)
    whole = run(model, image)
    difference = run(model, image, 128, 64) - whole  # T = 999 amplifies tiles 14.6 times; T = 1: 0.2, 0.3
    assert np.abs(difference).mean() < 2.5
    assert ridge(difference) < 2.5


def ridge(error: np.ndarray[Any, Any]) -> float:
    """The largest mean step between two neighbouring columns: what an eye sees as a vertical line."""
    return float(np.abs(np.diff(error, axis=1).mean((0, 2))).max())


@pytest.mark.parametrize("heights", [[ROWS + 45], [1, 90, 7, 31, 32, 2], [5] * 20])
@pytest.mark.parametrize("kind", ["none", "adain", "wavelet"])
def test_colour_fix_in_bands_equals_the_whole(kind: str, heights: list[int]) -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(3, sum(heights), 50, generator=generator) * 2 - 1
    lq = torch.randint(256, (3, sum(heights), 50), generator=generator).to(torch.uint8)
    whole = align(kind, image[None], to_unit(lq)[None])[0].clamp(-1, 1) * 127.5 + 127.5
    bands = np.split(image.numpy(), np.cumsum(heights)[:-1], axis=1)
    assert np.abs(finish(kind, bands, lq.numpy()) - whole.numpy()).max() <= 0.505


def test_the_report_counts_tiles() -> None:
    seen: list[tuple[int, int]] = []
    model: Any = Normalising("none", nn.GroupNorm(1, 3))
    upscale_image(model, photo(20, 8), 64, 16, lambda *done: seen.append(done))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]  # two to observe, two to keep


@pytest.mark.parametrize(("tile", "overlap"), [(64, 40), (-8, 0), (64, -8)])
def test_tiles_that_cannot_work_are_refused(tile: int, overlap: int) -> None:
    with pytest.raises(QartsrError, match="overlap"):
        run(Drifting("none"), photo(4, 4), tile, overlap)


def test_an_image_without_pixels_is_refused() -> None:
    with pytest.raises(QartsrError, match="no pixels"):
        run(Drifting("none"), Image.new("RGB", (0, 5)))
